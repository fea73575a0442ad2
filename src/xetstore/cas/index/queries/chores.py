"""Chores: which runner has each, how far it has come, and what it did last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from xetstore.cas.index.queries.rows import Questions

_CHORE: Final = "SELECT name, token, holder, expires_at, ended_at, position, report FROM chore WHERE name = :name"
_CHORES: Final = "SELECT name, token, holder, expires_at, ended_at, position, report FROM chore ORDER BY name"
# One that ends long after any lease would was taken by a clock that was wrong.
_TAKE: Final = """
INSERT INTO chore (name, token, holder, expires_at) VALUES (:name, 1, :holder, :until)
ON CONFLICT (name) DO UPDATE SET token = chore.token + 1, holder = excluded.holder, expires_at = excluded.expires_at
WHERE chore.expires_at <= :now OR chore.expires_at > :until + 600.0
"""
_MINE: Final = "WHERE name = :name AND token = :token"
_RENEW: Final = f"UPDATE chore SET expires_at = :until {_MINE}"
_NOTE: Final = f"UPDATE chore SET position = :position {_MINE}"
_FINISH: Final = f"UPDATE chore SET ended_at = :now, position = NULL, report = :report {_MINE}"
_GIVE_BACK: Final = f"UPDATE chore SET expires_at = 0 {_MINE}"


@dataclass(frozen=True, slots=True)
class ChoreRow:
    """The row of a chore. Times are unix seconds; ``report`` is JSON."""

    name: str
    token: int
    holder: str
    expires_at: float
    ended_at: float | None
    position: str | None
    report: str | None


class ChoreQueries(Questions):
    """Questions about chores."""

    def chore(self, name: str) -> ChoreRow | None:
        """A chore, or None if none ever took it."""
        row = self.connection.row(_CHORE, {"name": name})
        return None if row is None else ChoreRow(*row)

    def chores(self) -> list[ChoreRow]:
        """All chores, by name."""
        return [ChoreRow(*row) for row in self.connection.rows(_CHORES)]


class ChoreChanges(ChoreQueries):
    """Changes to chores."""

    def take_chore(self, name: str, holder: str, *, now: float, until: float) -> ChoreRow | None:
        """Let a runner have a chore until a time; None if another one has it."""
        values = {"name": name, "holder": holder, "now": now, "until": until}
        return self.chore(name) if self.connection.change(_TAKE, values) else None

    def renew_chore(self, name: str, token: int, *, until: float) -> bool:
        """Let the runner with this token keep a chore, which no other one takes before the transaction ends.

        False if another one has it.
        """
        return self.connection.change(_RENEW, {"name": name, "token": token, "until": until}) == 1

    def note_position(self, name: str, token: int, position: str | None) -> None:
        """Note how far the runner with this token has come."""
        self.connection.change(_NOTE, {"name": name, "token": token, "position": position})

    def finish_chore(self, name: str, token: int, *, now: float, report: str) -> None:
        """Note that the runner with this token has come to the end, and what it did."""
        self.connection.change(_FINISH, {"name": name, "token": token, "now": now, "report": report})

    def give_chore_back(self, name: str, token: int) -> None:
        """Let others have the chore that the runner with this token has."""
        self.connection.change(_GIVE_BACK, {"name": name, "token": token})
