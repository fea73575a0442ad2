"""FilePage: some files with all their rows, of one snapshot of the index, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Final, Self

from xetstore.cas.index import Reader, ShardRow, XorbRow
from xetstore.cas.index.queries.rewriting import Segments
from xetstore.cas.index.queries.rows import TERM, PackedTerm, terms_of, unpack_terms
from xetstore.errors import IntegrityError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.records import FileRecord

if TYPE_CHECKING:
    from xetstore.cas.index import Index

_MOST_TERMS: Final = 20_000
"""Terms of a page, of which each may have a xorb of its own. A file that has more is alone in one."""


@dataclass(frozen=True, slots=True)
class FileRows:
    """A file: its record, its packed terms, its edges (first byte by xorb id), and the oldest shard that names it."""

    id: int
    record: FileRecord
    segments: Segments
    edges: Mapping[int, int]
    shard: ShardRow | None

    @property
    def packed(self) -> Iterator[PackedTerm]:
        """Its terms, with ids of xorbs. Raises DamagedError."""
        return chain.from_iterable(unpack_terms(payload, self.record.hash) for _, payload in self.segments)

    @property
    def term_count(self) -> int:
        """The number of its terms, as they are there."""
        return sum(len(payload) for _, payload in self.segments) // TERM.size


@dataclass(frozen=True, slots=True)
class FilePage:
    """Files with all their rows, and their xorbs by id. ``has_unlinked`` is True if there are shards of which only the
    objects tell what they name, and files that no other shard does.
    """

    files: tuple[FileRows, ...]
    xorbs: Mapping[int, XorbRow]
    has_unlinked: bool

    @classmethod
    def read(cls, reader: Reader, listed: Sequence[tuple[int, FileRecord]]) -> Self:
        """The rows of these files. Raises DamagedError where one of them cannot be read at all."""
        ids = [file_id for file_id, _ in listed]
        segments, edges, shards = reader.segments_of(ids), reader.edges_of(ids), reader.first_shards(ids)
        files = tuple(
            FileRows(number, record, segments.get(number, ()), edges[number], shards.get(number))
            for number, record in listed
        )
        # A list of terms that is broken is told where they are unpacked.
        payloads = (payload for each in segments.values() for _, payload in each if not len(payload) % TERM.size)
        used = {term[0] for payload in payloads for term in TERM.iter_unpack(payload)}
        is_unnamed = any(file.shard is None and file.segments for file in files)
        return cls(files, reader.xorbs_with(used), is_unnamed and reader.has_unlinked_shards())

    def xorbs_of(self, file: FileRows) -> list[Hash]:
        """The xorbs of a file, each once. Raises DamagedError for one that is not there."""
        ids = {term[0] for term in file.packed}
        if not ids <= self.xorbs.keys():
            terms_of(file.packed, self.xorbs, file.record.hash)
        return [self.xorbs[xorb_id].hash for xorb_id in ids]

    def terms(self, file: FileRows) -> Iterator[Term]:
        """The terms of a file whose xorbs are there."""
        return (Term(self.xorbs[xorb_id].hash, *rest) for xorb_id, *rest in file.packed)


def file_pages(index: Index) -> Iterator[tuple[Sequence[tuple[int, FileRecord]], FilePage | None]]:
    """All files in pages, by id; a page is None if the rows of one of its files cannot be read."""
    behind = 0
    while True:
        listed: Sequence[tuple[int, FileRecord]] = ()
        page = None
        try:
            with index.snapshot() as reader:
                listed = _bounded(reader.files_after(behind, None))
                page = FilePage.read(reader, listed)
        except IntegrityError:
            if not listed:
                raise
        if not listed:
            return
        yield listed, page
        behind = listed[-1][0]


def file_page(index: Index, file_id: int) -> FilePage | None:
    """The page of one file, as it is now; None if it is not there any more. Raises DamagedError."""
    with index.snapshot() as reader:
        listed = [each for each in reader.files_after(file_id - 1, None)[:1] if each[0] == file_id]
        return FilePage.read(reader, listed) if listed else None


def _bounded(listed: Sequence[tuple[int, FileRecord]]) -> Sequence[tuple[int, FileRecord]]:
    """As many of these files as have no more terms than a page, but one at least."""
    terms = 0

    def fits(each: tuple[int, FileRecord]) -> bool:
        nonlocal terms
        terms += each[1].terms or 0
        return terms <= _MOST_TERMS

    return [*takewhile(fits, listed)] or listed[:1]
