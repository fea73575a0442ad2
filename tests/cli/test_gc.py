"""``xet gc``."""

from __future__ import annotations

from pathlib import Path

import pytest

import xetstore
from tests.cli.runner import Xet
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas
from xetstore.cas.lease import Lease

DATA = splitmix64(5, 500_000)
AT_ONCE = ("--grace", "0", "--undelete", "0s")


@pytest.fixture
def stored(xet: Xet, tmp_path: Path) -> str:
    (tmp_path / "original").write_bytes(DATA)
    xet.put(tmp_path / "original")
    name: str = xet("hash", "--json", tmp_path / "original").records[0]["hash"]
    return name


def deleted(xet: Xet, name: str) -> None:
    with xetstore.open(xet.store) as store:
        store.delete(name)


def test_space_comes_back_when_its_time_has_passed(xet: Xet, stored: str) -> None:
    ran = xet("gc")
    assert (ran.code, ran.stdout, ran.stderr) == (0, "deleted: 0 files, 0 xorbs, 0 objects (0 B)\n", "")
    deleted(xet, stored)
    assert xet("gc", "--json").records[0]["files"] == 0
    foreseen = xet("gc", "--dry-run", *AT_ONCE)
    assert foreseen.stdout.startswith("to delete: 1 file, 0 xorbs")
    first = xet("gc", *AT_ONCE)
    assert "deleted: 1 file, 0 xorbs" in first.stdout
    assert "waiting: 1 xorb" in first.stdout
    assert f"kind=file what={stored}" in first.stderr
    for _ in range(2):
        last = xet("gc", "--json", *AT_ONCE)
    [record] = last.records
    assert record["objects"] > 0
    assert record["bytes"] > len(DATA)
    assert xet.xorbs() == []


def test_one_that_collects_already_is_waited_for(xet: Xet, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stored
    monkeypatch.setattr("xetstore.cli.gc.WAIT_SECONDS", 0.2)
    with EmbeddedCas.open(xet.store) as cas:
        lease = Lease.take(cas.index, "collect")
        assert lease is not None
        with lease:
            ran = xet("gc")
            assert ran.code == 6
            assert "collects just now" in ran.stderr
            assert xet("gc", "--dry-run").code == 0
    assert xet("gc").code == 0


@pytest.mark.parametrize("span", ["soon", "-1", "3w"])
def test_a_time_that_is_none_is_refused(xet: Xet, span: str) -> None:
    ran = xet("gc", "--grace", span)
    assert ran.code == 2
    assert "is not a span of time" in ran.stderr
