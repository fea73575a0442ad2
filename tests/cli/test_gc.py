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
    [waiting] = xet("gc", "--json").records
    assert (waiting["files"], waiting["deleted_grants"]) == (0, 1)
    assert "waiting: 1 deleted file to be given back, the first until 2" in xet("gc").stdout
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


def test_a_time_without_a_unit_is_refused(xet: Xet, stored: str) -> None:
    """Files can be given back for 7 days by default: ``--undelete 7`` must not end that after 7 seconds."""
    deleted(xet, stored)
    ran = xet("gc", "--undelete", "7")
    assert (ran.code, "'7' has no unit" in ran.stderr) == (2, True)


def test_it_says_when_the_space_within_xorbs_comes_back(xet: Xet, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(splitmix64(len(name) + ord(name[0]), 300_000))
    first, *_ = xet("put", "--json", tmp_path / "one", tmp_path / "two").records  # into one xorb
    deleted(xet, first["hash"])
    ran = xet("gc", "--undelete", "0s")
    assert "deleted: 1 file, " in ran.stdout
    assert "rewritten: 1 xorb, of which 293.0 KiB come back after 2" in ran.stdout
