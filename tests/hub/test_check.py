"""check() finds names that lead nowhere, each of its kind, and says nothing about others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.hubs import create, opened_hub, uploaded
from xetstore import Store
from xetstore.cas import EmbeddedCas
from xetstore.hub import check
from xetstore.hub.buckets import Bucket, PutFile
from xetstore.hub.names import Kind
from xetstore.hub.operations import AddFile, AddPointer, Delete
from xetstore.hub.repository import Repository
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub
from xetstore.protocol.hashes import Hash
from xetstore.testing import FakeClock, make_sample, random_bytes, upload

ENGINES = engines.BOTH


@pytest.fixture
def hub(engine: str, root: Path, request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[EmbeddedHub]:
    with opened_hub(engine, root, request, clock) as hub:
        yield hub


@pytest.fixture
def bert(hub: EmbeddedHub) -> Repository:
    """A repository with a large file, two branches, folders and a tag."""
    bert = create(hub, "Alice/bert", actor=LOCAL)
    one = make_sample(random_bytes(3000, 1))
    upload(bert.cas, one)
    pointer = AddPointer("large.bin", hashlib.sha256(one.data).digest(), len(one.data))
    bert.commit("main", [AddFile("a/b/c.txt", b"one"), AddFile("d.txt", b"two"), pointer], "first")
    bert.create_branch("dev")
    bert.commit("dev", [AddFile("a/x.txt", b"three")], "on dev")
    bert.commit("main", [Delete("d.txt")], "second")
    bert.create_tag("v1", "main", "a tag with words")
    return bert


def problems(cas: EmbeddedCas, *, read_data: bool = False) -> list[str]:
    return [str(problem) for problem in Store(cas).check(read_data=read_data).problems]


def change(hub: EmbeddedHub, statement: str, **values: object) -> None:
    hub.change(lambda writer, _: writer.connection.change(statement, values))


def test_a_store_that_is_whole_has_no_problem_and_its_repositories_are_counted(
    hub: EmbeddedHub, bert: Repository
) -> None:
    logs = Bucket(create(hub, "Alice/logs", Kind.BUCKETS, LOCAL))
    logs.change([PutFile("a", uploaded(logs.repository)), PutFile("empty", Hash.ZERO)])
    report = Store(hub.cas).check(read_data=True)
    assert (report.problems, report.repositories) == ((), 2)
    hub.delete(LOCAL, Kind.MODELS, "Alice/bert")
    assert Store(hub.cas).check().repositories == 1


@pytest.mark.parametrize("kind", [1, 2, 3], ids=["commit", "tree", "blob"])
def test_an_object_that_is_not_there_is_found(hub: EmbeddedHub, bert: Repository, kind: int) -> None:
    oid = {
        1: bert.revision().oid,
        2: bert.entry(bert.revision(), "a/b").oid,
        3: bert.entry(bert.revision(), "a/b/c.txt").oid,
    }
    change(hub, "DELETE FROM git_object WHERE oid = :oid", oid=oid[kind])
    [problem] = problems(hub.cas)
    assert problem.startswith("repository models/Alice/bert: ")
    assert oid[kind].hex() in problem


@pytest.mark.parametrize("path", ["", "a/b", "a/b/c.txt"], ids=["commit", "tree", "blob"])
def test_an_object_that_is_damaged_is_found(hub: EmbeddedHub, bert: Repository, path: str) -> None:
    oid = bert.entry(bert.revision(), path).oid if path else bert.revision().oid
    change(hub, "UPDATE git_object SET data = :data WHERE oid = :oid", data=b"nothing", oid=oid)
    assert (path == "a/b/c.txt") == (problems(hub.cas) == [])  # files are read where data is
    [problem] = problems(hub.cas, read_data=True)
    assert oid.hex() in problem


def test_a_ref_to_nothing_and_a_row_that_lies_are_found(hub: EmbeddedHub, bert: Repository) -> None:
    change(hub, "UPDATE ref SET oid = :oid WHERE name = 'refs/heads/dev'", oid=bytes(20))
    assert problems(hub.cas) == ["repository models/Alice/bert: refs/heads/dev names a commit that is not there"]
    change(hub, "DELETE FROM ref WHERE name = 'refs/heads/dev'")
    change(hub, "UPDATE revision SET tree = :tree WHERE oid = :oid", tree=bytes(20), oid=bert.revision().oid)
    told = problems(hub.cas)
    assert any("is not what its row says" in each for each in told)


def test_a_hole_in_a_history_is_found(hub: EmbeddedHub, bert: Repository) -> None:
    [tip, parent, *_] = bert.log(bert.revision(), limit=3)
    change(hub, "DELETE FROM revision WHERE oid = :oid", oid=parent.oid)
    told = problems(hub.cas)
    assert any(tip.id in each and "the commit before" in each for each in told)


def test_a_file_that_may_not_be_read_is_found_and_named(hub: EmbeddedHub, bert: Repository) -> None:
    logs = Bucket(create(hub, "Alice/logs", Kind.BUCKETS, LOCAL))
    file = uploaded(logs.repository, seed=7)
    logs.change([PutFile("a", file)])
    large = bert.entry(bert.revision(), "large.bin").file
    change(hub, "DELETE FROM file_grant")
    found = Store(hub.cas).check().problems
    assert {problem.files for problem in found} == {(file,), (large,)}


def test_a_long_history_is_checked_in_bounded_memory(
    hub: EmbeddedHub, bert: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        bert.commit("main", [AddFile(f"dir{number % 3}/{number}.txt", b"%d" % number)], f"commit {number}")
    monkeypatch.setattr(check, "REMEMBERED", 10)
    monkeypatch.setattr(check, "_COMMITS", 4)
    monkeypatch.setattr(check, "_TREES", 2)
    assert problems(hub.cas, read_data=True) == []
    oid = bert.entry(bert.revision(), "dir0/27.txt").oid
    change(hub, "DELETE FROM git_object WHERE oid = :oid", oid=oid)
    assert {oid.hex() in each for each in problems(hub.cas)} == {True}
