"""Several processes put the same data, or data with parts in common, at the same moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.support.process import Worker
from tests.support.strategies import splitmix64
from xetstore import Store
from xetstore.cas.check import check
from xetstore.cas.service import EmbeddedCas

MIB = 1 << 20


def put_call(store: Path, paths: list[Path], **options: int) -> dict[str, Any]:
    """A put that stores its first xorb at the same moment as the others."""
    return {"call": "put", "store": str(store), "paths": [str(path) for path in paths], "together": True, **options}


SMALL = {"xorb_bytes": MIB, "files_a_shard": 2}


def expect_in_order(root: Path, files: dict[str, Path]) -> int:
    """Every file is there and nothing is left over. How many xorbs there are, each of them stored once."""
    with EmbeddedCas.open(root) as cas:
        report = check(cas, read_data=True)
        assert (report.problems, report.notes) == ((), ())
        assert {str(record.hash) for record in cas.files()} == set(files)
        for name, path in files.items():
            assert b"".join(Store(cas).iter_range(name)) == path.read_bytes()
        objects = [path for path in (root / "xorbs").rglob("*") if path.is_file()]
        assert len(objects) == len({path.name[:64] for path in objects}) == report.xorbs
        assert list((root / "tmp").iterdir()) == []
        return report.xorbs


@pytest.fixture
def paths(scratch: Path) -> list[Path]:
    found = []
    for i in range(4):
        found.append(scratch / f"source{i}")
        found[-1].write_bytes(splitmix64(i, 900_000 + 400_000 * i))
    return found


@pytest.mark.parametrize("processes", [2, 4])
def test_the_same_data_put_at_once_is_stored_once(
    worker: Worker, scratch: Path, paths: list[Path], processes: int
) -> None:
    """All have planned everything when the first of them stores anything: nobody knows of the others."""
    [alone] = worker.run_all(put_call(scratch / "alone", paths))
    files = {told["hash"]: path for told, path in zip(alone.told, paths, strict=True)}
    for number in range(3):
        root = scratch / f"store{number}"
        for ended in worker.run_all(*[put_call(root, paths)] * processes):
            assert (ended.code, ended.told) == (0, alone.told)
        assert expect_in_order(root, files) == 1
        assert len(list((root / "shards").iterdir())) == 1


def test_the_same_data_put_at_once_in_many_xorbs_is_all_there(worker: Worker, scratch: Path, paths: list[Path]) -> None:
    for number in range(3):
        root = scratch / f"store{number}"
        one, two = worker.run_all(*[put_call(root, paths, **SMALL)] * 2)
        assert (one.code, two.code) == (0, 0)
        files = {told["hash"]: path for told, path in zip(one.told, paths, strict=True)}
        assert [told["hash"] for told in two.told] == list(files)
        assert expect_in_order(root, files) > 4


def test_data_with_parts_in_common_put_at_once_is_all_there(worker: Worker, scratch: Path) -> None:
    shared = [splitmix64(i, MIB) for i in range(3)]
    groups: list[list[Path]] = []
    for i in range(4):
        group = [scratch / f"own{i}", scratch / f"mixed{i}", scratch / f"shared{i}"]
        own = splitmix64(10 + i, 700_000)
        group[0].write_bytes(own)
        group[1].write_bytes(shared[i % 3] + own[:300_000] + shared[(i + 1) % 3])
        group[2].write_bytes(shared[0] + shared[1])
        groups.append(group)
    for number in range(3):
        root = scratch / f"store{number}"
        files: dict[str, Path] = {}
        for ended, group in zip(
            worker.run_all(*(put_call(root, group, **SMALL) for group in groups)), groups, strict=True
        ):
            assert (ended.code, len(ended.told)) == (0, len(group))
            files |= {told["hash"]: path for told, path in zip(ended.told, group, strict=True)}
        assert len(files) == 9
        expect_in_order(root, files)


def test_readers_see_a_file_whole_or_not_at_all_while_others_write(worker: Worker, scratch: Path) -> None:
    with xetstore.open(scratch / "store") as store:
        (scratch / "first").write_bytes(splitmix64(1, 3 * MIB))
        first = str(store.put(scratch / "first").hash)
        (scratch / "second").write_bytes(splitmix64(1, 2 * MIB) + splitmix64(2, 2 * MIB))
        second = str(xetstore.hash_file(scratch / "second").hash)
        store_name = str(scratch / "store")
        outs = [scratch / f"out{i}" for i in range(4)]
        outcomes = worker.run_all(
            {"call": "put", "store": store_name, "paths": [str(scratch / "second")]},
            *({"call": "get", "store": store_name, "file": first, "out": str(out)} for out in outs[:2]),
            *({"call": "get", "store": store_name, "file": second, "out": str(out)} for out in outs[2:]),
        )
        assert [ended.code for ended in outcomes[:3]] == [0, 0, 0]
        assert all(out.read_bytes() == (scratch / "first").read_bytes() for out in outs[:2])
        for ended, out in zip(outcomes[3:], outs[2:], strict=True):
            assert (ended.code, ended.error) in ((0, None), (3, "NotFoundError"))
            assert out.exists() == (ended.code == 0)
            assert not out.exists() or out.read_bytes() == (scratch / "second").read_bytes()
