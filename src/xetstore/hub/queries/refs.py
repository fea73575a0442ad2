"""Questions about refs, and changes to them by compare-and-set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xetstore.cas.index.queries.rows import Questions
from xetstore.hub.names import PULL_REQUESTS

_REF: Final = "SELECT oid FROM ref WHERE repository_id = :repository_id AND name = :name"
_REFS: Final = "SELECT name, oid FROM ref WHERE repository_id = :repository_id ORDER BY name"
_NAMED: Final = "SELECT name, oid FROM ref WHERE repository_id = :repository_id AND name IN (:values)"
_PULL_REQUEST_AT: Final = """
SELECT name FROM ref WHERE repository_id = :repository_id AND oid = :oid AND name LIKE :names ORDER BY name
"""
_ADD: Final = """
INSERT INTO ref (repository_id, name, oid) VALUES (:repository_id, :name, :oid)
ON CONFLICT (repository_id, name) DO NOTHING
"""
_MOVE: Final = "UPDATE ref SET oid = :oid WHERE repository_id = :repository_id AND name = :name AND oid = :before"
_DROP: Final = "DELETE FROM ref WHERE repository_id = :repository_id AND name = :name AND oid = :before"


class RefQueries(Questions):
    """Questions about refs."""

    def ref(self, repository_id: int, name: str) -> bytes | None:
        """The id that a ref names: of a commit or an annotated tag; None if there is no such ref."""
        oid = self.connection.value(_REF, {"repository_id": repository_id, "name": name})
        return None if oid is None else bytes(oid)

    def refs(self, repository_id: int) -> list[tuple[str, bytes]]:
        """All refs, by name."""
        return [(name, bytes(oid)) for name, oid in self.connection.rows(_REFS, {"repository_id": repository_id})]

    def refs_named(self, repository_id: int, names: Sequence[str]) -> dict[str, bytes]:
        """Those of these refs that are there."""
        rows = self.connection.rows_in(_NAMED, names, {"repository_id": repository_id})
        return {name: bytes(oid) for name, oid in rows}

    def pull_request_at(self, repository_id: int, oid: bytes) -> int | None:
        """The number of a pull request whose branch is at this commit; None if there is none."""
        values = {"repository_id": repository_id, "oid": oid, "names": f"{PULL_REQUESTS}%"}
        name = self.connection.value(_PULL_REQUEST_AT, values)
        return None if name is None else int(name.removeprefix(PULL_REQUESTS))


class RefChanges(RefQueries):
    """Changes to refs. Each is True if it was done, and False where the ref was not as it should have been."""

    def add_ref(self, repository_id: int, name: str, oid: bytes) -> bool:
        """Add a ref, unless there is one of this name."""
        return self.connection.change(_ADD, {"repository_id": repository_id, "name": name, "oid": oid}) == 1

    def move_ref(self, repository_id: int, name: str, oid: bytes, *, before: bytes) -> bool:
        """Let a ref that names ``before`` name another commit."""
        values = {"repository_id": repository_id, "name": name, "oid": oid, "before": before}
        return self.connection.change(_MOVE, values) == 1

    def drop_ref(self, repository_id: int, name: str, *, before: bytes) -> bool:
        """Remove a ref that names ``before``."""
        return self.connection.change(_DROP, {"repository_id": repository_id, "name": name, "before": before}) == 1
