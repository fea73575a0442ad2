"""Discussions and pull requests: numbers, words, who may change what, and how changes come to a branch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.hubs import ALICE, BOB, BOB_READING, create, opened_hub
from xetstore.errors import (
    ForbiddenError,
    NotFoundError,
    RepositoryNotFoundError,
    UnauthenticatedError,
    UnprocessableError,
    UsageError,
)
from xetstore.hub.discussions import MAX_COMMENT_BYTES, MAX_EVENTS, Discussions
from xetstore.hub.names import Kind
from xetstore.hub.operations import AddFile, Delete
from xetstore.hub.queries import DiscussionFilter
from xetstore.hub.repository import Repository
from xetstore.hub.rights import ANONYMOUS, Actor, Right
from xetstore.hub.service import EmbeddedHub
from xetstore.testing import FakeClock

ENGINES = engines.BOTH


@pytest.fixture
def hub(engine: str, root: Path, request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[EmbeddedHub]:
    with opened_hub(engine, root, request, clock) as hub:
        create(hub, "Alice/bert")
        yield hub


def bert(hub: EmbeddedHub, actor: Actor = ALICE) -> Repository:
    return hub.repository(actor, Kind.MODELS, "Alice/bert", Right.READ)


def put(repository: Repository, branch: str, message: str, **files: str | None) -> str:
    """One commit of files, or of their end; its id."""
    operations = [
        Delete(path) if text is None else AddFile(path.replace("_", "/"), text.encode()) for path, text in files.items()
    ]
    revision, _ = repository.commit(branch, operations, message)
    return revision.id


def files_at(repository: Repository, text: str = "main") -> dict[str, bytes]:
    revision = repository.revision(text)
    return {
        entry.path: repository.blob(entry)
        for entry in repository.entries(revision, recursive=True)
        if not entry.is_folder and entry.path != ".gitattributes"
    }


def proposed(hub: EmbeddedHub, **files: str | None) -> int:
    """A pull request of bob's, with one commit."""
    number = Discussions(bert(hub, BOB)).open("Better", is_pull_request=True).number
    Discussions(bert(hub, BOB)).set_status(number, "open")
    put(bert(hub), f"refs/pr/{number}", "propose", **files)
    return number


def test_discussions_and_pull_requests_share_their_numbers(hub: EmbeddedHub, clock: FakeClock) -> None:
    talk = Discussions(bert(hub, BOB))
    first = talk.open("  A \n question ", "Why?")
    second = talk.open("A change", is_pull_request=True)
    _, third = bert(hub, BOB).commit("main", [AddFile("a", b"a")], "A commit\n\nmore", create_pull_request=True)
    assert [first.number, second.number, third] == [1, 2, 3]
    assert (first.title, first.status, first.author, first.created_at) == ("A question", "open", "bob", clock())
    assert (second.status, second.base) == ("draft", "refs/heads/main")
    main = bert(hub).revision()
    assert bert(hub).revision("refs/pr/2") == main
    assert bert(hub).revision("refs/pr/3").number == main.number + 1
    third_row, _ = talk.get(3)
    assert (third_row.title, third_row.status, third_row.fork) == ("A commit", "open", main.oid)
    assert [event.content for event in talk.get(1)[1]] == ["Why?"]


def test_a_list_shows_what_is_asked_for_the_newest_first(hub: EmbeddedHub) -> None:
    talk = Discussions(bert(hub, BOB))
    for number in range(1, 6):
        talk.open(f"number {number}", is_pull_request=number % 2 == 0)
    talk.set_status(1, "closed")
    talk.set_status(2, "closed")

    def shown(wanted: DiscussionFilter = DiscussionFilter(), limit: int = 10, offset: int = 0) -> tuple[list[int], int]:  # noqa: B008
        found, total = talk.page(wanted, limit=limit, offset=offset)
        return [each.number for each in found], total

    assert shown() == ([5, 4, 3, 2, 1], 5)
    assert shown(limit=2, offset=3) == ([2, 1], 5)
    assert shown(DiscussionFilter(others=False)) == ([4, 2], 2)
    assert shown(DiscussionFilter(pull_requests=False)) == ([5, 3, 1], 3)
    assert shown(DiscussionFilter(("draft", "open"))) == ([5, 4, 3], 3)
    assert shown(DiscussionFilter(("closed",), author="bob")) == ([2, 1], 2)
    assert shown(DiscussionFilter(author="nobody")) == ([], 0)
    assert shown(DiscussionFilter(others=False, pull_requests=False)) == ([], 0)


def test_events_tell_what_was_said_and_changed(hub: EmbeddedHub, clock: FakeClock) -> None:
    talk, owner = Discussions(bert(hub, BOB)), Discussions(bert(hub))
    talk.open("Old", "First words")
    said = owner.comment(1, "Second 🤗\nwords")
    talk.rename(1, "New")
    owner.set_status(1, "closed", "That is that")
    discussion, events = talk.get(1)
    assert (discussion.title, discussion.status) == ("New", "closed")
    assert [(event.kind, event.author, event.content, event.former) for event in events] == [
        ("comment", "bob", "First words", None),
        ("comment", "Alice", "Second 🤗\nwords", None),
        ("title-change", "bob", "New", "Old"),
        ("comment", "Alice", "That is that", None),
        ("status-change", "Alice", "closed", None),
    ]
    assert [event.position for event in events] == [1, 2, 3, 4, 5]
    clock.advance(10)
    edited = owner.edit(1, said.position, "Third words")
    assert (edited.content, edited.edited_at, edited.is_hidden) == ("Third words", clock(), False)
    hidden = owner.hide(1, 1)
    assert (hidden.content, hidden.is_hidden) == ("", True)
    assert talk.get(1)[1][:2] == [hidden, edited]
    with pytest.raises(UsageError):
        talk.edit(1, 1, "again")


def test_who_may_say_and_change_what(hub: EmbeddedHub) -> None:
    owner, bob = Discussions(bert(hub)), Discussions(bert(hub, BOB))
    carol = Discussions(bert(hub, replace(BOB, name="carol", user_id=3)))
    owner.open("Mine", "words")
    number = carol.open("Theirs", is_pull_request=True).number
    for refused in (
        lambda: bob.rename(1, "x"),
        lambda: bob.set_status(1, "closed"),
        lambda: bob.edit(1, 1, "x"),
        lambda: bob.hide(1, 1),
        lambda: owner.edit(number, 1, "x"),
        lambda: carol.merge(number),
        lambda: Discussions(bert(hub, BOB_READING)).comment(1, "x"),
        lambda: Discussions(bert(hub, BOB_READING)).open("x"),
    ):
        with pytest.raises(ForbiddenError):
            refused()
    for refused in (
        lambda: Discussions(bert(hub, ANONYMOUS)).open("x"),
        lambda: Discussions(bert(hub, ANONYMOUS)).comment(1, "x"),
    ):
        with pytest.raises(UnauthenticatedError):
            refused()
    assert owner.get(1)[0].events == 1
    owner.rename(number, "By who may write")
    carol.rename(number, "By its author")
    hub.update(ALICE, Kind.MODELS, "Alice/bert", visibility="private")
    with pytest.raises(RepositoryNotFoundError):
        bert(hub, BOB)


def test_words_have_bounds(hub: EmbeddedHub, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Discussions(bert(hub))
    for title in ("", " \n ", "x" * 256, "nul\0", "half\ud800"):
        with pytest.raises(UnprocessableError):
            talk.open(title)
    talk.open("x" * 255)
    for comment in ("", "  ", "x" * (MAX_COMMENT_BYTES + 1), "nul\0", "half\ud800"):
        with pytest.raises(UnprocessableError):
            talk.comment(1, comment)
    with pytest.raises(UsageError):
        talk.set_status(1, "merged")
    for number in (0, 2, 10**9):
        with pytest.raises(NotFoundError):
            talk.get(number)
        with pytest.raises(NotFoundError):
            talk.comment(number, "x")
    monkeypatch.setattr("xetstore.hub.discussions.MAX_EVENTS", 3)
    assert MAX_EVENTS > 3
    talk.comment(1, "two")
    talk.comment(1, "three")
    with pytest.raises(UnprocessableError):
        talk.comment(1, "four")
    assert talk.get(1)[0].events == 3


# --- Pull requests --------------------------------------------------------------------------------------


def test_a_pull_request_tells_its_commits_and_its_difference(hub: EmbeddedHub) -> None:
    put(bert(hub), "main", "before", a="one\ntwo\n", b="gone", c_d="same")
    number = proposed(hub, a="one\n2\n", b=None, c_new="x")
    put(bert(hub), f"refs/pr/{number}", "again", c_new="new\0")
    told = Discussions(bert(hub)).proposal(Discussions(bert(hub)).get(number)[0])
    assert [commit.title for commit in told.commits] == ["propose", "again"]
    assert told.conflicts == []
    assert re.sub(r"index \w{7}\.\.\w{7}", "index", told.diff) == (
        "diff --git a/a b/a\nindex\n--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n"
        "diff --git a/b b/b\ndeleted file mode 100644\nindex\n"
        "--- a/b\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n\\ No newline at end of file\n"
        "diff --git a/c/new b/c/new\nnew file mode 100644\nindex\nBinary files /dev/null and b/c/new differ\n"
    )


def test_a_branch_that_did_not_move_goes_to_the_pull_request(hub: EmbeddedHub) -> None:
    number = proposed(hub, a="new")
    tip = bert(hub).revision(f"refs/pr/{number}")
    merged = Discussions(bert(hub)).merge(number, "Thanks")
    assert merged == tip == bert(hub).revision()
    discussion, events = Discussions(bert(hub)).get(number)
    assert (discussion.status, discussion.merge_oid) == ("merged", tip.oid)
    assert [event.content for event in events[-2:]] == ["Thanks", "merged"]
    told = Discussions(bert(hub)).proposal(discussion)
    assert [commit.title for commit in told.commits] == ["propose"]
    assert "+new" in told.diff
    for again in (
        lambda: Discussions(bert(hub)).merge(number),
        lambda: Discussions(bert(hub)).set_status(number, "open"),
    ):
        with pytest.raises(UsageError):
            again()


def test_a_branch_that_moved_gets_the_changes_as_one_commit(hub: EmbeddedHub) -> None:
    put(bert(hub), "main", "before", a="1", b="1", c_d="1", e="1")
    number = proposed(hub, a="2", b=None, f_g="2")
    put(bert(hub), f"refs/pr/{number}", "more", f_h="3")
    put(bert(hub), "main", "meanwhile", e="4", x="4")
    main = bert(hub).revision()
    merged = Discussions(bert(hub)).merge(number)
    assert bert(hub).revision() == merged
    assert (merged.title, merged.author, merged.number) == (f"Better (#{number})", "Alice", main.number + 1)
    assert files_at(bert(hub)) == {"a": b"2", "c/d": b"1", "e": b"4", "f/g": b"2", "f/h": b"3", "x": b"4"}


def test_what_both_sides_changed_is_not_merged(hub: EmbeddedHub) -> None:
    put(bert(hub), "main", "before", a="1", b="1", c="1", same="1")
    number = proposed(hub, a="2", b=None, c=None, same="2", d_e="2")
    bert(hub).commit("main", [AddFile("a", b"3"), AddFile("b", b"3"), Delete("c"), AddFile("same", b"2")], "meanwhile")
    put(bert(hub), "main", "a file where a folder comes", d="3")
    main = bert(hub).revision()
    talk = Discussions(bert(hub))
    assert talk.proposal(talk.get(number)[0]).conflicts == ["a", "b", "d"]
    with pytest.raises(UnprocessableError):
        talk.merge(number)
    assert bert(hub).revision() == main
    assert talk.get(number)[0].status == "open"
    assert talk.get(number)[0].events == 2


def test_only_an_open_pull_request_with_commits_is_merged(hub: EmbeddedHub) -> None:
    talk = Discussions(bert(hub))
    talk.open("words alone")
    draft = talk.open("draft", is_pull_request=True).number
    empty = talk.open("empty", is_pull_request=True).number
    talk.set_status(empty, "open")
    closed = proposed(hub, a="1")
    talk.set_status(closed, "closed")
    for number in (1, draft, empty, closed):
        with pytest.raises(UsageError):
            talk.merge(number)
    with pytest.raises(NotFoundError):
        talk.merge(99)


def test_pull_requests_and_commits_that_meet_lose_nothing(hub: EmbeddedHub) -> None:
    numbers = [proposed(hub, **{f"proposed{number}": "x"}) for number in range(4)]

    def merge(number: int) -> None:
        Discussions(bert(hub)).merge(numbers[number])

    def commit(number: int) -> None:
        for again in range(3):
            put(bert(hub), "main", "beside", **{f"beside{number}.{again}": "x"})
            Discussions(bert(hub)).comment(numbers[0], f"{number} {again}")

    with ThreadPoolExecutor(6) as threads:
        calls = [threads.submit(merge, number) for number in range(4)]
        calls += [threads.submit(commit, number) for number in range(2)]
        for call in calls:
            call.result()
    expected = {f"proposed{number}" for number in range(4)} | {
        f"beside{n}.{again}" for n in range(2) for again in range(3)
    }
    assert files_at(bert(hub)).keys() == expected
    discussion, events = Discussions(bert(hub)).get(numbers[0])
    assert discussion.status == "merged"
    assert [event.position for event in events] == [*range(1, len(events) + 1)]
    assert sum(event.kind == "comment" for event in events) == 7


def test_a_long_difference_says_no_more_than_that_files_differ(hub: EmbeddedHub) -> None:
    ours, theirs = "a\n" * 400, "b\n" * 400
    put(bert(hub), "main", "before", **{f"{number}": ours for number in range(8)}, long=ours * 2)
    number = proposed(hub, **{f"{number}": theirs for number in range(8)}, long=theirs)
    told = Discussions(bert(hub)).proposal(Discussions(bert(hub)).get(number)[0])
    assert told.diff.count("diff --git") == 9
    assert told.diff.count("@@ -1,400 +1,400 @@") == 5
    assert told.diff.count("Binary files") == 4
