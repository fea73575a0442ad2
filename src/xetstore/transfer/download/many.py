"""Many files out of a Cas: small ones in batches, the others one by one; the outcome of each is told in order.

Files that were stored together lie side by side in a few xorbs: one request tells where some dozens of them are, and
another brings them. That is tried once. Whatever does not come right in this way comes in the usual one, which asks
again, fetches again and continues.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from xetstore.errors import InterruptedCallError, NotFoundError, XetError
from xetstore.events import Emit, ignore
from xetstore.interfaces import MANY_FILES, Cas
from xetstore.limits import NO_LIMITS, Limits
from xetstore.platform import forks
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import BatchReconstruction, Term
from xetstore.transfer.download.batch import Batch, Held
from xetstore.transfer.download.context import Context
from xetstore.transfer.download.downloader import Downloaded, Downloader
from xetstore.transfer.download.files import NewFile
from xetstore.transfer.download.parts import Part
from xetstore.transfer.download.wanted import Named, Place, Wanted, read_wanted
from xetstore.transfer.download.workers import MOST_REQUESTS, OTHER_BYTES, WORKER_BYTES, Workers
from xetstore.transfer.progress import NoProgress, Progress
from xetstore.transfer.scan import usable_cores
from xetstore.transfer.waiting import result_of

if TYPE_CHECKING:
    from xetstore.transfer.cache.chunk_cache import ChunkCache

AT_A_TIME: Final = 8
"""Batches that are asked for, ranges of them fetched, or files loaded alone at a time."""

LARGE_BYTES: Final = 64 << 20
LARGE_AT_A_TIME: Final = 2
"""Of files of this size a few fill the network, and the processor: more of them get in each other's way."""

BATCHES_AHEAD: Final = 16
"""The number of files fetched ahead while the caller is busy with one."""

HELD_BYTES: Final = 64 << 20
"""Memory for small files that are not complete yet."""


@forks.bound
def get_files(
    cas: Cas,
    files: Iterable[Named],
    *,
    resolve: Callable[[Hash | str], Hash],
    destination: Callable[[Path, Hash], NewFile] = lambda path, _: NewFile(path),
    progress: Progress | None = None,
    on_error: Callable[[Path, XetError], None] | None = None,
    fsync: bool = False,
    sizes: Mapping[Hash, int] = MappingProxyType({}),
    limits: Limits = NO_LIMITS,
    cache: ChunkCache | None = None,
    emit: Emit = ignore,
) -> Generator[tuple[Hash, Downloaded]]:
    """Write files to their paths, and yield what was done for each, in order, once it is there.

    ``files`` is read to its end first. ``destination`` makes the place of a file that is loaded alone. A file that
    fails is handed to ``on_error`` and the others go on; without ``on_error`` its error is raised. ``cas`` is
    interrupted when this ends early, so all of its calls have to belong to this one. ``sizes`` are those of files
    that were told by another than the Cas.
    """
    places, wanted = read_wanted(files, resolve)
    batches = [wanted[at : at + MANY_FILES] for at in range(0, len(wanted), MANY_FILES)]
    with _Transfer(cas, destination, progress or NoProgress(), fsync, sizes, limits, cache, emit) as transfer:
        begun = 0
        for place in places:
            while begun < len(batches) and begun <= place.number // MANY_FILES + BATCHES_AHEAD:
                transfer.begin(batches[begun])
                begun += 1
            try:
                done = result_of(place.done)
            except InterruptedCallError:
                raise
            except XetError as error:
                if on_error is None:
                    raise
                on_error(place.path, error)
            else:
                yield place.file, done


class _Transfer:
    """Downloads of some files that are under way. A context manager: when it is left, none is any more."""

    def __init__(
        self,
        cas: Cas,
        destination: Callable[[Path, Hash], NewFile],
        progress: Progress,
        fsync: bool,
        sizes: Mapping[Hash, int],
        limits: Limits,
        cache: ChunkCache | None,
        emit: Emit,
    ) -> None:
        self._cas = cas
        self._destination = destination
        self._progress = progress
        self._fsync = fsync
        self._sizes = sizes
        at_a_time = AT_A_TIME if cas.is_remote else min(AT_A_TIME, usable_cores())
        self._workers = Workers(cas, limits, emit, at_a_time)
        self._context = Context(cas, self._workers, limits, emit)
        held, share, large_share = _shares(limits, self._workers.at_a_time)
        self._held = Held(held)
        self._downloader = Downloader(cas, limits=share, cache=cache, emit=emit)
        self._large_downloader = Downloader(cas, limits=large_share, cache=cache, emit=emit)
        self._large: deque[Wanted] = deque()
        self._free_for_large = LARGE_AT_A_TIME
        self._lock = threading.Lock()
        self._asks_for_batches = True
        self._begun: list[Wanted] = []
        self._failure: BaseException | None = None

    def begin(self, files: Sequence[Wanted]) -> None:
        """Let these files come. Raises what has ended all of them, if anything has."""
        self._begun += files
        together = [wanted for wanted in files if wanted.file != Hash.ZERO]
        if len(together) < 2 or not self._asks_for_batches:
            self._load_alone(files)
        else:
            self._start(partial(self._ask, together))
            self._load_alone([wanted for wanted in files if wanted.file == Hash.ZERO])

    def _start(self, work: Callable[[], None]) -> None:
        """Do something. It handles the errors of files: any other one is the end of all of them, and soon."""

        def guarded() -> None:
            try:
                self._workers.check()
                work()
            except BaseException as error:
                # Of those that fail because others were stopped, none says what has ended all of them.
                failure = self._failure = self._failure or error
                self._workers.stop(interrupt=False)
                for wanted in self._begun:
                    wanted.fail(failure)

        try:
            self._workers.start(guarded)
        except InterruptedCallError as stopped:
            raise self._failure or stopped from None

    # Together

    def _ask(self, files: Sequence[Wanted]) -> None:
        found = self._reconstruct([wanted.file for wanted in files])
        if found is None:
            self._load_alone(files)
            return
        by_hash = {wanted.file: wanted for wanted in files}
        batch = Batch(found, self._context, self._held, lambda file, data: self._write(by_hash[file], data))
        for file, size in batch.sizes.items():
            by_hash[file].is_announced = True
            self._progress.total(size * len(by_hash[file].places))
        others = [wanted for wanted in files if not wanted.is_announced]
        large = {wanted.file for wanted in others if _size(found.files[wanted.file]) >= LARGE_BYTES}
        self._load_alone([wanted for wanted in others if wanted.file not in large])
        self._load_large([wanted for wanted in others if wanted.file in large])
        for part in batch.parts:
            needing = {file: by_hash[file] for file in batch.files_of(part)}
            self._start(partial(self._fetch, batch, part, needing))

    def _reconstruct(self, files: Sequence[Hash]) -> BatchReconstruction | None:
        try:
            return self._cas.reconstruct_many(files)
        except InterruptedCallError:
            raise
        except NotFoundError:
            return None
        except XetError:
            # Asked for the files one by one, the Cas may say why; another batch would be more of the same.
            self._asks_for_batches = False
            return None

    def _fetch(self, batch: Batch, part: Part, files: dict[Hash, Wanted]) -> None:
        for ended in batch.fetch(part):
            wanted = files[ended.file]
            if ended.is_written:
                wanted.written(ended.size, ended.fetched_bytes)
            else:
                wanted.wasted_bytes = ended.fetched_bytes
                self._load_alone([wanted])

    def _write(self, wanted: Wanted, data: memoryview) -> None:
        for place in wanted.places:
            try:
                with NewFile(place.path, fsync=self._fsync) as new:
                    new.write_at(0, data)
                    new.commit(len(data))
            except XetError as error:
                place.error = error
            else:
                self._progress.advance(logical=len(data))

    # One by one

    def _load_alone(self, files: Iterable[Wanted]) -> None:
        for wanted in files:
            self._start(partial(self._load, wanted, self._downloader))

    def _load_large(self, files: Iterable[Wanted]) -> None:
        with self._lock:
            self._large.extend(files)
            begun = min(self._free_for_large, len(self._large))
            self._free_for_large -= begun
        for _ in range(begun):
            self._start(self._load_large_ones)

    def _load_large_ones(self) -> None:
        while True:
            with self._lock:
                if not self._large:
                    self._free_for_large += 1
                    return
                wanted = self._large.popleft()
            self._load(wanted, self._large_downloader)

    def _load(self, wanted: Wanted, downloader: Downloader) -> None:
        there: Path | None = None
        for place in wanted.places:
            try:
                done = self._download(wanted, place, there, downloader)
            except InterruptedCallError:
                raise
            except XetError as error:
                place.fail(error)
                continue
            place.done.set_result(replace(done, fetched_bytes=done.fetched_bytes + wanted.wasted_bytes))
            wanted.wasted_bytes = 0
            there = place.path if done.size else None

    def _download(self, wanted: Wanted, place: Place, there: Path | None, downloader: Downloader) -> Downloaded:
        """``there`` is where the file is already, so that it is copied and not fetched again."""
        progress = _Announced(self._progress) if wanted.is_announced else self._progress
        new = self._destination(place.path, wanted.file)
        size = self._sizes.get(wanted.file)
        return downloader.download_file(wanted.file, new, progress=progress, base=there, size=size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._workers.join()


class _Announced:
    """A progress that was told already how much is to come."""

    def __init__(self, progress: Progress) -> None:
        self.advance = progress.advance

    def total(self, nbytes: int) -> None:
        """Nothing new."""


def _size(terms: Iterable[Term]) -> int:
    return sum(term.unpacked_bytes for term in terms)


def _shares(limits: Limits, at_a_time: int) -> tuple[int, Limits, Limits]:
    """Bytes that may be held, the limits of each file that is loaded alone, and those of a large one."""
    held, most = HELD_BYTES, limits.jobs or MOST_REQUESTS
    if limits.max_memory is not None:
        half = (limits.max_memory - OTHER_BYTES) // 2
        held, most = min(held, half), min(most, half // WORKER_BYTES)
    each = max(1, most // at_a_time)
    large = most // LARGE_AT_A_TIME
    if limits.jobs is not None or limits.max_memory is not None:
        large = each  # however they are mixed
    return held, replace(limits, jobs=each), replace(limits, jobs=large)
