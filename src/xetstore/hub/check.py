"""Check of the names: refs lead to commits, commits to trees, trees to files that are there and may be read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from xetstore.batches import batches, sized_batches
from xetstore.cas.check import CheckReport, Problem
from xetstore.database.connection import Row
from xetstore.errors import DamagedError
from xetstore.hub.objects import SUBMODULE, CommitData, ObjectKind, inflated, object_id, read_tree, tagged
from xetstore.hub.queries import HubReader, RepositoryRow
from xetstore.hub.queries.copying import BUCKET_FILES, PAGE_ROWS, REPOSITORIES, REVISIONS
from xetstore.protocol.hashes import Hash

if TYPE_CHECKING:
    from xetstore.cas.index import Index
    from xetstore.hub.service import EmbeddedHub

REMEMBERED: Final = 500_000
"""Objects of a repository that were looked at and are known to be well: some 50 MB. Then they are looked at again."""

OID_BYTES: Final = 20
_COMMITS: Final = 200
_TREES: Final = 50
_BLOBS: Final = 1000
"""The most that are read by one query."""
_BLOB_BYTES: Final = 4 << 20
"""The most bytes of blobs that are read by one query, unless one is longer."""


def verify_names(hub: EmbeddedHub) -> list[str]:
    """The faults of all repositories, as sentences; empty if there are none. Reads every object of their histories."""
    return [str(problem) for problem in _Names(hub.cas.index, read_data=True).problems()]


def check_names(index: Index, report: CheckReport, *, read_data: bool) -> CheckReport:
    """The report on a store whose index has tables for names, with the faults of its repositories.

    1. A ref names a commit or a tag that is there, and a commit's row says what its object says.
    2. The first parent of a commit is the one before it on its line, or the one from which its line goes on.
    3. A tree's objects are all there, under their own ids; those of files are read with ``read_data``.
    4. The file of a pointer, and of a path in a bucket, is granted to the namespace of the repository.

    It may be in use, and takes bounded memory, however long a history is.
    """
    names = _Names(index, read_data=read_data)
    problems = tuple(names.problems())
    return replace(report, problems=report.problems + problems, repositories=names.count)


class _Names:
    def __init__(self, index: Index, *, read_data: bool) -> None:
        self._index = index
        self._read_data = read_data
        self.count = 0

    def problems(self) -> Iterator[Problem]:
        """The faults of all repositories, page by page."""
        behind: Row | None = None
        while True:
            with self._index.snapshot() as reader:
                names = HubReader(reader.connection)
                page = names.page(REPOSITORIES, {}, behind)
                rows = [row for each in page if (row := names.repository_by_id(each[0])) is not None]
            for row in rows:
                self.count += 1
                yield from _RepositoryCheck(self._index, row, read_data=self._read_data).problems()
            if len(page) < PAGE_ROWS:
                return
            behind = page[-1][:1]


class _RepositoryCheck:
    """Each question has a snapshot of its own: what a repository has once, it has until it is deleted."""

    def __init__(self, index: Index, row: RepositoryRow, *, read_data: bool) -> None:
        self._index = index
        self._row = row
        self._read_data = read_data
        self._well: set[bytes] = set()

    def problems(self) -> Iterator[Problem]:
        """All faults; none of a repository that is deleted meanwhile."""
        for problem in self._git() if self._row.kind.is_git else self._bucket():
            with self._index.snapshot() as reader:
                if HubReader(reader.connection).repository_by_id(self._row.id) is None:
                    return
            yield problem

    def _problem(self, what: str, *files: Hash) -> Problem:
        return Problem(f"repository {self._row.name}", what, files)

    def _git(self) -> Iterator[Problem]:
        yield from self._refs()
        behind: Row | None = None
        before: Row | None = None
        while True:
            with self._index.snapshot() as reader:
                page = HubReader(reader.connection).page(
                    REVISIONS, {"repository_id": self._row.id}, behind, limit=_COMMITS
                )
                faults, roots = self._revisions(HubReader(reader.connection), page, before)
            yield from map(self._problem, faults)
            yield from self._trees(roots)
            if len(page) < _COMMITS:
                return
            behind = REVISIONS.key_of(page[-1])
            before = page[-1] if len(page[-1][2]) == OID_BYTES else None

    def _refs(self) -> Iterator[Problem]:
        number = self._row.id
        with self._index.snapshot() as reader:
            names = HubReader(reader.connection)
            refs = names.refs(number)
            refs += ((f"{each.name}, which is deleted,", each.oid) for each in names.deleted_refs(number))
            commits = names.revisions(number, {oid for _, oid in refs})
            others = _sound(names, number, {oid for _, oid in refs} - commits.keys())
            peeled = {oid: tagged(data)[0] for oid, (kind, data) in others.items() if kind is ObjectKind.TAG}
            tips = commits.keys() | names.revisions(number, peeled.values()).keys()
        for name, oid in refs:
            if peeled.get(oid, oid) not in tips:
                yield self._problem(f"{name} names a commit that is not there")

    def _revisions(self, reader: HubReader, page: Sequence[Row], before: Row | None) -> tuple[list[str], list[bytes]]:
        """The faults of a page of revisions, and the trees of those without."""
        number, faults, roots = self._row.id, list[str](), list[bytes]()
        page = [row for row in page if len(row[2]) == OID_BYTES]  # others are places that stay taken
        found = _sound(reader, number, [row[2] for row in page])
        forks = reader.forks_of(number, {row[0] for row in page})
        for row in page:
            line, place, oid, tree = row[:4]
            base, fork = forks.get(line, (None, None))
            parent: bytes | None = None
            if before is not None and (before[0], before[1]) == (line, place - 1):
                parent = before[2]
            elif base is not None and fork is not None and place == fork + 1:
                forked = reader.revision_at(number, base, fork)
                parent = b"" if forked is None else forked.oid
            elif place != 1:
                parent = b""
            before = row
            if parent == b"":
                faults.append(f"the commit before {oid.hex()} is not there")
            elif oid not in found or found[oid][0] is not ObjectKind.COMMIT:
                faults.append(f"commit {oid.hex()} is not there, or damaged")
            else:
                commit = CommitData.parse(found[oid][1])
                if commit.tree != tree or (commit.parents[0] if commit.parents else None) != parent:
                    faults.append(f"commit {oid.hex()} is not what its row says")
                lacking = {*commit.parents[1:]} - reader.known_objects(number, commit.parents[1:])
                faults += (f"commit {each.hex()}, a parent of {oid.hex()}, is not there" for each in lacking)
                roots.append(tree)
        return faults, roots

    def _trees(self, roots: Collection[bytes]) -> Iterator[Problem]:
        left = dict.fromkeys(oid for oid in roots if oid not in self._well)
        while left:
            batch = {left.popitem()[0] for _ in range(min(_TREES, len(left)))}
            self._remember(batch)
            with self._index.snapshot() as reader:
                found = _sound(HubReader(reader.connection), self._row.id, batch)
            trees = {oid: data for oid, (kind, data) in found.items() if kind is ObjectKind.TREE}
            for oid in sorted(batch - trees.keys()):
                yield self._problem(f"tree {oid.hex()} is not there, or damaged")
            files: dict[bytes, None] = {}
            for data in trees.values():
                for item in read_tree(data).values():
                    if item.oid in self._well or item.mode == SUBMODULE:
                        continue
                    if item.is_folder:
                        left[item.oid] = None
                    else:
                        files[item.oid] = None
            for some in batches(files, _BLOBS):
                self._remember(some)
                yield from self._blobs(some)

    def _remember(self, oids: Collection[bytes]) -> None:
        if len(self._well) > REMEMBERED:
            self._well.clear()
        self._well.update(oids)

    def _blobs(self, oids: Collection[bytes]) -> Iterator[Problem]:
        with self._index.snapshot() as reader:
            names = HubReader(reader.connection)
            blobs = names.blobs(self._row.id, oids)
            pointed = {row.file for row in blobs.values() if row.file is not None}
            lacking = pointed - names.granted(self._row.namespace, pointed)
        for oid in {*oids} - blobs.keys():
            yield self._problem(f"file {oid.hex()} is not there")
        for file in sorted(lacking, key=str):
            yield self._problem(f"the Xet file {file} is named, and not granted to {self._row.namespace}", file)
        for group in sized_batches(blobs if self._read_data else (), lambda oid: blobs[oid].size, _BLOB_BYTES):
            yield from self._contents(group)

    def _contents(self, oids: Sequence[bytes]) -> Iterator[Problem]:
        with self._index.snapshot() as reader:
            found = _sound(HubReader(reader.connection), self._row.id, oids)
        for oid in oids:
            if oid not in found or found[oid][0] is not ObjectKind.BLOB:
                yield self._problem(f"file {oid.hex()} is damaged")

    def _bucket(self) -> Iterator[Problem]:
        behind: Row | None = None
        while True:
            with self._index.snapshot() as reader:
                names = HubReader(reader.connection)
                page = names.page(BUCKET_FILES, {"repository_id": self._row.id}, behind)
                files = {Hash(row[1]): row[0] for row in page if row[2]}  # an empty file is never granted
                lacking = files.keys() - names.granted(self._row.namespace, files.keys())
            for file in sorted(lacking, key=str):
                yield self._problem(f"{files[file]} is the Xet file {file}, which is not granted", file)
            if len(page) < PAGE_ROWS:
                break
            behind = BUCKET_FILES.key_of(page[-1])
        with self._index.snapshot() as reader:
            names = HubReader(reader.connection)
            deleted = {each.file.file: each.file.path for each in names.deleted_bucket_files(self._row.id)}
            lacking = {file for file in deleted if file != Hash.ZERO}
            lacking -= names.granted(self._row.namespace, lacking)
        for file in sorted(lacking, key=str):
            yield self._problem(
                f"{deleted[file]}, which is deleted, is the Xet file {file}, which is not granted", file
            )


def _sound(reader: HubReader, number: int, oids: Collection[bytes]) -> dict[bytes, tuple[ObjectKind, bytes]]:
    """Kind and data of those of these objects that are there, and are what their ids say."""
    found = {}
    for row in reader.whole_objects(number, oids):
        with suppress(DamagedError, ValueError):
            kind, data = ObjectKind(row["kind"]), inflated(row["data"], row["size"])
            if object_id(kind, data) == row["oid"]:
                found[row["oid"]] = kind, data
    return found
