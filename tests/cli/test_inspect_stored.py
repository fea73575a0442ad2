"""``xet inspect`` of stored files, by hash and by name, of their tensors, and of objects by their hashes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import xetstore
from tests.cli.runner import Xet
from tests.support.live import live_server
from tests.support.strategies import splitmix64
from xetstore.cas.service import EmbeddedCas

DATA = splitmix64(3, 3_000_000)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tensors = {"w\x1b[2J": np.frombuffer(DATA, np.uint8).reshape(1000, 3000), "s": np.array(1.5)}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"step": "1000"})
    return tmp_path / "model.safetensors"


def test_a_file_is_told_with_its_grants_terms_and_xorbs(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "first").write_bytes(DATA)
    (tmp_path / "second").write_bytes(b"new" * 1000 + DATA)
    xet.put(tmp_path / "first")
    name = xet.put(tmp_path / "second")
    header, *records = xet("inspect", "--json", name).records
    terms = [record for record in records if "start" in record]
    xorbs = [record for record in records if "start" not in record]
    assert (header["kind"], header["hash"], header["size"]) == ("file", name, 3_003_000)
    assert (header["namespaces"], header["terms"], header["xorbs"]) == (["default"], len(terms), len(xorbs))
    assert "tensors" not in header
    assert len(xorbs) == 2
    assert [term["start"] for term in terms] == [0, *(term["start"] + term["length"] for term in terms[:-1])]
    assert sum(term["length"] for term in terms) == header["size"]
    assert {term["xorb"] for term in terms} == {xorb["xorb"] for xorb in xorbs}
    with xetstore.open(xet.store) as store:
        assert sum(xorb["fetched_bytes"] for xorb in xorbs) == store.forecast(name).fetched_bytes
    assert xet("inspect", "--json", name[:8]).records[0] == header
    lines = xet("inspect", name).stdout.splitlines()
    assert lines[0].split() == ["file", name]
    assert f"{len(terms)} terms in 2 xorbs" in lines


def test_a_name_stands_for_its_file(xet: Xet, model: Path) -> None:
    assert xet("cp", model, "xet://alice/bert/model.safetensors").code == 0
    header, *records = xet("inspect", "--json", "xet://alice/bert@main/model.safetensors").records
    assert header["namespaces"] == ["models/alice/bert"]
    assert (header["format"], header["tensors"], header["metadata"]) == ("safetensors", 2, {"step": "1000"})
    assert [record["tensor"] for record in records if "tensor" in record] == ["s", "w\x1b[2J"]
    missing = xet("inspect", "--json", "xet://alice/bert@main/missing")
    assert (missing.code, missing.errors[0]["code"]) == (3, "entry_not_found")


def test_a_file_of_a_server_is_told_as_far_as_it_tells(xet: Xet, model: Path, tmp_path: Path) -> None:
    name = xet.put(model)
    with EmbeddedCas.open(xet.store) as cas, live_server(cas, auth="none") as server:
        remote = Xet(tmp_path / "nowhere", server.url)
        header, *records = remote("inspect", "--json", name).records
        assert (header["namespaces"], header["terms"], header["tensors"]) == (None, None, 2)
        assert sum(record["length"] for record in records if "chunk_start" in record) == model.stat().st_size
        [xorb] = xet.xorbs()
        assert remote("inspect", xorb.name[:64]).code == 3  # a xorb is no file
        assert remote("inspect", "0" * 63 + "1").code == 3


def test_a_local_model_is_listed_as_it_is_when_it_is_stored(xet: Xet, model: Path) -> None:
    header, *tensors = xet("inspect", "--json", model).records
    assert (header["kind"], header["tensors"], header["size"]) == ("tensors", 2, model.stat().st_size)
    assert tensors[1] == {
        "tensor": "w\x1b[2J",
        "dtype": "U8",
        "shape": [1000, 3000],
        "start": tensors[0]["start"] + 8,
        "length": 3_000_000,
    }
    _, *records = xet("inspect", "--json", xet.put(model)).records
    assert records[:2] == tensors
    ran = xet("inspect", model)
    assert "1000 x 3000" in ran.stdout
    assert "step = 1000" in ran.stdout
    assert "\x1b" not in ran.stdout


def test_a_broken_header_is_told_and_the_file_all_the_same(xet: Xet, tmp_path: Path) -> None:
    text = b'{"w":{"dtype":"U8","shape":[9],"data_offsets":[0,10]}}'
    (tmp_path / "broken").write_bytes(len(text).to_bytes(8, "little") + text + bytes(10))
    local = xet("inspect", "--json", tmp_path / "broken")
    assert (local.code, local.errors[0]["code"]) == (4, "format")
    stored = xet("inspect", "--json", xet.put(tmp_path / "broken"))
    assert (stored.code, stored.records[0]["kind"]) == (0, "file")
    assert "is none" in json.loads(stored.stderr)["warning"]


def test_an_object_of_a_directory_is_told_by_its_hash(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    xet.put(tmp_path / "file")
    [xorb] = xet.xorbs()
    [shard] = (xet.store / "shards").iterdir()
    for path, kind in ((xorb, "xorb"), (shard, "shard")):
        by_path = xet("inspect", "--json", path).records
        by_hash = xet("inspect", "--json", path.name[:64]).records
        assert by_hash[0] == {**by_path[0], "path": str(path.relative_to(xet.store))}
        assert by_hash[0]["kind"] == kind
        assert by_hash[1:] == by_path[1:]
    assert xet("inspect", "0" * 63 + "1").code == 3


def test_an_empty_file_has_no_terms(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    [header] = xet("inspect", "--json", xet.put(tmp_path / "empty")).records
    assert (header["size"], header["terms"]) == (0, 0)
    assert "0 terms in 0 xorbs" in xet("inspect", xet.put(tmp_path / "empty")).stdout
