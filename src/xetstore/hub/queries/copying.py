"""Rows of one store that are written once more in another one: tables in pages, whatever their columns are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from xetstore.cas.index.queries.rows import Questions
from xetstore.database.connection import Row, Values
from xetstore.protocol.hashes import Hash

PAGE_ROWS: Final = 1000
"""Rows that are in memory of each store."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is copied. ``key`` are its columns by which pages go, ``others`` the rest.

    Of one whose rows belong to repositories (``is_owned``) the first column of its key, the id, is in neither.
    ``condition`` says which rows of the source are copied. Rows that ``only_grows`` gets are not replaced or removed.
    """

    name: str
    key: tuple[str, ...]
    others: tuple[str, ...] = ()
    is_owned: bool = True
    condition: str = ""
    only_grows: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a row, its key first."""
        return self.key + self.others

    def key_of(self, row: Row) -> Row:
        """The key of a row."""
        return row[: len(self.key)]


LINES: Final = Table("line", ("line",), ("base", "fork"), only_grows=True)
REVISIONS: Final = Table(
    "revision",
    ("line", "number"),
    ("oid", "tree", "title", "message", "author", "created_at", "digest"),
    only_grows=True,
)
CHANGED_PATHS: Final = Table("changed_path", ("path", "line", "number"), only_grows=True)
DISCUSSIONS: Final = Table(
    "discussion",
    ("number",),
    ("title", "is_pull_request", "status", "author", "base", "fork", "merge_oid", "created_at", "next_event"),
    condition="number < :next_number",
)
EVENTS: Final = Table(
    "discussion_event",
    ("number", "position"),
    ("kind", "author", "created_at", "content", "former", "edited_at", "is_hidden"),
    condition="number < :next_number",
)
ACCESS_REQUESTS: Final = Table("access_request", ("user_id",), ("status", "asked_at"))
LFS_PARTS: Final = Table("lfs_part", ("sha256", "number"), ("file", "size", "created_at"))
BUCKET_FILES: Final = Table("bucket_file", ("path",), ("file", "size", "modified_ms", "uploaded_at", "content_type"))
ACCOUNTS: Final = Table("account", ("id",), ("name", "name_key", "kind", "fullname", "created_at"), is_owned=False)
MEMBERS: Final = Table("member", ("org_id", "user_id"), ("role",), is_owned=False)
TOKENS: Final = Table(
    "access_token",
    ("id",),
    ("user_id", "name", "digest", "scope", "created_at", "last_used_at", "expires_at"),
    is_owned=False,
)
NAMESPACES: Final = Table("used_namespace", ("namespace",), is_owned=False, only_grows=True)
REPOSITORIES: Final = Table(
    "repository",
    ("id",),
    (
        *("kind", "owner", "owner_key", "name", "name_key", "namespace", "visibility", "gated", "sdk", "creator"),
        *("created_at", "updated_at", "next_number", "next_line", "deleted_at"),
    ),
    is_owned=False,
)

_LAST_OBJECT: Final = "SELECT coalesce(max(id), 0) FROM git_object WHERE repository_id = :repository_id"
_OBJECTS: Final = """
SELECT oid, size, file FROM git_object
WHERE repository_id = :repository_id AND oid > :behind AND id <= :last AND (id > :known OR sha256 IS NOT NULL)
ORDER BY oid LIMIT :limit
"""
_COMMITS: Final = """
SELECT oid FROM git_object
WHERE repository_id = :repository_id AND oid IN (:values) AND id > :known AND id <= :last
"""
_LAST_NUMBERS: Final = "SELECT line, max(number) FROM revision WHERE repository_id = :repository_id GROUP BY line"
_WHOLE: Final = """
SELECT oid, kind, size, sha256, file_size, file, data FROM git_object
WHERE repository_id = :repository_id AND oid IN (:values)
"""
_ADD_OBJECT: Final = """
INSERT INTO git_object (repository_id, oid, kind, size, sha256, file_size, file, data)
VALUES (:repository_id, :oid, :kind, :size, :sha256, :file_size, :file, :data)
ON CONFLICT (repository_id, oid) DO NOTHING
"""
_SET_FILE: Final = "UPDATE git_object SET file = :file WHERE repository_id = :repository_id AND oid = :oid"
_FORMER_NAMES: Final = "SELECT name_key FROM former_name WHERE repository_id = :repository_id ORDER BY name_key"
_ADD_FORMER: Final = """
INSERT INTO former_name (name_key, repository_id) VALUES (:key, :id)
ON CONFLICT (name_key) DO UPDATE SET repository_id = excluded.repository_id
"""
_DROP_FORMER: Final = "DELETE FROM former_name WHERE repository_id = :repository_id AND name_key = :key"
_PUT_REF: Final = """
INSERT INTO ref (repository_id, name, oid) VALUES (:repository_id, :name, :oid)
ON CONFLICT (repository_id, name) DO UPDATE SET oid = excluded.oid
"""
_DROP_REF: Final = "DELETE FROM ref WHERE repository_id = :repository_id AND name = :name"
_DISCUSSIONS: Final = "SELECT number FROM discussion WHERE repository_id = :repository_id AND number IN (:values)"
_COPIED: Final = """
SELECT last_object, state, refs, shrunk_at FROM copied_repository
WHERE source = :source AND repository_id = :repository_id
"""
_NOTE_COPIED: Final = """
INSERT INTO copied_repository (source, repository_id, namespace, last_object, state, refs, shrunk_at)
VALUES (:source, :repository_id, :namespace, :last_object, :state, :refs, :shrunk_at)
ON CONFLICT (source, repository_id) DO UPDATE SET
    last_object = excluded.last_object, state = excluded.state, refs = excluded.refs, shrunk_at = excluded.shrunk_at
"""
_COPIED_NAMESPACES: Final = """
SELECT repository_id, namespace FROM copied_repository
WHERE source = :source AND repository_id > :behind ORDER BY repository_id LIMIT :limit
"""
_COPIED_ACCOUNTS: Final = """
SELECT account_id FROM copied_account WHERE source = :source AND account_id > :behind ORDER BY account_id LIMIT :limit
"""
_ARE_COPIED: Final = "SELECT account_id FROM copied_account WHERE source = :source AND account_id IN (:values)"
_NOTE_ACCOUNT: Final = """
INSERT INTO copied_account (source, account_id) VALUES (:source, :account_id)
ON CONFLICT (source, account_id) DO NOTHING
"""
_FORGET_REPOSITORY: Final = "DELETE FROM copied_repository WHERE source = :source AND repository_id = :repository_id"
_FORGET_ACCOUNT: Final = "DELETE FROM copied_account WHERE source = :source AND account_id = :account_id"
_FORGET_TOKENS: Final = "DELETE FROM access_token WHERE user_id = :account_id"
_FORGET_MEMBER: Final = "DELETE FROM member WHERE user_id = :account_id OR org_id = :account_id"
_SET_ASIDE: Final = """
UPDATE repository SET owner = :owner, owner_key = :owner, name = :name, name_key = :name_key, visibility = 'private'
WHERE id = :id
"""
_FORGET_FORMER: Final = "DELETE FROM former_name WHERE repository_id = :id"
_ADD_REPOSITORY: Final = (
    f"INSERT INTO repository ({', '.join(REPOSITORIES.columns)})"
    f" VALUES ({', '.join(f':{name}' for name in REPOSITORIES.columns)}) ON CONFLICT DO NOTHING"
)
_SET_REPOSITORY: Final = (
    "UPDATE repository SET "
    + ", ".join(f"{name} = :{name}" for name in REPOSITORIES.others if name not in ("namespace", "updated_at"))
    + " WHERE id = :id"
)


@dataclass(frozen=True, slots=True)
class Copied:
    """The state of a copy of a repository: its last object and ``state``, None until all of it was; a digest of the
    ``refs`` that it was given, and when it had shrunk by then.
    """

    last_object: int = 0
    state: bytes | None = None
    refs: bytes | None = None
    shrunk_at: float = 0.0


class CopyQueries(Questions):
    """Questions of a copy. Pages are in the order of keys; one with fewer rows than asked for is the last."""

    def page(self, table: Table, scope: Values, behind: Row | None, limit: int = PAGE_ROWS) -> list[Row]:
        """The next page of a table; ``scope`` has the id of the repository; with more than that, its
        condition holds.
        """
        where = ["repository_id = :repository_id"] if table.is_owned else []
        where += [table.condition] if table.condition and len(scope) > 1 else []
        values = dict(scope)
        if behind is not None:
            places = [f":behind_{place}" for place in range(len(behind))]
            where.append(f"({', '.join(table.key)}) > ({', '.join(places)})")
            values |= {f"behind_{place}": value for place, value in enumerate(behind)}
        condition = f"WHERE {' AND '.join(where)}" if where else ""
        order = ", ".join(table.key)
        statement = f"SELECT {', '.join(table.columns)} FROM {table.name} {condition} ORDER BY {order} LIMIT :limit"
        return [*self._rows(statement, {**values, "limit": limit})]

    def with_values(self, table: Table, column: str, values: Iterable[object]) -> list[Row]:
        """The rows of a table that belongs to no repository with these values in a column."""
        columns = ", ".join(table.columns)
        return [*self.connection.rows_in(f"SELECT {columns} FROM {table.name} WHERE {column} IN (:values)", values)]

    def last_object(self, repository_id: int) -> int:
        """The largest id of the objects of a repository."""
        number: int = self.connection.value(_LAST_OBJECT, {"repository_id": repository_id})
        return number

    def listed_objects(
        self, repository_id: int, behind: bytes, *, known: int, last: int
    ) -> list[tuple[bytes, int, bytes | None]]:
        """The next page of objects up to the id ``last``: those behind ``known``, and all pointers. Id, bytes, file."""
        values = {"repository_id": repository_id, "behind": behind, "known": known, "last": last, "limit": PAGE_ROWS}
        return [*self._rows(_OBJECTS, values)]

    def objects_between(self, repository_id: int, oids: Iterable[bytes], *, known: int, last: int) -> set[bytes]:
        """Those of these objects whose ids as rows are behind ``known``, up to ``last``."""
        values = {"repository_id": repository_id, "known": known, "last": last}
        return {oid for (oid,) in self.connection.rows_in(_COMMITS, oids, values)}

    def last_numbers(self, repository_id: int) -> dict[int, int]:
        """The number of the last revision on each line."""
        return dict(self._rows(_LAST_NUMBERS, {"repository_id": repository_id}))

    def whole_objects(self, repository_id: int, oids: Collection[bytes]) -> list[dict[str, Any]]:
        """Objects by their columns, with their data as it is stored."""
        names = ("oid", "kind", "size", "sha256", "file_size", "file", "data")
        rows = self.connection.rows_in(_WHOLE, oids, {"repository_id": repository_id})
        return [dict(zip(names, row, strict=True)) for row in rows]

    def former_names(self, repository_id: int) -> list[str]:
        """The name keys that a repository had."""
        return [key for (key,) in self.connection.rows(_FORMER_NAMES, {"repository_id": repository_id})]

    def copied(self, source: str, repository_id: int) -> Copied | None:
        """The state of the last copy of a repository from a source; None if it is not from there."""
        values = {"source": source, "repository_id": repository_id}
        row = self.connection.row(_COPIED, values)
        return None if row is None else Copied(*row)

    def known_discussions(self, repository_id: int, numbers: Collection[int]) -> set[int]:
        """Those of these discussions that are there."""
        rows = self.connection.rows_in(_DISCUSSIONS, numbers, {"repository_id": repository_id})
        return {number for (number,) in rows}

    def copied_namespaces(self, source: str, behind: int) -> list[tuple[int, str]]:
        """The next page of repositories that came from a source: ids and namespaces."""
        values = {"source": source, "behind": behind, "limit": PAGE_ROWS}
        return [(number, namespace) for number, namespace in self.connection.rows(_COPIED_NAMESPACES, values)]

    def copied_accounts(self, source: str, behind: int) -> list[int]:
        """The next page of accounts that came from a source."""
        values = {"source": source, "behind": behind, "limit": PAGE_ROWS}
        return [number for (number,) in self.connection.rows(_COPIED_ACCOUNTS, values)]

    def are_copied(self, source: str, accounts: Iterable[int]) -> set[int]:
        """Those of these accounts that came from a source."""
        return {number for (number,) in self.connection.rows_in(_ARE_COPIED, accounts, {"source": source})}

    def _rows(self, statement: str, values: dict[str, object]) -> Iterable[Any]:
        return self.connection.rows(statement, values)


class CopyChanges(CopyQueries):
    """Rows that come from another store."""

    def put_rows(self, table: Table, scope: Values, rows: Sequence[Row]) -> None:
        """Add rows, or replace those of their keys."""
        columns = table.columns
        owner = {"repository_id": scope["repository_id"]} if table.is_owned else {}
        names = (*owner, *columns)
        replaced = ", ".join(f"{name} = excluded.{name}" for name in table.others)
        ending = "ON CONFLICT DO NOTHING"
        if not table.only_grows:
            ending = f"ON CONFLICT ({', '.join((*owner, *table.key))}) DO UPDATE SET {replaced}"
        statement = (
            f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)}) {ending}"
        )
        self.connection.change_many(statement, [{**owner, **dict(zip(columns, row, strict=True))} for row in rows])

    def drop_rows(self, table: Table, scope: Values, keys: Sequence[Row]) -> None:
        """Remove rows by their keys."""
        owner = {"repository_id": scope["repository_id"]} if table.is_owned else {}
        names = (*owner, *table.key)
        statement = f"DELETE FROM {table.name} WHERE {' AND '.join(f'{name} = :{name}' for name in names)}"
        self.connection.change_many(statement, [{**owner, **dict(zip(table.key, key, strict=True))} for key in keys])

    def copy_whole(self, repository_id: int, objects: Sequence[dict[str, Any]]) -> None:
        """Add objects that another store has, by their columns."""
        self.connection.change_many(_ADD_OBJECT, [{"repository_id": repository_id, **each} for each in objects])

    def set_files(self, repository_id: int, files: Iterable[tuple[bytes, Hash | None]]) -> None:
        """Let pointers name these files, or none."""
        each = [
            {"repository_id": repository_id, "oid": oid, "file": None if file is None else file.digest}
            for oid, file in files
        ]
        self.connection.change_many(_SET_FILE, each)

    def set_former_names(self, repository_id: int, keys: Collection[str]) -> None:
        """Let these be all names that a repository had."""
        gone = set(self.former_names(repository_id)) - {*keys}
        self.connection.change_many(_DROP_FORMER, [{"repository_id": repository_id, "key": key} for key in gone])
        self.connection.change_many(_ADD_FORMER, [{"id": repository_id, "key": key} for key in sorted(keys)])

    def set_refs(self, repository_id: int, refs: dict[str, bytes], gone: Collection[str]) -> None:
        """Let refs name these objects, and others be gone."""
        each = [{"repository_id": repository_id, "name": name, "oid": oid} for name, oid in refs.items()]
        self.connection.change_many(_PUT_REF, each)
        self.connection.change_many(_DROP_REF, [{"repository_id": repository_id, "name": name} for name in gone])

    def add_copied(self, values: dict[str, object]) -> bool:
        """Add a repository by its columns; False if its name or its namespace is taken."""
        return self.connection.change(_ADD_REPOSITORY, values) == 1

    def set_copied(self, repository_id: int, values: dict[str, object]) -> None:
        """Give a repository these columns, but its namespace and the time of its last change."""
        self.connection.change(_SET_REPOSITORY, {**values, "id": repository_id})

    def set_aside(self, repository_id: int, *, kind: str, owner: str, name: str) -> None:
        """Give a repository another name, to which none of before leads, and let it be private."""
        key = f"{kind}/{owner}/{name}".lower()
        self.connection.change(_SET_ASIDE, {"id": repository_id, "owner": owner, "name": name, "name_key": key})
        self.connection.change(_FORGET_FORMER, {"id": repository_id})

    def note_copied(self, source: str, repository_id: int, namespace: str, copied: Copied) -> None:
        """Note that a repository came from a source, and how far."""
        values = {"source": source, "repository_id": repository_id, "namespace": namespace}
        told = {name: getattr(copied, name) for name in copied.__slots__}
        self.connection.change(_NOTE_COPIED, {**values, **told})

    def note_accounts(self, source: str, accounts: Iterable[int]) -> None:
        """Note that accounts came from a source."""
        self.connection.change_many(_NOTE_ACCOUNT, [{"source": source, "account_id": each} for each in accounts])

    def forget_repository(self, source: str, repository_id: int) -> None:
        """Forget that a repository came from a source."""
        self.connection.change(_FORGET_REPOSITORY, {"source": source, "repository_id": repository_id})

    def lock_out(self, source: str, account_id: int) -> None:
        """Let an account have no token and no membership, and forget that it came from a source."""
        for statement in (_FORGET_TOKENS, _FORGET_MEMBER, _FORGET_ACCOUNT):
            self.connection.change(statement, {"source": source, "account_id": account_id})
