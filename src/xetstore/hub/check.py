"""Check of the names: refs lead to commits, commits to trees, trees to files that are there and may be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from xetstore.hub.names import Kind
from xetstore.hub.objects import SUBMODULE, CommitData, ObjectKind, object_id, read_tree, tagged
from xetstore.hub.queries import HubReader, Listing, RepositoryRow
from xetstore.hub.service import EmbeddedHub

_PAGE: Final = 100


def verify_names(hub: EmbeddedHub) -> list[str]:
    """The faults of all repositories, as sentences; empty if there are none. Reads every object of their histories.

    1. A ref names a commit or a tag that is there, and a commit's row says what its object says.
    2. The first parents of a commit are the numbers below its own on its line and those that this goes on from.
    3. A tree's objects are all there, under their own ids.
    4. A pointer's file is granted to the namespace of the repository.
    """
    faults: list[str] = []
    for row in _repositories(hub):
        with hub.snapshot() as reader:
            if row.kind.is_git and reader.repository_by_id(row.id) is not None:
                faults += (f"{row.name}: {fault}" for fault in _RepositoryCheck(reader, row).faults())
    return faults


def _repositories(hub: EmbeddedHub) -> Iterator[RepositoryRow]:
    before: tuple[float, int] | None = None
    while True:
        listing = Listing(tuple(Kind), order="created", limit=_PAGE, before=before)
        with hub.snapshot() as reader:
            page = reader.repositories(listing, own=(), is_admin=True, sees_public=True)
        yield from page
        if len(page) < _PAGE:
            return
        before = page[-1].created_at, page[-1].id


class _RepositoryCheck:
    def __init__(self, reader: HubReader, row: RepositoryRow) -> None:
        self._reader = reader
        self._row = row
        self._seen: set[bytes] = set()

    def faults(self) -> Iterator[str]:
        """All faults of one repository."""
        reader, number = self._reader, self._row.id
        for name, oid in reader.refs(number):
            found = reader.object(number, oid)
            if found is not None and found[0] is ObjectKind.TAG:
                oid, _ = tagged(found[1])
                found = reader.object(number, oid)
            tip = reader.revision(number, oid)
            if found is None or tip is None:
                yield f"{name} names a commit that is not there"
                continue
            log = reader.log(number, tip, limit=tip.number)
            if [each.number for each in log] != list(range(tip.number, 0, -1)):
                yield f"{name} has {tip.number} commits, of which {len(log)} are there"
            for revision, parent in zip(log, [*log[1:], None], strict=True):
                yield from self._commit(revision.oid, revision.tree, None if parent is None else parent.oid)

    def _commit(self, oid: bytes, tree: bytes, parent: bytes | None) -> Iterator[str]:
        if oid in self._seen:
            return
        self._seen.add(oid)
        found = self._reader.object(self._row.id, oid)
        if found is None or found[0] is not ObjectKind.COMMIT or object_id(*found) != oid:
            yield f"commit {oid.hex()} is not there"
            return
        commit = CommitData.parse(found[1])
        if commit.tree != tree or (commit.parents[0] if commit.parents else None) != parent:
            yield f"commit {oid.hex()} is not what its row says"
        yield from self._trees(tree)

    def _trees(self, root: bytes) -> Iterator[str]:
        level, files = {root} - self._seen, set[bytes]()
        while level:
            self._seen |= level
            found = {oid: (kind, data) for oid, kind, data in self._reader.objects(self._row.id, level)}
            yield from (f"tree {oid.hex()} is not there" for oid in level - found.keys())
            below = set[bytes]()
            for oid, (kind, data) in found.items():
                if object_id(kind, data) != oid:
                    yield f"tree {oid.hex()} is damaged"
                    continue
                for item in read_tree(data).values():
                    if item.is_folder:
                        below.add(item.oid)
                    elif item.mode != SUBMODULE:
                        files.add(item.oid)
            level = below - self._seen
        yield from self._files(files - self._seen)

    def _files(self, oids: set[bytes]) -> Iterator[str]:
        self._seen |= oids
        blobs = self._reader.blobs(self._row.id, oids)
        yield from (f"file {oid.hex()} is not there" for oid in oids - blobs.keys())
        pointed = {row.file for row in blobs.values() if row.file is not None}
        for file in pointed - self._reader.granted(self._row.namespace, pointed):
            yield f"the Xet file {file} is named, and not granted to {self._row.namespace}"
