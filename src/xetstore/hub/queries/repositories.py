"""Questions about repositories and their names, and changes to them."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from xetstore.cas.index.queries.quotas import QuotaChanges
from xetstore.cas.index.queries.rows import Questions
from xetstore.database.connection import Row
from xetstore.errors import ExistsError, RepositoryNotFoundError
from xetstore.hub.names import Kind, RepositoryName

REPOSITORY: Final = ", ".join(
    f"repository.{name}"
    for name in (
        *("id", "kind", "owner", "name", "namespace", "visibility", "gated", "sdk", "creator", "created_at"),
        *("updated_at", "shrunk_at"),
    )
)
_BY_KEY: Final = f"SELECT {REPOSITORY} FROM repository WHERE name_key = :key"
_BY_FORMER_KEY: Final = f"""
SELECT {REPOSITORY} FROM former_name JOIN repository ON repository.id = former_name.repository_id
WHERE former_name.name_key = :key AND repository.deleted_at IS NULL
"""
_BY_ID: Final = f"SELECT {REPOSITORY} FROM repository WHERE id = :id AND deleted_at IS NULL"
_OF_NAMESPACES: Final = f"SELECT {REPOSITORY} FROM repository WHERE namespace IN (:values)"
_LISTED: Final = f"""
SELECT {REPOSITORY} FROM repository
WHERE deleted_at IS NULL AND kind IN (:kinds)
    AND (:is_admin = 1 OR (:sees_public = 1 AND visibility = 'public') OR owner_key IN (:own))
    AND ({{order}} < :before OR ({{order}} = :before AND id < :before_id)) {{narrowed}}
ORDER BY {{order}} DESC, id DESC LIMIT :limit
"""
_OF_OWNER: Final = "AND owner_key = :owner "
# Not in the kind, with which the key begins.
_SEARCHED: Final = "AND substr(name_key, length(kind) + 2) LIKE :search ESCAPE '!' "
_ACCEPTED: Final = """
SELECT 1 FROM access_request WHERE repository_id = :id AND user_id = :user_id AND status = 'accepted'
"""
_USE_NAMESPACE: Final = "INSERT INTO used_namespace (namespace) VALUES (:namespace) ON CONFLICT (namespace) DO NOTHING"
_ADD: Final = """
INSERT INTO repository
    (id, kind, owner, owner_key, name, name_key, namespace, visibility, sdk, creator, created_at, updated_at)
VALUES (:id, :kind, :owner, :owner_key, :name, :name_key, :namespace, :visibility, :sdk, :creator, :now, :now)
ON CONFLICT (name_key) DO NOTHING
"""
_RENAME: Final = """
UPDATE repository SET owner = :owner, owner_key = :owner_key, name = :name, name_key = :name_key WHERE id = :id
"""
_ADD_FORMER: Final = """
INSERT INTO former_name (name_key, repository_id) VALUES (:key, :id)
ON CONFLICT (name_key) DO UPDATE SET repository_id = excluded.repository_id
"""
_DROP_FORMER: Final = "DELETE FROM former_name WHERE name_key = :key"
_SET: Final = "UPDATE repository SET visibility = :visibility, gated = :gated WHERE id = :id"
_TOUCH: Final = "UPDATE repository SET updated_at = :now WHERE id = :id"
_KEPT: Final = f"{_BY_ID} FOR KEY SHARE"
_NEXT_NUMBER: Final = "UPDATE repository SET next_number = next_number + 1 WHERE id = :id"
_NUMBER: Final = "SELECT next_number - 1 FROM repository WHERE id = :id"
_DELETE: Final = "UPDATE repository SET deleted_at = :now, name_key = :name_key WHERE id = :id AND deleted_at IS NULL"
_NOTE_SHRUNK: Final = "UPDATE repository SET shrunk_at = :now WHERE id = :id"

_LARGEST_ID: Final = 2**53 - 1  # JSON has it as it is

ORDERS: Final = {"created": "created_at", "updated": "updated_at"}


@dataclass(frozen=True, slots=True)
class RepositoryRow:
    """The row of a repository. ``gated`` is ``auto``, ``manual`` or None; times are unix seconds.

    ``namespace`` is the one of the CAS in which its files are granted. ``shrunk_at``: when something of its history was
    last taken away for good.
    """

    id: int
    name: RepositoryName
    namespace: str
    visibility: str
    gated: str | None
    sdk: str | None
    creator: str
    created_at: float
    updated_at: float
    shrunk_at: float

    @property
    def kind(self) -> Kind:
        """Its kind."""
        return self.name.kind

    @property
    def owner_key(self) -> str:
        """The owner's name in lower case."""
        return self.name.owner.lower()

    @property
    def is_private(self) -> bool:
        """True if strangers do not see it."""
        return self.visibility != "public"


@dataclass(frozen=True, slots=True)
class Listing:
    """The part of all repositories that a list shows: those of ``kinds``, of one owner or all, newest first.

    ``own`` are the lower-case names of accounts whose private repositories are shown, too. ``before`` is the value and
    the id of the last one of the page before.
    """

    kinds: tuple[Kind, ...]
    owner: str | None = None
    search: str | None = None
    order: str = "updated"
    limit: int = 100
    before: tuple[float, int] | None = None


class RepositoryQueries(Questions):
    """Questions about repositories."""

    def repository(self, key: str) -> RepositoryRow | None:
        """The repository with this name key, by a former name where no other has that now; None if there is none."""
        row = self.connection.row(_BY_KEY, {"key": key}) or self.connection.row(_BY_FORMER_KEY, {"key": key})
        return None if row is None else repository_row(row)

    def repository_by_id(self, number: int) -> RepositoryRow | None:
        """The repository with this id."""
        row = self.connection.row(_BY_ID, {"id": number})
        return None if row is None else repository_row(row)

    def repositories_of(self, namespaces: Collection[str]) -> list[RepositoryRow]:
        """The repositories that these namespaces belong to."""
        return [repository_row(row) for row in self.connection.rows_in(_OF_NAMESPACES, namespaces)]

    def repositories(
        self, listing: Listing, *, own: Collection[str], is_admin: bool, sees_public: bool
    ) -> Sequence[RepositoryRow]:
        """A page of a list, of those that a caller may see."""
        order = ORDERS[listing.order]
        value, number = listing.before or (1e18, 1 << 62)
        values: dict[str, object] = {
            "kinds": [kind.value for kind in listing.kinds],
            "is_admin": int(is_admin),
            "sees_public": int(sees_public),
            "own": [*own] or [""],
            "before": value,
            "before_id": number,
            "limit": listing.limit,
        }
        narrowed = ""
        if listing.owner is not None:
            values["owner"] = listing.owner.lower()
            narrowed += _OF_OWNER
        if listing.search:
            text = "".join(f"!{char}" if char in "!%_" else char for char in listing.search.lower())
            values["search"] = f"%{text}%"
            narrowed += _SEARCHED
        statement = _LISTED.format(order=order, narrowed=narrowed)
        return [repository_row(row) for row in self.connection.rows(statement, values)]

    def is_accepted(self, number: int, user_id: int) -> bool:
        """True if a user asked for the files of a gated repository, and was accepted."""
        return self.connection.row(_ACCEPTED, {"id": number, "user_id": user_id}) is not None


class RepositoryChanges(Questions):
    """Changes to repositories."""

    def add_repository(
        self, name: RepositoryName, *, visibility: str, sdk: str | None, creator: str, now: float
    ) -> RepositoryRow:
        """Add a repository. Raises ExistsError if the name is taken.

        Its id is random, because one that was deleted may still be named, by a signed URL. The id ends its namespace if
        another one had the first.
        """
        number = 1 + secrets.randbelow(_LARGEST_ID)
        namespace = str(name)
        if not self.connection.change(_USE_NAMESPACE, {"namespace": namespace}):
            namespace = f"{name}/{number:014x}"
            self.connection.change(_USE_NAMESPACE, {"namespace": namespace})
        values = {
            **name_values(name),
            "id": number,
            "kind": name.kind.value,
            "namespace": namespace,
            "visibility": visibility,
            "sdk": sdk,
            "creator": creator,
            "now": now,
        }
        if not self.connection.change(_ADD, values):
            raise taken(name)
        self.connection.change(_DROP_FORMER, {"key": name.key})
        QuotaChanges(self.connection).place_namespace(namespace, name.owner.lower())
        row = self.connection.row(_BY_KEY, {"key": name.key})
        assert row is not None
        return repository_row(row)

    def rename_repository(self, before: RepositoryRow, name: RepositoryName) -> None:
        """Give a repository another name, which no other one has; the one before goes on to lead to it.

        Raises QuotaExceededError where that is more than the new owner may have.
        """
        self.connection.change(_DROP_FORMER, {"key": name.key})
        self.connection.change(_RENAME, {"id": before.id, **name_values(name)})
        QuotaChanges(self.connection).place_namespace(before.namespace, name.owner.lower())
        if before.name.key != name.key:
            self.connection.change(_ADD_FORMER, {"key": before.name.key, "id": before.id})

    def set_repository(self, number: int, *, visibility: str, gated: str | None) -> None:
        """Change who may read it."""
        self.connection.change(_SET, {"id": number, "visibility": visibility, "gated": gated})

    def touch_repository(self, number: int, now: float) -> None:
        """Note that it was changed."""
        self.connection.change(_TOUCH, {"id": number, "now": now})

    def alone_with_repository(self, number: int) -> None:
        """Be the only writer of this repository until the transaction ends, also where it is deleted."""
        self.connection.alone_with(f"repository {number}")

    def keep_repository(self, number: int) -> RepositoryRow | None:
        """The row as it is now. It stays until the transaction ends, which is the only one then that commits to it."""
        self.alone_with_repository(number)
        row = self.connection.row(_KEPT, {"id": number})
        return None if row is None else repository_row(row)

    def kept_repository(self, number: int) -> RepositoryRow:
        """The same. Raises RepositoryNotFoundError."""
        row = self.keep_repository(number)
        if row is None:
            raise RepositoryNotFoundError
        return row

    def next_number(self, number: int) -> int:
        """The number of the next discussion of a repository; each is given once."""
        self.connection.change(_NEXT_NUMBER, {"id": number})
        given: int = self.connection.value(_NUMBER, {"id": number})
        return given

    def note_shrunk(self, number: int, now: float) -> None:
        """Note that something of its history is taken away for good: what was remembered of that counts no more."""
        self.connection.change(_NOTE_SHRUNK, {"id": number, "now": now})

    def delete_repository(self, number: int, now: float) -> bool:
        """Delete a repository, which has no name then, and can be given back; False if it is deleted."""
        return self.connection.change(_DELETE, {"id": number, "now": now, "name_key": f"deleted/{number:014x}"}) == 1


def taken(name: RepositoryName, *, hint: str | None = None) -> ExistsError:
    """The error for a name that another repository has."""
    return ExistsError(f"A {name.kind.word} repository called {name.id} already exists", hint=hint)


def repository_row(row: Row | Sequence[Any]) -> RepositoryRow:
    """The row as a value."""
    number, kind, owner, name, *rest = row
    return RepositoryRow(number, RepositoryName(Kind(kind), owner, name), *rest)


def name_values(name: RepositoryName) -> dict[str, object]:
    """The columns of a name."""
    return {"owner": name.owner, "owner_key": name.owner.lower(), "name": name.name, "name_key": name.key}
