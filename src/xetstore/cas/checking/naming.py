"""Naming: the check that the index can be made anew from shards: they name all files, and none that is gone."""

from __future__ import annotations

from collections import OrderedDict
from operator import eq
from typing import TYPE_CHECKING, Final

from xetstore.cas.checking.pages import FilePage, FileRows
from xetstore.cas.claims import ClaimCheck, named_xorbs
from xetstore.cas.index import ShardRow
from xetstore.errors import IntegrityError, NotFoundError
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.shard import FileEntry, Shard

if TYPE_CHECKING:
    from xetstore.cas.service import EmbeddedCas

_REMEMBERED: Final = 4
"""Shards: files that were registered together are looked at together."""


class NamingCheck:
    """Checks files, one after the other. With ``reads`` the objects of shards are read. Not thread-safe.

    ``notes`` are of files that no shard names yet.
    """

    def __init__(self, cas: EmbeddedCas, *, reads: bool) -> None:
        self._cas = cas
        self._reads = reads
        self.notes: list[str] = []
        self._shards: OrderedDict[Hash, dict[Hash, FileEntry]] = OrderedDict()

    def file_fault(self, page: FilePage, file: FileRows) -> str | None:
        """The fault of how shards name a file, whose terms make it, or None. A damaged shard has a fault of its own."""
        if not file.segments:
            return None
        name = file.record.hash
        if file.shard is None:
            if not page.has_unlinked:  # it was copied from another store, and its shard was not yet
                self.notes.append(f"file {name} is named by no shard yet: a rewrite writes one")
            return None
        if not self._reads or self._names(file.shard, page, file):
            return None
        with self._cas.index.snapshot() as reader:
            others = reader.shards(reader.shards_of(name)).values()
        if any(self._names(row, page, file) for row in others):
            return None
        return "no shard names it with terms that make it"

    def _names(self, row: ShardRow, page: FilePage, file: FileRows) -> bool:
        """True if a shard names a file with terms that make it, or is damaged."""
        entries = self._entries(row)
        if entries is None:
            return True
        entry = entries.get(file.record.hash)
        if entry is None:
            return False
        if len(entry.terms) == file.term_count and all(map(eq, entry.terms, page.terms(file))):
            return True
        alone = Shard((entry,))
        with self._cas.index.snapshot() as reader:
            xorbs = reader.xorbs(named_xorbs(alone))
        try:
            ClaimCheck(xorbs, self._cas.footers).check(alone)
        except (IntegrityError, KeyError):  # a xorb that is not registered
            return False
        return True

    def _entries(self, row: ShardRow) -> dict[Hash, FileEntry] | None:
        if row.is_damaged:
            return None
        if row.hash not in self._shards:
            try:
                data = self._cas.blobs.get(row.key)
                if chunk_hash(data) != row.hash:
                    return None
                shard = Shard.parse(data)
            except (IntegrityError, NotFoundError):
                return None
            self._shards[row.hash] = {entry.hash: entry for entry in shard.files}
            if len(self._shards) > _REMEMBERED:
                self._shards.popitem(last=False)
        self._shards.move_to_end(row.hash)
        return self._shards[row.hash]


def shard_fault(cas: EmbeddedCas, row: ShardRow, shard: Shard) -> str | None:
    """The fault in what a shard names, or None."""
    names = [entry.hash for entry in shard.files]
    with cas.index.snapshot() as reader:
        if not reader.is_current(row):
            return None  # a rewrite has it to do
        gone = set(names) - reader.file_records(names).keys()
    return f"it names file {min(gone, key=str)}, which is gone" if gone else None
