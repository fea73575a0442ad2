"""Rescue: what is left of a xorb that cannot be made whole, in a xorb of its own, for the files that need no more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from xetstore.cas.index import XorbRow
from xetstore.cas.repair.entries import ALL_BYTES, entry_of, in_shards, register_entries
from xetstore.cas.repair.report import HurtFile, NamesOf
from xetstore.cas.repair.run import Run
from xetstore.cas.repair.salvage import Salvage
from xetstore.cas.repair.xorbs import store_xorb
from xetstore.errors import DamagedError, IntegrityError
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry
from xetstore.records import FileRecord


@dataclass(frozen=True, slots=True)
class _User:
    """A file of a damaged xorb, with all its terms, and those chunks of the xorb that it needs."""

    record: FileRecord
    terms: Sequence[Term]
    rows: Mapping[Hash, XorbRow]
    needed: frozenset[int]


@dataclass(slots=True)
class Rescue:
    """Rescues what it can of xorb after xorb, and remembers which bytes of which files stay lost."""

    run: Run
    _lost: dict[Hash, list[tuple[int, int]]] = field(default_factory=dict)
    _sizes: dict[Hash, int] = field(default_factory=dict)

    def rescue(self, salvage: Salvage) -> None:
        """Give what is left of a xorb to the files that need it."""
        name = salvage.name
        users = list(self._users(name))
        held = salvage.held
        whole = [user for user in users if user.needed <= held]
        hurt = [user for user in users if not user.needed <= held]
        # Of a file that stays hurt, what its own object still has can be read there.
        moved = whole + [user for user in hurt if not user.needed & held <= salvage.in_object]
        if moved:
            self._move(salvage, moved)
        if whole:
            counted = f"{len(whole)} file{'' if len(whole) == 1 else 's'}"
            self.run.mended(f"xorb {name}", f"what is left of it makes {counted} whole, in a xorb of its own")
        if hurt or not users:
            why = f"{_count(salvage)} of its {salvage.count} chunks are lost"
            self.run.left(f"xorb {name}", why if users else f"{why}; no file is made of it")
        for user in hurt:
            self._note_lost(user, name, salvage)

    def hurt_files(self, names_of: NamesOf) -> list[HurtFile]:
        """The files of which bytes stay lost, with their names."""
        names = names_of(self._lost.keys()) if self._lost else {}
        return [
            HurtFile(file, self._sizes[file], tuple(_joined(lost)), tuple(names.get(file, ())))
            for file, lost in self._lost.items()
        ]

    def _users(self, name: Hash) -> Iterator[_User]:
        index = self.run.cas.index
        with index.snapshot() as reader:
            row = reader.xorb(name)
            files = [] if row is None else reader.users_of(row.id)
        for file in files:
            try:
                with index.snapshot() as reader:
                    record = reader.file_records([file]).get(file)
                    _, terms, rows = reader.terms(file, 0, ALL_BYTES)
            except DamagedError:
                continue  # the file itself is a problem, and told of
            if record is not None:
                needed = {i for term in terms if term.xorb == name for i in range(term.chunk_start, term.chunk_end)}
                yield _User(record, terms, rows, frozenset(needed))

    def _move(self, salvage: Salvage, users: Sequence[_User]) -> None:
        """Store a xorb of what is left, and let these files be made of it."""
        run = self.run
        if run.is_dry:
            return
        assert salvage.chunks is not None
        numbers = sorted({i for user in users for i in user.needed} & salvage.held)
        info = store_xorb(run, salvage.region(numbers), None, None)
        places = {number: place for place, number in enumerate(numbers)}
        known = {salvage.name: salvage.chunks, info.hash: info.chunks}
        entries: list[FileEntry] = []
        for user in users:
            terms = list(_split(user.terms, salvage, places, info.hash))
            try:
                entry = entry_of(run, terms, user.rows, sha256=user.record.sha256, known=known)
            except IntegrityError as error:
                run.report.notes.append(f"file {user.record.hash} keeps its terms: {error}")
                continue
            if entry.hash == user.record.hash:
                entries.append(entry)
        for batch in in_shards(entries):
            register_entries(run, batch, known=known, rebound={entry.hash for entry in batch})

    def _note_lost(self, user: _User, name: Hash, salvage: Salvage) -> None:
        file = user.record.hash
        self._sizes[file] = user.record.size
        lost = self._lost.setdefault(file, [])
        position = 0
        for term in user.terms:
            if term.xorb == name:
                lost += _lost_in(term, position, salvage)
            position += term.unpacked_bytes


def _split(terms: Iterable[Term], salvage: Salvage, places: Mapping[int, int], to: Hash) -> Iterator[Term]:
    """The same terms, with the chunks that are in another xorb now taken from there."""
    chunks: ChunkList | None = salvage.chunks
    assert chunks is not None
    for term in terms:
        if term.xorb != salvage.name:
            yield term
            continue
        for is_there, start, end in _parts(term, places):
            nbytes = sum(chunks.sizes[start:end])
            if is_there:
                yield Term(to, places[start], places[start] + end - start, nbytes)
            else:
                yield Term(term.xorb, start, end, nbytes)


def _parts(term: Term, places: Mapping[int, int]) -> Iterator[tuple[bool, int, int]]:
    start = term.chunk_start
    while start < term.chunk_end:
        is_there, end = start in places, start + 1
        # Neighbours stay neighbours: the numbers of what is left are in order.
        while end < term.chunk_end and (end in places) == is_there:
            end += 1
        yield is_there, start, end
        start = end


def _lost_in(term: Term, position: int, salvage: Salvage) -> Iterator[tuple[int, int]]:
    chunks = salvage.chunks
    if chunks is None:
        yield position, position + term.unpacked_bytes
        return
    for i in range(term.chunk_start, term.chunk_end):
        size = chunks.sizes[i]
        if i not in salvage.held:
            yield position, position + size
        position += size


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _count(salvage: Salvage) -> int:
    return salvage.count - len(salvage.held)
