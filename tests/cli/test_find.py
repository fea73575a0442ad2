"""``xet find``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.runner import Xet
from tests.support.strategies import splitmix64

FILES = {"model.safetensors": 3_000_000, "sub/b.safetensors": 2_000_000, "config.json": 10}


@pytest.fixture
def named(xet: Xet, tmp_path: Path) -> Xet:
    folder = tmp_path / "folder"
    for name, size in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(splitmix64(size, size))
    assert xet("cp", folder, "xet://alice/bert").code == 0
    assert xet("put", folder / "config.json", "--name", "datasets/alice/news").code == 0
    return xet


def found(xet: Xet, *args: object) -> list[str]:
    ran = xet("find", *args, "--json")
    assert ran.code == 0, ran.stderr
    return [record.get("name") or record["hash"] for record in ran.records]


def test_files_of_a_repository(named: Xet) -> None:
    where = "xet://alice/bert"
    assert found(named, where, "--name", "*.safetensors") == [
        "xet://alice/bert/model.safetensors",
        "xet://alice/bert/sub/b.safetensors",
    ]
    assert found(named, where, "--name", "/*.safetensors") == ["xet://alice/bert/model.safetensors"]
    assert found(named, where, "--larger", "2.5M") == ["xet://alice/bert/model.safetensors"]
    assert found(named, where, "--name", "*.json", "--name", "b.*") == [
        "xet://alice/bert/config.json",
        "xet://alice/bert/sub/b.safetensors",
    ]
    assert found(named, f"{where}@main/sub", "--smaller", "3M") == ["xet://alice/bert/sub/b.safetensors"]
    assert len(found(named, where, "--newer", "1h")) == 4
    assert found(named, where, "--older", "1h") == []
    assert found(named, where, "--sort", "size", "--larger", "1k")[0] == "xet://alice/bert/model.safetensors"


def test_what_is_found_can_be_got(named: Xet) -> None:
    [name] = found(named, "xet://alice/bert", "--name", "b.safetensors")
    assert len(named.process("get", name, "-o", "-").data) == 2_000_000


def test_all_repositories(named: Xet) -> None:
    assert found(named, "xet://", "--name", "config.json") == [
        "xet://alice/bert/config.json",
        "xet://datasets/alice/news/config.json",
    ]
    assert named("find", "xet://", "--larger", "1M").stderr == "2 files, 4.8 MiB\n"


def test_files_without_names(xet: Xet, tmp_path: Path) -> None:
    hashes = {}
    for size in (10, 100_000, 1_000_000):
        (tmp_path / str(size)).write_bytes(splitmix64(size, size))
        hashes[size] = xet.put(tmp_path / str(size))
    assert found(xet, "--larger", "10", "--smaller", "1M") == sorted([hashes[100_000], hashes[1_000_000]])
    assert found(xet, xet.store, "--newer", "1h", "--larger", "500k") == [hashes[1_000_000]]
    ran = xet("find", "--name", "*.bin")
    assert ran.code == 2
    assert "xet://" in ran.stderr
