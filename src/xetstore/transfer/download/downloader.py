"""Files out of a Cas: reconstructions in windows, fetches planned so that nothing is fetched twice, every chunk hashed.

Each worker takes one planned fetch at a time: it reads the xorb range in small pieces, decodes and hashes them in the
kernel (no GIL), compares them with the chunk hashes where the Cas gives them, and hands the bytes to a sink at their
offsets. The chunk hashes come back in file order, so that a whole file is checked against its file hash. What is there
already (an old version, an earlier attempt, the chunk cache) is hashed too, and not fetched; what is damaged is fetched
once more from fresh addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from xetstore.errors import IntegrityError, RangeError, UsageError
from xetstore.events import Emit, ignore
from xetstore.interfaces import AnswerTooLongError, Cas
from xetstore.limits import NO_LIMITS, Limits
from xetstore.platform import forks
from xetstore.platform.threads import Threads
from xetstore.protocol.hashes import Hash
from xetstore.transfer.download.delivery import Put, SinkError
from xetstore.transfer.download.fetching import Destination, Fetcher, PartReader, Tally
from xetstore.transfer.download.parts import Run, Window
from xetstore.transfer.download.rebuild import Rebuilder
from xetstore.transfer.download.verify import FileCheck
from xetstore.transfer.download.windows import CHUNK_BYTES, MOST_CHUNKS, Reconstructions
from xetstore.transfer.download.workers import OTHER_BYTES, Workers
from xetstore.transfer.progress import NoProgress, Progress
from xetstore.transfer.waiting import result_of

if TYPE_CHECKING:
    from xetstore.transfer.cache.chunk_cache import ChunkCache
    from xetstore.transfer.download.basis import OldVersion
    from xetstore.transfer.download.journal import DownloadJournal

WINDOW_BYTES = 4 << 30
"""Bytes of a file that one reconstruction asks for: bounds the terms held, whatever the size of the file."""

WINDOW_SHARE: Final = 4
"""The window with a cap on memory, in times of the cap: a chunk of 64 KiB takes some hundred bytes."""

LEAST_WINDOW_BYTES: Final = 8 << 20
"""The smallest window: where the answer about so little does not fit, none will."""

STREAM_WINDOW_BYTES: Final = 16 << 20
"""Bytes of a file that a stream holds at a time; while it is consumed, as much again is fetched."""

Sink = Callable[[int, memoryview], None]
"""Takes bytes and their offset from the start of the requested range; called from several threads."""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The result of a download: ``size`` bytes of the file are there, ``verified`` if each was checked against a hash.

    ``fetched_bytes`` are serialized xorb bytes that came from the Cas; ``reused_bytes`` raw bytes that were there: in
    an old version, an earlier attempt or the chunk cache.
    """

    size: int
    verified: bool
    fetched_bytes: int
    reused_bytes: int


class Downloader:
    """Reads files of one Cas. Thread-safe; holds no state but its settings.

    ``workers`` fixes how many fetches run at a time: without it the processor, or over a network the goodput, decides
    within ``limits``. What ``cache`` holds is not fetched; streams and ranges are put there.
    """

    def __init__(
        self,
        cas: Cas,
        *,
        limits: Limits = NO_LIMITS,
        cache: ChunkCache | None = None,
        emit: Emit = ignore,
        workers: int | None = None,
    ) -> None:
        self._cas = cas
        self._limits = limits
        self._cache = cache
        self._emit = emit
        self._workers = workers

    def download(
        self,
        file: Hash,
        sink: Sink,
        start: int = 0,
        end: int | None = None,
        progress: Progress | None = None,
        *,
        base: OldVersion | None = None,
        journal: DownloadJournal | None = None,
        size: int | None = None,
        make_room: Callable[[int], None] | None = None,
    ) -> Downloaded:
        """Hand bytes ``[start, end)`` of a file to ``sink``, in any order; ``end`` past the file is clamped.

        Chunks that ``base`` has are taken from there, where the Cas tells the chunk hashes of files. What ``journal``
        says that an earlier attempt wrote is not handed over, if it is still so. ``size`` is how long the whole file
        is, where that was told by another than the Cas: it cannot be longer. ``make_room`` is told, before each window,
        how many different bytes of the file there will be, and raises what ends the download.

        Raises NotFoundError, RangeError, UsageError (a negative or reversed range), and IntegrityError where bytes are
        twice not what their hashes say: what the sink got is worthless then. An error of the sink is raised as it is.
        It may be called with the same bytes again, with other ones at the same offset where the first were damaged,
        and for a moment after an error was raised.
        """
        is_whole = start == 0 and end is None
        transfer = _Transfer(self, file, start, end, fills_cache=not is_whole, size=size, make_room=make_room)
        told = progress or NoProgress()
        destination = Destination(lambda position, data: sink(position - start, data), told, journal)
        done_bytes = 0
        window_bytes = self._window()
        try:
            with transfer.check as check, transfer.workers:
                position: int | None = transfer.first()
                while position is not None:
                    found = transfer.load(position, window_bytes, lambda _: destination, base)
                    if found is None:
                        break
                    check.add(*found)
                    done_bytes += found[0].length
                    position = transfer.after(found[0])
                if not check.is_right:
                    transfer.rebuilder.look_again(check, destination)
        except SinkError as failed:
            raise failed.error from failed.error.__cause__
        except IntegrityError as error:
            error.hint = error.hint or self._blame()
            raise
        return Downloaded(done_bytes, check.is_verified, transfer.tally.fetched_bytes, transfer.tally.reused_bytes)

    @forks.bound
    def stream(
        self,
        file: Hash,
        start: int = 0,
        end: int | None = None,
        window_bytes: int | None = None,
        *,
        size: int | None = None,
    ) -> Generator[memoryview, None, Downloaded]:
        """Yield bytes ``[start, end)`` of a file in order, a window at a time; errors as :meth:`download`.

        Where the Cas gives chunk hashes a window is verified before it is yielded; else a whole file is verified
        when its last window has been. While a window is consumed the next one is fetched.
        """
        if window_bytes is None:
            window_bytes = self._stream_window()
        transfer = _Transfer(self, file, start, end, fills_cache=True, size=size)
        done_bytes = 0

        def load(position: int) -> _Loaded | None:
            buffer = memoryview(b"")

            def destination(window: Window) -> Destination:
                nonlocal buffer
                buffer = memoryview(bytearray(window.length))
                return Destination(_writer(buffer, window.position), NoProgress())

            found = transfer.load(position, window_bytes, destination)
            return None if found is None else _Loaded(*found, buffer.toreadonly())

        try:
            with transfer.check as check, transfer.workers, _Ahead(load) as ahead:
                ahead.begin(transfer.first())
                while (loaded := ahead.take()) is not None:
                    check.add(loaded.window, loaded.runs)
                    ahead.begin(transfer.after(loaded.window))
                    done_bytes += len(loaded.data)
                    if loaded.data:
                        yield loaded.data
                if not check.is_right:
                    raise check.mismatch()
        except IntegrityError as error:
            error.hint = error.hint or self._blame()
            raise
        return Downloaded(done_bytes, check.is_verified, transfer.tally.fetched_bytes, transfer.tally.reused_bytes)

    def _window(self) -> int:
        """The bytes of a file that one reconstruction asks for; its answer is held as a whole."""
        if self._limits.max_memory is None:
            return WINDOW_BYTES
        return min(WINDOW_BYTES, WINDOW_SHARE * self._limits.max_memory)

    def _blame(self) -> str:
        """A hint for answers of a Cas that do not fit together."""
        if self._cas.is_remote:
            return "the server, or something before it, gives wrong answers: try again, then tell who runs it"
        return "`xet check` lists what is damaged"

    def _stream_window(self) -> int:
        """Two windows and their copy on the way out are held at a time."""
        if self._limits.max_memory is None:
            return STREAM_WINDOW_BYTES
        return max(1 << 20, min(STREAM_WINDOW_BYTES, (self._limits.max_memory - OTHER_BYTES) // 8))


class _Transfer:
    """One download or stream: its threads, its sums, and its way from window to window."""

    def __init__(
        self,
        downloader: Downloader,
        file: Hash,
        start: int,
        end: int | None,
        *,
        fills_cache: bool,
        size: int | None = None,
        make_room: Callable[[int], None] | None = None,
    ) -> None:
        if start < 0 or (end is not None and end < start):
            raise UsageError(f"{start}:{end} is not a byte range", hint="give START:END with 0 <= START <= END")
        cas, emit = downloader._cas, downloader._emit
        self._start = start
        self._end = end
        most_memory = downloader._limits.max_memory
        most_chunks = MOST_CHUNKS if most_memory is None else min(MOST_CHUNKS, most_memory // CHUNK_BYTES)
        self._reconstructions = Reconstructions(cas, file, emit, size=size, most_chunks=most_chunks)
        self._make_room = make_room
        self._distinct_bytes = 0
        self.tally = Tally()
        self.check = FileCheck(file, is_whole=start == 0 and end is None)
        self.workers = Workers(cas, downloader._limits, emit, downloader._workers)
        reader = PartReader(
            cas,
            self.workers,
            self.tally,
            cache=downloader._cache,
            fills_cache=fills_cache,
            emit=emit,
        )
        fetcher = Fetcher(cas, reader, self._reconstructions, emit)
        self.rebuilder = Rebuilder(file, self._reconstructions, fetcher, self.workers, self.tally, emit=emit)

    def first(self) -> int | None:
        """The start of the first window; None if nothing was asked for."""
        if self._start == self._end:
            self._reconstructions.exists(self._start)  # so that what is missing is missed
            return None
        return self._start

    def after(self, window: Window) -> int | None:
        """The start of the next window; None if there is none."""
        if window.is_last or (self._end is not None and window.end >= self._end):
            return None
        return window.end

    def load(
        self,
        position: int,
        window_bytes: int,
        destination_of: Callable[[Window], Destination],
        base: OldVersion | None = None,
    ) -> tuple[Window, list[Run]] | None:
        """Rebuild the window at ``position``: the window and its chunks in order; None where the file ended before."""

        def ask() -> Window | None:
            asked = position + window_bytes
            if self._end is not None:
                asked = min(asked, self._end)
            # Terms end with a whole chunk: the next window starts there, and no chunk is in two windows.
            aligned = position != self._start or not position
            while True:
                try:
                    return self._reconstructions.ask(position, asked, limit=self._end, aligned=aligned)
                except AnswerTooLongError:
                    if asked - position <= LEAST_WINDOW_BYTES:
                        raise
                    asked = position + (asked - position) // 2  # of a file in many small pieces
                except RangeError:
                    if position == self._start:
                        raise
                    return None  # the window before ended where the file does

        window = ask()
        if window is not None and self._make_room is not None:
            self._distinct_bytes += sum(part.distinct_bytes for part in window.parts)
            self._make_room(self._distinct_bytes)
        return None if window is None else self.rebuilder.rebuild(window, destination_of, base, ask)


class _Loaded(NamedTuple):
    """A window of a stream."""

    window: Window
    runs: list[Run]
    data: memoryview


class _Ahead:
    """Loads the first window in the caller's thread, and the next ones while the one before is consumed."""

    def __init__(self, load: Callable[[int], _Loaded | None]) -> None:
        self._load = load
        self._executor: Threads | None = None
        self._next: Future[_Loaded | None] | int | None = None
        self._is_first = True

    def begin(self, position: int | None) -> None:
        """The next window starts here; there is none for None."""
        if position is None or self._is_first:
            self._next, self._is_first = position, False
            return
        if self._executor is None:
            self._executor = Threads(1, "ahead")
        self._next = self._executor.submit(self._load, position)

    def take(self) -> _Loaded | None:
        """The next window, once it is there; None after the last."""
        if self._next is None:
            return None
        return self._load(self._next) if isinstance(self._next, int) else result_of(self._next)

    def __enter__(self) -> _Ahead:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)


def _writer(buffer: memoryview, start: int) -> Put:
    def put(position: int, data: memoryview) -> None:
        buffer[position - start : position - start + len(data)] = data

    return put
