"""Discussions and pull requests of a repository. A pull request is a discussion with a branch, ``refs/pr/NUMBER``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from xetstore.cas.index import Writer
from xetstore.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    UnauthenticatedError,
    UnprocessableError,
    UsageError,
)
from xetstore.hub.committing import Committer, NewCommit
from xetstore.hub.merging import Change, conflicts, differences, in_words, merge_base
from xetstore.hub.names import MAIN, PULL_REQUESTS
from xetstore.hub.operations import Copy, Delete, Operation
from xetstore.hub.queries import Discussion, DiscussionFilter, Event, HubReader, HubWriter, Revision
from xetstore.hub.revisions import no_revision, peeled
from xetstore.hub.rights import Right, require_proposer
from xetstore.hub.trees import TreeReader

if TYPE_CHECKING:
    from xetstore.hub.repository import Repository

_PULL_REQUEST: Final = re.compile(rf"{PULL_REQUESTS}([1-9][0-9]{{0,8}})")
_REFUSED: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")

MAX_TITLE_CHARS: Final = 255
MAX_COMMENT_BYTES: Final = 32 << 10
MAX_EVENTS: Final = 1000
"""Events of one discussion: all of them are one answer."""
MAX_COMMITS: Final = 100
"""Commits of a pull request that are shown, the last ones."""
MAX_CONFLICTS: Final = 200
"""Paths that are told, of those that keep a pull request from being merged."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """The state of a pull request: its commits, the oldest first, and the paths that keep it from being merged.

    ``diff`` is in the words of git.
    """

    commits: Sequence[Revision]
    conflicts: Sequence[str]
    diff: str


def is_own_pull_request(reader: HubReader, repository_id: int, ref: str, author: str) -> bool:
    """True if a ref, in full, is that of a pull request which ``author`` opened, and which is still open."""
    number = _PULL_REQUEST.fullmatch(ref)
    found = reader.discussion(repository_id, int(number[1])) if number else None
    is_open = found is not None and found.is_pull_request and found.status in ("draft", "open")
    return found is not None and is_open and found.author == author


def open_pull_request(
    writer: HubWriter,
    repository_id: int,
    *,
    title: str,
    author: str,
    base: str,
    now: float,
    description: str = "",
    status: str = "open",
) -> Discussion:
    """Open a pull request for the branch ``base``, a ref in full. ``now`` is unix seconds.

    Its own branch is the caller's to make; its ``fork`` is where that begins. Raises RevisionNotFoundError without
    ``base``.
    """
    tip = writer.ref(repository_id, base)
    if tip is None:
        raise no_revision(base)
    fork = peeled(writer, repository_id, tip, base).oid
    number = writer.next_number(repository_id)
    title = " ".join(title.split())[:MAX_TITLE_CHARS] or "Pull request"
    opened = Discussion(number, title, True, status, author, base, fork, None, now, 0)
    _add(writer, repository_id, opened, description)
    return opened


class Discussions:
    """The discussions of a repository, for the actor that opened it. Thread-safe.

    An actor that is known and may read takes part; title and status are changed by the author, and by who may write.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._hub = repository.hub
        self._id = repository.row.id

    # Reading

    def page(self, wanted: DiscussionFilter, *, limit: int, offset: int) -> tuple[list[Discussion], int]:
        """A page of discussions, the newest first, and how many there are in all."""
        with self._hub.snapshot() as reader:
            return reader.discussions(self._id, wanted, limit=limit, offset=offset)

    def get(self, number: int) -> tuple[Discussion, list[Event]]:
        """A discussion and its events. Raises NotFoundError."""
        with self._hub.snapshot() as reader:
            discussion = reader.discussion(self._id, number)
            if discussion is None:
                raise _no_discussion(number)
            return discussion, reader.events(self._id, number)

    def proposal(self, discussion: Discussion, *, in_full: bool = True) -> Proposal:
        """The changes of a pull request against the commit at which it left its base; their words if ``in_full``."""
        with self._hub.snapshot() as reader:
            pair = self._tips(reader, discussion)
            if pair is None or discussion.fork is None:
                return Proposal((), (), "")
            tip, base = pair
            trees = TreeReader(reader, self._id, self._hub.trees)
            fork = reader.revision(self._id, discussion.fork)
            start = fork if discussion.status == "merged" else merge_base(reader, self._id, tip, base)
            if start is None or fork is None:
                return Proposal((), (), "")
            changes = differences(trees, start.tree, tip.tree)
            in_the_way: list[str] = []
            if discussion.status != "merged":
                in_the_way = conflicts(differences(trees, start.tree, base.tree), changes)
            count = max(0, min(tip.number - fork.number, MAX_COMMITS))
            commits = reader.log(self._id, tip, limit=count) if count else []
            diff = in_words(reader, self._id, changes) if in_full else ""
            return Proposal(commits[::-1], in_the_way[:MAX_CONFLICTS], diff)

    # Writing

    def open(
        self, title: str, description: str = "", *, is_pull_request: bool = False, status: str = "draft"
    ) -> Discussion:
        """Open a discussion, or a pull request for ``main``, whose branch is where that is. Needs READ."""
        author = self._author()
        title, now = _title(title), self._hub.now()
        _check_comment(description)

        def work(writer: HubWriter, _: Writer) -> int:
            writer.kept_repository(self._id)
            if not is_pull_request:
                number = writer.next_number(self._id)
                opened = Discussion(number, title, False, "open", author, None, None, None, now, 0)
                _add(writer, self._id, opened, description)
                return number
            proposal = open_pull_request(
                writer,
                self._id,
                title=title,
                author=author,
                base=MAIN,
                now=now,
                description=description,
                status=status,
            )
            assert proposal.fork is not None
            if not writer.add_ref(self._id, f"{PULL_REQUESTS}{proposal.number}", proposal.fork):
                raise ConflictError("another writer made the branch")
            return proposal.number

        return self.get(self._hub.change(work))[0]

    def comment(self, number: int, content: str) -> Event:
        """Add a comment."""
        author = self._author()
        _check_comment(content, is_needed=True)
        return self._hub.change(lambda writer, _: self._note(writer, number, "comment", author, content)[1])

    def edit(self, number: int, position: int, content: str) -> Event:
        """Change the words of a comment, which its author may."""
        author = self._author()
        _check_comment(content, is_needed=True)
        return self._change_comment(number, position, author, content=content)

    def hide(self, number: int, position: int) -> Event:
        """Hide a comment for good: its author may, and who may write."""
        author = self._author()
        return self._change_comment(number, position, author, content="", is_hidden=True)

    def rename(self, number: int, title: str) -> Event:
        """Give a discussion another title."""
        author = self._author()
        title = _title(title)

        def work(writer: HubWriter, _: Writer) -> Event:
            before, event = self._note(writer, number, "title-change", author, title)
            self._require_say(before, author)
            writer.set_discussion(self._id, replace(before, title=title))
            return event

        return self._hub.change(work)

    def set_status(self, number: int, status: str, comment: str = "") -> Event:
        """Close a discussion, or open it again; a draft is opened so as well. Raises UsageError for what is merged."""
        author = self._author()
        if status not in ("open", "closed"):
            raise UsageError("the status of a discussion is open or closed")
        _check_comment(comment)

        def work(writer: HubWriter, _: Writer) -> Event:
            if comment.strip():
                self._note(writer, number, "comment", author, comment)
            before, event = self._note(writer, number, "status-change", author, status)
            self._require_say(before, author)
            if before.status in ("merged", status):
                raise UsageError(f"the discussion is {before.status}")
            writer.set_discussion(self._id, replace(before, status=status))
            return event

        return self._hub.change(work)

    def merge(self, number: int, comment: str = "") -> Revision:
        """Bring the commits of an open pull request to its branch, if that has not moved on; else its changes, as one
        commit. Needs WRITE.

        Raises UsageError for what is no open pull request, ConflictError's like for paths that both changed: an
        UnprocessableError.
        """
        self._repository.require(Right.WRITE)
        author = self._author()
        _check_comment(comment)

        def work(writer: HubWriter, _: Writer) -> Revision:
            writer.kept_repository(self._id)
            if comment.strip():
                self._note(writer, number, "comment", author, comment)
            discussion = self._note(writer, number, "status-change", author, "merged")[0]
            if not discussion.is_pull_request:
                raise UsageError(f"discussion {number} is no pull request")
            if discussion.status != "open":
                raise UsageError(f"pull request {number} is {discussion.status}, not open")
            merged = self._merge(writer, discussion, author)
            writer.set_discussion(self._id, replace(discussion, status="merged", merge_oid=merged.oid))
            return merged

        return self._hub.change(work)

    def _merge(self, writer: HubWriter, discussion: Discussion, author: str) -> Revision:
        pair = self._tips(writer, discussion)
        if pair is None or discussion.base is None:
            raise UsageError("a branch of the pull request is not there any more")
        tip, base = pair
        start = merge_base(writer, self._id, tip, base)
        if start is None:
            raise UnprocessableError("the pull request has no commit in common with its branch any more")
        if start.oid == tip.oid:
            raise UsageError("the pull request changes nothing")
        if start.oid == base.oid:
            if not writer.move_ref(self._id, discussion.base, tip.oid, before=base.oid):
                raise ConflictError("another writer moved the branch")
            writer.touch_repository(self._id, self._hub.now())
            return tip
        trees = TreeReader(writer, self._id, self._hub.trees)
        changes = differences(trees, start.tree, tip.tree)
        in_the_way = conflicts(differences(trees, start.tree, base.tree), changes)
        if in_the_way:
            raise UnprocessableError(
                f"both sides changed {in_the_way[0][:200]!r}, and {len(in_the_way) - 1} other paths"
            )
        message = f"{discussion.title} (#{discussion.number})"
        new = NewCommit(discussion.base, _operations(changes, tip), message, author, base.id)
        return Committer(writer, self._id, self._hub.trees, self._hub.now()).commit(new, {})

    def _tips(self, reader: HubReader, discussion: Discussion) -> tuple[Revision, Revision] | None:
        """The tips of a pull request and of its base; None where one of the two is gone."""
        if discussion.base is None:
            return None
        named = f"{PULL_REQUESTS}{discussion.number}", discussion.base
        found = reader.refs_named(self._id, named)
        if len(found) != len(named):
            return None
        tip, base = (peeled(reader, self._id, found[name], name) for name in named)
        return tip, base

    def _change_comment(
        self, number: int, position: int, author: str, *, content: str, is_hidden: bool = False
    ) -> Event:
        def work(writer: HubWriter, _: Writer) -> Event:
            writer.kept_repository(self._id)
            before = next((event for event in writer.events(self._id, number) if event.position == position), None)
            if before is None or before.kind != "comment":
                raise NotFoundError("there is no such comment")
            if before.author != author and not (is_hidden and self._repository.right >= Right.WRITE):
                raise ForbiddenError("a comment is changed by its author")
            if before.is_hidden:
                raise UsageError("the comment is hidden")
            changed = replace(before, content=content, edited_at=self._hub.now(), is_hidden=is_hidden)
            writer.set_event(self._id, number, changed)
            return changed

        return self._hub.change(work)

    def _note(self, writer: HubWriter, number: int, kind: str, author: str, content: str) -> tuple[Discussion, Event]:
        """Add an event; the discussion as it was before, and the event."""
        discussion = writer.take_discussion(self._id, number)
        if discussion is None:
            raise _no_discussion(number)
        if discussion.events > MAX_EVENTS:
            raise UnprocessableError(f"a discussion has at most {MAX_EVENTS} comments and changes")
        former = discussion.title if kind == "title-change" else None
        event = Event(discussion.events, kind, author, self._hub.now(), content, former)
        writer.add_event(self._id, number, event)
        return discussion, event

    def _author(self) -> str:
        """The name of the actor, if it may take part."""
        actor = self._repository.actor
        self._repository.require(Right.READ)
        if not actor.is_known:
            raise UnauthenticatedError("this needs a token")
        require_proposer(actor)
        return actor.author

    def _require_say(self, discussion: Discussion, author: str) -> None:
        if discussion.author != author and self._repository.right < Right.WRITE:
            raise ForbiddenError("a discussion is changed by its author, and by who may write to the repository")


def _add(writer: HubWriter, repository_id: int, discussion: Discussion, description: str) -> None:
    """Add a discussion and what describes it, as its first comment."""
    writer.add_discussion(repository_id, discussion)
    writer.take_discussion(repository_id, discussion.number)
    first = Event(1, "comment", discussion.author, discussion.created_at, description)
    writer.add_event(repository_id, discussion.number, first)


def _operations(changes: dict[str, Change], tip: Revision) -> list[Operation]:
    """The operations that make the same changes: what goes, then what comes from ``tip``."""
    gone: list[Operation] = [Delete(path) for path, (_, after) in changes.items() if after is None]
    return [*gone, *(Copy(path, path, tip.id) for path, (_, after) in changes.items() if after is not None)]


def _title(text: str) -> str:
    """A title in one line, without blanks around it."""
    title = " ".join(text.split())
    if not 0 < len(title) <= MAX_TITLE_CHARS or _REFUSED.search(title):
        raise UnprocessableError(f"a title has 1 to {MAX_TITLE_CHARS} characters")
    return title


def _check_comment(text: str, *, is_needed: bool = False) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = MAX_COMMENT_BYTES + 1
    if size > MAX_COMMENT_BYTES or "\0" in text or (is_needed and not text.strip()):
        raise UnprocessableError(f"a comment is a text of at most {MAX_COMMENT_BYTES} bytes")


def _no_discussion(number: int) -> NotFoundError:
    return NotFoundError(f"there is no discussion {number}")
