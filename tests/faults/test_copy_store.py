"""A copy of a store that is killed at any moment, or has no room: the target is in order, and the next one goes on."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_sigkill import put_call
from tests.hub.copies import content, fill, large
from tests.support import rot
from tests.support.process import Worker, moments
from tests.support.strategies import splitmix64
from xetstore import Store
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.copying.copy_store import copy_store as copy_objects
from xetstore.hub.check import verify_names
from xetstore.hub.names import Kind
from xetstore.hub.operations import AddFile
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub
from xetstore.hub.tables import MIGRATIONS
from xetstore.testing import make_sample, random_bytes, read_back, upload

MIB = 1 << 20
POINTS = 30
NAMESPACES = ("anna", "bert")


@pytest.fixture(scope="module")
def source(worker: Worker) -> Iterator[Path]:
    """A store of some 12 MB in small xorbs and shards, and files of two namespaces."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i in range(12):
            path = Path(folder, str(i))
            path.write_bytes(splitmix64(i, i * 150_000 + 1000))
            paths.append(path)
        root = Path(folder, "store")
        assert worker.run(**put_call(root, paths)).code == 0
        with EmbeddedCas.open(root) as cas:
            for number in range(8):
                for namespace in NAMESPACES[: 1 + number % 2]:
                    upload(cas.in_namespace(namespace), make_sample(random_bytes(90_000, number)))
            add_names(EmbeddedHub(cas))
        yield root


def add_names(hub: EmbeddedHub) -> None:
    """Something in every table, and a repository of some length."""
    fill(hub)
    bert = hub.repository(LOCAL, Kind.MODELS, "Alice/bert")
    for number in range(40):
        files = [AddFile(f"{number % 7}/{i}.txt", splitmix64(100 * number + i, 2000)) for i in range(8)]
        bert.commit("main", [*files, large(bert, 1000 + number)], f"commit {number}")


def copy_call(source: Path, target: Path, *options: str) -> dict[str, Any]:
    return {"call": "cli", "arguments": ["copy-store", *options, str(source), str(target)]}


def expect_in_order(target: Path) -> int:
    """What is there is whole, and every file that is registered can be read. How many xorbs there are."""
    if not (target / "index.sqlite3").exists():
        return 0
    with EmbeddedCas.open(target) as cas:
        verify_invariants(cas)
        for record in cas.files():
            assert len(b"".join(Store(cas).iter_range(record.hash))) == record.size
        if cas.index.version_of(MIGRATIONS):
            assert verify_names(EmbeddedHub(cas)) == []
        return cas.totals().xorbs


def names_in(target: Path) -> int:
    """How many rows of names there are."""
    if not (target / "index.sqlite3").exists():
        return 0
    with EmbeddedCas.open(target) as cas:
        return sum(map(len, content(EmbeddedHub(cas)).values())) if cas.index.version_of(MIGRATIONS) else 0


def expect_same(source: Path, target: Path) -> None:
    with EmbeddedCas.open(source) as one, EmbeddedCas.open(target) as other:
        verify_invariants(other)
        assert content(EmbeddedHub(one)) == content(EmbeddedHub(other))
        assert verify_names(EmbeddedHub(other)) == []
        for namespace in ("default", *NAMESPACES):
            mine, theirs = one.in_namespace(namespace), other.in_namespace(namespace)
            files = [record.hash for record in mine.files()]
            assert set(files) == {record.hash for record in theirs.files()}
            assert all(read_back(mine, file) == read_back(theirs, file) for file in files)


def test_a_copy_killed_at_any_moment_leaves_whole_files_and_goes_on(
    worker: Worker, scratch: Path, source: Path
) -> None:
    every = expect_in_order(source)
    killed = partial = 0
    clean = [copy_call(source, scratch / f"clean{i}") for i in range(2)]
    for number, moment in enumerate(moments(worker, POINTS, *clean)):
        target = scratch / str(number)
        ended = worker.run(**copy_call(source, target), kill_after=moment)
        assert ended.code == 0 or ended.was_killed
        killed += ended.was_killed
        partial += 0 < expect_in_order(target) < every
        if number % 3 == 0:
            rot.end_leases(target)
            assert worker.run(**copy_call(source, target, "--since-last")).code == 0
            expect_same(source, target)
        shutil.rmtree(target, ignore_errors=True)
    assert killed >= POINTS // 5
    assert partial


def test_a_copy_killed_among_its_names_leads_to_files_and_goes_on(worker: Worker, scratch: Path, source: Path) -> None:
    """The objects are there already: what is left to be copied are names."""
    with EmbeddedCas.open(source) as one, EmbeddedCas.open(scratch / "objects") as other:
        assert copy_objects(one, other).problems == ()
    for name in ("clean0", "clean1", "target"):
        shutil.copytree(scratch / "objects", scratch / name)
    clean = [copy_call(source, scratch / f"clean{i}") for i in range(2)]
    times, every, counts = moments(worker, POINTS, *clean), names_in(scratch / "clean0"), [0]
    for moment in times:
        worker.run(**copy_call(source, scratch / "target"), kill_after=moment)
        expect_in_order(scratch / "target")
        rot.end_leases(scratch / "target")
        counts.append(names_in(scratch / "target"))
        if counts[-1] == every:
            shutil.rmtree(scratch / "target")
            shutil.copytree(scratch / "objects", scratch / "target")
    assert len({*counts}) > 2  # nothing, something, all of it
    assert worker.run(**copy_call(source, scratch / "target", "--since-last")).code == 0
    expect_same(source, scratch / "target")


def test_a_copy_killed_again_and_again_gets_done_in_the_end(worker: Worker, scratch: Path, source: Path) -> None:
    for moment in moments(worker, 10, copy_call(source, scratch / "clean")):
        worker.run(**copy_call(source, scratch / "target"), kill_after=moment)
        expect_in_order(scratch / "target")
        rot.end_leases(scratch / "target")
    assert worker.run(**copy_call(source, scratch / "target")).code == 0
    expect_same(source, scratch / "target")


def test_a_copy_that_finds_no_room_goes_on_when_there_is_some(worker: Worker, scratch: Path, source: Path) -> None:
    ended = worker.run(**copy_call(source, scratch / "target"), file_limit=600_000)
    assert ended.code == 6
    assert expect_in_order(scratch / "target") < expect_in_order(source)
    assert worker.run(**copy_call(source, scratch / "target")).code == 0
    expect_same(source, scratch / "target")


def test_copies_at_once_make_one_store(worker: Worker, scratch: Path, source: Path) -> None:
    calls = [copy_call(source, scratch / "target") for _ in range(3)]
    assert [ended.code for ended in worker.run_all(*calls)] == [0] * 3
    expect_same(source, scratch / "target")
    with EmbeddedCas.open(scratch / "target") as cas:
        assert cas.totals().xorbs == len(list(cas.blobs.list("xorbs/")))
