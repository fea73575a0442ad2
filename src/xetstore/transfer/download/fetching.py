"""One fetch of a download: from the chunk cache or the Cas, decoded and checked piece by piece; if need be again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from xetstore.errors import ForbiddenError, FormatError, IntegrityError, NotFoundError, RangeError
from xetstore.events import Damaged, RangeFetched
from xetstore.protocol import kernel
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.transfer.download.buffers import piece_buffers
from xetstore.transfer.download.delivery import Advance, Delivery, Destination
from xetstore.transfer.download.plan import Part, Run, restrict

if TYPE_CHECKING:
    from xetstore.interfaces import ByteStream
    from xetstore.transfer.download.context import Context
    from xetstore.transfer.download.reconstructions import Reconstructions

THREADS_FROM_BYTES: Final = 2 << 20
"""Less that came along is decoded by one thread: to begin another costs more than it saves."""


class Fetched(NamedTuple):
    """The chunks of a part that are in the file now. ``fetched_bytes`` of xorbs came from the Cas for them,
    ``reused_bytes`` of the file from the chunk cache.
    """

    runs: list[Run]
    fetched_bytes: int
    reused_bytes: int


class PartFetch:
    """The fetch of one part. One thread uses it, for one part; ``threads`` are for the kernel.

    ``fetched_bytes`` of xorbs came from the Cas, in vain or not.
    """

    def __init__(self, context: Context, destination: Destination, threads: int) -> None:
        self._context = context
        self._destination = destination
        self._threads = threads
        self._advance = Advance(destination.progress)
        self._reused_bytes = 0
        self.fetched_bytes = 0

    def run(self, part: Part, asking: Reconstructions) -> Fetched:
        """Fetch and deliver a part.

        A damaged range, and one that may not be read any more because its URL has expired, is asked for once more.
        Raises SinkError, and whatever the Cas raises.
        """
        todo = [part]
        has_expired = is_damaged = False
        while True:
            self._advance.begin()
            try:
                runs = [run for each in todo for run in self.once(each)]
                return Fetched(runs, self.fetched_bytes, self._reused_bytes)
            except ForbiddenError:
                if has_expired:
                    raise
                has_expired = True
            except (IntegrityError, NotFoundError, RangeError) as error:
                # A xorb, or bytes of it, that are not there were the reconstruction's mistake if not the store's.
                self._context.emit(Damaged(str(error), refetching=not is_damaged))
                if is_damaged:
                    self._context.suspect(part.fetch.xorb)
                    hint = self._context.damage_hint
                    if isinstance(error, RangeError):
                        raise IntegrityError(str(error), hint=hint) from error
                    error.hint = error.hint or hint
                    raise
                is_damaged = True
            window = asking.ask_exactly(*part.span)
            todo = restrict(window.parts, ((use.position, use.end) for use in part.uses))

    def once(self, part: Part) -> list[Run]:
        """Deliver a part, from the chunk cache or the Cas: the runs of chunks that are in the file now."""
        context, fetch = self._context, part.fetch
        context.workers.check()
        if part.body is not None:
            runs = self._read_here(part, part.body)
            context.emit(RangeFetched(fetch.xorb, fetch.byte_start, fetch.byte_end, cached=False))
            return runs
        cached = context.reuse.cached(fetch)
        if cached is not None:
            with cached:
                try:
                    runs = self._read(part, cached, cached.byte_count, cached.hashes)
                except IntegrityError:
                    cached.discard()
                    self._advance.begin()
                else:
                    self._reused_bytes += sum(use.length for use in part.uses)
                    context.emit(RangeFetched(fetch.xorb, fetch.byte_start, fetch.byte_end, cached=True))
                    return runs
        with context.cas.fetch_xorb(fetch) as source:
            runs = self._read(part, source, fetch.byte_end - fetch.byte_start)
        context.emit(RangeFetched(fetch.xorb, fetch.byte_start, fetch.byte_end, cached=False))
        return runs

    def _read(self, part: Part, source: ByteStream, nbytes: int, recorded: bytes | None = None) -> list[Run]:
        """Decode, check and deliver. ``recorded`` are the hashes of chunks from the cache, as they were verified."""
        reuse = self._context.reuse
        delivery = Delivery(part, self._destination, self._advance, recorded)
        body: list[bytes] | None = [] if recorded is None and reuse.keeps(nbytes) else None
        found: list[ChunkList] = []
        with piece_buffers(self._context.options.piece_bytes) as (buffer, raw):
            for chunks, used in self._decoded(part, source, nbytes, buffer, raw, is_cached=recorded is not None):
                delivery.deliver(chunks, raw)
                found.append(chunks)
                if body is not None:
                    body.append(bytes(buffer[:used]))
        chunks = ChunkList.concat(found)
        runs = delivery.finish(chunks)
        if body and runs[0].verified:
            reuse.keep(part.fetch, body, chunks)
        return runs

    def _read_here(self, part: Part, body: memoryview) -> list[Run]:
        """Decode, check and deliver bytes that came along with the reconstruction, from where they are."""
        fetch, reuse, workers = part.fetch, self._context.reuse, self._context.workers
        delivery = Delivery(part, self._destination, self._advance)
        found: list[ChunkList] = []
        pieces: list[memoryview] = []
        left = body
        threads = 1 if len(body) < THREADS_FROM_BYTES else self._threads
        with piece_buffers(self._context.options.piece_bytes) as (buffer, raw):
            while left:
                piece = left[: len(buffer)]
                chunks, used = self._decode(
                    part, piece, raw, fetch.byte_end - len(left), threads=threads, final=len(piece) == len(left)
                )
                self.fetched_bytes += used
                workers.arrived(used)
                delivery.deliver(chunks, raw)
                found.append(chunks)
                pieces.append(left[:used])
                left = left[used:]
        chunks = ChunkList.concat(found)
        runs = delivery.finish(chunks)
        if reuse.keeps(len(body)) and runs[0].verified:
            reuse.keep(fetch, pieces, chunks)
        return runs

    def _decode(
        self, part: Part, piece: memoryview, raw: memoryview, at: int, *, threads: int, final: bool
    ) -> tuple[ChunkList, int]:
        """Decode chunks to the start of ``raw``, of a piece from byte ``at`` of the xorb on; and how much they were."""
        try:
            hashes, lengths, used = kernel.decode_chunks(
                XET_GEARHASH_BLAKE3.kernel, piece, raw, final=final, threads=threads
            )
        except FormatError as error:
            raise IntegrityError(
                f"xorb {part.fetch.xorb} is damaged at byte {at + error.offset}: {error.detail}"
            ) from error
        return ChunkList(hashes, lengths), used

    def _decoded(
        self, part: Part, source: ByteStream, nbytes: int, body: memoryview, raw: memoryview, *, is_cached: bool
    ) -> Iterator[tuple[ChunkList, int]]:
        """Yield the chunks of each piece, decoded to the start of ``raw``, and how much of ``body`` they were."""
        fetch, workers = part.fetch, self._context.workers
        left, filled = nbytes, 0
        while left or filled:
            while left and filled < len(body):
                count = source.readinto(body[filled : filled + left])
                if count == 0:
                    raise IntegrityError(f"xorb {fetch.xorb} ends {left} bytes too early")
                filled, left = filled + count, left - count
                if not is_cached:
                    self.fetched_bytes += count
                    workers.arrived(count)
            workers.check()
            at = fetch.byte_start + nbytes - left - filled
            chunks, used = self._decode(part, body[:filled], raw, at, threads=self._threads, final=not left)
            yield chunks, used
            body[: filled - used] = body[used:filled]
            filled -= used
        if extra := source.readinto(body[:1]):
            self.fetched_bytes += extra
            raise IntegrityError(f"xorb {fetch.xorb} goes on behind the {nbytes} bytes that were asked for")
