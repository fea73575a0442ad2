"""Files as callers name them: by what is known of them, by hash, by its digits, by name; and other types."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.store.conftest import Place
from tests.support.live import live_server
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas
from xetstore.errors import EntryNotFoundError, ForbiddenError, NotFoundError, RangeError, UsageError
from xetstore.records import DeletedFile, FileInfo, FileRecord
from xetstore.store import Store, What

LARGE, SMALL = splitmix64(4, 3_000_000), b"a small text"
HASH = "ab" * 32
BIG_NAME, SMALL_NAME = "xet://alice/bert@main/folder/large.bin", "xet://alice/bert/small.txt"


@dataclass(frozen=True)
class Named:
    """A store with a file by its hash, and a large and a small one by name."""

    store: Store
    info: FileInfo

    def all_ways(self) -> dict[str, tuple[What, bytes]]:
        hash_ = self.info.hash
        return {
            "info": (self.info, LARGE),
            "record": (self.store.stat(self.info), LARGE),
            "hash": (hash_, LARGE),
            "digits": (str(hash_), LARGE),
            "capitals": (str(hash_).upper(), LARGE),
            "name of a large file": (BIG_NAME, LARGE),
            "name of a small file": (SMALL_NAME, SMALL),
        }


@pytest.fixture(params=["directory", "server"])
def named(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Named]:
    with ExitStack() as stack:
        where: Path | str = tmp_path / "store"
        if request.param == "server":
            cas = stack.enter_context(closing(EmbeddedCas.open(tmp_path / "store")))
            where = stack.enter_context(live_server(cas, auth="none")).url
        store = stack.enter_context(xetstore.open(where, cache=tmp_path / "cache"))
        info = store.put(LARGE)
        (tmp_path / "large.bin").write_bytes(LARGE)
        store.create_repo("alice/bert").commit({"folder/large.bin": tmp_path / "large.bin", "small.txt": SMALL})
        yield Named(store, info)


WAYS = ["info", "record", "hash", "digits", "capitals", "name of a large file", "name of a small file"]


@pytest.mark.parametrize("way", WAYS)
def test_every_verb_takes_a_file_however_it_is_named(named: Named, tmp_path: Path, way: str) -> None:
    store = named.store
    what, data = named.all_ways()[way]
    assert store.exists(what)
    assert store.read(what) == data
    assert store.read(what, 3, 11) == data[3:11]
    assert store.read(what, len(data) - 2, len(data) + 5) == data[-2:]
    assert store.read(what, 5, 5) == b""
    assert b"".join(store.iter_range(what, 2)) == data[2:]
    with store.open(what) as file:
        file.seek(7)
        assert file.read(3) == data[7:10]
        assert file.seek(0, os.SEEK_END) == len(data)
    record = store.stat(what)
    (tmp_path / "same").write_bytes(data)
    assert (record.hash, record.size) == (xetstore.hash_file(tmp_path / "same").hash, len(data))
    report = store.get(what, tmp_path / "copy")
    assert (report.hash, report.size, report.verified) == (record.hash, len(data), True)
    assert (tmp_path / "copy").read_bytes() == data
    assert store.get(what, tmp_path / "part", start=4, end=9, fsync=True).size == 5
    assert (tmp_path / "part").read_bytes() == data[4:9]
    told = store.forecast(what, 1, 3)
    assert (told.hash, told.size) == (record.hash, 2)
    with pytest.raises(RangeError):
        store.read(what, len(data))
    with pytest.raises(UsageError):
        store.read(what, 5, 3)


def test_a_small_file_goes_into_a_pipe_too(named: Named, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    report = named.store.get(SMALL_NAME, f"/dev/fd/{writing}", start=2)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        assert file.read() == SMALL[2:]
    assert report.size == len(SMALL) - 2


def test_many_files_come_by_hashes_and_names_in_order(named: Named, tmp_path: Path) -> None:
    ways = [*named.all_ways().values(), (f"{SMALL_NAME}.not", b""), (named.info.hash, LARGE)]
    files = [(what, tmp_path / f"out{number}") for number, (what, _) in enumerate(ways)]
    failed: list[Path] = []
    reports = named.store.get_many(files, on_error=lambda path, _: failed.append(path))
    assert failed == [tmp_path / "out7"]
    expected = [(path, data) for (_, path), (_, data) in zip(files, ways, strict=True) if path not in failed]
    assert [report.size for report in reports] == [len(data) for _, data in expected]
    assert all(path.read_bytes() == data for path, data in expected)
    with pytest.raises(EntryNotFoundError):
        named.store.get_many(files)


def test_exists_says_what_is_there(named: Named) -> None:
    store = named.store
    for missing in ("a" * 64, "xet://alice/bert/none", "xet://alice/none/file", "xet://alice/bert@none/small.txt"):
        assert not store.exists(missing)
    assert not store.exists("xet://alice/bert/folder"), "a folder is no file"
    for nothing in ("xet://alice/bert", "abc"):
        with pytest.raises(UsageError):
            store.exists(nothing)
    with pytest.raises(UsageError, match="is a folder"):
        store.read("xet://alice/bert/folder")


def test_a_large_file_has_a_hash_and_a_small_one_has_not(named: Named) -> None:
    assert named.store.resolve(BIG_NAME) == named.info.hash
    files, file = named.store.file_at(BIG_NAME)
    assert files.read(file) == LARGE
    with pytest.raises(UsageError, match="no hash"):
        named.store.resolve(SMALL_NAME)


def test_a_name_is_deleted_from_its_branch_and_a_hash_from_the_store(named: Named) -> None:
    store, repo = named.store, named.store.repo("alice/bert")
    before = len(list(repo.log()))
    would = store.delete(SMALL_NAME, named.info, dry_run=True)
    assert [record.size for record in would] == [len(SMALL), len(LARGE)]
    assert store.exists(SMALL_NAME)
    assert store.exists(named.info)
    done = store.delete(SMALL_NAME, named.info, BIG_NAME, SMALL_NAME)
    assert [(record.size, record.until == math.inf) for record in done] == [
        (len(SMALL), True),
        (len(LARGE), False),
        (len(LARGE), True),
    ]
    assert len(list(repo.log())) == before + 1, "one commit of both"
    assert not any(store.exists(what) for what in (SMALL_NAME, BIG_NAME, named.info))
    with pytest.raises(EntryNotFoundError):
        store.delete(SMALL_NAME)
    assert store.undelete(done[1])[0].hash == named.info.hash, "a record of what was deleted names it"
    with pytest.raises(UsageError, match="only a hash"):
        store.undelete(SMALL_NAME)


def test_nothing_is_deleted_where_one_is_not_there(named: Named) -> None:
    for missing in ("a" * 64, "xet://alice/bert/none"):
        with pytest.raises(NotFoundError):
            named.store.delete(named.info, SMALL_NAME, missing)
        assert named.store.exists(named.info)
        assert named.store.exists(SMALL_NAME)


# --- Files of a namespace -----------------------------------------------------------------------------------


def test_files_are_listed_here_and_by_a_server(place: Place) -> None:
    with place.open() as store:
        assert list(store.files()) == []
        infos = [store.put(splitmix64(seed, 1000 * seed)) for seed in range(1, 6)]
        listed = list(store.files())
        assert sorted((file.hash, file.size, file.sha256) for file in listed) == sorted(
            (info.hash, info.size, info.sha256) for info in infos
        )
        assert all(isinstance(file, FileInfo) for file in listed)
        store.delete(listed[0])
        assert {file.hash for file in store.files()} == {file.hash for file in listed[1:]}
        assert b"".join(map(store.read, listed[1:]))


def test_a_server_lists_in_pages_and_to_writers_only(tmp_path: Path) -> None:
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas) as live:
        with xetstore.open(live.url, token=live.token("write"), cache=False) as store:
            reports = store.put_many(_many_files(tmp_path, 1003))
            assert {file.hash for file in store.files()} == {report.info.hash for report in reports}
        with xetstore.open(live.url, token=live.token("read"), cache=False) as store, pytest.raises(ForbiddenError):
            next(store.files())
        other = live.token("write", namespace="other")
        with xetstore.open(live.url, token=other, cache=False) as store:
            assert list(store.files()) == []
        assert live.request("GET", f"/v1/files?after={reports[0].info.hash}", token=other).status == 400
        assert live.request("GET", f"/v1/files?after={'ab' * 32}", token=other).status == 400
        page = live.request("GET", "/v1/files?limit=2", token=live.token("write")).json()
        assert (len(page["files"]), page["next"]) == (2, page["files"][1]["hash"])


def _many_files(folder: Path, count: int) -> Iterator[Path]:
    (folder / "many").mkdir()
    for number in range(count):
        path = folder / "many" / str(number)
        path.write_bytes(b"%d" % number)
        yield path


# --- Records ------------------------------------------------------------------------------------------------


def test_records_go_into_json_and_come_back(named: Named) -> None:
    for record in (named.info, named.store.stat(named.info), *named.store.delete(named.info)):
        there = json.loads(json.dumps(record.to_dict()))
        assert type(record).from_dict(there) == record
        assert FileInfo.from_dict({**there, "path": "of a line of xet put --json"}).hash == record.hash


@pytest.mark.parametrize(
    "values",
    [{}, {"hash": "ab" * 32}, {"hash": "ab", "size": 1}, {"hash": 5, "size": 1}, {"hash": "ab" * 32, "size": "1"}],
)
def test_what_is_no_record_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        FileInfo.from_dict(values)


def test_records_are_sorted_and_shown_in_short(named: Named) -> None:
    other = FileInfo(xetstore.Hash("0" * 64), 0)
    assert sorted([named.info, other]) == [other, named.info]
    assert repr(other) == f"FileInfo(hash=Hash('{'0' * 64}'), size=0)"
    shown: dict[str, type] = {
        "FileInfo": FileInfo,
        "FileRecord": FileRecord,
        "DeletedFile": DeletedFile,
        "Hash": xetstore.Hash,
    }
    for record in (named.info, named.store.stat(named.info)):
        assert eval(repr(record), shown) == record
