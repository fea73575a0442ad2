"""Discussions and pull requests: what is said about a repository, and changes that are proposed to it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from xetstore.errors import NotFoundError, UsageError
from xetstore.hub.discussions import Discussions, Proposal
from xetstore.hub.names import PULL_REQUESTS, Kind
from xetstore.hub.queries import Discussion, DiscussionFilter, Event, Revision
from xetstore.hub.rights import Right
from xetstore.server.http.router import Route
from xetstore.server.routes.hub.answers import date_of, is_true, json_answer, without_none
from xetstore.server.routes.hub.handling import (
    SMALL_BODY_BYTES,
    Call,
    ForKind,
    api_path,
    decoded,
    of_each_kind,
    on_repository,
    on_repository_with_body,
    page_url,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import Callable

LISTED: Final = 50
"""Discussions of one page."""
MAX_PAGES: Final = 100_000
BODY_BYTES: Final = 4 * SMALL_BODY_BYTES
"""A comment, each character of which may be written as six."""

_STATUSES: Final = {"open": ("draft", "open"), "closed": ("closed", "merged")}
_TYPES: Final = {"discussion": (False, True), "pull_request": (True, False)}
_ALL: Final = ("draft", "open", "closed", "merged")


class _New(msgspec.Struct, frozen=True, rename="camel"):
    title: str
    description: str | None = None
    pull_request: bool = False


class _Comment(msgspec.Struct, frozen=True):
    comment: str = ""


class _Content(msgspec.Struct, frozen=True):
    content: str


class _Title(msgspec.Struct, frozen=True):
    title: str


class _Status(msgspec.Struct, frozen=True):
    status: str
    comment: str | None = None


def _list(call: Call) -> Response:
    """A page of discussions, the newest first. What is open may be a draft; what is closed may be merged."""
    status, kind = call.query("status") or "all", call.query("type") or "all"
    if status not in (*_STATUSES, "all") or kind not in (*_TYPES, "all"):
        raise UsageError("status is open, closed or all; type is discussion, pull_request or all")
    pull_requests, others = _TYPES.get(kind, (True, True))
    wanted = DiscussionFilter(_STATUSES.get(status, _ALL), pull_requests, others, call.query("author") or "")
    start = LISTED * whole_number(call.query("p"), 0, least=0, most=MAX_PAGES)
    page, count = Discussions(call.repository).page(wanted, limit=LISTED, offset=start)
    return json_answer({"discussions": [_told(call, each) for each in page], "count": count, "start": start})


def _details(call: Call) -> Response:
    """One discussion with its events; of a pull request also its commits, and with ``diff`` what it changes."""
    discussions = Discussions(call.repository)
    discussion, events = discussions.get(_number(call))
    told = _told(call, discussion)
    happened = [(event.created_at, _event(discussion, event)) for event in events]
    if discussion.is_pull_request:
        # The words of files are for readers of the files.
        may_read = call.repository.right >= Right.READ
        shows = is_true(call.query("diff"))
        proposal = discussions.proposal(discussion, in_full=shows) if may_read else Proposal((), (), "")
        happened += [(commit.created_at, _commit(commit)) for commit in proposal.commits]
        told["filesWithConflicts"] = list(proposal.conflicts)
        merged = None if discussion.merge_oid is None else discussion.merge_oid.hex()
        told["changes"] = without_none({"base": discussion.base, "mergeCommitId": merged})
        if shows:
            told["diff"] = proposal.diff
    told["events"] = [event for _, event in sorted(happened, key=lambda each: each[0])]
    return json_answer(told)


def _open(call: Call, body: bytes) -> Response:
    new = decoded(body, _New)
    opened = Discussions(call.repository).open(new.title, new.description or "", is_pull_request=new.pull_request)
    return json_answer({"num": opened.number, **_told(call, opened), "url": _url(call, opened)})


def _comment(call: Call, body: bytes) -> Response:
    discussions, number = Discussions(call.repository), _number(call)
    event = discussions.comment(number, decoded(body, _Comment).comment)
    return json_answer({"newMessage": _event(discussions.get(number)[0], event)})


def _edit(call: Call, body: bytes) -> Response:
    discussions, number = Discussions(call.repository), _number(call)
    event = discussions.edit(number, _position(call, number), decoded(body, _Content).content)
    return json_answer({"updatedComment": _event(discussions.get(number)[0], event)})


def _hide(call: Call, _: bytes) -> Response:
    discussions, number = Discussions(call.repository), _number(call)
    event = discussions.hide(number, _position(call, number))
    return json_answer({"updatedComment": _event(discussions.get(number)[0], event)})


def _title(call: Call, body: bytes) -> Response:
    discussions, number = Discussions(call.repository), _number(call)
    event = discussions.rename(number, decoded(body, _Title).title)
    return json_answer({"newTitle": _event(discussions.get(number)[0], event)})


def _status(call: Call, body: bytes) -> Response:
    wanted = decoded(body, _Status)
    discussions, number = Discussions(call.repository), _number(call)
    event = discussions.set_status(number, wanted.status, wanted.comment or "")
    return json_answer({"newStatus": _event(discussions.get(number)[0], event)})


def _merge(call: Call, body: bytes) -> Response:
    comment = "" if body.strip() in (b"", b"null") else decoded(body, _Comment).comment
    merged = Discussions(call.repository).merge(_number(call), comment)
    return json_answer({"success": True, "mergeCommitId": merged.id})


def _told(call: Call, discussion: Discussion) -> dict[str, Any]:
    name = call.repository.name
    ref = f"{PULL_REQUESTS}{discussion.number}" if discussion.is_pull_request else None
    return without_none(
        {
            "num": discussion.number,
            "title": discussion.title,
            "status": discussion.status,
            "isPullRequest": discussion.is_pull_request,
            "createdAt": date_of(discussion.created_at),
            "author": {"name": discussion.author, "type": "user"},
            "repo": {"name": name.id, "type": name.kind.word},
            "numEvents": discussion.events,
            "gitReference": ref,
        }
    )


def _event(discussion: Discussion, event: Event) -> dict[str, Any]:
    data: dict[str, Any]
    match event.kind:
        case "comment":
            updated_at = event.created_at if event.edited_at is None else event.edited_at
            latest = {
                "raw": event.content,
                "html": f"<p>{escape(event.content)}</p>",
                "updatedAt": date_of(updated_at),
                "author": {"name": event.author, "type": "user"},
            }
            is_edited = event.edited_at is not None
            data = {"edited": is_edited, "hidden": event.is_hidden, "latest": latest, "history": []}
        case "title-change":
            data = {"from": event.former or "", "to": event.content}
        case _:
            data = {"status": event.content}
    return {
        "id": f"{discussion.number:012x}{event.position:012x}",
        "type": event.kind,
        "createdAt": date_of(event.created_at),
        "author": {"name": event.author, "type": "user"},
        "data": data,
    }


def _commit(commit: Revision) -> dict[str, Any]:
    return {
        "id": commit.id[:24],
        "type": "commit",
        "createdAt": date_of(commit.created_at),
        "author": {"name": commit.author, "type": "user"},
        "data": {"subject": commit.title, "oid": commit.id},
    }


def _url(call: Call, discussion: Discussion) -> str:
    return f"{page_url(call.base, call.repository.name)}/discussions/{discussion.number}"


def _number(call: Call) -> int:
    text = call.parameter("number")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise NotFoundError(f"there is no discussion {text[:40]!r}")
    return int(text)


def _position(call: Call, number: int) -> int:
    """The position of the comment whose id is in the path."""
    text = call.parameter("comment")
    try:
        named, position = int(text[:12], 16), int(text[12:], 16)
    except ValueError:
        named = position = 0
    if len(text) != 24 or named != number or position >= 1 << 31:
        raise NotFoundError("there is no such comment")
    return position


def _changing(answer: Callable[[Call, bytes], Response], right: Right = Right.READ) -> ForKind:
    return on_repository_with_body(answer, right, most=BODY_BYTES, writes=True)


def _of(kind: Kind) -> tuple[Route, ...]:
    all_of_them = f"{api_path(kind)}/discussions"
    one = f"{all_of_them}/{{number:text}}"
    posts = {
        f"{one}/comment": _changing(_comment),
        f"{one}/comment/{{comment:text}}/edit": _changing(_edit),
        f"{one}/comment/{{comment:text}}/hide": _changing(_hide),
        f"{one}/title": _changing(_title),
        f"{one}/status": _changing(_status),
        f"{one}/merge": _changing(_merge, Right.WRITE),
    }
    return (
        Route(all_of_them, {"GET": on_repository(_list)(kind), "POST": _changing(_open)(kind)}),
        Route(one, {"GET": on_repository(_details)(kind)}),
        *(Route(path, {"POST": handler(kind)}) for path, handler in posts.items()),
    )


ROUTES: Final = of_each_kind(_of)
