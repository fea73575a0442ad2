"""The collection of names: what was deleted goes after its time, and nothing that anything leads to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.hubs import ALICE, BOB, create, opened_hub, uploaded
from xetstore.cas.check import verify_invariants
from xetstore.cas.grace import Grace
from xetstore.cas.lease import Lease
from xetstore.errors import (
    EntryNotFoundError,
    ExistsError,
    NotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from xetstore.hub.buckets import Bucket, DropFile, PutFile
from xetstore.hub.check import verify_names
from xetstore.hub.collecting import NamesReport, collect_names
from xetstore.hub.discussions import Discussions
from xetstore.hub.lfs_files import delete_large_files
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.operations import AddFile, AddPointer, Delete
from xetstore.hub.queries import Revision
from xetstore.hub.repository import Repository
from xetstore.hub.rights import ANONYMOUS
from xetstore.hub.service import EmbeddedHub
from xetstore.hub.undeleting import deleted_names, undelete_files, undelete_ref, undelete_repository
from xetstore.protocol.hashes import Hash
from xetstore.testing import FakeClock
from xetstore.testing.samples import random_bytes

ENGINES = engines.BOTH
GRACE = Grace(unused=100, undelete=100)
NAME = RepositoryName(Kind.MODELS, "Alice", "bert")


@pytest.fixture
def hub(engine: str, root: Path, request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[EmbeddedHub]:
    with opened_hub(engine, root, request, clock) as hub:
        yield hub
        assert verify_names(hub) == []
        verify_invariants(hub.cas)


def collect(hub: EmbeddedHub, *, dry_run: bool = False) -> NamesReport:
    with Lease.take(hub.cas.index, "collect") as lease:  # type: ignore[union-attr]
        return collect_names(hub, lease, GRACE, dry_run=dry_run)


def commit(repository: Repository, path: str, seed: int, branch: str = "main") -> tuple[Revision, Hash]:
    """A commit of one large file."""
    file = uploaded(repository, 2000, seed)
    sha256 = hashlib.sha256(random_bytes(2000, seed)).digest()
    return repository.commit(branch, [AddPointer(path, sha256)], f"commit {seed}")[0], file


def is_granted(repository: Repository, file: Hash) -> bool:
    with repository.hub.snapshot() as reader:
        return bool(reader.granted(repository.row.namespace, [file]))


def objects_of(repository: Repository) -> int:
    with repository.hub.snapshot() as reader:
        return int(
            reader.connection.value(
                "SELECT count(*) FROM git_object WHERE repository_id = :id", {"id": repository.row.id}
            )
        )


def test_a_deleted_repository_comes_back_whole(hub: EmbeddedHub, clock: FakeClock) -> None:
    repository = create(hub, "Alice/bert")
    revision, file = commit(repository, "a.bin", 1)
    former = create(hub, "Alice/old")
    hub.move(ALICE, Kind.MODELS, "Alice/old", RepositoryName(Kind.MODELS, "Alice", "new"))
    clock.advance(1)
    hub.delete(ALICE, Kind.MODELS, "Alice/bert")
    hub.delete(ALICE, Kind.MODELS, "Alice/new")
    for name in ("Alice/bert", "Alice/old", "Alice/new"):
        with pytest.raises(RepositoryNotFoundError):
            hub.repository(ALICE, Kind.MODELS, name)
    assert not is_granted(repository, file)
    with pytest.raises(RepositoryNotFoundError):
        repository.commit("main", [AddFile("x", b"")], "to what is not there")
    clock.advance(99)
    assert collect(hub) == NamesReport()
    for actor in (BOB, ANONYMOUS):
        with pytest.raises(RepositoryNotFoundError):
            undelete_repository(hub, actor, NAME)
    [told] = deleted_names(hub, ALICE, NAME)
    assert (told.kind, told.name) == ("repository", "Alice/bert")
    given = undelete_repository(hub, ALICE, NAME)
    assert given.row == repository.row
    assert given.revision("main") == revision
    assert given.entry(given.revision("main"), "a.bin").file == file
    assert is_granted(given, file)
    assert undelete_repository(hub, ALICE, RepositoryName(Kind.MODELS, "Alice", "new")).row.id == former.row.id
    assert hub.repository(ALICE, Kind.MODELS, "Alice/old").row.id == former.row.id


def test_a_repository_whose_name_was_taken_needs_another_one(hub: EmbeddedHub, clock: FakeClock) -> None:
    first = create(hub, "Alice/bert")
    hub.delete(ALICE, Kind.MODELS, "alice/BERT")
    second = create(hub, "Alice/bert")
    assert second.row.namespace != first.row.namespace
    with pytest.raises(ExistsError) as error:
        undelete_repository(hub, ALICE, NAME)
    assert "--to" in (error.value.hint or "")
    given = undelete_repository(hub, ALICE, NAME, to=RepositoryName(Kind.MODELS, "Alice", "bert2"))
    assert (given.row.id, given.name.id) == (first.row.id, "Alice/bert2")
    with pytest.raises(RepositoryNotFoundError):
        undelete_repository(hub, ALICE, NAME)


def test_a_repository_ends_with_all_that_it_had(hub: EmbeddedHub, clock: FakeClock) -> None:
    repository = create(hub, "Alice/bert")
    _, file = commit(repository, "a.bin", 1)
    clock.advance(1)
    hub.delete(ALICE, Kind.MODELS, "Alice/bert")
    late = uploaded(repository, 3000, 7)  # with a token of before
    clock.advance(101)
    assert collect(hub, dry_run=True).repositories == 1
    assert collect(hub).repositories == 1
    with pytest.raises(RepositoryNotFoundError):
        undelete_repository(hub, ALICE, NAME)
    later = uploaded(repository, 3000, 8)
    assert collect(hub).grants == 1
    assert not any(is_granted(repository, each) for each in (file, late, later))
    with hub.snapshot() as reader:
        for table in ("git_object", "revision", "changed_path", "line", "ref", "repository"):
            assert reader.connection.value(f"SELECT count(*) FROM {table}") == 0
    assert create(hub, "Alice/bert").row.namespace != repository.row.namespace
    clock.advance(2 * 86400)
    collect(hub)
    with hub.snapshot() as reader:
        assert reader.ended_namespaces("") == []


def test_files_that_were_deleted_before_their_repository_do_not_come_back_with_it(
    hub: EmbeddedHub, clock: FakeClock
) -> None:
    repository = create(hub, "Alice/bert")
    _, file = commit(repository, "a.bin", 1)
    clock.advance(1)
    delete_large_files(repository, [hashlib.sha256(random_bytes(2000, 1)).digest()])
    clock.advance(1)
    hub.delete(ALICE, Kind.MODELS, "Alice/bert")
    assert not is_granted(undelete_repository(hub, ALICE, NAME), file)


def test_a_squash_frees_its_history_after_its_time(hub: EmbeddedHub, clock: FakeClock) -> None:
    repository = create(hub, "Alice/bert")
    first, old = commit(repository, "a.bin", 1)
    commit(repository, "b/c.bin", 2)
    repository.commit("main", [Delete("a.bin")], "without a")
    before = objects_of(repository)
    squashed = repository.squash("main", "all of it")
    used = repository.used_bytes()
    clock.advance(99)
    collect(hub)
    assert objects_of(repository) == before + 1
    assert is_granted(repository, old)
    clock.advance(2)
    dry = collect(hub, dry_run=True)
    report = collect(hub)
    assert (dry.git_objects, dry.commits, dry.grants) == (report.git_objects, report.commits, report.grants)
    assert (report.commits, report.grants) == (4, 1)
    assert not is_granted(repository, old)
    assert repository.used_bytes() == used - 2000
    assert repository.revision("main") == squashed
    with pytest.raises(RevisionNotFoundError):
        repository.revision(first.id)
    assert [each.path for each in repository.entries(squashed, recursive=True)] == [".gitattributes", "b", "b/c.bin"]
    assert repository.last_changes(squashed, ["b/c.bin"])["b/c.bin"] == squashed
    assert collect(hub).git_objects == 0
    after, _ = commit(repository, "d.bin", 3)
    assert [each.oid for each in repository.log(after, limit=9)] == [after.oid, squashed.oid]


def test_a_state_before_a_squash_is_given_back_by_another_name(hub: EmbeddedHub, clock: FakeClock) -> None:
    repository = create(hub, "Alice/bert")
    first, old = commit(repository, "a.bin", 1)
    repository.squash("main", "all of it")
    with pytest.raises(ExistsError):
        undelete_ref(repository, "main")
    given = undelete_ref(repository, "main", to="before")
    assert (given.name, given.commit) == ("refs/heads/before", first.oid)
    clock.advance(1000)
    collect(hub)
    assert is_granted(repository, old)
    assert repository.revision("before") == first


def test_branches_and_tags_are_given_back(hub: EmbeddedHub, clock: FakeClock) -> None:
    repository = create(hub, "Alice/bert")
    repository.create_branch("dev")
    tip, file = commit(repository, "a.bin", 1, "dev")
    repository.create_tag("v1", "dev", "with words")
    repository.delete_branch("dev")
    repository.delete_tag("v1")
    assert [(each.kind, each.name) for each in deleted_names(hub, ALICE, NAME)] == [("tag", "v1"), ("branch", "dev")]
    with pytest.raises(NotFoundError):
        undelete_ref(repository, "other")
    assert undelete_ref(repository, "v1").name == "refs/tags/v1"
    assert undelete_ref(repository, "dev").commit == tip.oid
    assert deleted_names(hub, ALICE, NAME) == []
    repository.delete_branch("dev")
    repository.delete_tag("v1")
    clock.advance(101)
    report = collect(hub)
    assert (report.commits, report.grants) == (1, 1)
    for name in ("dev", "v1"):
        with pytest.raises(RevisionNotFoundError):
            undelete_ref(repository, name)
    assert not is_granted(repository, file)


def test_a_place_in_a_line_is_not_given_twice(hub: EmbeddedHub, clock: FakeClock) -> None:
    """A copy of the store may have what was there; and paths of before are not those of what comes."""
    repository = create(hub, "Alice/bert")
    first, _ = commit(repository, "a.bin", 1)
    repository.create_tag("first", first.id)
    second, _ = commit(repository, "b.bin", 2)
    clock.advance(1)
    repository.create_branch("main2", first.id)
    repository.create_branch("main2", "main", overwrite=True)
    repository.delete_branch("main2")
    repository.squash("main", "all of it")
    clock.advance(101)
    assert collect(hub).commits == 1
    repository.create_branch("dev", "first")
    third, _ = commit(repository, "c.bin", 3, "dev")
    assert (third.line, third.number) != (second.line, second.number)
    assert [each.oid for each in repository.log(third, limit=2)] == [third.oid, first.oid]


def test_what_is_deleted_for_good_is_collected_at_once(hub: EmbeddedHub, clock: FakeClock) -> None:
    repository = create(hub, "Alice/bert")
    first, file = commit(repository, "a.bin", 1)
    commit(repository, "b.bin", 2)
    clock.advance(1)
    delete_large_files(repository, [hashlib.sha256(random_bytes(2000, 1)).digest()])
    assert not is_granted(repository, file)
    assert deleted_names(hub, ALICE, NAME) == []
    with pytest.raises(RevisionNotFoundError):
        undelete_ref(repository, "main", to="before")
    clock.advance(1)
    assert collect(hub).commits == 2
    with pytest.raises(RevisionNotFoundError):
        repository.revision(first.id)


def test_what_another_process_deleted_for_good_is_not_shown(hub: EmbeddedHub, clock: FakeClock) -> None:
    repository = create(hub, "Alice/bert")
    tip, _ = commit(repository, "a.bin", 1)
    other = EmbeddedHub(hub.cas)
    assert other.repository(ALICE, Kind.MODELS, "Alice/bert").entry(tip, "a.bin").file is not None
    delete_large_files(repository, [hashlib.sha256(random_bytes(2000, 1)).digest()], rewrite_history=False)
    assert other.repository(ALICE, Kind.MODELS, "Alice/bert").entry(tip, "a.bin").file is None


def test_an_upload_has_time_for_its_commit(hub: EmbeddedHub, clock: FakeClock) -> None:
    repository = create(hub, "Alice/bert")
    file = uploaded(repository, 2000, 1)
    clock.advance(99)
    assert collect(hub).grants == 0
    assert uploaded(repository, 2000, 1) == file  # once more: the time begins anew
    clock.advance(99)
    assert collect(hub).grants == 0
    clock.advance(2)
    collect(hub)
    clock.advance(101)
    collect(hub)
    assert not is_granted(repository, file)


def test_pull_requests_and_their_beginnings_are_kept(hub: EmbeddedHub, clock: FakeClock) -> None:
    repository = create(hub, "Alice/bert")
    fork, old = commit(repository, "a.bin", 1)
    opened = Discussions(repository).open("a change", is_pull_request=True)
    repository.commit("main", [Delete("a.bin")], "without")
    repository.squash("main", "all of it")
    clock.advance(101)
    collect(hub)
    assert is_granted(repository, old)
    assert repository.revision(f"refs/pr/{opened.number}") == fork


def test_files_of_buckets_are_given_back_and_end(hub: EmbeddedHub, clock: FakeClock) -> None:
    bucket = Bucket(create(hub, "Alice/box", Kind.BUCKETS))
    one, other, third = (uploaded(bucket.repository, 2000, seed) for seed in (1, 2, 3))
    name = RepositoryName(Kind.BUCKETS, "Alice", "box")
    bucket.change([PutFile("a/1", one), PutFile("a/2", one), PutFile("b", other)])
    bucket.change([DropFile("a/1"), DropFile("a/2"), PutFile("b", third), PutFile("b", third), DropFile("no")])
    assert [each.name for each in deleted_names(hub, ALICE, name)] == ["a/1", "a/2", "b"]
    assert [each.name for each in deleted_names(hub, ALICE, name, "a")] == ["a/1", "a/2"]
    with pytest.raises(ExistsError):
        undelete_files(bucket, "b")
    assert undelete_files(bucket, "b", to="c") == (["c"], False)
    assert undelete_files(bucket, "a") == (["a/1", "a/2"], False)
    with pytest.raises(EntryNotFoundError):
        undelete_files(bucket, "a")
    assert {file.path: file.file for file in bucket.files(["a/1", "a/2", "b", "c"])} == {
        "a/1": one,
        "a/2": one,
        "b": third,
        "c": other,
    }
    bucket.change([DropFile("a/1"), DropFile("c")])
    clock.advance(101)
    report = collect(hub)
    assert (report.bucket_files, report.grants) == (2, 1)
    assert is_granted(bucket.repository, one)
    assert not is_granted(bucket.repository, other)
    with pytest.raises(EntryNotFoundError):
        undelete_files(bucket, "c")
