"""Store: what users hold. Put, get, open, stat and check, over a directory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from xetstore.cas.check import CheckReport, check
from xetstore.cas.service import EmbeddedCas, FileRecord, Totals
from xetstore.errors import XetError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.transfer.download import Downloader
from xetstore.transfer.files import NewFile, StoredFile
from xetstore.transfer.progress import Progress
from xetstore.transfer.scan import FileInfo, HashReport, hash_report
from xetstore.transfer.upload import PutReport, put_files

__all__ = ["CheckReport", "FileRecord", "GetReport", "HashReport", "Store", "Totals", "hash_report", "open_store"]


@dataclass(frozen=True, slots=True)
class GetReport:
    """What was written: ``size`` bytes; ``verified`` says that every byte was checked against a hash."""

    hash: Hash
    size: int
    verified: bool


class Store:
    """A Xet store. Thread-safe; close it, or use it as a context manager.

    >>> import pathlib, tempfile, xetstore
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "greeting.txt").write_text("Hello World!")
    >>> with xetstore.open(folder / "store") as store:
    ...     info = store.put(folder / "greeting.txt")
    ...     _ = store.get(info.hash, folder / "copy.txt")
    >>> str(info.hash)[:16], (folder / "copy.txt").read_text()
    ('a9dae0ad88b060bd', 'Hello World!')
    """

    def __init__(self, cas: EmbeddedCas) -> None:
        self._cas = cas
        self._downloader = Downloader(cas)

    def put(
        self, path: Path | str, *, policy: CompressionPolicy | str = "auto", progress: Progress | None = None
    ) -> FileInfo:
        """Store a file; durable on return. Raises NotFoundError, AccessDeniedError, UsageError (not a regular
        file), SourceChangedError and StorageFullError.
        """
        [report] = self.put_many([path], policy=policy, progress=progress)
        return report.info

    def put_many(
        self,
        paths: Iterable[Path | str],
        *,
        policy: CompressionPolicy | str = "auto",
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
    ) -> Iterator[PutReport]:
        """Store files that share xorbs; yield a report for each, in order, once it is durable.

        A file that cannot be read is handed to ``on_error`` and the others go on; without ``on_error`` its error is
        raised after the files before it have been stored.
        """
        files = (Path(path) for path in paths)
        return put_files(self._cas, files, policy=CompressionPolicy(policy), progress=progress, on_error=on_error)

    def get(
        self,
        file: Hash | str,
        out: Path | str,
        *,
        start: int = 0,
        end: int | None = None,
        progress: Progress | None = None,
    ) -> GetReport:
        """Write a file, or its bytes ``[start, end)``, to ``out``, which appears verified and whole or not at all.

        Raises NotFoundError, RangeError, IntegrityError, AccessDeniedError and StorageFullError.
        """
        name = _as_hash(file)
        with NewFile(Path(out)) as new:
            size, verified = self._downloader.download(name, new.write_at, start, end, progress)
            new.commit(size)
        return GetReport(name, size, verified)

    def open(self, file: Hash | str) -> io.BufferedReader:
        """A stored file as a seekable binary file object; every chunk read is verified."""
        name = _as_hash(file)
        size = self._cas.stat(name).size

        def stream(start: int, end: int) -> Iterator[memoryview]:
            return self._downloader.stream(name, start, end)

        return io.BufferedReader(StoredFile(size, stream), 1 << 16)

    def iter_range(self, file: Hash | str, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """Bytes ``[start, end)`` of a file in order, some MiB at a time, verified before they are yielded."""
        return self._downloader.stream(_as_hash(file), start, end)

    def stat(self, file: Hash | str) -> FileRecord:
        """What is known of a stored file. Raises NotFoundError."""
        return self._cas.stat(_as_hash(file))

    def files(self) -> Iterator[FileRecord]:
        """Every stored file, in no particular order."""
        return self._cas.files()

    def totals(self) -> Totals:
        """How much is stored, and what deduplication and compression made of it."""
        return self._cas.totals()

    def check(self, *, read_data: bool = False, progress: Progress | None = None) -> CheckReport:
        """Look for damage: index against objects and, with ``read_data``, every byte against its hash."""
        return check(self._cas, read_data=read_data, progress=progress)

    def close(self) -> None:
        """Let go of the store."""
        self._cas.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_store(path: Path | str, *, create: bool = True) -> Store:
    """Open the store in a directory, making it if it is not there and ``create`` allows.

    Raises NotFoundError (missing, or not a store), AccessDeniedError, and UsageError for a newer format.
    """
    return Store(EmbeddedCas.open(Path(path), create=create))


def _as_hash(file: Hash | str) -> Hash:
    return file if isinstance(file, Hash) else Hash.parse(file)
