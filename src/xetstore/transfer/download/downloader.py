"""Files out of a Cas: reconstructions in windows, fetches planned so that nothing is fetched twice, every chunk hashed.

Each worker takes one planned fetch at a time: it reads the xorb range in small pieces, decodes and hashes them in the
kernel (no GIL), compares them with the chunk hashes where the Cas gives them, and hands the bytes to a sink at their
offsets. The chunk hashes come back in file order, so that a whole file is checked against its file hash. What is there
already (an old version, an earlier attempt, the chunk cache) is hashed too, and not fetched; what is damaged is fetched
once more from fresh addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xetstore.cancellation import Cancellation
from xetstore.events import Emit, ignore
from xetstore.platform import forks
from xetstore.platform.threads import Threads
from xetstore.protocol.inline import MOST_INLINE_BYTES
from xetstore.transfer.download.context import Context, DownloadOptions
from xetstore.transfer.download.delivery import Destination, Put, SinkError
from xetstore.transfer.download.file_download import FileDownload
from xetstore.transfer.download.file_range import FileRange
from xetstore.transfer.download.reuse.base_file import BaseFile
from xetstore.transfer.download.reuse.reuse import Reuse
from xetstore.transfer.download.workers import OTHER_BYTES, Workers
from xetstore.transfer.progress import NoProgress, Progress
from xetstore.transfer.waiting import result_of

if TYPE_CHECKING:
    from xetstore.interfaces import Cas, FileSpan
    from xetstore.limits import Limits
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.reconstruction import Reconstruction
    from xetstore.transfer.download.new_file import NewFile
    from xetstore.transfer.download.plan import Window
    from xetstore.transfer.download.reuse.chunk_cache import ChunkCache
    from xetstore.transfer.download.reuse.journal import DownloadJournal

STREAM_WINDOW_BYTES: Final = 16 << 20
"""Bytes of a file that a stream holds at a time; while it is consumed, as much again is fetched."""

GROUPS_AT_A_TIME: Final = 8
"""Groups of ranges that are read at a time, unless memory has a cap."""

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

    What ``cache`` holds is not fetched; streams and ranges are put there. What is under way ends with ``cancellation``.
    """

    def __init__(
        self,
        cas: Cas,
        options: DownloadOptions = DownloadOptions(),  # noqa: B008  # it is immutable
        *,
        cache: ChunkCache | None = None,
        emit: Emit = ignore,
        cancellation: Cancellation | None = None,
    ) -> None:
        self._cas = cas
        self._options = options
        self._cache = cache
        self._emit = emit
        self._cancellation = cancellation

    @property
    def is_remote(self) -> bool:
        """As the Cas is."""
        return self._cas.is_remote

    @property
    def inline_bytes(self) -> int:
        """The bytes that may come along with a reconstruction; 0 where fetching them takes no round trip."""
        return MOST_INLINE_BYTES if self._cas.is_remote else 0

    @property
    def groups_at_a_time(self) -> int:
        """The number of groups of ranges that are read at a time: each is there twice, as it came and as it is."""
        memory = self._options.limits.max_memory
        if memory is None:
            return GROUPS_AT_A_TIME
        return max(1, min(GROUPS_AT_A_TIME, (memory - OTHER_BYTES) // (2 * MOST_INLINE_BYTES)))

    def ask(self, spans: Sequence[FileSpan]) -> Sequence[Reconstruction | None] | None:
        """Ask how several ranges are rebuilt, for :meth:`stream`; the bytes of those that are not here come along.

        None as :meth:`interfaces.Cas.reconstruct_ranges` says.
        """
        context = self.context(Reuse(self._cache, emit=self._emit))
        with context.workers:
            told: list[Reconstruction | None] = [None] * len(spans)
            lacking = [context.reuse.lacks(*span) for span in spans]
            for inline in {*lacking}:
                numbers = [number for number, lacks in enumerate(lacking) if lacks is inline]
                answers = context.cas.reconstruct_ranges(
                    [spans[number] for number in numbers], inline=context.inline_bytes if inline else 0
                )
                if answers is None:
                    return None
                for number, answer in zip(numbers, answers, strict=True):
                    told[number] = answer
            return told

    def interrupt(self) -> None:
        """End what is under way."""
        if self._cancellation is not None:
            self._cancellation.cancel()

    def download(
        self,
        file: Hash,
        sink: Sink,
        start: int = 0,
        end: int | None = None,
        progress: Progress | None = None,
        *,
        base: BaseFile | None = None,
    ) -> Downloaded:
        """Hand bytes ``[start, end)`` of a file to ``sink``, in any order; ``end`` past the file is clamped.

        Chunks that ``base`` has are taken from there, where the Cas tells the chunk hashes of files.

        Raises NotFoundError, RangeError, UsageError (a negative or reversed range), and IntegrityError where bytes are
        twice not what their hashes say: what the sink got is worthless then. An error of the sink is raised as it is.
        It may be called with the same bytes again, with other ones at the same offset where the first were damaged,
        and for a moment after an error was raised.
        """
        destination = Destination(lambda position, data: sink(position - start, data), progress or NoProgress())
        return self._download(FileRange(file, start, end), destination, base=base)

    def write(
        self, wanted: FileRange, new: NewFile, progress: Progress | None = None, *, base: Path | None = None
    ) -> Downloaded:
        """Write bytes of a file to ``new``, which is entered here, and has its name on return; errors as
        :meth:`download`.

        Chunks that the local file ``base`` has are copied; those that an earlier attempt wrote, as the journal of
        ``new`` says, stay where they are, if they are still so.
        """
        with ExitStack() as stack:
            old = None if base is None else stack.enter_context(BaseFile(base))
            stack.enter_context(new)

            def put(position: int, data: memoryview) -> None:
                new.write_at(position - wanted.start, data)

            destination = Destination(put, progress or NoProgress(), new.journal, new.make_room)
            done = self._download(wanted, destination, journal=new.journal, base=old)
            new.commit(done.size)
        return done

    @forks.bound
    def stream(
        self,
        file: Hash,
        start: int = 0,
        end: int | None = None,
        window_bytes: int | None = None,
        *,
        size: int | None = None,
        told: Reconstruction | None = None,
    ) -> Generator[memoryview, None, Downloaded]:
        """Yield bytes ``[start, end)`` of a file in order, a window at a time; errors as :meth:`download`.

        Where the Cas gives chunk hashes a window is verified before it is yielded; else a whole file is verified
        when its last window has been. While a window is consumed the next one is fetched. ``told`` is the
        reconstruction of the first one, where it is here already.
        """
        wanted = FileRange(file, start, end, size)
        context = self.context(Reuse(self._cache, fills_cache=True, emit=self._emit))
        done_bytes = 0
        with ExitStack() as stack:
            under_way = stack.enter_context(FileDownload(context, wanted, window_bytes or self._stream_window(), told))

            def load() -> memoryview | None:
                buffer = memoryview(b"")

                def destination(window: Window) -> Destination:
                    nonlocal buffer
                    buffer = memoryview(bytearray(window.length))
                    return Destination(_writer(buffer, window.position))

                return None if under_way.load(destination) is None else buffer.toreadonly()

            ahead = Threads(1, "ahead")
            stack.callback(ahead.shutdown, wait=False, cancel_futures=True)
            data = load()  # in the caller's thread, as most streams have one window only
            while data is not None:
                following = None if under_way.is_at_end else ahead.submit(load)
                done_bytes += len(data)
                if data:
                    yield data
                data = None if following is None else result_of(following)
            under_way.finish()
        return _downloaded(done_bytes, under_way)

    def _download(
        self,
        wanted: FileRange,
        destination: Destination,
        *,
        journal: DownloadJournal | None = None,
        base: BaseFile | None = None,
    ) -> Downloaded:
        reuse = Reuse(self._cache, fills_cache=not wanted.is_whole, journal=journal, base=base, emit=self._emit)
        done_bytes = 0
        try:
            with FileDownload(self.context(reuse), wanted) as under_way:
                while (window := under_way.load(lambda _: destination)) is not None:
                    done_bytes += window.length
                under_way.finish(destination)
        except SinkError as failed:
            raise failed.error from failed.error.__cause__
        return _downloaded(done_bytes, under_way)

    def context(self, reuse: Reuse | None = None, *, workers: int | None = None) -> Context:
        """The context of one download, with threads of its own; ``workers`` of them, if given."""
        own = Cancellation() if self._cancellation is None else self._cancellation.child()
        options = self._options
        fixed = workers or options.workers
        threads = Workers(own, options.limits, self._emit, is_remote=self._cas.is_remote, fixed=fixed)
        return Context(self._cas.under(own), threads, options, self._emit, reuse or Reuse())

    def within(self, limits: Limits, cancellation: Cancellation) -> Downloader:
        """Another one of the same settings within other limits, as a part of another transfer."""
        within = copy(self)
        within._options, within._cancellation = replace(self._options, limits=limits), cancellation
        return within

    def _stream_window(self) -> int:
        """Two windows and their copy on the way out are held at a time."""
        memory = self._options.limits.max_memory
        if memory is None:
            return STREAM_WINDOW_BYTES
        return max(1 << 20, min(STREAM_WINDOW_BYTES, (memory - OTHER_BYTES) // 8))


def _downloaded(size: int, download: FileDownload) -> Downloaded:
    return Downloaded(size, download.is_verified, download.fetched_bytes, download.reused_bytes)


def _writer(buffer: memoryview, start: int) -> Put:
    def put(position: int, data: memoryview) -> None:
        buffer[position - start : position - start + len(data)] = data

    return put
