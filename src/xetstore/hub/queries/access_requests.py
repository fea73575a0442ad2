"""Requests for the files of gated repositories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from xetstore.cas.index.queries.rows import Questions
from xetstore.hub.queries.accounts import ACCOUNT, Account, account_of


class Status(StrEnum):
    """The state of a request."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """The request of a user, or an access that was given without one. ``asked_at`` is in unix seconds."""

    account: Account
    status: Status
    asked_at: float

    @property
    def place(self) -> tuple[float, int]:
        """Its place in a list, by which the next page begins behind it."""
        return self.asked_at, self.account.id


_GATED: Final = "SELECT gated FROM repository WHERE id = :id FOR KEY SHARE"
_STATUS: Final = "SELECT status FROM access_request WHERE repository_id = :id AND user_id = :user_id"
_PAGE: Final = f"""
SELECT {ACCOUNT}, access_request.status, access_request.asked_at
FROM access_request JOIN account ON account.id = access_request.user_id
WHERE access_request.repository_id = :id AND access_request.status = :status
    AND (access_request.asked_at, access_request.user_id) > (:asked_at, :user_id)
ORDER BY access_request.asked_at, access_request.user_id LIMIT :limit
"""
_ONE: Final = f"""
SELECT {ACCOUNT}, access_request.status, access_request.asked_at
FROM access_request JOIN account ON account.id = access_request.user_id
WHERE access_request.repository_id = :id AND access_request.user_id = :user_id
"""
_ADD: Final = """
INSERT INTO access_request (repository_id, user_id, status, asked_at) VALUES (:id, :user_id, :status, :now)
ON CONFLICT (repository_id, user_id) DO NOTHING
"""
_SET: Final = """
UPDATE access_request SET status = :status WHERE repository_id = :id AND user_id = :user_id
"""


class AccessRequestQueries(Questions):
    """Questions about requests for files."""

    def access_status(self, repository_id: int, user_id: int) -> Status | None:
        """The state of the request of a user; None if it has not asked."""
        status = self.connection.value(_STATUS, {"id": repository_id, "user_id": user_id})
        return None if status is None else Status(status)

    def access_request(self, repository_id: int, user_id: int) -> AccessRequest | None:
        """The request of a user; None if it has not asked."""
        row = self.connection.row(_ONE, {"id": repository_id, "user_id": user_id})
        return None if row is None else AccessRequest(account_of(row[:5]), Status(row[5]), row[6])

    def access_requests(
        self, repository_id: int, status: Status, after: tuple[float, int] | None, limit: int
    ) -> Sequence[AccessRequest]:
        """At most ``limit`` requests in a state, the oldest first, behind the one of that place."""
        asked_at, user_id = after or (-1.0, 0)
        values = {"id": repository_id, "status": status.value, "asked_at": asked_at, "user_id": user_id, "limit": limit}
        rows = self.connection.rows(_PAGE, values)
        return [AccessRequest(account_of(row[:5]), Status(row[5]), row[6]) for row in rows]


class AccessRequestChanges(AccessRequestQueries):
    """Changes of requests, in a transaction."""

    def kept_gate(self, repository_id: int) -> tuple[str | None] | None:
        """The gate of a repository: ``auto``, ``manual`` or None; no tuple if it is gone.

        The repository is not deleted before the transaction ends.
        """
        row = self.connection.row(_GATED, {"id": repository_id})
        return None if row is None else (row[0],)

    def add_access_request(self, repository_id: int, user_id: int, status: Status, now: float) -> bool:
        """Add a request; False if the user has asked before."""
        values = {"id": repository_id, "user_id": user_id, "status": status.value, "now": now}
        return self.connection.change(_ADD, values) == 1

    def set_access_status(self, repository_id: int, user_id: int, status: Status) -> bool:
        """Change the state of a request; False if there is none."""
        values = {"id": repository_id, "user_id": user_id, "status": status.value}
        return self.connection.change(_SET, values) == 1
