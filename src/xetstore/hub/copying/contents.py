"""ContentCopier: all that one repository has: git objects, then its history, then its refs, and what belongs to it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from xetstore.batches import batches, sized_batches
from xetstore.cas.copying.files import FileCopier
from xetstore.database.connection import Row
from xetstore.errors import DamagedError
from xetstore.hub.copying.rows import TwoStores, is_there
from xetstore.hub.names import Kind
from xetstore.hub.objects import GitObject, ObjectKind, inflated
from xetstore.hub.queries import HubWriter
from xetstore.hub.queries.copying import (
    ACCESS_REQUESTS,
    ACCOUNTS,
    BUCKET_FILES,
    CHANGED_PATHS,
    DISCUSSIONS,
    EVENTS,
    LFS_PARTS,
    LINES,
    PAGE_ROWS,
    REVISIONS,
    Copied,
)
from xetstore.protocol.hashes import Hash

_OBJECT_BYTES: Final = 4 << 20
"""The most bytes of git objects that are held at a time, unless one is longer."""
_ATTEMPTS: Final = 3
_OID: Final = 2
"""Place in a row of revisions."""
_SIZE: Final = 2
"""Place in a row of files of buckets."""


@dataclass(frozen=True, slots=True)
class Head:
    """A repository of the source at one moment. Its objects up to ``last_object`` are all that its ``refs`` lead to."""

    source_id: int
    columns: dict[str, Any]
    former_names: tuple[str, ...]
    refs: dict[str, bytes]
    last_object: int
    shrunk_at: float

    @property
    def name(self) -> str:
        """The name in reports."""
        return f"repository {self.columns['kind']}/{self.columns['owner']}/{self.columns['name']}"

    @property
    def namespace(self) -> str:
        """The namespace of its files."""
        namespace: str = self.columns["namespace"]
        return namespace

    @property
    def is_git(self) -> bool:
        """True if it has revisions."""
        return Kind(self.columns["kind"]).is_git

    @property
    def state(self) -> bytes:
        """A digest that changes with every commit, move of a ref, change of a bucket or of settings."""
        told = repr((sorted(self.columns.items()), self.former_names, sorted(self.refs.items()), self.last_object))
        return hashlib.sha256(told.encode()).digest()


class _DivergedError(Exception):
    """The target's history is another one."""


class ContentCopier:
    """Copies contents of repositories that the target has. To be called by one thread.

    Git objects never change, so the target gets those that it lacks; rows of history come when the objects are there,
    and refs when the history is. What is added to the source meanwhile comes with the next copy.
    """

    def __init__(self, stores: TwoStores, files: FileCopier, *, since_last: bool) -> None:
        self._stores = stores
        self._files = files
        self._since_last = since_last

    def fault(self, head: Head, number: int) -> str | None:
        """The reason for which a repository of the target must stay as it is: it was changed there."""
        with self._stores.target() as reader:
            refs = dict(reader.refs(number))
            row = reader.repository_by_id(number)
        if not self._may_move(head, number, refs):
            return "it has commits in the target that the source has not; it stays as it is"
        if not head.is_git and row is not None and row.updated_at > head.columns["updated_at"]:
            return "it was changed in the target after it was in the source; it stays as it is"
        return None

    def copy(self, head: Head, number: int | None) -> bool:
        """Copy what a repository has; True if anything was added. ``number`` is its id in the target, None where a dry
        run finds none there.
        """
        record = None
        if number is not None and self._stores.has_target:
            with self._stores.target() as reader:
                record = reader.copied(self._stores.source_id, number)
        is_same = self._since_last and record is not None and record.state == head.state
        if is_same and number is not None:
            return self._small_tables(head, number)
        known = record.last_object if record is not None and record.state is not None and self._since_last else 0
        if record is None or known > head.last_object or record.shrunk_at != head.shrunk_at:
            known = 0  # ids of objects that are gone may be those of others now
        added = self._objects(head, number, known)
        self._stores.tally.git_objects += added
        if number is None:
            return True
        if not self._stores.run.is_dry:
            try:
                self._history(head, number, known)
            except _DivergedError:
                self._stores.report(
                    head.name, "it has a history in the target that the source has not; it stays as it is"
                )
                return False
        changed = self._small_tables(head, number)
        if not head.is_git:
            changed |= self._bucket(head, number)
        return self._finish(head, number) or changed or added > 0

    # Git objects

    def _objects(self, head: Head, number: int | None, known: int) -> int:
        """Copy the objects that are not there; how many there are of these."""
        stores, behind, added = self._stores, b"", 0
        while True:
            with stores.source() as reader:
                page = reader.listed_objects(head.source_id, behind, known=known, last=head.last_object)
            there = {}
            if number is not None:
                with stores.target() as reader:
                    there = reader.blobs(number, [oid for oid, _, _ in page])
            lacking = [(oid, size) for oid, size, _ in page if oid not in there]
            files = {oid: None if file is None else Hash(bytes(file)) for oid, _, file in page}
            other = {oid: files[oid] for oid, blob in there.items() if blob.file != files[oid]}
            added += len(lacking)
            if number is not None and not stores.run.is_dry:
                named = {files[oid] for oid, _ in lacking} | {*other.values()}
                self._bring(head, {file for file in named if file is not None})
                for group in sized_batches(lacking, itemgetter(1), _OBJECT_BYTES):
                    self._add(head, number, [oid for oid, _ in group])
                if other:
                    stores.change(lambda writer, other=other: _set_files(writer, head, number, other))  # type: ignore[misc]
            if len(page) < PAGE_ROWS:
                return added
            behind = page[-1][0]

    def _add(self, head: Head, number: int, oids: Collection[bytes]) -> None:
        with self._stores.source() as reader:
            rows = reader.whole_objects(head.source_id, oids)
        sound = [row for row in rows if self._is_sound(head, row)]

        def add(writer: HubWriter) -> None:
            granted = writer.keep_granted(
                head.namespace, {Hash(row["file"]) for row in sound if row["file"] is not None}
            )
            digests = {file.digest for file in granted}
            if writer.keep_repository(number) is not None:
                each = [{**row, "file": row["file"] if row["file"] in digests else None} for row in sound]
                writer.copy_whole(number, each)

        self._stores.change(add)

    def _is_sound(self, head: Head, row: dict[str, Any]) -> bool:
        """True if an object has its id; else that is reported."""
        try:
            made = GitObject.of(ObjectKind(row["kind"]), inflated(row["data"], row["size"]))
            if made.oid != row["oid"]:
                raise DamagedError("an object of a repository is not what its id says")
        except DamagedError as error:
            self._stores.report(f"{head.name}: object {row['oid'].hex()}", str(error))
            return False
        return True

    def _bring(self, head: Head, files: Collection[Hash]) -> None:
        """Let the target have those of these files that the source grants: they came since it was asked for files."""
        stores = self._stores
        with stores.target() as reader:
            lacking = {*files} - reader.granted(head.namespace, files)
        if not lacking:
            return
        with stores.source() as reader:
            granted = reader.granted(head.namespace, lacking)
        with stores.run.source.index.snapshot() as index:
            records = index.file_records(granted)
        self._files.copy([*records.values()])
        with stores.target() as reader:
            missing = granted - reader.granted(head.namespace, granted)
        if missing:
            stores.report(head.name, f"it lacks files that could not be copied: {min(map(str, missing))} is one")

    # History and refs

    def _history(self, head: Head, number: int, known: int) -> None:
        """Copy the revisions whose commits were copied. The paths that one changed are there before it is."""
        stores = self._stores
        scope, to = {"repository_id": head.source_id}, {"repository_id": number}
        stores.add(LINES, scope, to)
        complete: dict[int, int] = {}
        if known:
            with stores.target() as reader:
                complete = reader.last_numbers(number)
        stores.add(CHANGED_PATHS, scope, to, is_wanted=lambda row: row[2] > complete.get(row[1], 0))
        for batch in batches(stores.rows(REVISIONS, scope), PAGE_ROWS):
            with stores.source() as reader:
                oids = [row[_OID] for row in batch]
                new = reader.objects_between(head.source_id, oids, known=known, last=head.last_object)
            rows = [row for row in batch if row[_OID] in new]

            def add(writer: HubWriter, rows: Sequence[Row] = rows) -> None:
                if not is_there(writer, REVISIONS, to):
                    return
                writer.put_rows(REVISIONS, to, rows)
                if len(writer.revisions(number, [row[_OID] for row in rows])) < len(rows):
                    raise _DivergedError

            if rows:
                stores.change(add)

    def _unknown(self, head: Head, refs: dict[str, bytes]) -> bool:
        with self._stores.source() as reader:
            return not {*refs.values()} <= reader.known_objects(head.source_id, refs.values())

    def _as_copied(self, number: int, refs: dict[str, bytes]) -> bool:
        """True if the target has the refs that it was given. The source may have collected what they lead to."""
        with self._stores.target() as reader:
            record = reader.copied(self._stores.source_id, number)
        return record is not None and record.refs == _digest(refs)

    def _may_move(self, head: Head, number: int, before: dict[str, bytes]) -> bool:
        return not self._unknown(head, before) or self._as_copied(number, before)

    def _finish(self, head: Head, number: int) -> bool:
        """Let the refs be as they were in the source, and note that all is there; True if anything changed."""
        stores, source = self._stores, self._stores.source_id
        for _ in range(_ATTEMPTS):
            with stores.target() as reader:
                before = dict(reader.refs(number))
                there = reader.known_objects(number, head.refs.values())
                row = reader.repository_by_id(number)
            # One that is deleted in the source had, from some page on, no rows there. The next copy tells of it.
            if (
                row is None
                or not stores.is_in_source(head.source_id, head.namespace)
                or not self._may_move(head, number, before)
            ):
                return False
            refs = {name: oid for name, oid in head.refs.items() if oid in there}
            is_changed = refs != before or row.updated_at != head.columns["updated_at"]
            if stores.run.is_dry:
                return is_changed
            state = None if any(name.startswith(head.name) for name in stores.problems) else head.state

            def write(
                writer: HubWriter,
                before: dict[str, bytes] = before,
                refs: dict[str, bytes] = refs,
                state: bytes | None = state,
            ) -> bool:
                if writer.keep_repository(number) is None or dict(writer.refs(number)) != before:
                    return False
                moved = {name: oid for name, oid in refs.items() if before.get(name) != oid}
                left = [(name, oid) for name, oid in before.items() if refs.get(name) != oid]
                writer.keep_refs(number, left, deleted_at=self._stores.run.target.now())
                writer.set_refs(number, moved, before.keys() - refs.keys())
                writer.touch_repository(number, head.columns["updated_at"])
                if source:
                    copied = Copied(head.last_object, state, _digest(refs), head.shrunk_at)
                    writer.note_copied(source, number, head.namespace, copied)
                return True

            if stores.change(write):
                return is_changed
        return False

    # What belongs to it

    def _small_tables(self, head: Head, number: int) -> bool:
        stores = self._stores
        scope = {"repository_id": head.source_id, "next_number": head.columns["next_number"]}
        owned: dict[str, object] = {"repository_id": head.source_id}
        to: dict[str, object] = {"repository_id": number}
        written = stores.mirror(DISCUSSIONS, scope, to)
        written += stores.mirror(EVENTS, scope, to, admit=lambda writer, rows: _of_discussions(writer, number, rows))
        written += stores.mirror(ACCESS_REQUESTS, owned, to, admit=_of_known_users)
        written += stores.mirror(
            LFS_PARTS,
            owned,
            to,
            prepare=lambda rows: self._bring(head, {Hash(row[2]) for row in rows}),
            admit=lambda writer, rows: _of_granted(writer, head.namespace, rows, 2),
        )
        return written > 0

    def _bucket(self, head: Head, number: int) -> bool:
        written = self._stores.mirror(
            BUCKET_FILES,
            {"repository_id": head.source_id},
            {"repository_id": number},
            prepare=lambda rows: self._bring(head, {Hash(row[1]) for row in rows if row[_SIZE]}),
            admit=lambda writer, rows: _of_granted(writer, head.namespace, rows, 1),
        )
        return written > 0


def _digest(refs: dict[str, bytes]) -> bytes:
    return hashlib.sha256(repr(sorted(refs.items())).encode()).digest()


def _set_files(writer: HubWriter, head: Head, number: int, files: dict[bytes, Hash | None]) -> None:
    granted = writer.keep_granted(head.namespace, {file for file in files.values() if file is not None})
    writer.set_files(number, [(oid, file) for oid, file in files.items() if file is None or file in granted])


def _of_discussions(writer: HubWriter, number: int, rows: Sequence[Row]) -> list[Row]:
    there = writer.known_discussions(number, {row[0] for row in rows})
    return [row for row in rows if row[0] in there]


def _of_known_users(writer: HubWriter, rows: Sequence[Row]) -> list[Row]:
    there = {row[0] for row in writer.with_values(ACCOUNTS, "id", [row[0] for row in rows])}
    return [row for row in rows if row[0] in there]


def _of_granted(writer: HubWriter, namespace: str, rows: Sequence[Row], place: int) -> list[Row]:
    """Rows whose file, at a place of them, the namespace may read; empty files are never granted."""
    files = {Hash(row[place]) for row in rows}
    granted = writer.keep_granted(namespace, files) | {Hash.ZERO}
    return [row for row in rows if Hash(row[place]) in granted]
