"""A put, or a get, that is killed at any moment: the store is in order, and what was acknowledged is there."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.support.process import Worker, moments
from tests.support.strategies import ramp, splitmix64
from xetstore import Store
from xetstore.cas.check import check
from xetstore.cas.quotas import quotas, set_quota
from xetstore.cas.service import EmbeddedCas

MIB = 1 << 20
POINTS = 50


@pytest.fixture(scope="module")
def sources() -> Iterator[list[Path]]:
    """20 files, some 15 MB, with parts in common; the biggest are larger than a xorb of this test."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        shared = splitmix64(1, MIB)
        for i in range(20):
            path = Path(folder, str(i))
            content = splitmix64(100 + i, (i * 53 % 20) * 60_000 + i)
            path.write_bytes(content + (shared if i % 4 == 3 else b"") + (ramp(70_000) if i % 3 == 0 else b""))
            paths.append(path)
        yield paths


def put_call(store: Path, sources: list[Path]) -> dict[str, Any]:
    """A put in small xorbs and shards, so that there are many of them."""
    paths = [str(path) for path in sources]
    return {"call": "put", "store": str(store), "paths": paths, "xorb_bytes": MIB, "files_a_shard": 3}


def expect_in_order(root: Path, told: list[dict[str, Any]]) -> int:
    """The store checks clean, and every file that was acknowledged comes back. How many files there are."""
    with EmbeddedCas.open(root) as cas:
        assert check(cas, read_data=True).problems == ()
        store = Store(cas)
        for report in told:
            assert b"".join(store.iter_range(report["hash"])) == Path(report["path"]).read_bytes()
        return cas.totals().files


def test_a_put_killed_at_any_moment_loses_nothing_that_was_acknowledged(
    worker: Worker, scratch: Path, sources: list[Path]
) -> None:
    killed = acknowledged = registered = 0
    clean = [put_call(scratch / f"clean{i}", sources) for i in range(2)]
    for number, moment in enumerate(moments(worker, POINTS, *clean)):
        root = scratch / str(number)
        ended = worker.run(**put_call(root, sources), kill_after=moment)
        assert ended.code == 0 or ended.was_killed
        killed += ended.was_killed
        acknowledged += len(ended.told)
        files = expect_in_order(root, ended.told)
        assert files >= len(ended.told)
        registered += files
        if number % 3 == 0:  # taken up where it was left
            again = worker.run(**put_call(root, sources))
            assert (again.code, len(again.told)) == (0, len(sources))
            assert expect_in_order(root, again.told) == len(sources)
        shutil.rmtree(root, ignore_errors=True)  # killed early, it may not exist
    assert killed >= POINTS // 5  # else nothing was tried
    assert 0 < acknowledged <= registered < POINTS * len(sources)


def test_a_put_killed_again_and_again_on_one_store_gets_done_in_the_end(
    worker: Worker, scratch: Path, sources: list[Path]
) -> None:
    """What is used of a quota, which a check counts again, is right each time."""
    root = scratch / "store"
    with EmbeddedCas.open(root) as cas:
        set_quota(cas, "default", max_bytes=1 << 40, max_files=len(sources))
    chance = random.Random(3)
    told: list[dict[str, Any]] = []
    for _ in range(10):
        told += worker.run(**put_call(root, sources), kill_after=chance.uniform(0, 0.2)).told
        expect_in_order(root, told)
    told += worker.run(**put_call(root, sources)).told
    assert expect_in_order(root, told) == len(sources)
    with EmbeddedCas.open(root) as cas:
        assert [quota.used_files for quota in quotas(cas)] == [len(sources)]


def test_a_get_killed_at_any_moment_leaves_the_old_file_or_the_new_one(worker: Worker, scratch: Path) -> None:
    content = splitmix64(5, 30 * MIB)
    (scratch / "source").write_bytes(content)
    with xetstore.open(scratch / "store") as store:
        file = store.put(scratch / "source").hash
    out = scratch / "out"
    call = {"call": "get", "store": str(scratch / "store"), "file": str(file), "out": str(out)}
    whole = 0
    for moment in moments(worker, 12, call, call):
        out.write_bytes(b"old")
        ended = worker.run(**call, kill_after=moment)
        found = out.read_bytes()
        assert found in (b"old", content)
        assert found == content or ended.code != 0
        whole += found == content
    assert whole < 12
