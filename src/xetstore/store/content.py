"""Content: one file of a store that was found, by its hash or by its name, and all that reads it."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from xetstore.errors import UsageError, XetError
from xetstore.records import FileInfo, FileRecord, RepoFile, RepositoryId
from xetstore.transfer.download.context import DownloadOptions
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.download.file_range import FileRange, check_range
from xetstore.transfer.download.forecast import GetForecast, forecast
from xetstore.transfer.download.many import get_files
from xetstore.transfer.download.new_file import NewFile
from xetstore.transfer.download.partial_file import PartialFile
from xetstore.transfer.download.stored_file import StoredFile, StoredReader
from xetstore.transfer.download.through import open_through, pour
from xetstore.transfer.progress import NoProgress, Progress
from xetstore.transfer.pushed_scan import PushedScan

if TYPE_CHECKING:
    from xetstore.cancellation import Cancellation
    from xetstore.events import Emit
    from xetstore.interfaces import Names
    from xetstore.limits import Limits
    from xetstore.opening import Opened
    from xetstore.protocol.hashes import Hash

RESUMED_FROM_BYTES: Final = 16 << 20
"""A smaller part of a file is not worth continuing: it is fetched anew."""


@dataclass(frozen=True, slots=True)
class GetReport:
    """A download that was written: ``size`` bytes; ``verified`` says that every byte was checked against a hash.

    ``fetched_bytes`` of xorbs came from the store; ``reused_bytes`` of the file were here already: in an old version,
    in what an earlier attempt had left, or in the cache.
    """

    hash: Hash
    size: int
    verified: bool
    fetched_bytes: int = 0
    reused_bytes: int = 0


@dataclass(frozen=True, slots=True)
class GetOptions:
    """Options of :meth:`Content.get`, which are those of :meth:`xetstore.Store.get`."""

    start: int = 0
    end: int | None = None
    progress: Progress | None = None
    base: Path | None = None
    fsync: bool = False
    keep_partial: bool = False
    size: int | None = None


class Content(Protocol):
    """A file of a store that was found. Thread-safe; of use as long as its store is open."""

    @property
    def size(self) -> int:
        """Bytes of the file. Raises NotFoundError."""

    def stat(self) -> FileRecord:
        """Its record. Raises NotFoundError."""

    def forecast(self, start: int = 0, end: int | None = None) -> GetForecast:
        """The fetches of :meth:`get`."""

    def iter_range(self, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """Bytes ``[start, end)`` in order, verified before they are yielded."""

    def open(self) -> io.BufferedReader:
        """A seekable binary file object."""

    def get(self, out: Path, options: GetOptions) -> GetReport:
        """Write it to ``out``."""


@dataclass(frozen=True, slots=True)
class Reads:
    """All that reads of one Cas work with. ``sizes`` are those that files have as a Hub tells: a server that says
    otherwise is not believed. ``begin`` gives what ends one call.
    """

    opened: Opened
    limits: Limits
    emit: Emit
    sizes: Mapping[Hash, int]
    begin: Callable[[], Cancellation]

    def downloader(self, call: Cancellation) -> Downloader:
        """A downloader whose work ends with ``call``."""
        opened, options = self.opened, DownloadOptions(self.limits)
        return Downloader(opened.cas, options, cache=opened.cache, emit=self.emit, cancellation=call)

    def destination(self, out: Path, wanted: FileRange, *, fsync: bool, keep_partial: bool = False) -> NewFile:
        """The destination of a file: what is slow to come can be continued, what is here already is copied anew. A part
        of the disk stays free, where how much there will be is not told by another than a server.
        """
        is_told = wanted.size is not None or wanted.end is not None
        reserve = not (is_told or self.opened.is_local)
        is_small = wanted.end is not None and wanted.end - wanted.start < RESUMED_FROM_BYTES
        if is_small or (self.opened.is_local and not keep_partial):
            return NewFile(out, fsync=fsync, reserve=reserve)
        return PartialFile(out, wanted, keep=keep_partial, fsync=fsync, reserve=reserve)

    def get_many(
        self,
        files: Iterable[tuple[Hash | str, Path]],
        resolve: Callable[[Hash | str], Hash],
        *,
        progress: Progress | None,
        on_error: Callable[[Path, XetError], None] | None,
        fsync: bool,
    ) -> Generator[GetReport]:
        """Write files to their paths; a report for each, in order."""
        downloads = get_files(
            self.downloader(self.begin()),
            files,
            resolve=resolve,
            destination=lambda path, wanted: self.destination(path, wanted, fsync=fsync),
            progress=progress,
            on_error=on_error,
            told_sizes=self.sizes,
        )
        with closing(downloads):
            for file, done in downloads:
                yield GetReport(file, done.size, done.verified, done.fetched_bytes, done.reused_bytes)


@dataclass(frozen=True, slots=True)
class StoredContent:
    """A file that a Cas has by its hash. Whether it is there is seen when it is read."""

    reads: Reads
    hash: Hash

    @property
    def size(self) -> int:
        """Bytes of the file. Raises NotFoundError."""
        told = self.reads.sizes.get(self.hash)
        return self.stat().size if told is None else told

    def stat(self) -> FileRecord:
        """Its record; of one on a server hash and size."""
        return self.reads.opened.cas.under(self.reads.begin()).stat(self.hash)

    def forecast(self, start: int = 0, end: int | None = None) -> GetForecast:
        """The fetches of :meth:`get`, where nothing of it is here."""
        return forecast(self.reads.opened.cas.under(self.reads.begin()), self.hash, start, end)

    def iter_range(self, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """Bytes ``[start, end)`` in order, some MiB at a time."""
        size = self.reads.sizes.get(self.hash)
        return self.reads.downloader(self.reads.begin()).stream(self.hash, start, end, size=size)

    def open(self) -> io.BufferedReader:
        """A seekable binary file object; every chunk read is verified."""
        return StoredReader(StoredFile(self.stat().size, self.iter_range))

    def get(self, out: Path, options: GetOptions) -> GetReport:
        """Write it to ``out``."""
        told = self.reads.sizes.get(self.hash) if options.size is None else options.size
        wanted = FileRange(self.hash, options.start, options.end, told)
        call = self.reads.begin()
        downloader = self.reads.downloader(call)
        fd = open_through(out, call)
        if fd is not None:
            blocks = downloader.stream(self.hash, wanted.start, wanted.end, size=wanted.size)
            done = pour(fd, out, blocks, options.progress)
        else:
            new = self.reads.destination(out, wanted, fsync=options.fsync, keep_partial=options.keep_partial)
            done = downloader.write(wanted, new, options.progress, base=options.base)
        return GetReport(self.hash, done.size, done.verified, done.fetched_bytes, done.reused_bytes)


@dataclass(frozen=True, slots=True)
class KeptContent:
    """A file of a repository that no Cas has: a small one, which git keeps. It is read whole, and verified so."""

    begin: Callable[[], tuple[Names, Cancellation]]
    repo: RepositoryId
    revision: str
    file: RepoFile

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.file.size

    def stat(self) -> FileRecord:
        """Its record. The bytes are read for their hash, by which no store has them."""
        with self.open() as held:
            info = _info_of(held, self.size)
        return FileRecord(info.hash, info.size, info.sha256)

    def forecast(self, start: int = 0, end: int | None = None) -> GetForecast:
        """One fetch, of all."""
        check_range(start, end)
        last = self.size if end is None else min(end, self.size)
        return GetForecast(self.stat().hash, max(0, last - start), self.size, 1, 0)

    def iter_range(self, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """Bytes ``[start, end)`` in order."""
        from xetstore.repositories.reading import sliced

        check_range(start, end)
        return sliced(self.open(), start, end)

    def open(self) -> io.BufferedReader:
        """A seekable binary file object, with all of the file behind it."""
        from xetstore.repositories.reading import held

        names, _ = self.begin()
        whole = held(names.read(self.repo, self.revision, self.file))
        return io.BufferedReader(whole)  # type: ignore[arg-type]  # it has readinto

    def get(self, out: Path, options: GetOptions) -> GetReport:
        """Write it to ``out``."""
        from xetstore.repositories.reading import sliced

        check_range(options.start, options.end)
        _, call = self.begin()
        with self.open() as held:
            info = _info_of(held, self.size)
            blocks = sliced(held, options.start, options.end)
            fd = open_through(out, call)
            if fd is not None:
                size = pour(fd, out, _counted(blocks), options.progress)
            else:
                told = options.progress or NoProgress()
                with NewFile(out, fsync=options.fsync) as new:
                    size = 0
                    for block in blocks:
                        told.total(len(block))
                        new.write_at(size, block)
                        told.advance(logical=len(block))
                        size += len(block)
                    new.commit(size)
        return GetReport(info.hash, size, True, info.size)


def check_file(file: RepoFile, name: str) -> None:
    """Raise UsageError for a folder, where a file is needed."""
    if file.is_folder:
        raise UsageError(f"{name[:200]} is a folder, and no file", hint="name a file in it; xet cp gets all of it")


def _counted(blocks: Iterator[memoryview]) -> Generator[memoryview, None, int]:
    size = 0
    for block in blocks:
        yield block
        size += len(block)
    return size


def _info_of(held: BinaryIO, size: int) -> FileInfo:
    with PushedScan(size) as scan:
        while part := held.read(1 << 20):
            for _ in scan.write(part):
                pass
        for _ in scan.finish():
            pass
        held.seek(0)
        return scan.info()
