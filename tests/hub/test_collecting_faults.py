"""Deleting, giving back and collecting names while the database fails at every single statement. On both engines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.hubs import create, uploaded
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import verify_invariants
from xetstore.cas.grace import Grace
from xetstore.cas.index import Index
from xetstore.cas.lease import Lease
from xetstore.errors import RepositoryNotFoundError, UnavailableError
from xetstore.hub.buckets import Bucket, DropFile, PutFile
from xetstore.hub.check import verify_names
from xetstore.hub.collecting import collect_names
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.operations import AddFile, AddPointer, Delete
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub
from xetstore.hub.undeleting import undelete_files, undelete_ref, undelete_repository
from xetstore.protocol.hashes import Hash
from xetstore.testing import FakeClock, FaultPlan, FaultyDatabase
from xetstore.testing.samples import random_bytes

ENGINES = engines.BOTH
GRACE = Grace(undelete=100)
NAME = RepositoryName(Kind.MODELS, "alice", "bert")
MOST = 400

pytestmark = pytest.mark.slow


@pytest.fixture
def plan() -> FaultPlan:
    return FaultPlan()


@pytest.fixture
def hub(tmp_path: Path, opening: engines.Opening, plan: FaultPlan, clock: FakeClock) -> Iterator[EmbeddedHub]:
    with EmbeddedCas(LocalBlobStore(tmp_path), Index(FaultyDatabase(opening(), plan)), clock=clock) as cas:
        hub = EmbeddedHub(cas)
        yield hub
        assert verify_names(hub) == []
        verify_invariants(cas)


def is_there(hub: EmbeddedHub) -> bool:
    """True if the repository is, whole; else nothing of it is read."""
    file = uploaded_file(hub)
    with hub.snapshot() as reader:
        granted = bool(reader.granted(str(NAME), [file]))
    try:
        repository = hub.repository(LOCAL, NAME.kind, NAME.id)
    except RepositoryNotFoundError:
        assert not granted
        return False
    assert granted
    assert repository.entry(repository.revision(), "a.bin").file == file
    return True


def uploaded_file(hub: EmbeddedHub) -> Hash:
    with hub.snapshot() as reader:
        return Hash(bytes(reader.connection.value("SELECT file FROM git_object WHERE file IS NOT NULL")))


def test_a_repository_is_deleted_and_given_back_whole_or_not_at_all(
    hub: EmbeddedHub, plan: FaultPlan, clock: FakeClock
) -> None:
    repository = create(hub, NAME.id, actor=LOCAL)
    uploaded(repository, 2000, 1)
    digest = hashlib.sha256(random_bytes(2000, 1)).digest()
    repository.commit("main", [AddPointer("a.bin", digest)], "one")
    failed = 0
    for number in range(MOST):
        before = is_there(hub)
        clock.advance(1)
        plan.fail_next(after=number // 2)
        try:
            if before:
                hub.delete(LOCAL, NAME.kind, NAME.id)
            else:
                undelete_repository(hub, LOCAL, NAME)
        except UnavailableError:
            failed += 1
        has_failed = plan.has_failed
        plan.disarm()
        assert verify_names(hub) == []
        if is_there(hub) == before:  # the other half of this number comes next, in its turn
            (hub.delete(LOCAL, NAME.kind, NAME.id) if before else undelete_repository(hub, LOCAL, NAME))
        if not has_failed and number % 2:
            break
    assert failed > 10
    assert number < MOST - 1


def test_a_collection_that_fails_anywhere_is_gone_on_with(
    hub: EmbeddedHub, plan: FaultPlan, clock: FakeClock, engine: str
) -> None:
    step = 1 if engine == engines.SQLITE else 5  # where it fails does not depend on the engine
    digest = hashlib.sha256(random_bytes(2000, 1)).digest()
    failed = 0
    for number in range(0, MOST, step):
        repository = create(hub, f"alice/r{number}", actor=LOCAL)
        uploaded(repository, 2000, 1)
        repository.commit("main", [AddPointer("a.bin", digest), AddFile("b/c", b"1")], "one")
        repository.commit("main", [Delete("a.bin"), Delete("b/c")], "two")
        repository.squash("main", "all of it")
        bucket = Bucket(create(hub, f"alice/b{number}", Kind.BUCKETS, LOCAL))
        file = uploaded(bucket.repository, 2000, 1)
        bucket.change([PutFile("a", file), PutFile("b", file)])
        bucket.change([DropFile("a"), DropFile("b")])
        gone = create(hub, f"alice/gone{number}", actor=LOCAL)
        hub.delete(LOCAL, Kind.MODELS, gone.name.id)
        clock.advance(101)
        if number % 10 == 9:
            assert verify_names(hub) == []
        plan.fail_next(after=number)
        try:
            collect(hub)
        except UnavailableError:
            failed += 1
        has_failed = plan.has_failed
        plan.disarm()
        collect(hub)
        with hub.snapshot() as reader:
            count = reader.connection.value
            assert count("SELECT count(*) FROM deleted_ref") == count("SELECT count(*) FROM deleted_bucket_file") == 0
            assert count("SELECT count(*) FROM repository WHERE deleted_at IS NOT NULL") == 0
            assert count("SELECT count(*) FROM git_object WHERE file IS NOT NULL") == 0
            assert count("SELECT count(*) FROM file_grant") == 0
        for statement in ("UPDATE repository SET collected_at = 1e18", "UPDATE used_namespace SET ended_at = NULL"):
            hub.change(lambda writer, _, statement=statement: writer.connection.change(statement))  # type: ignore[misc]
        if not has_failed:
            break
    assert failed > 25 / step
    assert number < MOST - step


def test_refs_and_files_are_given_back_or_not(hub: EmbeddedHub, plan: FaultPlan, clock: FakeClock) -> None:
    repository = create(hub, NAME.id, actor=LOCAL)
    bucket = Bucket(create(hub, "alice/box", Kind.BUCKETS, LOCAL))
    file = uploaded(bucket.repository, 2000, 1)
    bucket.change([PutFile("a", file)])
    repository.create_branch("dev")
    tip = repository.revision("dev")
    for number in range(MOST):
        for call in (
            lambda: repository.delete_branch("dev"),
            lambda: undelete_ref(repository, "dev"),
            lambda: bucket.change([DropFile("a")]),
            lambda: undelete_files(bucket, "a"),
        ):
            plan.fail_next(after=number)
            try:
                call()
            except UnavailableError:
                plan.disarm()
                call()
            has_failed = plan.has_failed
            plan.disarm()
        assert repository.revision("dev") == tip
        assert [each.file for each in bucket.files(["a"])] == [file]
        if not has_failed:
            break
    assert 5 < number < MOST - 1


def collect(hub: EmbeddedHub) -> None:
    lease = Lease.take(hub.cas.index, "collect")
    assert lease is not None
    with lease:
        collect_names(hub, lease, GRACE)
