"""Questions about discussions and their events, and changes to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from xetstore.cas.index.queries.rows import Questions
from xetstore.database.connection import Row

_DISCUSSION: Final = "number, title, is_pull_request, status, author, base, fork, merge_oid, created_at, next_event"
_EVENT: Final = "position, kind, author, created_at, content, former, edited_at, is_hidden"
_BY_NUMBER: Final = f"SELECT {_DISCUSSION} FROM discussion WHERE repository_id = :repository_id AND number = :number"
_MATCHING: Final = """
FROM discussion
WHERE repository_id = :repository_id AND status IN (:statuses) AND is_pull_request IN (:kinds)
    AND (:author = '' OR author = :author)
"""
_PAGE: Final = f"SELECT {_DISCUSSION} {_MATCHING} ORDER BY number DESC LIMIT :limit OFFSET :offset"
_COUNT: Final = f"SELECT count(*) {_MATCHING}"
_EVENTS: Final = f"""
SELECT {_EVENT} FROM discussion_event WHERE repository_id = :repository_id AND number = :number ORDER BY position
"""
_ADD: Final = """
INSERT INTO discussion (repository_id, number, title, is_pull_request, status, author, base, fork, created_at)
VALUES (:repository_id, :number, :title, :is_pull_request, :status, :author, :base, :fork, :now)
"""
_TAKE_POSITION: Final = """
UPDATE discussion SET next_event = next_event + 1 WHERE repository_id = :repository_id AND number = :number
"""
_SET: Final = """
UPDATE discussion SET title = :title, status = :status, merge_oid = :merge_oid
WHERE repository_id = :repository_id AND number = :number
"""
_ADD_EVENT: Final = """
INSERT INTO discussion_event (repository_id, number, position, kind, author, created_at, content, former)
VALUES (:repository_id, :number, :position, :kind, :author, :now, :content, :former)
"""
_SET_EVENT: Final = """
UPDATE discussion_event SET content = :content, edited_at = :edited_at, is_hidden = :is_hidden
WHERE repository_id = :repository_id AND number = :number AND position = :position
"""
_COMMITS: Final = """
SELECT number, fork, merge_oid FROM discussion WHERE repository_id = :repository_id AND fork IS NOT NULL
"""
_MOVE: Final = """
UPDATE discussion SET fork = :fork, merge_oid = :merge_oid WHERE repository_id = :repository_id AND number = :number
"""


@dataclass(frozen=True, slots=True)
class Discussion:
    """A discussion. ``status`` is ``draft``, ``open``, ``closed`` or ``merged``; ``events`` how many it has.

    Of a pull request ``base`` is the branch that it is for, a ref in full, and ``fork`` the commit at which it left
    that; once it is merged, ``merge_oid`` is the one that brought it there.
    """

    number: int
    title: str
    is_pull_request: bool
    status: str
    author: str
    base: str | None
    fork: bytes | None
    merge_oid: bytes | None
    created_at: float
    events: int


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a discussion, at its ``position``: a ``comment``, a ``status-change`` or a ``title-change``.

    ``content`` are the words, the new status or the new title, ``former`` the title before. Times are unix seconds.
    """

    position: int
    kind: str
    author: str
    created_at: float
    content: str
    former: str | None = None
    edited_at: float | None = None
    is_hidden: bool = False


@dataclass(frozen=True, slots=True)
class DiscussionFilter:
    """The discussions that a list shows: of these statuses, pull requests and others, of one author or all (empty)."""

    statuses: tuple[str, ...] = ("draft", "open", "closed", "merged")
    pull_requests: bool = True
    others: bool = True
    author: str = ""


class DiscussionQueries(Questions):
    """Questions about discussions."""

    def discussion(self, repository_id: int, number: int) -> Discussion | None:
        """The discussion of this number."""
        row = self.connection.row(_BY_NUMBER, {"repository_id": repository_id, "number": number})
        return None if row is None else _discussion(row)

    def discussions(
        self, repository_id: int, wanted: DiscussionFilter, *, limit: int, offset: int
    ) -> tuple[list[Discussion], int]:
        """A page of discussions, the newest first, and how many there are in all."""
        values = {
            "repository_id": repository_id,
            "statuses": [*wanted.statuses],
            "kinds": [kind for kind, is_shown in ((1, wanted.pull_requests), (0, wanted.others)) if is_shown] or [-1],
            "author": wanted.author,
        }
        page = [_discussion(row) for row in self.connection.rows(_PAGE, {**values, "limit": limit, "offset": offset})]
        return page, int(self.connection.value(_COUNT, values))

    def events(self, repository_id: int, number: int) -> list[Event]:
        """All events of a discussion, in order."""
        values = {"repository_id": repository_id, "number": number}
        return [_event(row) for row in self.connection.rows(_EVENTS, values)]


class DiscussionChanges(DiscussionQueries):
    """Changes to discussions."""

    def add_discussion(self, repository_id: int, discussion: Discussion) -> None:
        """Add a discussion without events."""
        self.connection.change(
            _ADD,
            {
                "repository_id": repository_id,
                "number": discussion.number,
                "title": discussion.title,
                "is_pull_request": int(discussion.is_pull_request),
                "status": discussion.status,
                "author": discussion.author,
                "base": discussion.base,
                "fork": discussion.fork,
                "now": discussion.created_at,
            },
        )

    def take_discussion(self, repository_id: int, number: int) -> Discussion | None:
        """A discussion that no other writer changes until the transaction ends; it has one event more, to be added."""
        place = {"repository_id": repository_id, "number": number}
        return self.discussion(repository_id, number) if self.connection.change(_TAKE_POSITION, place) else None

    def move_commits(self, repository_id: int, moved: Mapping[bytes, bytes]) -> None:
        """Let pull requests name other commits, by the ids before: those of a history that was rewritten."""
        each = []
        for number, fork, merge_oid in self.connection.rows(_COMMITS, {"repository_id": repository_id}):
            named = [None if oid is None else bytes(oid) for oid in (fork, merge_oid)]
            now = [None if oid is None else moved.get(oid, oid) for oid in named]
            if now != named:
                each.append({"repository_id": repository_id, "number": number, "fork": now[0], "merge_oid": now[1]})
        self.connection.change_many(_MOVE, each)

    def set_discussion(self, repository_id: int, changed: Discussion) -> None:
        """Change title, status and commit of merging."""
        self.connection.change(
            _SET,
            {
                "repository_id": repository_id,
                "number": changed.number,
                "title": changed.title,
                "status": changed.status,
                "merge_oid": changed.merge_oid,
            },
        )

    def add_event(self, repository_id: int, number: int, event: Event) -> None:
        """Add an event."""
        self.connection.change(
            _ADD_EVENT,
            {
                "repository_id": repository_id,
                "number": number,
                "position": event.position,
                "kind": event.kind,
                "author": event.author,
                "now": event.created_at,
                "content": event.content,
                "former": event.former,
            },
        )

    def set_event(self, repository_id: int, number: int, event: Event) -> None:
        """Change what a comment says, and if it is shown."""
        self.connection.change(
            _SET_EVENT,
            {
                "repository_id": repository_id,
                "number": number,
                "position": event.position,
                "content": event.content,
                "edited_at": event.edited_at,
                "is_hidden": int(event.is_hidden),
            },
        )


def _discussion(row: Row) -> Discussion:
    number, title, is_pull_request, status, author, base, fork, merge_oid, created_at, next_event = row
    return Discussion(
        number,
        title,
        bool(is_pull_request),
        status,
        author,
        base,
        None if fork is None else bytes(fork),
        None if merge_oid is None else bytes(merge_oid),
        created_at,
        next_event - 1,
    )


def _event(row: Row) -> Event:
    position, kind, author, created_at, content, former, edited_at, is_hidden = row
    return Event(position, kind, author, created_at, content, former, edited_at, bool(is_hidden))
