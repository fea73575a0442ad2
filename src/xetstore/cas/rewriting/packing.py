"""Packing: a new xorb of chunks of others, which are copied as they are stored."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from xetstore.cas.footers import damaged
from xetstore.cas.index import XorbRow
from xetstore.cas.rewriting.run import Run
from xetstore.errors import DamagedError, FormatError, HashMismatchError, IntegrityError
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, xorb_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.protocol.xorb import XorbInfo

if TYPE_CHECKING:
    from typing_extensions import Buffer

_BLOCK_BYTES: Final = 4 << 20


class Piece(NamedTuple):
    """Chunks ``[start, end)`` of a xorb, and their copies in ``target``, from chunk ``first`` on."""

    start: int
    end: int
    target: Hash
    first: int
    chunks: ChunkList


class Packing:
    """One new xorb: runs of chunks of others, in order. Up to the limits of a xorb that we write."""

    def __init__(self) -> None:
        self.runs: list[tuple[XorbRow, XorbInfo, int, int]] = []
        self.chunk_count = 0
        self._raw_bytes = 0

    def has_room_for(self, chunks: Iterable[ChunkList]) -> bool:
        """True if it can take all of these; the first ones it can always: they were in one xorb."""
        taken = [*chunks]
        suite = XET_GEARHASH_BLAKE3
        return not self.runs or (
            self.chunk_count + sum(map(len, taken)) <= suite.max_xorb_chunks
            and self._raw_bytes + sum(each.total_bytes for each in taken) <= suite.max_xorb_bytes
        )

    def take(self, row: XorbRow, info: XorbInfo, start: int, end: int) -> None:
        """Append chunks of a xorb."""
        last = self.runs[-1] if self.runs else None
        if last is not None and (last[0].id, last[3]) == (row.id, start):
            self.runs[-1] = (row, info, last[2], end)
        else:
            self.runs.append((row, info, start, end))
        self.chunk_count += end - start
        self._raw_bytes += info.chunks.slice(start, end).total_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes of its region."""
        return sum(last - first for first, last in (info.byte_range(start, end) for _, info, start, end in self.runs))

    @cached_property
    def name(self) -> Hash:
        """The hash that the new xorb will have, once all is taken."""
        chunks = ChunkList.concat([info.chunks.slice(start, end) for _, info, start, end in self.runs])
        return xorb_hash(chunks.hashes, chunks.lengths)

    def write(self, run: Run, holders: Collection[str]) -> XorbRow:
        """Store the new xorb, for the namespaces ``holders``; the row that it has then.

        It takes the way of an upload: every chunk is decoded and hashed. Raises DamagedError where one is not what it
        should be; its xorb is marked.
        """
        name, cas = self.name, run.cas
        first, *others = sorted(holders)
        with cas.in_namespace(first).receive_xorb(name, is_care=True) as receiver:
            try:
                if not receiver.is_known:
                    for part in self._stored(run):
                        receiver.write(part)
                        run.rest()
                receiver.commit()
            except (FormatError, HashMismatchError) as error:
                for row in {row.id: row for row, *_ in self.runs}.values():
                    cas.healing.look(row)
                raise DamagedError(f"a xorb that is rewritten is damaged: {error}") from error
        if others:
            run.lease.change(lambda writer: writer.add_holders((name, namespace) for namespace in others))
        with cas.index.snapshot() as reader:
            stored = reader.xorb(name)
        if stored is None or stored.is_damaged:
            raise IntegrityError(f"xorb {name} was deleted, or found damaged, just now")
        return stored

    def _stored(self, run: Run) -> Iterator[Buffer]:
        """The chunks as they are stored, some MiB at a time. Short runs take one call: objects may be far away."""
        batch: list[tuple[XorbRow, int, int]] = []
        total = 0
        for row, info, chunk_start, chunk_end in self.runs:
            start, end = info.byte_range(chunk_start, chunk_end)
            if batch and total + end - start > _BLOCK_BYTES:
                yield from _read_short(run, batch)
                batch, total = [], 0
            if end - start > _BLOCK_BYTES:
                yield from _read_long(run, row, start, end)
            else:
                batch.append((row, start, end))
                total += end - start
        yield from _read_short(run, batch)


def _read_short(run: Run, ranges: Sequence[tuple[XorbRow, int, int]]) -> Iterator[bytes]:
    answers = run.cas.blobs.get_ranges([(row.key, start, end) for row, start, end in ranges]) if ranges else []
    for (row, _, _), answer in zip(ranges, answers, strict=True):
        if not isinstance(answer, bytes):
            run.cas.healing.mark(row)
            raise damaged(row.hash, str(answer)) from answer
        yield answer


def _read_long(run: Run, row: XorbRow, start: int, end: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    with run.cas.reader_of(row).read(start, end) as stream:
        while count := stream.readinto(buffer):
            yield buffer[:count]


class Moves:
    """Chunks of old xorbs that have copies in new ones."""

    def __init__(self, packings: Iterable[Packing]) -> None:
        self._pieces: dict[Hash, list[Piece]] = {}
        for packing in packings:
            first, target = 0, packing.name
            for row, info, start, end in packing.runs:
                piece = Piece(start, end, target, first, info.chunks.slice(start, end))
                self._pieces.setdefault(row.hash, []).append(piece)
                first += end - start
        for pieces in self._pieces.values():
            pieces.sort()

    def moved(self, terms: Iterable[Term]) -> list[Term]:
        """The same bytes from the copies. A term of which a chunk has none stays; copies that touch become one term."""
        moved: list[Term] = []
        for term in terms:
            for part in self._parts(term):
                last = moved[-1] if moved and part is not term else None
                if last is not None and (last.xorb, last.chunk_end) == (part.xorb, part.chunk_start):
                    nbytes = last.unpacked_bytes + part.unpacked_bytes
                    moved[-1] = Term(part.xorb, last.chunk_start, part.chunk_end, nbytes)
                else:
                    moved.append(part)
        return moved

    def _parts(self, term: Term) -> list[Term]:
        pieces = self._pieces.get(term.xorb, ())
        parts: list[Term] = []
        at = term.chunk_start
        number = bisect_right(pieces, at, key=lambda piece: piece.start) - 1
        while at < term.chunk_end:
            if not 0 <= number < len(pieces) or not pieces[number].start <= at < pieces[number].end:
                return [term]
            piece = pieces[number]
            end = min(term.chunk_end, piece.end)
            chunks = piece.chunks.slice(at - piece.start, end - piece.start)
            first = piece.first + at - piece.start
            parts.append(Term(piece.target, first, first + end - at, chunks.total_bytes))
            at, number = end, number + 1
        return parts
