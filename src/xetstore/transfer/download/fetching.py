"""One fetch of a download: from the chunk cache or the Cas, decoded and checked piece by piece; if need be again."""

from __future__ import annotations

import mmap
import threading
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from xetstore import _kernel
from xetstore.errors import ForbiddenError, FormatError, IntegrityError, NotFoundError, RangeError, XetError
from xetstore.events import Damaged, Emit, RangeFetched
from xetstore.interfaces import ByteStream, Cas
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, xorb_hash
from xetstore.protocol.suite import CHUNK_HEADER_BYTES, HASH_BYTES, XET_GEARHASH_BLAKE3
from xetstore.transfer.download.delivery import Advance, Delivery, ExpectedHashes, Put, Recorder
from xetstore.transfer.download.parts import Part, Run, restrict
from xetstore.transfer.download.windows import Reconstructions
from xetstore.transfer.download.workers import Workers
from xetstore.transfer.progress import Progress

if TYPE_CHECKING:
    from xetstore.transfer.cache.chunk_cache import CachedRange, ChunkCache
    from xetstore.transfer.download.journal import DownloadJournal

PIECE_BYTES: Final = 1 << 20
"""Bytes of a xorb that a worker reads and decodes at a time: small enough to stay in the processor's cache."""

CACHED_BYTES: Final = 16 << 20
"""Larger fetches are not gathered for the chunk cache."""


@dataclass(slots=True)
class Tally:
    """Sums over a transfer, from all its threads."""

    fetched_bytes: int = 0
    reused_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, *, fetched: int = 0, reused: int = 0) -> None:
        """Count bytes."""
        with self._lock:
            self.fetched_bytes += fetched
            self.reused_bytes += reused


@dataclass(frozen=True, slots=True)
class Destination:
    """The destination of fetched bytes, and the progress that is told.

    With ``resumes``, what the journal holds already is not fetched.
    """

    put: Put
    progress: Progress
    journal: DownloadJournal | None = None
    resumes: bool = True


class Fetcher:
    """Makes the fetches of one file. Thread-safe."""

    def __init__(self, cas: Cas, reader: PartReader, reconstructions: Reconstructions, emit: Emit) -> None:
        self._cas = cas
        self._reader = reader
        self._reconstructions = reconstructions
        self._emit = emit

    def fetch(self, part: Part, destination: Destination, threads: int) -> list[Run]:
        """Fetch and deliver a part; the runs of chunks that are in the file now.

        What is damaged, and what may not be read any more because its URL has expired, is asked for once more. Raises
        SinkError, and whatever the Cas raises.
        """
        advance = Advance(destination.progress)
        todo = [part]
        has_expired = is_damaged = False
        while True:
            advance.begin()
            try:
                return [
                    run
                    for each in todo
                    for run in self._reader.read(each, destination.put, destination.journal, advance, threads)
                ]
            except ForbiddenError:
                if has_expired:
                    raise
                has_expired = True
            except (IntegrityError, NotFoundError, RangeError) as error:
                # A xorb, or bytes of it, that are not there were the reconstruction's mistake if not the store's.
                self._emit(Damaged(str(error), refetching=not is_damaged))
                if is_damaged:
                    self.suspect(part.fetch.xorb)
                if is_damaged and isinstance(error, RangeError):
                    raise IntegrityError(str(error), hint=self._hint()) from error
                if is_damaged:
                    error.hint = error.hint or self._hint()
                    raise
                is_damaged = True
            window = self._reconstructions.ask_exactly(*part.span)
            todo = restrict(window.parts, ((use.position, use.end) for use in part.uses))

    def suspect(self, xorb: Hash) -> None:
        """Say that bytes of a xorb came out wrong, so that its store looks at it, and the next put heals it."""
        with suppress(XetError):  # what is to be told is the error that led here
            self._cas.suspect(xorb)

    def _hint(self) -> str:
        if self._cas.is_remote:
            return (
                "it came so twice, with fresh addresses: put the file again, or ask the server's operator to check"
                " its store"
            )
        return "put the file again, and what is damaged is stored anew; `xet check --read-data` lists what else is"


class PartReader:
    """Reads parts once, from the chunk cache or the Cas. Thread-safe."""

    def __init__(
        self,
        cas: Cas,
        workers: Workers,
        tally: Tally,
        *,
        cache: ChunkCache | None = None,
        fills_cache: bool = False,
        emit: Emit,
    ) -> None:
        self._cas = cas
        self._workers = workers
        self._tally = tally
        self._cache = cache
        self._fills_cache = fills_cache
        self._emit = emit

    def read(self, part: Part, put: Put, record: Recorder | None, advance: Advance, threads: int) -> list[Run]:
        """Deliver a part: the runs of chunks that are in the file now. Raises SinkError, and what the Cas raises."""
        self._workers.check()
        fetch = part.fetch
        if self._cache is not None:
            cached = self._cache.get(fetch.xorb, fetch.chunk_start, fetch.chunk_end)
            if cached is not None:
                runs = self._from_cache(cached, part, put, record, advance, threads)
                if runs is not None:
                    return runs
        with self._cas.fetch_xorb(fetch) as source:
            reading = _Reading(self, part, Delivery(part, put, record, advance), threads)
            runs = reading.run(source, fetch.byte_end - fetch.byte_start)
        self._emit(RangeFetched(fetch.xorb, fetch.byte_start, fetch.byte_end, cached=False))
        return runs

    def _from_cache(
        self, cached: CachedRange, part: Part, put: Put, record: Recorder | None, advance: Advance, threads: int
    ) -> list[Run] | None:
        fetch = part.fetch
        with cached:
            try:
                delivery = Delivery(part, put, record, advance)
                reading = _Reading(self, part, delivery, threads, recorded=cached.hashes)
                runs = reading.run(cached, cached.byte_count)
            except IntegrityError:
                cached.discard()
                advance.begin()
                return None
        self._tally.add(reused=sum(use.length for use in part.uses))
        self._emit(RangeFetched(fetch.xorb, fetch.byte_start, fetch.byte_end, cached=True))
        return runs


class _Reading:
    """Reads, decodes, checks and delivers the bytes of a part once."""

    def __init__(
        self,
        reader: PartReader,
        part: Part,
        delivery: Delivery,
        threads: int,
        recorded: bytes | None = None,
    ) -> None:
        self._reader = reader
        self._part = part
        self._threads = threads
        # The hashes of what comes from the chunk cache, as they were verified once.
        self._recorded = recorded
        self._expected = ExpectedHashes(part)
        self._delivery = delivery
        self._gathered: list[bytes] | None = None

    def run(self, source: ByteStream, nbytes: int) -> list[Run]:
        reader = self._reader
        if self._recorded is None and reader._fills_cache and reader._cache is not None and nbytes <= CACHED_BYTES:
            self._gathered = []
        with _buffers() as (body, raw):
            chunks = ChunkList.concat(self._decode(source, nbytes, body, raw))
        runs = self._delivery.finish(chunks, verified=self._is_verified(chunks))
        if self._gathered is not None and runs[0].verified:
            self._keep(chunks)
        return runs

    def _decode(self, source: ByteStream, nbytes: int, body: memoryview, raw: memoryview) -> list[ChunkList]:
        reader, fetch = self._reader, self._part.fetch
        found: list[ChunkList] = []
        left, filled = nbytes, 0
        while left or filled:
            while left and filled < len(body):
                count = source.readinto(body[filled : filled + left])
                if count == 0:
                    raise IntegrityError(f"xorb {fetch.xorb} ends {left} bytes too early")
                filled, left = filled + count, left - count
                if self._recorded is None:
                    reader._tally.add(fetched=count)
                    reader._workers.arrived(count)
            reader._workers.check()
            try:
                hashes, lengths, used = _kernel.decode_chunks(
                    XET_GEARHASH_BLAKE3.kernel, body[:filled], raw, final=not left, threads=self._threads
                )
            except FormatError as error:
                at = fetch.byte_start + nbytes - left - filled + error.offset
                raise IntegrityError(f"xorb {fetch.xorb} is damaged at byte {at}: {error.detail}") from error
            self._check(hashes)
            found.append(ChunkList(hashes, lengths))
            self._delivery.deliver(found[-1], raw)
            if self._gathered is not None:
                self._gathered.append(bytes(body[:used]))
            body[: filled - used] = body[used:filled]
            filled -= used
        if extra := source.readinto(body[:1]):
            reader._tally.add(fetched=extra)
            raise IntegrityError(f"xorb {fetch.xorb} goes on behind the {nbytes} bytes that were asked for")
        return found

    def _check(self, hashes: bytes) -> None:
        """Compare the chunks of a piece before they are delivered."""
        fetch, first = self._part.fetch, self._delivery.next_chunk
        if first + len(hashes) // HASH_BYTES > fetch.chunk_end:
            expected = fetch.chunk_end - fetch.chunk_start
            raise IntegrityError(f"xorb {fetch.xorb} gave more than the {expected} chunks that belong there")
        self._expected.check(first, hashes)
        if self._recorded is not None:
            at = (first - fetch.chunk_start) * HASH_BYTES
            if self._recorded[at : at + len(hashes)] != hashes:
                raise IntegrityError("the chunk cache holds other chunks than were put there")

    def _is_verified(self, chunks: ChunkList) -> bool:
        """True if the chunks are known to be those of the xorb: by their own hashes, or as all of it by its name."""
        if self._expected.are_complete or self._recorded is not None:
            return True
        fetch = self._part.fetch
        is_start = fetch.chunk_start == 0
        return is_start and xorb_hash(chunks.hashes, chunks.lengths) == fetch.xorb

    def _keep(self, chunks: ChunkList) -> None:
        cache, fetch = self._reader._cache, self._part.fetch
        if cache is not None and self._gathered:
            cache.put_later(fetch.xorb, fetch.chunk_start, self._gathered, chunks, self._ends(self._gathered))

    def _ends(self, body: list[bytes]) -> array[int]:
        """The offset behind each chunk of a body in pieces, which are of whole chunks."""
        ends: array[int] = array("Q")
        for piece in body:
            start = ends[-1] if ends else 0
            _, packed, _ = _kernel.walk_chunks(XET_GEARHASH_BLAKE3.kernel, piece)
            ends.extend(start + end for end in memoryview(packed).cast("Q"))
        return ends


_SPARE: Final[deque[tuple[memoryview, memoryview]]] = deque(maxlen=4)


@contextmanager
def _buffers() -> Iterator[tuple[memoryview, memoryview]]:
    """Memory for a piece as it comes and as it is decoded, used again and again: new memory costs as much as to decode
    a small fetch.
    """
    body_bytes, raw_bytes = PIECE_BYTES + XET_GEARHASH_BLAKE3.max_chunk_bytes + CHUNK_HEADER_BYTES, 2 * PIECE_BYTES
    try:
        body, raw = _SPARE.pop()
    except IndexError:
        body = raw = memoryview(b"")
    if (len(body), len(raw)) != (body_bytes, raw_bytes):
        body, raw = _memory(body_bytes), _memory(raw_bytes)
    try:
        yield body, raw
    finally:
        _SPARE.append((body, raw))


def _memory(nbytes: int) -> memoryview:
    """Memory that exists only as far as it is written to: many fetches are small."""
    return memoryview(mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
