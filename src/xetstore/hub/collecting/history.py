"""HistoryCollector: git objects of one repository that no ref, deleted ref, discussion or pull request leads to.

What leads to an object is looked at from snapshots, and once more in each transaction that removes some: where there is
a new root by then, what it leads to is marked first. Commits go before the trees and files that they lead to, and each
before its parents; so what can be named at any moment is whole, and what is named is not removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Final

from xetstore.batches import batches
from xetstore.cas.audit import audit
from xetstore.cas.index import Writer
from xetstore.database.connection import Row
from xetstore.hub.collecting.reachable import ObjectTable, Reachable
from xetstore.hub.collecting.run import NamesRun
from xetstore.hub.objects import CommitData, ObjectKind, tagged
from xetstore.hub.queries import HubWriter
from xetstore.hub.queries.collecting import PAGE_ROWS, CollectedRow
from xetstore.hub.queries.copying import CHANGED_PATHS
from xetstore.hub.queries.copying import PAGE_ROWS as PATHS

_COMMITS: Final = 100
"""Commits that are removed by one transaction."""


class _GoneError(Exception):
    """The repository was deleted meanwhile."""


class HistoryCollector:
    """Collects the history of one repository, once."""

    def __init__(self, run: NamesRun, row: CollectedRow) -> None:
        self._run = run
        self._hub = run.hub
        self._id = row.id
        self._name = row.name
        self._reachable = Reachable(run.hub.snapshot, row.id, ObjectTable(()), run.throttle)

    def collect(self) -> None:
        """Remove what nothing leads to, and forget refs that can be given back no more. Raises DamagedError where a
        history cannot be read: then nothing is removed.
        """
        run, number = self._run, self._id
        if not run.is_dry:
            run.change(self._expire)
        table = ObjectTable(self._oids())
        self._reachable = Reachable(self._hub.snapshot, number, table, run.throttle)
        with self._hub.snapshot() as reader:
            roots = reader.roots(number, run.before)
        self._reachable.add(roots)
        commits = self._unreachable_commits()
        if run.is_dry:
            run.report.commits += len(commits)
            run.report.git_objects += sum(1 for _ in table.unmarked())
            return
        removed = 0
        try:
            for batch in batches(self._children_first(commits), _COMMITS):
                removed += self._remove(batch)
            for batch in batches(table.unmarked(), PAGE_ROWS):
                removed += self._remove(batch)
        except _GoneError:
            return
        finally:
            if removed:
                audit("git", f"{self._name}: {removed} objects")
        self._drop_places()
        run.change(lambda writer, _: writer.forget_expired_refs(number, run.began_at))

    def leads_to(self, oid: bytes) -> bool:
        """True if something leads to an object, or it came since."""
        return self._reachable.table.is_marked(oid)

    def _expire(self, writer: HubWriter, _: Writer) -> None:
        writer.alone_with_repository(self._id)
        writer.expire_refs(self._id, self._run.before)

    def _oids(self) -> Iterator[bytes]:
        behind = b""
        while True:
            with self._hub.snapshot() as reader:
                page = reader.oids(self._id, behind)
            yield from page
            if not page:
                return
            behind = page[-1]
            self._run.throttle.rest()

    def _unreachable_commits(self) -> dict[bytes, tuple[bytes, ...]]:
        """The commits and tags that nothing leads to, and the unreachable ones among the commits that these name."""
        found: dict[bytes, tuple[bytes, ...]] = {}
        for batch in batches(self._reachable.table.unmarked(), PAGE_ROWS):
            with self._hub.snapshot() as reader:
                kinds = reader.kinds(self._id, batch)
                named = [oid for oid, kind in kinds.items() if kind in (ObjectKind.COMMIT, ObjectKind.TAG)]
                for oid, kind, data in reader.objects(self._id, named):
                    parents = CommitData.parse(data).parents if kind is ObjectKind.COMMIT else (tagged(data)[0],)
                    found[oid] = tuple(each for each in parents if not self._reachable.table.is_marked(each))
            self._run.throttle.rest()
        return found

    @staticmethod
    def _children_first(commits: dict[bytes, tuple[bytes, ...]]) -> Iterator[bytes]:
        """Each commit before those that it names."""
        children = Counter(parent for parents in commits.values() for parent in parents)
        ready = [oid for oid in commits if not children[oid]]
        while ready:
            oid = ready.pop()
            yield oid
            for parent in commits.get(oid, ()):
                children[parent] -= 1
                if not children[parent] and parent in commits:
                    ready.append(parent)

    def _remove(self, oids: Collection[bytes]) -> int:
        """Remove those of these objects that nothing leads to; how many there were."""

        def remove(writer: HubWriter, _: Writer) -> set[bytes] | tuple[int, int]:
            if writer.keep_repository(self._id) is None:
                raise _GoneError
            roots = writer.roots(self._id, self._run.before)
            if not roots <= self._reachable.roots:
                return roots
            gone = [oid for oid in oids if not self._reachable.table.is_marked(oid)]
            commits = writer.end_revisions(self._id, gone)
            removed = writer.drop_objects(self._id, gone)
            if removed:
                writer.note_shrunk(self._id, self._hub.now())
            return removed, commits

        while isinstance(done := self._run.change(remove), set):
            self._reachable.add(done)
        removed, commits = done
        self._run.report.git_objects += removed
        self._run.report.commits += commits
        return removed

    def _drop_places(self) -> None:
        """Forget the paths that removed commits had changed, then these commits, and lines without any."""
        places: list[tuple[int, int]] = []
        with self._hub.snapshot() as reader:
            page = reader.ended_places(self._id)
        while page:
            places += ((line, place) for line, place, _ in page)
            with self._hub.snapshot() as reader:
                page = reader.ended_places(self._id, page[-1][2])
        if not places:
            return
        self._drop_paths({*places})
        for some in batches(places, PAGE_ROWS):
            self._run.change(lambda writer, _, some=some: writer.drop_places(self._id, some))  # type: ignore[misc]
        behind = -1
        while lines := self._run.change(lambda writer, _: writer.drop_empty_lines(self._id, behind)):  # noqa: B023
            behind = lines[-1]

    def _drop_paths(self, places: set[tuple[int, int]]) -> None:
        scope = {"repository_id": self._id}
        behind: Row | None = None
        while True:
            with self._hub.snapshot() as reader:
                page = reader.page(CHANGED_PATHS, scope, behind)
            gone = [row for row in page if (row[1], row[2]) in places]
            if gone:
                self._run.change(lambda writer, _, gone=gone: writer.drop_rows(CHANGED_PATHS, scope, gone))  # type: ignore[misc]
            if len(page) < PATHS:
                return
            behind = page[-1]
            self._run.throttle.rest()
