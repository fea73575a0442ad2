"""Many files out of a Cas: small ones in batches, the others one by one; the outcome of each is told in order.

Files that were stored together lie side by side in a few xorbs: one request tells where some dozens of them are, and
another brings them. That is tried once. Whatever does not come right in this way comes in the usual one, which asks
again, fetches again and continues.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from xetstore.errors import InterruptedCallError, NotFoundError, XetError
from xetstore.interfaces import MANY_FILES
from xetstore.platform import forks
from xetstore.platform.threads import usable_cores
from xetstore.protocol.hashes import Hash
from xetstore.transfer.download.batch import Batch, BatchPlan, Room
from xetstore.transfer.download.file_range import FileRange
from xetstore.transfer.download.file_request import FileRequest, Named, read_requests
from xetstore.transfer.download.new_file import NewFile
from xetstore.transfer.download.workers import MOST_REQUESTS, OTHER_BYTES, WORKER_BYTES
from xetstore.transfer.progress import NoProgress, Progress
from xetstore.transfer.waiting import result_of

if TYPE_CHECKING:
    from xetstore.limits import Limits
    from xetstore.protocol.reconstruction import BatchReconstruction, Term
    from xetstore.transfer.download.downloader import Downloaded, Downloader
    from xetstore.transfer.download.plan import Part

AT_A_TIME: Final = 8
"""Batches that are asked for, ranges of them fetched, or files loaded alone at a time."""

LARGE_AT_A_TIME: Final = 2
"""Of large files a few fill the network, and the processor: more of them get in each other's way."""


@dataclass(frozen=True, slots=True)
class ManySizes:
    """Sizes of a download of many files.

    Files of at most ``small_bytes`` come in batches: to a larger one two requests more are nothing, and it is continued
    after an error. Files of ``large_bytes`` or more come two at a time. Small files that are not complete yet take at
    most ``held_bytes`` of memory. While the caller is busy with a file, ``batches_ahead`` of the batches behind it are
    fetched.
    """

    small_bytes: int = 4 << 20
    large_bytes: int = 64 << 20
    held_bytes: int = 64 << 20
    batches_ahead: int = 16


@forks.bound
def get_files(
    downloader: Downloader,
    files: Iterable[Named],
    *,
    resolve: Callable[[Hash | str], Hash],
    destination: Callable[[Path, FileRange], NewFile] = lambda path, _: NewFile(path),
    progress: Progress | None = None,
    on_error: Callable[[Path, XetError], None] | None = None,
    told_sizes: Mapping[Hash, int] = MappingProxyType({}),
    sizes: ManySizes = ManySizes(),
) -> Generator[tuple[Hash, Downloaded]]:
    """Write files to their paths, and yield what was done for each, in order, once it is there.

    ``files`` is read to its end first. ``destination`` makes the place of a file: of one that is in memory already its
    range has an end. A file that fails is handed to ``on_error`` and the others go on; without ``on_error`` its error
    is raised. ``told_sizes`` are those of files that were told by another than the Cas.
    """
    with ManyFiles(downloader, destination, progress or NoProgress(), sizes) as under_way:
        places, requests = read_requests(under_way.as_wanted(files), resolve, told_sizes)
        batches = [requests[at : at + MANY_FILES] for at in range(0, len(requests), MANY_FILES)]
        begun = 0
        for place in places:
            number = 0 if place.request is None else place.request.number
            while begun < len(batches) and begun <= number // MANY_FILES + sizes.batches_ahead:
                under_way.begin(batches[begun])
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
                assert place.request is not None
                yield place.request.file, done


class ManyFiles:
    """Downloads of some files that are under way. A context manager: when it is left, none is any more."""

    def __init__(
        self,
        downloader: Downloader,
        destination: Callable[[Path, FileRange], NewFile],
        progress: Progress,
        sizes: ManySizes,
    ) -> None:
        self._context = downloader.context(
            workers=AT_A_TIME if downloader.is_remote else min(AT_A_TIME, usable_cores())
        )
        self._destination = destination
        self._progress = progress
        limits = self._context.options.limits
        held, share, large_share = _shares(limits, self._context.workers.at_a_time, sizes.held_bytes)
        self._room = Room(held)
        self._sizes = sizes
        self._downloader = downloader.within(share, self._context.workers.cancellation)
        self._large_downloader = downloader.within(large_share, self._context.workers.cancellation)
        self._large: deque[FileRequest] = deque()
        self._free_for_large = LARGE_AT_A_TIME
        self._lock = threading.Lock()
        self._asks_for_batches = True
        self._begun: list[FileRequest] = []
        self._failure: BaseException | None = None

    def as_wanted(self, files: Iterable[Named]) -> Iterator[Named]:
        """Yield the files, as long as they are wanted."""
        for file in files:
            self._context.workers.check()
            yield file

    def begin(self, files: Sequence[FileRequest]) -> None:
        """Let these files come. Raises what has ended all of them, if anything has."""
        self._begun += files
        together = [request for request in files if request.file != Hash.ZERO]
        if len(together) < 2 or not self._asks_for_batches:
            self._load_alone(files)
        else:
            self._start(partial(self._ask, together))
            self._load_alone([request for request in files if request.file == Hash.ZERO])

    def _start(self, work: Callable[[], None]) -> None:
        """Do something. It handles the errors of files: any other one is the end of all of them, and soon."""
        workers = self._context.workers

        def guarded() -> None:
            try:
                workers.check()
                work()
            except BaseException as error:
                # Of those that fail because others were stopped, none says what has ended all of them.
                failure = self._failure = self._failure or error
                workers.stop()
                for request in self._begun:
                    request.fail(failure)

        try:
            workers.start(guarded)
        except InterruptedCallError as stopped:
            raise self._failure or stopped from None

    # Together

    def _ask(self, files: Sequence[FileRequest]) -> None:
        answer = self._reconstruct([request.file for request in files])
        if answer is None:
            self._load_alone(files)
            return
        plan = BatchPlan.of(answer, files, self._sizes.small_bytes)
        batch = Batch(plan, self._context, self._room, self._write)
        for request in batch.files:
            request.is_announced = True
            self._progress.total(request.size * len(request.places))
        others = [request for request in files if not request.is_announced]
        large = {request.file for request in others if _size(answer.files[request.file]) >= self._sizes.large_bytes}
        self._load_alone([request for request in others if request.file not in large])
        self._load_large([request for request in others if request.file in large])
        for part in batch.parts:
            self._start(partial(self._fetch, batch, part))

    def _reconstruct(self, files: Sequence[Hash]) -> BatchReconstruction | None:
        try:
            return self._context.batch_reconstruction(files)
        except InterruptedCallError:
            raise
        except NotFoundError:
            return None
        except XetError:
            # Asked for the files one by one, the Cas may say why; another batch would be more of the same.
            self._asks_for_batches = False
            return None

    def _fetch(self, batch: Batch, part: Part) -> None:
        for request in batch.fetch(part):
            if request.is_written:
                request.succeed()
            else:
                self._load_alone([request])

    def _write(self, request: FileRequest, data: memoryview) -> None:
        wanted = FileRange(request.file, 0, request.size)
        for place in request.places:
            try:
                with self._destination(place.path, wanted) as new:
                    new.write_at(0, data)
                    new.commit(len(data))
            except XetError as error:
                place.fail(error)
            else:
                self._progress.advance(logical=len(data))

    # One by one

    def _load_alone(self, files: Iterable[FileRequest]) -> None:
        for request in files:
            self._start(partial(self._load, request, self._downloader))

    def _load_large(self, files: Iterable[FileRequest]) -> None:
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
                request = self._large.popleft()
            self._load(request, self._large_downloader)

    def _load(self, request: FileRequest, downloader: Downloader) -> None:
        progress = _Announced(self._progress) if request.is_announced else self._progress
        wanted = FileRange(request.file, size=request.told_size)
        # A place where the file is already: from there it is copied, and not fetched again.
        there: Path | None = None
        for place in request.places:
            try:
                new = self._destination(place.path, wanted)
                done = downloader.write(wanted, new, progress, base=there)
            except InterruptedCallError:
                raise
            except XetError as error:
                place.fail(error)
                continue
            place.done.set_result(replace(done, fetched_bytes=done.fetched_bytes + request.fetched_bytes))
            request.fetched_bytes = 0
            there = place.path if done.size else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._context.workers.join()


class _Announced:
    """A progress that was told already how much is to come."""

    def __init__(self, progress: Progress) -> None:
        self.advance = progress.advance

    def total(self, nbytes: int) -> None:
        """Nothing new."""


def _size(terms: Iterable[Term]) -> int:
    return sum(term.unpacked_bytes for term in terms)


def _shares(limits: Limits, at_a_time: int, held_bytes: int) -> tuple[int, Limits, Limits]:
    """Bytes that may be held, the limits of each file that is loaded alone, and those of a large one."""
    held, most = held_bytes, limits.jobs or MOST_REQUESTS
    if limits.max_memory is not None:
        half = (limits.max_memory - OTHER_BYTES) // 2
        held, most = min(held, half), min(most, half // WORKER_BYTES)
    each = max(1, most // at_a_time)
    large = most // LARGE_AT_A_TIME
    if limits.jobs is not None or limits.max_memory is not None:
        large = each  # however they are mixed
    return held, replace(limits, jobs=each), replace(limits, jobs=large)
