"""Files out of a Cas: reconstructions in windows, fetches planned so that nothing is fetched twice, every chunk hashed.

Each worker takes one planned fetch at a time: it reads the xorb range in small pieces, decodes and hashes them in the
kernel (no GIL), and hands the bytes to a sink at their offsets. The chunk hashes come back in file order, so that a
whole file is checked against its file hash, and any range against the chunk hashes where the Cas gives them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from xetstore import _kernel
from xetstore.errors import FormatError, HashMismatchError, IntegrityError, RangeError, UsageError
from xetstore.interfaces import Cas
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, file_hash
from xetstore.protocol.reconstruction import FetchRange, Placement, PlannedFetch, Reconstruction, plan_fetches
from xetstore.protocol.suite import CHUNK_HEADER_BYTES, XET_GEARHASH_BLAKE3, AlgorithmSuite
from xetstore.transfer.progress import NoProgress, Progress
from xetstore.transfer.scan import usable_cores

WINDOW_BYTES = 4 << 30
"""How much of a file one reconstruction asks for: bounds the terms held, whatever the size of the file."""

STREAM_WINDOW_BYTES = 16 << 20
"""How much of a file a stream holds at a time."""

PIECE_BYTES = 1 << 20
"""How much of a xorb a worker reads and decodes at a time: small enough to stay in the processor's cache."""

Sink = Callable[[int, memoryview], None]
"""Takes bytes and their offset from the start of the requested range; called from several threads."""


@dataclass(frozen=True, slots=True)
class _Window:
    """Bytes ``[position, position + length)`` of a file and how to rebuild them."""

    position: int
    length: int
    reconstruction: Reconstruction


class Downloader:
    """Reads files of one Cas. Thread-safe; holds no state but its settings."""

    def __init__(self, cas: Cas, *, workers: int | None = None, suite: AlgorithmSuite = XET_GEARHASH_BLAKE3) -> None:
        self._cas = cas
        self._workers = workers or usable_cores()
        self._suite = suite

    def download(
        self, file: Hash, sink: Sink, start: int = 0, end: int | None = None, progress: Progress | None = None
    ) -> tuple[int, bool]:
        """Hand bytes ``[start, end)`` of a file to ``sink``, in any order; ``end`` past the file is clamped.

        Returns how many bytes there were, and whether every one was checked against a hash. Raises NotFoundError,
        RangeError, UsageError (a negative or reversed range), and IntegrityError where bytes are not what their
        hashes say: what the sink got is worthless then.
        """
        check = _FileCheck(file, start, end, self._suite)
        size = 0
        for window in self._windows(file, start, end, WINDOW_BYTES):
            base = window.position - start

            def put(offset: int, data: memoryview, base: int = base) -> None:
                sink(base + offset, data)

            check.add(window, self._fetch_window(window, put, progress or NoProgress()))
            size += window.length
        return size, check.finish()

    def stream(
        self, file: Hash, start: int = 0, end: int | None = None, window_bytes: int = STREAM_WINDOW_BYTES
    ) -> Iterator[memoryview]:
        """Yield bytes ``[start, end)`` of a file in order, a window at a time; errors as :meth:`download`.

        Where the Cas gives chunk hashes a window is verified before it is yielded; else a whole file is verified
        when its last window has been.
        """
        check = _FileCheck(file, start, end, self._suite)
        for window in self._windows(file, start, end, window_bytes):
            buffer = memoryview(bytearray(window.length))

            def put(offset: int, data: memoryview, buffer: memoryview = buffer) -> None:
                buffer[offset : offset + len(data)] = data

            check.add(window, self._fetch_window(window, put, NoProgress()))
            if window.length:
                yield buffer.toreadonly()
        check.finish()

    def _windows(self, file: Hash, start: int, end: int | None, window_bytes: int) -> Iterator[_Window]:
        if start < 0 or (end is not None and end < start):
            raise UsageError(f"{start}:{end} is not a byte range", hint="give START:END with 0 <= START <= END")
        if start == end:
            self._cas.reconstruct(file, start, start + 1)  # so that what is missing is missed
            return
        position = start
        while end is None or position < end:
            asked = position + window_bytes if end is None else min(position + window_bytes, end)
            try:
                found = self._cas.reconstruct(file, position, asked, hashes=True)
            except RangeError:
                if position == start:
                    raise
                return  # the window before ended where the file does
            # Terms end with a whole chunk: the next window starts there, and no chunk is in two windows.
            covered = position - found.offset_into_first_term + found.unpacked_bytes
            reached = covered if end is None else min(covered, end)
            if reached <= position and found.terms:
                raise FormatError("reconstruction.length", 0, "the terms end before the requested range")
            yield _Window(position, reached - position, found)
            if covered < asked:
                return
            position = reached

    def _fetch_window(self, window: _Window, sink: Sink, progress: Progress) -> list[ChunkList]:
        """Fetch and deliver a window; the chunks of its terms, in order."""
        plan = plan_fetches(window.reconstruction, window.length)
        progress.total(window.length)
        threads = max(1, self._workers // max(1, len(plan)))
        chunks: list[ChunkList] = []
        running: deque[Future[ChunkList]] = deque()
        with ThreadPoolExecutor(self._workers, "fetch") as executor:
            try:
                for planned in plan:
                    if len(running) >= 2 * self._workers:
                        chunks.append(running.popleft().result())
                    running.append(executor.submit(self._fetch, planned, sink, threads, progress))
                while running:
                    chunks.append(running.popleft().result())
            finally:
                executor.shutdown(wait=False, cancel_futures=True)
        return _in_term_order(plan, chunks)

    def _fetch(self, planned: PlannedFetch, sink: Sink, threads: int, progress: Progress) -> ChunkList:
        """Fetch one range, deliver its placements; all its chunks."""
        fetch = planned.fetch
        delivery = _Delivery(planned, sink, progress)
        largest = self._suite.max_chunk_bytes
        body = memoryview(bytearray(min(fetch.byte_end - fetch.byte_start, PIECE_BYTES + largest + CHUNK_HEADER_BYTES)))
        raw = memoryview(bytearray(2 * PIECE_BYTES))
        found: list[ChunkList] = []
        left = fetch.byte_end - fetch.byte_start
        filled = 0
        with self._cas.fetch_xorb(fetch) as source:
            while left or filled:
                while left and filled < len(body):
                    count = source.readinto(body[filled : filled + left])
                    if count == 0:
                        raise IntegrityError(f"xorb {fetch.xorb} ends {left} bytes too early")
                    filled, left = filled + count, left - count
                try:
                    hashes, lengths, used = _kernel.decode_chunks(
                        self._suite.kernel, body[:filled], raw, final=not left, threads=threads
                    )
                except FormatError as error:
                    at = fetch.byte_end - left - filled + error.offset
                    raise IntegrityError(
                        f"xorb {fetch.xorb} is damaged at byte {at}: {error.detail}",
                        hint="`xet check --read-data` lists what else is damaged",
                    ) from error
                found.append(ChunkList(hashes, lengths))
                delivery.deliver(found[-1], raw)
                body[: filled - used] = body[used:filled]
                filled -= used
        return delivery.finish(ChunkList.concat(found))


class _Delivery:
    """Cuts decoded chunks of one fetch into its placements."""

    def __init__(self, planned: PlannedFetch, sink: Sink, progress: Progress) -> None:
        self._fetch = planned.fetch
        self._sink = sink
        self._progress = progress
        self._waiting = deque(sorted(planned.placements, key=lambda placement: placement.chunk_start))
        # Placements under way, each with the raw position in the fetch where its first chunk starts.
        self._active: list[tuple[Placement, int]] = []
        self._next_chunk = planned.fetch.chunk_start
        self._raw_position = 0

    def deliver(self, chunks: ChunkList, raw: memoryview) -> None:
        """The next chunks of the fetch; ``raw`` starts with their bytes."""
        starts = [self._raw_position]
        for size in chunks.sizes:
            starts.append(starts[-1] + size)
        first, end = self._next_chunk, self._next_chunk + len(chunks)
        while self._waiting and self._waiting[0].chunk_start < end:
            placement = self._waiting.popleft()
            self._active.append((placement, starts[placement.chunk_start - first]))
        base = self._raw_position
        for placement, origin in self._active:
            # Raw positions wanted of this placement, and those of them that are here.
            wanted = origin + placement.skip
            low = max(wanted, base)
            high = min(wanted + placement.length, starts[-1])
            if low < high:
                self._sink(placement.output_offset + low - wanted, raw[low - base : high - base])
                self._progress.advance(logical=high - low)
        self._active = [active for active in self._active if active[0].chunk_end > end]
        self._next_chunk, self._raw_position = end, starts[-1]

    def finish(self, chunks: ChunkList) -> ChunkList:
        """Check that the fetch held the chunks it was said to hold."""
        if self._next_chunk != self._fetch.chunk_end:
            expected = self._fetch.chunk_end - self._fetch.chunk_start
            raise IntegrityError(f"xorb {self._fetch.xorb} gave {len(chunks)} chunks where {expected} belong")
        return chunks


class _FileCheck:
    """Collects chunk hashes in file order and compares them with what is known of the file."""

    def __init__(self, file: Hash, start: int, end: int | None, suite: AlgorithmSuite) -> None:
        self._file = file
        self._start = start
        self._suite = suite
        self._whole = start == 0 and end is None
        self._tree = _kernel.MerkleTree(suite.kernel)
        self._all_terms_checked = True

    def add(self, window: _Window, terms: list[ChunkList]) -> None:
        """The chunks of a window's terms, as decoded."""
        told = window.reconstruction
        for term, chunks in zip(told.terms, terms, strict=True):
            if chunks.total_bytes != term.unpacked_bytes:
                raise IntegrityError(
                    f"chunks {term.chunk_start} to {term.chunk_end} of xorb {term.xorb} have {chunks.total_bytes} "
                    f"bytes, the reconstruction says {term.unpacked_bytes}"
                )
        if told.offset_into_first_term and (window.position != self._start or not self._start):
            raise FormatError("reconstruction.offset", 0, "bytes are to be skipped where a chunk starts")
        expected = window.reconstruction.term_hashes
        if expected is None:
            self._all_terms_checked = False
        else:
            for term, hashes, chunks in zip(window.reconstruction.terms, expected, terms, strict=True):
                if hashes != chunks.hashes:
                    raise _damaged(term.xorb, term.chunk_start, hashes, chunks.hashes)
        if self._whole:
            for chunks in terms:
                self._tree.update(chunks.hashes, chunks.lengths)

    def finish(self) -> bool:
        """Whether everything was verified. Raises HashMismatchError where a whole file is not what its hash says."""
        if not self._whole:
            return self._all_terms_checked
        actual = file_hash(Hash(self._tree.root()), self._suite)
        if actual != self._file:
            raise HashMismatchError("the file", expected=str(self._file), actual=str(actual))
        return True


def _damaged(xorb: Hash, first_chunk: int, expected: bytes, actual: bytes) -> IntegrityError:
    step = len(Hash.ZERO.digest)
    pairs = zip(range(0, len(expected), step), range(0, len(actual), step), strict=False)
    bad = next((i for i, _ in pairs if expected[i : i + step] != actual[i : i + step]), len(actual)) // step
    return IntegrityError(
        f"chunk {first_chunk + bad} of xorb {xorb} does not match its hash",
        hint="`xet check --read-data` lists what else is damaged",
    )


def _in_term_order(plan: tuple[PlannedFetch, ...], fetched: list[ChunkList]) -> list[ChunkList]:
    ordered: list[tuple[int, ChunkList, FetchRange, Placement]] = []
    for planned, chunks in zip(plan, fetched, strict=True):
        for placement in planned.placements:
            ordered.append((placement.output_offset, chunks, planned.fetch, placement))
    ordered.sort(key=lambda item: item[0])
    return [
        chunks.slice(placement.chunk_start - fetch.chunk_start, placement.chunk_end - fetch.chunk_start)
        for _, chunks, fetch, placement in ordered
    ]
