"""Large files of a repository: listed by content, whatever ref has them; what is deleted is gone everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator

import pytest

from tests.support import engines
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.index import Index
from xetstore.errors import ForbiddenError, NotFoundError, UnprocessableError
from xetstore.hub.arrivals import arrive
from xetstore.hub.check import verify_names
from xetstore.hub.discussions import Discussions
from xetstore.hub.lfs import LargeFiles
from xetstore.hub.lfs_files import delete_large_files, list_large_files
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.operations import AddFile, AddPointer, Delete
from xetstore.hub.repository import Repository
from xetstore.hub.rights import LOCAL, Actor
from xetstore.hub.service import EmbeddedHub

ENGINES = engines.BOTH


@pytest.fixture
def hub(opening: engines.Opening) -> Iterator[EmbeddedHub]:
    with EmbeddedCas(MemoryBlobStore(), Index(opening())) as cas:
        hub = EmbeddedHub(cas)
        yield hub
        assert verify_names(hub) == []


@pytest.fixture
def bert(hub: EmbeddedHub) -> Repository:
    return hub.create(LOCAL, RepositoryName(Kind.MODELS, "alice", "bert"))


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def add(repository: Repository, path: str, data: bytes, branch: str = "main") -> str:
    """Commit a large file; the id of the commit."""
    arrived = arrive(repository.cas, data)
    return repository.commit(branch, [AddPointer(path, arrived.sha256)], f"add {path}")[0].id


def delete(repository: Repository, *files: bytes, rewrite_history: bool = True) -> None:
    delete_large_files(repository, [digest(data) for data in files], rewrite_history=rewrite_history)


def listed(repository: Repository) -> dict[bytes, tuple[str, str]]:
    """Path and ref of each large file, by its SHA-256."""
    return {each.pointed.sha256: (each.path, each.ref) for each in list_large_files(repository)}


def large(repository: Repository, revision: str = "main") -> set[str]:
    """The paths of large files at a revision."""
    entries = repository.entries(repository.revision(revision), recursive=True)
    return {entry.path for entry in entries if entry.sha256 is not None}


def titles(repository: Repository, revision: str = "main") -> list[str]:
    tip = repository.revision(revision)
    return [each.title for each in repository.log(tip, limit=tip.number)]


def test_files_of_all_refs_are_listed_once_each(bert: Repository) -> None:
    add(bert, "a/one.bin", b"one")
    add(bert, "copy.bin", b"one")
    add(bert, "two.bin", b"two")
    bert.create_branch("other")
    add(bert, "three.bin", b"three", "other")
    found = listed(bert)
    assert {sha256: ref for sha256, (_, ref) in found.items()} == {
        digest(b"one"): "refs/heads/main",
        digest(b"two"): "refs/heads/main",
        digest(b"three"): "refs/heads/other",
    }
    assert found[digest(b"one")][0] in ("a/one.bin", "copy.bin")
    assert found[digest(b"three")][0] == "three.bin"


def test_a_file_that_no_ref_has_any_more_is_listed_with_the_name_that_it_had(bert: Repository) -> None:
    added = add(bert, "a/old.bin", b"old")
    bert.commit("main", [Delete("a/old.bin")], "delete")
    for number in range(5):
        bert.commit("main", [AddFile(f"{number}.txt", b"text")], "later")
    [found] = list_large_files(bert)
    assert (found.path, found.pointed.size) == ("a/old.bin", 3)
    assert found.revision is not None
    assert found.revision.id == added


def test_a_listing_comes_in_pages(bert: Repository) -> None:
    for number in range(5):
        add(bert, f"{number}.bin", b"%d" % number)
    first = list_large_files(bert, limit=3)
    rest = list_large_files(bert, after=first[-1].pointed.sha256, limit=3)
    assert [each.pointed.sha256 for each in first + rest] == sorted(digest(b"%d" % number) for number in range(5))


@pytest.mark.parametrize("rewrite_history", [True, False])
def test_what_is_deleted_is_gone_from_every_ref_and_cannot_be_read(bert: Repository, rewrite_history: bool) -> None:
    add(bert, "a/secret.bin", b"secret")
    add(bert, "kept.bin", b"kept")
    bert.create_branch("other")
    add(bert, "again.bin", b"secret", "other")
    number = bert.commit("main", [AddFile("p.txt", b"p")], "proposal", create_pull_request=True)[1]
    stored = LargeFiles(bert.hub, bert.row).find([digest(b"secret")])[digest(b"secret")]
    delete(bert, b"secret", rewrite_history=rewrite_history)
    for ref in ("main", "other", f"refs/pr/{number}"):
        assert large(bert, ref) == {"kept.bin"}
        assert not [entry for entry in bert.entries(bert.revision(ref)) if entry.path == "a"]
    assert listed(bert).keys() == {digest(b"kept")}
    with pytest.raises(NotFoundError):
        bert.cas.stat(stored.hash)
    assert LargeFiles(bert.hub, bert.row).find([digest(b"secret")]) == {}
    assert bert.used_bytes() == 4


def test_a_history_is_rewritten_commit_by_commit(bert: Repository) -> None:
    add(bert, "kept.bin", b"kept")
    bert.create_tag("before")
    before = bert.revision("before")
    secret = add(bert, "secret.bin", b"secret")
    bert.commit("main", [AddFile("a.txt", b"a")], "text")
    bert.create_tag("v1", "main", "annotated")
    bert.create_branch("other", "main")
    bert.commit("other", [AddFile("b.txt", b"b")], "more")
    old = bert.revision("main")
    delete(bert, b"secret")
    assert titles(bert) == ["text", "add secret.bin", "add kept.bin", "initial commit"]
    assert titles(bert, "other") == ["more", *titles(bert)]
    tip = bert.revision("main")
    assert tip.id != old.id
    assert (tip.message, tip.author, tip.created_at) == (old.message, old.author, old.created_at)
    assert bert.revision("v1") == tip
    assert bert.revision("before") == before
    shared = bert.log(bert.revision("other"), limit=10)
    assert shared[1] == tip
    for revision in shared:
        assert "secret.bin" not in large(bert, revision.id)
    assert bert.last_changes(tip, ["a.txt", "kept.bin"])["a.txt"] == tip
    dangling = bert.entry(bert.revision(secret), "secret.bin")
    assert (dangling.sha256, dangling.file) == (digest(b"secret"), None)


def test_a_branch_goes_on_after_its_history_was_rewritten(bert: Repository) -> None:
    add(bert, "secret.bin", b"secret")
    delete(bert, b"secret")
    bert.commit("main", [AddFile("a.txt", b"a")], "text")
    add(bert, "again.bin", b"secret")
    assert large(bert) == {"again.bin"}
    assert listed(bert) == {digest(b"secret"): ("again.bin", "refs/heads/main")}
    delete(bert, b"secret")
    assert titles(bert) == ["add again.bin", "text", "add secret.bin", "initial commit"]


def test_pull_requests_go_on_after_a_history_was_rewritten(bert: Repository) -> None:
    add(bert, "secret.bin", b"secret")
    merged = bert.commit("main", [AddFile("m.txt", b"m")], "merged", create_pull_request=True)[1]
    proposed = bert.commit("main", [AddFile("p.txt", b"p")], "proposal", create_pull_request=True)[1]
    assert merged is not None
    assert proposed is not None
    discussions = Discussions(bert)
    discussions.merge(merged)
    delete(bert, b"secret")
    found = discussions.get(merged)[0]
    assert found.merge_oid in {each.oid for each in bert.log(bert.revision(), limit=10)}
    proposal = discussions.proposal(discussions.get(proposed)[0])
    assert [commit.title for commit in proposal.commits] == ["proposal"]
    discussions.merge(proposed)
    assert {"m.txt", "p.txt"} <= {entry.path for entry in bert.entries(bert.revision())}
    assert large(bert) == set()


def test_without_rewriting_each_branch_gets_a_commit(bert: Repository) -> None:
    add(bert, "a/secret.bin", b"secret")
    bert.create_branch("other")
    bert.create_tag("v1")
    tag = bert.revision("v1")
    delete(bert, b"secret", rewrite_history=False)
    assert titles(bert)[:2] == ["Delete a/secret.bin", "add a/secret.bin"]
    assert titles(bert, "other")[0] == "Delete a/secret.bin"
    assert bert.revision("v1") == tag
    assert bert.last_changes(bert.revision(), ["a/secret.bin"])["a/secret.bin"] == bert.revision()


def test_nothing_happens_for_files_that_are_not_there(bert: Repository) -> None:
    add(bert, "kept.bin", b"kept")
    before = bert.revision()
    delete(bert, b"other")
    assert bert.revision() == before


def test_what_another_repository_has_stays(hub: EmbeddedHub, bert: Repository) -> None:
    other = hub.create(LOCAL, RepositoryName(Kind.MODELS, "alice", "other"))
    for repository in (bert, other):
        add(repository, "shared.bin", b"shared")
    delete(bert, b"shared")
    assert large(bert) == set()
    assert large(other) == {"shared.bin"}
    assert LargeFiles(hub, other.row).find([digest(b"shared")])
    with pytest.raises(UnprocessableError):
        bert.commit("main", [AddPointer("shared.bin", digest(b"shared"))], "without its bytes")


def test_a_reader_deletes_nothing(hub: EmbeddedHub, bert: Repository) -> None:
    add(bert, "kept.bin", b"kept")
    reader = hub.repository(Actor(name="bob", user_id=7), Kind.MODELS, "alice/bert")
    assert _names(listed(reader)) == ["kept.bin"]
    with pytest.raises(ForbiddenError):
        delete(reader, b"kept")


def _names(found: dict[bytes, tuple[str, str]]) -> Collection[str]:
    return [path for path, _ in found.values()]
