"""Repositories: what is committed is read back at each revision, and races lose nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support import engines
from xetstore.access.tokens import Scope
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.index import Index
from xetstore.errors import (
    EntryNotFoundError,
    ExistsError,
    ForbiddenError,
    GatedError,
    OutdatedError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    UnauthenticatedError,
    UnprocessableError,
    UsageError,
)
from xetstore.hub import new_tree
from xetstore.hub.check import verify_names
from xetstore.hub.discussions import Discussions
from xetstore.hub.names import MAX_REF_BYTES, Kind, RepositoryName
from xetstore.hub.objects import EXECUTABLE, FILE, SYMLINK
from xetstore.hub.operations import AddFile, AddPointer, Copy, Delete, Operation
from xetstore.hub.queries import Listing
from xetstore.hub.repository import Repository
from xetstore.hub.rights import ANONYMOUS, LOCAL, Actor, Right
from xetstore.hub.service import EmbeddedHub, HubOptions

ENGINES = engines.BOTH
BERT = RepositoryName(Kind.MODELS, "alice", "bert")


@pytest.fixture
def hub(opening: engines.Opening) -> Iterator[EmbeddedHub]:
    with EmbeddedCas(MemoryBlobStore(), Index(opening())) as cas:
        hub = EmbeddedHub(cas)
        yield hub
        assert verify_names(hub) == []


@pytest.fixture
def bert(hub: EmbeddedHub) -> Repository:
    return hub.create(LOCAL, BERT)


def commit(repository: Repository, message: str, *operations: AddFile | Delete | Copy, branch: str = "main") -> str:
    return repository.commit(branch, operations, message)[0].id


def files(repository: Repository, revision: str = "main") -> dict[str, bytes]:
    found = repository.revision(revision)
    entries = repository.entries(found, recursive=True)
    return {entry.path: repository.blob(entry) for entry in entries if not entry.is_folder}


# Bounds


def test_a_commit_changes_so_many_folders_that_its_memory_is_bounded(
    bert: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short path may have 500 folders, and a commit 100,000 such paths."""
    monkeypatch.setattr(new_tree, "MAX_FOLDERS", 1000)
    deep = "/".join(["a"] * 500)
    commit(bert, "deep", AddFile(f"x{deep}/f", b""), AddFile(f"{deep}/f", b""))
    with pytest.raises(UnprocessableError, match="at most 1000 folders"):
        commit(bert, "too many", *(AddFile(f"{number}/{deep}/f", b"") for number in range(3)))


# Creation and names


def test_a_new_repository_has_one_commit_with_its_attributes(bert: Repository) -> None:
    revision = bert.revision()
    assert (revision.title, revision.number, revision.author) == ("initial commit", 1, "local")
    assert [entry.path for entry in bert.entries(revision)] == [".gitattributes"]


def test_a_name_is_taken_whatever_its_case_and_shown_as_given(hub: EmbeddedHub, bert: Repository) -> None:
    with pytest.raises(ExistsError):
        hub.create(LOCAL, RepositoryName(Kind.MODELS, "Alice", "BERT"))
    hub.create(LOCAL, RepositoryName(Kind.DATASETS, "alice", "bert"))
    assert hub.repository(LOCAL, Kind.MODELS, "ALICE/bert").name.id == "alice/bert"


@pytest.mark.parametrize("name", ["bert", "alice/", "/bert", "alice/be rt", "a/b/c", "alice/..", "alice/bert.git", ""])
def test_what_is_no_name_is_as_if_missing(hub: EmbeddedHub, name: str) -> None:
    with pytest.raises(RepositoryNotFoundError):
        hub.repository(LOCAL, Kind.MODELS, name)


def test_a_moved_repository_is_found_by_both_names_until_another_takes_the_first(
    hub: EmbeddedHub, bert: Repository
) -> None:
    to = RepositoryName(Kind.MODELS, "bob", "bert-2")
    moved = hub.move(LOCAL, Kind.MODELS, "alice/bert", to)
    assert moved.row.namespace == bert.row.namespace
    assert hub.repository(LOCAL, Kind.MODELS, "alice/bert").name == to
    other = hub.create(LOCAL, BERT)
    assert hub.repository(LOCAL, Kind.MODELS, "alice/bert").row.id == other.row.id
    assert other.row.namespace != bert.row.namespace
    with pytest.raises(ExistsError):
        hub.move(LOCAL, Kind.MODELS, "bob/bert-2", BERT)
    hub.delete(LOCAL, Kind.MODELS, "alice/bert")
    back = hub.move(LOCAL, Kind.MODELS, "bob/bert-2", BERT)
    assert back.name == BERT
    assert hub.repository(LOCAL, Kind.MODELS, "bob/bert-2").name == BERT


def test_a_repository_made_again_has_a_namespace_that_none_had(hub: EmbeddedHub) -> None:
    namespaces = set()
    for _ in range(4):
        namespaces.add(hub.create(LOCAL, BERT).row.namespace)
        hub.delete(LOCAL, Kind.MODELS, "alice/bert")
    assert len(namespaces) == 4
    assert "models/alice/bert" in namespaces


def test_an_id_is_given_once(hub: EmbeddedHub) -> None:
    """URLs that were signed for a repository which is gone name it by that."""
    first = hub.create(LOCAL, BERT).row.id
    hub.delete(LOCAL, Kind.MODELS, "alice/bert")
    assert hub.create(LOCAL, RepositoryName(Kind.MODELS, "bob", "secret")).row.id != first


def test_what_is_not_created_leaves_no_row(hub: EmbeddedHub, bert: Repository) -> None:
    for _ in range(3):
        with pytest.raises(ExistsError):
            hub.create(LOCAL, BERT)
    with hub.snapshot() as reader:
        assert reader.connection.value("SELECT count(*) FROM used_namespace", {}) == 1


def test_settings_of_the_same_moment_are_all_kept(hub: EmbeddedHub, bert: Repository) -> None:
    """One that hides a repository is not undone by another that was about something else."""
    together = threading.Barrier(2)
    changes: list[dict[str, Any]] = [{"visibility": "private"}, {"gated": "auto"}]

    def change(settings: dict[str, Any]) -> None:
        together.wait(30)
        hub.update(LOCAL, Kind.MODELS, "alice/bert", **settings)

    with ThreadPoolExecutor(2) as pool:
        for _ in range(30):
            hub.update(LOCAL, Kind.MODELS, "alice/bert", visibility="public", gated=False)
            list(pool.map(change, changes))
            row = hub.repository(LOCAL, Kind.MODELS, "alice/bert").row
            assert (row.visibility, row.gated) == ("private", "auto")


def test_creation_at_the_same_moment_gives_one(hub: EmbeddedHub) -> None:
    together = threading.Barrier(4)

    def create(_: int) -> bool:
        together.wait(30)
        try:
            hub.create(LOCAL, BERT)
        except ExistsError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(create, range(4))) == [False, False, False, True]


# Commits


def test_files_and_folders_of_each_revision(bert: Repository) -> None:
    first = commit(bert, "one", AddFile("a/b/c.txt", b"c"), AddFile("a/d.txt", b"d"), AddFile("é☃.md", b"#"))
    second = commit(bert, "two", Delete("a/b"), AddFile("é☃.md", b"##"), AddFile("run.sh", b"", EXECUTABLE))
    assert files(bert, first) | {".gitattributes": b""} == {
        ".gitattributes": b"",
        "a/b/c.txt": b"c",
        "a/d.txt": b"d",
        "é☃.md": b"#",
    }
    assert set(files(bert, second)) == {".gitattributes", "a/d.txt", "é☃.md", "run.sh"}
    found = bert.revision(second)
    assert [entry.path for entry in bert.entries(found)] == [".gitattributes", "a", "run.sh", "é☃.md"]
    assert bert.entry(found, "run.sh").mode == EXECUTABLE
    assert [entry.path for entry in bert.entries(found, "a/d.txt")] == ["a/d.txt"]
    assert [entry.path for entry in bert.entries_at(found, ["x", "a", "run.sh", "a/d.txt/y"])] == ["a", "run.sh"]


def test_the_last_file_of_a_folder_takes_it_along(bert: Repository) -> None:
    commit(bert, "add", AddFile("x/y/z", b"1"))
    commit(bert, "delete", Delete("x/y/z"))
    assert set(files(bert)) == {".gitattributes"}
    commit(bert, "all of it", Delete(".gitattributes"))
    assert bert.entries(bert.revision()) == []


@pytest.mark.parametrize(
    "operation", [AddFile("folder", b""), AddFile("file/below", b""), Copy("new", "missing"), Delete("folder/none")]
)
def test_what_cannot_be_is_refused_whole(bert: Repository, operation: AddFile | Copy | Delete) -> None:
    before = commit(bert, "add", AddFile("folder/x", b"x"), AddFile("file", b"f"))
    with pytest.raises((UnprocessableError, EntryNotFoundError)):
        bert.commit("main", [AddFile("other", b""), operation], "no")
    assert bert.revision().id == before


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/../b",
        "..\\ddd",
        "a\0b",
        "a\nb",
        ".git/config",
        "a/.GIT",
        "x" * 1025,
        "\ud800",
    ],
)
def test_no_path_leads_out_of_a_repository(path: str) -> None:
    for kind in (AddFile, lambda path, _: Delete(path), lambda path, _: Copy("a", path)):
        with pytest.raises(UnprocessableError):
            kind(path, b"")


def test_a_file_in_place_of_a_folder_that_goes_in_the_same_commit(bert: Repository) -> None:
    commit(bert, "add", AddFile("a/b", b"1"))
    commit(bert, "turn", Delete("a"), AddFile("a", b"2"))
    assert files(bert)["a"] == b"2"
    commit(bert, "turn back", Delete("a"), AddFile("a/c", b"3"))
    assert files(bert)["a/c"] == b"3"


def test_a_file_that_is_replaced_stays_executable_unless_it_is_said(bert: Repository) -> None:
    commit(bert, "add", AddFile("run.sh", b"1", EXECUTABLE), AddFile("link", b"run.sh", SYMLINK))
    commit(bert, "replace", AddFile("run.sh", b"2"), AddFile("link", b"3"))
    revision = bert.revision()
    assert [bert.entry(revision, path).mode for path in ("run.sh", "link")] == [EXECUTABLE, FILE]
    commit(bert, "say", AddFile("run.sh", b"2", FILE))
    assert bert.entry(bert.revision(), "run.sh").mode == FILE


def test_copies_take_the_same_content(bert: Repository) -> None:
    first = commit(bert, "add", AddFile("a/b/c", b"old"), AddFile("d", b"d"))
    commit(bert, "change", AddFile("a/b/c", b"new"), Copy("copy", "a"), Copy("was/c", "a/b/c", first))
    found = files(bert)
    assert (found["copy/b/c"], found["was/c"], found["a/b/c"]) == (b"old", b"old", b"new")


def test_a_text_that_looks_like_a_pointer_is_a_text(bert: Repository) -> None:
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 5\n".encode()
    commit(bert, "add", AddFile("a.bin", text))
    entry = bert.entry(bert.revision(), "a.bin")
    assert (entry.sha256, entry.file, entry.size) == (None, None, len(text))


def test_a_file_that_was_never_uploaded_here_is_refused(bert: Repository) -> None:
    with pytest.raises(UnprocessableError, match="ab" * 32):
        bert.commit("main", [AddPointer("a.bin", bytes.fromhex("ab" * 32), 5)], "no")


def test_a_branch_that_moved_on_is_outdated_and_the_same_call_again_is_not(bert: Repository) -> None:
    start = bert.revision().id
    operations: list[Operation] = [AddFile("a", b"1"), Delete(".gitattributes")]
    made, _ = bert.commit("main", operations, "mine", parent=start)
    with pytest.raises(OutdatedError):
        bert.commit("main", [AddFile("b", b"1")], "other", parent=start)
    bert.commit("main", [AddFile("c", b"1")], "another")
    again, _ = bert.commit("main", operations, "mine", parent=start)
    assert again == made
    assert bert.revision().number == 3
    with pytest.raises(OutdatedError):
        bert.commit("main", [AddFile("a", b"2")], "mine", parent=start)


def test_a_parent_is_named_by_so_many_digits_that_it_is_meant(bert: Repository) -> None:
    """Of one digit each 16th commit is right by chance, and a lost update with it."""
    start = bert.revision().id
    for digits in (1, 6):
        with pytest.raises(OutdatedError):
            bert.commit("main", [AddFile("a", b"1")], "x", parent=start[:digits])
    bert.commit("main", [AddFile("a", b"1")], "x", parent=start[:7].upper())


@pytest.mark.parametrize("name", ["refs/pr/1", "refs/tags/v1", "refs/convert/x", "refs/heads/refs/pr/1"])
def test_no_other_ref_is_made_or_deleted_as_a_branch(bert: Repository, name: str) -> None:
    """A pull request that is opened later needs its own."""
    bert.create_tag("v1")
    for change in (bert.create_branch, bert.delete_branch):
        with pytest.raises(UsageError, match="not the name of a branch"):
            change(name)
    assert bert.revision("v1") == bert.revision()
    assert Discussions(bert).open("one", is_pull_request=True).number == 1


def test_the_longest_names_are_those_that_both_engines_take(bert: Repository) -> None:
    name = "é" + "x" * (MAX_REF_BYTES - 2)
    bert.create_branch(name)
    bert.create_tag(name)
    assert bert.revision(f"refs/heads/{name}") == bert.revision(f"refs/tags/{name}")
    with pytest.raises(UsageError, match="not the name"):
        bert.create_branch(f"{name}x")


def test_the_same_call_again_opens_one_pull_request(bert: Repository) -> None:
    operations: list[Operation] = [AddFile("a", b"1")]
    first = bert.commit("main", operations, "propose", create_pull_request=True)
    assert bert.commit("main", operations, "propose", create_pull_request=True) == first
    other = bert.commit("main", [AddFile("a", b"2")], "propose", create_pull_request=True)
    assert (first[1], other[1]) == (1, 2)
    assert bert.revision("refs/pr/1") == first[0]


def test_without_a_parent_the_same_call_is_known_at_the_tip_alone(bert: Repository) -> None:
    one = commit(bert, "upload", AddFile("a", b"1"))
    assert commit(bert, "upload", AddFile("a", b"1")) == one
    commit(bert, "upload", AddFile("a", b"2"))
    back = commit(bert, "upload", AddFile("a", b"1"))
    assert back != one
    assert files(bert)["a"] == b"1"


@pytest.mark.parametrize("message", ["", " \n", "a\0b", "\ud800", "x" * (64 << 10) + "x"])
def test_a_message_is_a_text(bert: Repository, message: str) -> None:
    with pytest.raises(UnprocessableError):
        bert.commit("main", [], message)


def test_writers_at_one_branch_lose_no_commit(hub: EmbeddedHub, bert: Repository) -> None:
    with ThreadPoolExecutor(4) as pool:
        [*pool.map(lambda number: commit(bert, f"c{number}", AddFile(f"f{number}", b"%d" % number)), range(24))]
    assert bert.revision().number == 25
    assert len(files(bert)) == 25


# Revisions


def test_revisions_by_all_their_names(bert: Repository) -> None:
    oid = commit(bert, "one", AddFile("a", b"1"))
    bert.create_branch("feature/x", oid)
    bert.create_tag("v1", oid, "a release")
    bert.create_tag("light", oid[:7])
    for text in ("main", "HEAD", "refs/heads/main", "feature/x", "v1", "refs/tags/v1", "light", oid, oid[:7]):
        assert bert.revision(text).id == oid
    for text in ("", "v2", "refs/heads", "0" * 40, "0" * 7, oid[:3], oid + "0", "main ", "../main"):
        with pytest.raises(RevisionNotFoundError):
            bert.revision(text)


def test_branches_and_tags_come_and_go(bert: Repository) -> None:
    start = bert.revision()
    bert.create_branch("dev")
    with pytest.raises(ExistsError, match="refs/heads/dev already exists"):
        bert.create_branch("dev")
    commit(bert, "on dev", AddFile("a", b"1"), branch="dev")
    assert bert.revision() == start
    assert [ref.name for ref in bert.refs()] == ["refs/heads/dev", "refs/heads/main"]
    bert.create_branch("dev", start.id, overwrite=True)
    assert bert.revision("dev") == start
    bert.create_branch("none", is_empty=True)
    assert bert.entries(bert.revision("none")) == []
    bert.delete_branch("dev")
    with pytest.raises(RevisionNotFoundError):
        bert.delete_branch("dev")
    with pytest.raises(ForbiddenError, match="Cannot delete refs/heads/main"):
        bert.delete_branch("main")
    with pytest.raises(UsageError):
        bert.create_tag("a tag")
    with pytest.raises(RevisionNotFoundError):
        bert.create_tag("v2", "nowhere")
    with pytest.raises(RevisionNotFoundError):  # said before the name is looked at
        bert.create_tag("a tag", "nowhere")
    with pytest.raises(RevisionNotFoundError):
        bert.delete_tag("main")
    with pytest.raises(RevisionNotFoundError):
        bert.commit("nowhere", [AddFile("a", b"1")], "no")


def test_a_history_goes_over_lines(bert: Repository) -> None:
    titles = ["initial commit"]
    for number in range(5):
        commit(bert, f"m{number}", AddFile("a", b"%d" % number))
        titles.insert(0, f"m{number}")
    bert.create_branch("dev", bert.log(bert.revision(), limit=1, offset=2)[0].id)
    for number in range(3):
        commit(bert, f"d{number}", AddFile(f"folder/{number}", b"%d" % number), branch="dev")
    tip = bert.revision("dev")
    expected = ["d2", "d1", "d0", *titles[2:]]
    assert [revision.title for revision in bert.log(tip, limit=100)] == expected
    assert tip.number == len(expected)
    for offset in range(len(expected) + 1):
        page = bert.log(tip, limit=2, offset=offset)
        assert [revision.title for revision in page] == expected[offset : offset + 2]
    changes = bert.last_changes(tip, ["a", "folder", "folder/0", ".gitattributes", "none"])
    assert {path: revision.title for path, revision in changes.items()} == {
        "a": "m2",
        "folder": "d2",
        "folder/0": "d0",
        ".gitattributes": "initial commit",
    }


def test_a_squash_leaves_one_commit_with_the_same_files(bert: Repository) -> None:
    commit(bert, "one", AddFile("a/b", b"1"))
    before = files(bert)
    squashed = bert.squash("main", "all in one")
    assert (bert.revision(), squashed.number, squashed.title) == (squashed, 1, "all in one")
    assert files(bert) == before
    assert bert.last_changes(squashed, ["a"])["a"] == squashed


def test_pages_of_entries(bert: Repository) -> None:
    commit(bert, "add", *(AddFile(f"d{number % 3}/f{number}", b"") for number in range(20)))
    revision = bert.revision()
    whole = [entry.path for entry in bert.entries(revision, recursive=True)]
    pages: list[str] = []
    while page := bert.entries(revision, recursive=True, after=pages[-1] if pages else None, limit=7):
        assert len(page) <= 7
        pages += [entry.path for entry in page]
    assert pages == whole
    assert len(whole) == 24


# Rights


def test_a_private_repository_is_as_if_missing(hub: EmbeddedHub) -> None:
    hub.create(LOCAL, BERT, visibility="private")
    stranger = Actor(name="eve", scope=Scope.WRITE, user_id=7)
    for actor in (ANONYMOUS, stranger):
        with pytest.raises(RepositoryNotFoundError, match=r"^Repository not found$"):
            hub.repository(actor, Kind.MODELS, "alice/bert")
        assert hub.repositories(actor, Listing((Kind.MODELS,))) == []
    owner = Actor(name="Alice", scope=Scope.READ, user_id=8)
    assert hub.repository(owner, Kind.MODELS, "alice/bert").right is Right.READ
    assert len(hub.repositories(owner, Listing((Kind.MODELS,)))) == 1


def test_a_reader_changes_nothing(hub: EmbeddedHub, bert: Repository) -> None:
    for actor in (ANONYMOUS, Actor(name="eve", scope=Scope.WRITE), Actor(name="alice", scope=Scope.READ)):
        seen = hub.repository(actor, Kind.MODELS, "alice/bert", Right.READ)
        for change in (
            lambda seen=seen: seen.commit("main", [AddFile("a", b"")], "no"),
            lambda seen=seen: seen.create_branch("b"),
            lambda seen=seen: seen.delete_branch("main"),
            lambda seen=seen: seen.create_tag("t"),
            lambda seen=seen: seen.delete_tag("t"),
            lambda seen=seen: seen.squash("main", "no"),
            lambda actor=actor: hub.delete(actor, Kind.MODELS, "alice/bert"),
            lambda actor=actor: hub.update(actor, Kind.MODELS, "alice/bert", visibility="private"),
            lambda actor=actor: hub.move(actor, Kind.MODELS, "alice/bert", RepositoryName(Kind.MODELS, "eve", "b")),
            lambda actor=actor: hub.create(actor, RepositoryName(Kind.MODELS, "bob", "new")),
        ):
            with pytest.raises((ForbiddenError, UnauthenticatedError)):
                change()
    assert bert.revision().number == 1


def test_a_reader_goes_on_with_the_pull_requests_that_it_opened(hub: EmbeddedHub, bert: Repository) -> None:
    eve, mallory = (
        hub.repository(Actor(name=name, scope=Scope.WRITE), Kind.MODELS, "alice/bert") for name in ("eve", "mallory")
    )
    eve.commit("main", [AddFile("a", b"1")], "first", create_pull_request=True)
    eve.commit("refs/pr/1", [AddFile("b", b"2")], "second")
    assert sorted(files(bert, "refs/pr/1")) == [".gitattributes", "a", "b"]
    for branch in ("refs/pr/1", "refs/pr/2", "refs/pr/01", "refs/pr/1/2"):
        with pytest.raises(ForbiddenError):
            mallory.commit(branch, [AddFile("c", b"3")], "not hers")
    Discussions(bert).set_status(1, "closed")
    with pytest.raises(ForbiddenError):
        eve.commit("refs/pr/1", [AddFile("c", b"3")], "too late")
    assert sorted(files(bert)) == [".gitattributes"]


def test_a_gated_repository_is_seen_and_not_read(hub: EmbeddedHub, bert: Repository) -> None:
    hub.update(LOCAL, Kind.MODELS, "alice/bert", gated="manual")
    assert hub.repository(ANONYMOUS, Kind.MODELS, "alice/bert").row.gated == "manual"
    with pytest.raises(GatedError, match="Access to model alice/bert is restricted"):
        hub.repository(ANONYMOUS, Kind.MODELS, "alice/bert", Right.READ)
    hub.update(LOCAL, Kind.MODELS, "alice/bert", gated=False)
    assert hub.repository(ANONYMOUS, Kind.MODELS, "alice/bert", Right.READ).row.gated is None


def test_without_anonymous_readers_a_token_is_needed(opening: engines.Opening, tmp_path: Path) -> None:
    with EmbeddedCas(MemoryBlobStore(), Index(opening())) as cas:
        hub = EmbeddedHub(cas, HubOptions(default_visibility="private", anonymous_reads=False))
        assert hub.create(LOCAL, BERT).row.is_private
        hub.create(LOCAL, RepositoryName(Kind.MODELS, "alice", "open"), visibility="public")
        with pytest.raises(RepositoryNotFoundError):
            hub.repository(ANONYMOUS, Kind.MODELS, "alice/open")
        assert hub.repositories(ANONYMOUS, Listing((Kind.MODELS,))) == []
        assert hub.repository(Actor(name="eve"), Kind.MODELS, "alice/open").right is Right.READ


def test_lists_come_in_pages_and_by_owner(hub: EmbeddedHub) -> None:
    for number in range(7):
        hub.create(LOCAL, RepositoryName(Kind.MODELS, "alice", f"m_{number}"))
    hub.create(LOCAL, RepositoryName(Kind.MODELS, "bob", "m_9"))
    seen: list[str] = []
    before = None
    while page := hub.repositories(ANONYMOUS, Listing((Kind.MODELS,), owner="ALICE", limit=3, before=before)):
        seen += [row.name.name for row in page]
        before = page[-1].updated_at, page[-1].id
    assert sorted(seen) == [f"m_{number}" for number in range(7)]
    found = hub.repositories(ANONYMOUS, Listing((Kind.MODELS,), search="_9"))
    assert [row.name.id for row in found] == ["bob/m_9"]
    assert hub.repositories(ANONYMOUS, Listing((Kind.MODELS,), search="%")) == []
