"""Names of one store in a copy of it: all that was there is there, follows the source, and leads to files."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.hub.copies import content, fill, large, tables
from tests.support import engines
from tests.support.hubs import BOB, create, uploaded
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.grace import Grace
from xetstore.cas.index import Index
from xetstore.cas.lease import Lease
from xetstore.database.database import Database
from xetstore.database.sqlite import SqliteDatabase
from xetstore.errors import RepositoryNotFoundError, UnauthenticatedError
from xetstore.hub.buckets import Bucket, DropFile, PutFile
from xetstore.hub.check import verify_names
from xetstore.hub.collecting import NamesReport, collect_names
from xetstore.hub.copying.copy_store import FullReport, copy_store
from xetstore.hub.copying.names import NamesCopier
from xetstore.hub.copying.rows import TwoStores
from xetstore.hub.discussions import Discussions
from xetstore.hub.lfs_files import delete_large_files
from xetstore.hub.names import SET_ASIDE, Kind, RepositoryName
from xetstore.hub.operations import AddFile
from xetstore.hub.queries.copying import Table
from xetstore.hub.repository import Repository
from xetstore.hub.rights import LOCAL, Right
from xetstore.hub.service import EmbeddedHub
from xetstore.hub.tables import MIGRATIONS
from xetstore.hub.undeleting import undelete_repository
from xetstore.testing import FakeClock, make_sample, random_bytes, read_back, upload

PAIRS = [("sqlite", "sqlite"), ("sqlite", "postgresql"), ("postgresql", "sqlite")]
Make = Callable[[str], EmbeddedHub]


@pytest.fixture
def make(tmp_path: Path, clock: FakeClock, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make the names of an empty store, over a database of an engine."""
    with ExitStack() as closing:

        def make(engine: str) -> EmbeddedHub:
            database: Database
            if engine == engines.SQLITE:
                database = SqliteDatabase(tmp_path / f"{secrets.token_hex(4)}.sqlite3")
            else:
                database = engines.opening_of(closing.enter_context(request.getfixturevalue("postgres").database()))()
            cas = EmbeddedCas(MemoryBlobStore(), Index(database), clock=clock)
            closing.callback(cas.close)
            cas.index.change(lambda writer: writer.set_store_id(secrets.token_hex(16)))
            return EmbeddedHub(cas)

        yield make


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest, make: Make) -> tuple[EmbeddedHub, EmbeddedHub]:
    """The names of a source, of every engine, and of an empty target."""
    source, target = (make(engine) for engine in request.param)
    fill(source)
    return source, target


@pytest.fixture
def source(make: Make) -> EmbeddedHub:
    source = make("sqlite")
    fill(source)
    return source


@pytest.fixture
def target(make: Make) -> EmbeddedHub:
    return make("sqlite")


NOT_COPIED = {"hub_version", "copied_account", "copied_repository", "deleted_ref", "deleted_bucket_file"}
OF_COLLECTIONS = {"collected_at", "shrunk_at", "ended_at"}
"""Columns that are of collections of one store."""
COPIED_BY_HAND = {"repository", "former_name", "git_object", "ref"}


def copy(source: EmbeddedHub, target: EmbeddedHub, **options: Any) -> FullReport:
    report = copy_store(source.cas, target.cas, **options)
    assert report.problems == ()
    return report


def problems(source: EmbeddedHub, target: EmbeddedHub, **options: Any) -> dict[str, str]:
    return {problem.name: problem.what for problem in copy_store(source.cas, target.cas, **options).problems}


def opened(hub: EmbeddedHub, name: str = "Alice/bert", kind: Kind = Kind.MODELS) -> Repository:
    return hub.repository(LOCAL, kind, name, Right.READ)


# --- Everything arrives ----------------------------------------------------------------------------------


def test_every_table_of_names_is_copied_or_known_not_to_be() -> None:
    with closing(Index.in_memory()) as index:
        before = _tables_of(index)
        index.migrate(MIGRATIONS)
        there = _tables_of(index) - before
        assert there == {table.name for table in tables()} | COPIED_BY_HAND | NOT_COPIED
        for table in tables():
            with index.snapshot() as reader:
                columns = {row[1] for row in reader.connection.driver.execute(f"PRAGMA table_info({table.name})")}
            assert columns - {"repository_id", *OF_COLLECTIONS} == {*table.columns}, table.name


def _tables_of(index: Index) -> set[str]:
    with index.snapshot() as reader:
        rows = reader.connection.driver.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return {name for (name,) in rows if not name.startswith("sqlite_")}


def test_a_store_is_copied_with_its_names_and_back(pair: tuple[EmbeddedHub, EmbeddedHub], make: Make) -> None:
    source, target = pair
    before = content(source)
    assert all(before[name] for name in before), {name for name in before if not before[name]}
    report = copy(source, target)
    assert content(target) == before
    assert report.names.repositories == 3
    assert report.names.git_objects == len(before["git_object"])
    assert verify_names(target) == []
    verify_invariants(target.cas)
    restored = make("sqlite")
    copy(target, restored)
    assert content(restored) == before
    assert verify_names(restored) == []


def test_files_of_the_copy_are_read_by_their_names(pair: tuple[EmbeddedHub, EmbeddedHub]) -> None:
    source, target = pair
    copy(source, target)
    for branch in ("main", "dev", "v1", "refs/pr/2"):
        for hub in (source, target):
            repository = opened(hub)
            revision = repository.revision(branch)
            entries = [each for each in repository.entries(revision, recursive=True) if not each.is_folder]
            told = {each.path: (each.id, each.size, each.file) for each in entries}
            if hub is source:
                wanted, log = told, [each.id for each in repository.log(revision, limit=10)]
            else:
                assert told == wanted
                assert [each.id for each in repository.log(revision, limit=10)] == log
                assert all(read_back(repository.cas, each.file) for each in entries if each.file is not None)
                assert repository.last_changes(revision, ["large1.bin"]).keys() == {"large1.bin"}
    assert opened(target, "acme/data", Kind.DATASETS).name.name == "facts"


def test_repositories_of_a_copy_go_on_with_numbers_of_their_own(pair: tuple[EmbeddedHub, EmbeddedHub]) -> None:
    source, target = pair
    copy(source, target)
    bert = opened(target)
    bert.commit("main", [AddFile("new", b"x")], "in the copy")
    assert Discussions(bert).open("Next").number == 3
    assert verify_names(target) == []


@pytest.mark.parametrize("since_last", [False, True], ids=["all", "since the last"])
def test_a_second_copy_writes_nothing_and_then_only_what_is_new(
    pair: tuple[EmbeddedHub, EmbeddedHub], since_last: bool, clock: FakeClock
) -> None:
    source, target = pair
    copy(source, target)
    names = copy(source, target, since_last=since_last).names
    assert (names.accounts, names.repositories, names.git_objects) == (0, 0, 0)
    clock.advance(100)
    bert = opened(source)
    bert.commit("main", [AddFile("c.txt", b"new"), large(bert, 5)], "third")
    bert.delete_branch("dev")
    talk = Discussions(bert)
    talk.comment(1, "later")
    source.accounts.remove_member("acme", "bob")
    logs = Bucket(opened(source, "Alice/logs", Kind.BUCKETS))
    logs.change([DropFile("day/1"), PutFile("day/9", uploaded(logs.repository, 500, 88))])
    names = copy(source, target, since_last=since_last).names
    assert names.repositories == 2
    assert 0 < names.git_objects < 8
    assert content(target) == content(source)
    assert verify_names(target) == []


def test_a_dry_run_tells_what_would_be_copied_and_makes_no_tables(source: EmbeddedHub, make: Make) -> None:
    with EmbeddedCas.in_memory() as empty:
        told = copy_store(source.cas, empty, dry_run=True).names
        assert empty.index.version_of(MIGRATIONS) == 0
    target = make("sqlite")
    assert copy(source, target).names == told
    assert copy(source, target, dry_run=True).names == NamesCopier().tally


def test_a_store_without_names_makes_no_tables_in_the_copy(make: Make) -> None:
    with EmbeddedCas.in_memory() as one, EmbeddedCas.in_memory() as other:
        upload(one, make_sample(random_bytes(1000, 1)))
        report = copy_store(one, other)
        assert report.objects.added.files == 1
        assert other.index.version_of(MIGRATIONS) == 0


# --- People ----------------------------------------------------------------------------------------------


def test_tokens_come_where_asked_for_and_end_with_those_of_the_source(pair: tuple[EmbeddedHub, EmbeddedHub]) -> None:
    source, target = pair
    token = source.accounts.issue("Alice")
    copy(source, target)
    with pytest.raises(UnauthenticatedError):
        target.accounts.authenticate(token)
    assert copy(source, target, tokens=True).names.tokens == 2
    assert content(target, tokens=True) == content(source, tokens=True)
    assert target.accounts.authenticate(token).name == "Alice"
    source.accounts.revoke(token)
    copy(source, target, tokens=True)
    target.accounts._remembered.clear()
    with pytest.raises(UnauthenticatedError):
        target.accounts.authenticate(token)


def test_a_user_who_was_removed_is_removed_from_the_copy(source: EmbeddedHub, target: EmbeddedHub) -> None:
    token = source.accounts.issue("bob")
    copy(source, target, tokens=True)
    source.accounts.remove("bob")
    again = source.accounts.add_user("BOB")
    copy(source, target)
    with pytest.raises(UnauthenticatedError):
        target.accounts.authenticate(token)
    assert target.accounts.account("bob").id == again.id


def test_a_user_who_was_removed_and_has_repositories_in_the_copy_alone_loses_all_rights(
    source: EmbeddedHub, target: EmbeddedHub
) -> None:
    token = source.accounts.issue("bob")
    copy(source, target, tokens=True)
    create(target, "bob/own", actor=BOB)
    source.accounts.remove("bob")
    copy(source, target)
    with pytest.raises(UnauthenticatedError):
        target.accounts.authenticate(token)
    assert target.accounts.orgs_of("bob") == []
    assert opened(target, "bob/own")


def test_another_user_of_a_name_keeps_it_and_gets_no_repository(source: EmbeddedHub, target: EmbeddedHub) -> None:
    theirs = target.accounts.add_user("alice")
    told = problems(source, target)
    assert told.keys() == {"account Alice"}
    assert target.accounts.account("Alice").id == theirs.id
    with pytest.raises(RepositoryNotFoundError):
        opened(target)
    assert opened(target, "acme/facts", Kind.DATASETS)


# --- Changes on both sides -------------------------------------------------------------------------------


def test_a_repository_that_was_deleted_is_set_aside_and_its_name_is_free(
    source: EmbeddedHub, target: EmbeddedHub
) -> None:
    copy(source, target)
    before = opened(source)
    namespace, log = before.row.namespace, [each.id for each in before.log(before.revision(), limit=9)]
    source.delete(LOCAL, Kind.MODELS, "Alice/bert")
    create(source, "alice/bert", actor=LOCAL).commit("main", [AddFile("x", b"another")], "another")
    copy(source, target)
    assert opened(target).row.namespace != namespace
    with target.snapshot() as reader:
        [(owner, name, visibility)] = reader.connection.rows(
            "SELECT owner, name, visibility FROM repository WHERE namespace = :namespace", {"namespace": namespace}
        )
    assert (owner, visibility) == (SET_ASIDE, "private")
    kept = opened(target, f"{owner}/{name}")
    assert [each.id for each in kept.log(kept.revision(), limit=9)] == log
    copy(source, target)
    assert verify_names(target) == []
    back = target.move(LOCAL, Kind.MODELS, kept.name.id, RepositoryName(Kind.MODELS, "Alice", "old-bert"))
    copy(source, target)
    assert opened(target, "Alice/old-bert").row.id == back.row.id


def test_repositories_that_exchanged_their_names_do_so_in_the_copy(source: EmbeddedHub, target: EmbeddedHub) -> None:
    create(source, "Alice/other", actor=LOCAL)
    copy(source, target)
    for name, to in (("bert", "tmp"), ("other", "bert"), ("tmp", "other")):
        source.move(LOCAL, Kind.MODELS, f"Alice/{name}", RepositoryName(Kind.MODELS, "Alice", to))
    copy(source, target, since_last=True)
    assert content(target) == content(source)


def test_commits_of_the_copy_are_not_lost(source: EmbeddedHub, target: EmbeddedHub) -> None:
    copy(source, target)
    mine, _ = opened(target).commit("main", [AddFile("mine", b"x")], "in the copy")
    opened(source).commit("main", [AddFile("theirs", b"x")], "in the source")
    told = problems(source, target)
    assert told.keys() == {"repository models/Alice/bert"}
    assert opened(target).revision() == mine
    assert verify_names(target) == []


def test_a_bucket_that_was_changed_in_the_copy_stays(
    source: EmbeddedHub, target: EmbeddedHub, clock: FakeClock
) -> None:
    copy(source, target)
    clock.advance(10)
    logs = Bucket(opened(target, "Alice/logs", Kind.BUCKETS))
    logs.change([PutFile("mine", uploaded(logs.repository, 300, 4))])
    assert problems(source, target).keys() == {"repository buckets/Alice/logs"}
    assert logs.files(["mine"])


def test_a_history_that_was_made_anew_is_made_anew_in_the_copy(pair: tuple[EmbeddedHub, EmbeddedHub]) -> None:
    source, target = pair
    copy(source, target)
    bert = opened(source)
    delete_large_files(bert, [hashlib.sha256(make_sample(random_bytes(3000, 2)).data).digest()])
    copy(source, target, since_last=True)
    assert content(target) == content(source)
    bert.squash("main", "all of it")
    copy(source, target, since_last=True)
    assert content(target) == content(source)
    assert verify_names(target) == []


@pytest.mark.parametrize("where", ["source", "target"])
@pytest.mark.parametrize("behind", ["line", "changed_path"])
def test_a_repository_that_is_deleted_while_it_is_copied_does_no_harm(
    source: EmbeddedHub, target: EmbeddedHub, where: str, behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, deleted, number = TwoStores.add, list[str](), opened(source).row.id

    def then_delete(stores: TwoStores, table: Table, scope: Any, to: Any, **options: Any) -> None:
        add(stores, table, scope, to, **options)
        if table.name == behind and scope["repository_id"] == number and not deleted:
            deleted.append(behind)
            (source if where == "source" else target).delete(LOCAL, Kind.MODELS, "Alice/bert")

    monkeypatch.setattr(TwoStores, "add", then_delete)
    copy_store(source.cas, target.cas)
    assert deleted
    assert verify_names(target) == []
    copy(source, target)
    assert verify_names(target) == []
    with source.snapshot() as reader:
        is_there = reader.repository("models/alice/bert") is not None
    assert is_there == (where == "target")
    with target.snapshot() as reader:
        assert (reader.repository("models/alice/bert") is not None) == is_there


def test_a_repository_of_the_targets_own_keeps_its_place(
    source: EmbeddedHub, target: EmbeddedHub, clock: FakeClock
) -> None:
    clock.advance(10)
    own = create(target, "Alice/bert", actor=LOCAL)
    told = problems(source, target)
    assert told == {
        "repository models/Alice/bert": "the target has another repository in its place, which stays as it is"
    }
    assert opened(target).row == own.row
    assert opened(target, "acme/facts", Kind.DATASETS)


def test_files_that_come_while_the_names_are_copied_come_along(
    source: EmbeddedHub, target: EmbeddedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = NamesCopier.__call__

    def late(self: NamesCopier, run: Any, files: Any) -> None:
        bert = opened(source)
        bert.commit("main", [large(bert, 8)], "while it is copied")
        logs = Bucket(opened(source, "Alice/logs", Kind.BUCKETS))
        logs.change([PutFile("late", uploaded(logs.repository, 500, 89))])
        begin(self, run, files)

    monkeypatch.setattr(NamesCopier, "__call__", late)
    copy(source, target)
    assert content(target) == content(source)
    assert verify_names(target) == []
    bert = opened(target)
    entry = bert.entry(bert.revision(), "large8.bin")
    assert entry.file is not None
    assert read_back(bert.cas, entry.file)


def test_a_file_that_is_damaged_is_missing_and_comes_once_it_is_healed(
    source: EmbeddedHub, target: EmbeddedHub
) -> None:
    one = make_sample(random_bytes(3000, 1))
    with source.cas.index.snapshot() as reader:
        row = reader.xorb(one.xorb.hash)
    assert row is not None
    source.cas.blobs.delete_many([row.key])
    assert {f"xorb {row.hash}", "repository models/Alice/bert"} == problems(source, target).keys()
    bert = opened(target)
    assert bert.entry(bert.revision(), "large1.bin").file is None
    assert verify_names(target) == []
    opened(source).cas.put_xorb(row.hash, one.body)
    copy(source, target, since_last=True)
    assert content(target) == content(source)


def test_a_git_object_that_is_damaged_is_told_and_the_rest_is_copied(source: EmbeddedHub, target: EmbeddedHub) -> None:
    bert = opened(source)
    entry = bert.entry(bert.revision("dev"), "dev.txt")
    source.change(
        lambda writer, _: writer.connection.change(
            "UPDATE git_object SET data = :data WHERE oid = :oid", {"data": b"nothing", "oid": entry.oid}
        )
    )
    assert problems(source, target).keys() == {f"repository models/Alice/bert: object {entry.id}"}
    assert opened(target).revision().id == bert.revision().id
    assert opened(target, "acme/facts", Kind.DATASETS)


# --- What is deleted -------------------------------------------------------------------------------------


def collect(hub: EmbeddedHub) -> NamesReport:
    """Collect all that is deleted by now."""
    with Lease.take(hub.cas.index, "collect") as lease:  # type: ignore[union-attr]
        return collect_names(hub, lease, Grace(undelete=-1))


@pytest.mark.parametrize("since_last", [False, True])
def test_a_repository_that_is_given_back_is_given_back_in_the_copy(
    pair: tuple[EmbeddedHub, EmbeddedHub], since_last: bool
) -> None:
    source, target = pair
    name = RepositoryName(Kind.MODELS, "Alice", "bert")
    copy(source, target, since_last=since_last)
    source.delete(LOCAL, Kind.MODELS, "Alice/bert")
    copy(source, target, since_last=since_last)
    with pytest.raises(RepositoryNotFoundError):
        opened(target)
    undelete_repository(source, LOCAL, name)
    copy(source, target, since_last=since_last)
    assert content(target) == content(source)
    target.delete(LOCAL, Kind.MODELS, "Alice/bert")
    assert copy(source, target, since_last=since_last).names.git_objects == 0
    assert content(target) == content(source)
    assert verify_names(target) == []


@pytest.mark.parametrize("since_last", [False, True])
def test_a_history_that_was_squashed_and_collected_is_so_in_the_copy(
    pair: tuple[EmbeddedHub, EmbeddedHub], since_last: bool
) -> None:
    source, target = pair
    copy(source, target, since_last=since_last)
    bert = opened(source)
    for ref in bert.refs():
        if ref.name.startswith("refs/tags/"):
            bert.delete_tag(ref.name.removeprefix("refs/tags/"))
        elif ref.name.startswith("refs/heads/") and ref.name != "refs/heads/main":
            bert.delete_branch(ref.name)
    bert.squash("main", "all of it")
    assert collect(source).commits > 0
    bert.commit("main", [AddFile("more", b"1")], "more")
    copy(source, target, since_last=since_last)
    assert {ref.name: ref.commit for ref in opened(target).refs()} == {ref.name: ref.commit for ref in bert.refs()}
    assert collect(target).commits > 0
    bert.commit("main", [AddFile("more", b"2")], "more")
    copy(source, target, since_last=since_last)
    assert [each.oid for each in opened(target).log(opened(target).revision(), limit=9)] == [
        each.oid for each in bert.log(bert.revision(), limit=9)
    ]
    for hub in (source, target):
        assert verify_names(hub) == []
        verify_invariants(hub.cas)


def test_a_copy_waits_for_a_collection_of_its_target(source: EmbeddedHub, target: EmbeddedHub) -> None:
    """Objects are there before the refs that lead to them."""
    lease = Lease.take(target.cas.index, "collect")
    assert lease is not None
    with ThreadPoolExecutor(1) as pool:
        copying = pool.submit(copy, source, target)
        with pytest.raises(TimeoutError):
            copying.result(timeout=1)
        with target.snapshot() as reader:
            assert reader.connection.value("SELECT count(*) FROM repository") == 0
        lease.release()
        copying.result(timeout=60)
    assert content(target) == content(source)
