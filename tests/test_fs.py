"""Stores and repositories as an fsspec filesystem: what is read, what is listed, and which errors callers get."""

from __future__ import annotations

import gc
import io
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fsspec", reason="needs fsspec: pip install 'xetstore[fs]'")

import fsspec
from fsspec.caching import caches
from fsspec.spec import AbstractFileSystem

import xetstore
from tests.support.hub_double import HubDouble, hub_double
from tests.support.live import LiveServer, live_server
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import IntegrityError, NotFoundError, UnauthenticatedError, UsageError
from xetstore.fs import DamagedFileError, StoreError, XetFileSystem
from xetstore.limits import Limits
from xetstore.protocol.hashes import Hash
from xetstore.testing import make_sample, random_bytes, upload

DATA = random_bytes(3_000_000, seed=7)
SMALL = b"a,b\n1,2\n"
HUB_TOKEN = "hf_mellon-1234"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with EmbeddedCas.open(tmp_path_factory.mktemp("fs") / "store") as cas:
        for data in (DATA, SMALL):
            upload(cas, make_sample(data))
        with live_server(cas) as running:
            yield running


@pytest.fixture(scope="module")
def file() -> Hash:
    return make_sample(DATA).file.hash


@pytest.fixture(scope="module")
def small() -> Hash:
    return make_sample(SMALL).file.hash


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "XET_STORE", "XET_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.setenv("XET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def fs(server: LiveServer) -> Iterator[XetFileSystem]:
    opened = XetFileSystem(store=server.url, token=server.token("read"), skip_instance_cache=True)
    yield opened
    opened.close()


@pytest.fixture
def double(server: LiveServer, file: Hash, small: Hash, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubDouble]:
    with hub_double(server, token=HUB_TOKEN) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", HUB_TOKEN)
        for path in ("train/a.csv", "train/b.csv", "train/deep/c.csv", "top.csv"):
            running.add("datasets", "ns/name", "main", path, small, len(SMALL))
        running.add("datasets", "ns/name", "main", "big.bin", file, len(DATA))
        running.add("datasets", "ns/name", "main", "README.md", None, 5)
        yield running


@pytest.fixture
def hub_fs(double: HubDouble) -> Iterator[XetFileSystem]:
    opened = XetFileSystem(skip_instance_cache=True)
    yield opened
    opened.close()


ROOT = "xet://datasets/ns/name"


def test_the_protocol_is_registered() -> None:
    assert fsspec.get_filesystem_class("xet") is XetFileSystem


def test_a_file_is_opened_by_its_hash_and_read_anywhere(fs: XetFileSystem, file: Hash) -> None:
    with fs.open(f"xet://{file}/any/name.bin") as opened:
        assert opened.size == len(DATA)
        assert opened.read(10) == DATA[:10]
        opened.seek(-100, os.SEEK_END)
        assert opened.read() == DATA[-100:]
        opened.seek(1_000_000)
        assert opened.read(2_000) == DATA[1_000_000:1_002_000]
        opened.seek(0)
        assert opened.read() == DATA
        assert opened.read() == b""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # fsspec leaves the file of mmap open
@pytest.mark.parametrize("cache", [name for name in caches if name not in (None, "parts")])
def test_every_cache_of_fsspec_reads_the_file(fs: XetFileSystem, file: Hash, cache: str) -> None:
    with fs.open(f"{file}/x", cache_type=cache, block_size=100_000) as opened:
        assert opened.read(10) == DATA[:10]
        opened.seek(-1000, os.SEEK_END)
        assert opened.read() == DATA[-1000:]
        opened.seek(123_456)
        assert opened.read(300_000) == DATA[123_456:423_456]
        opened.seek(0)
        assert opened.read() == DATA
    with fs.open(str(Hash.ZERO), cache_type=cache) as opened:
        assert opened.read() == b""
    del opened
    gc.collect()


def test_the_cache_of_known_parts_reads_what_it_was_given(fs: XetFileSystem, file: Hash) -> None:
    # Of all caches this one never asks for what it was not given.
    with fs.open(str(file), cache_type="parts", cache_options={"data": {(0, 1000): DATA[:1000]}}) as opened:
        assert opened.read(1000) == DATA[:1000]
        with pytest.raises(ValueError, match=r"^$"):
            opened.read(1)


def test_text_and_small_blocks_work_too(fs: XetFileSystem, small: Hash, file: Hash) -> None:
    with fs.open(f"{small}/x.csv", "rt") as opened:
        assert opened.read() == SMALL.decode()
    with fs.open(str(file), block_size=10_000, cache_options={}) as opened:
        assert opened.read(25_000) == DATA[:25_000]


def test_a_file_is_described_by_its_hash(fs: XetFileSystem, file: Hash) -> None:
    for path in (str(file), f"{file}/any/name.bin"):
        assert fs.info(f"xet://{path}") == {
            "name": path,
            "size": len(DATA),
            "type": "file",
            "xet_hash": str(file),
        }
        assert fs.exists(path)
        assert fs.isfile(path)
        assert not fs.isdir(path)
        assert fs.ls(path, detail=False) == [path]
        assert fs.find(path) == [path]
        assert fs.glob(path) == [path]
        assert fs.ukey(path) == str(file)
        assert fs.size(path) == len(DATA)
        assert fs.modified(path).year == 1970


@pytest.mark.parametrize(
    ("start", "end"),
    [(None, None), (0, 10), (10, None), (None, -10), (-10, None), (-20, -10), (5, 5), (9, 5), (2_999_990, 5_000_000)],
)
def test_ranges_are_those_of_a_slice(fs: XetFileSystem, file: Hash, start: int | None, end: int | None) -> None:
    assert fs.cat_file(f"{file}/x", start, end) == DATA[start:end]


def test_a_range_past_the_end_is_empty(fs: XetFileSystem, file: Hash) -> None:
    assert fs.cat_file(str(file), len(DATA), None) == b""
    assert fs.cat_file(str(file), len(DATA) + 5, len(DATA) + 9) == b""


def test_many_ranges_are_read_at_once(fs: XetFileSystem, file: Hash, small: Hash) -> None:
    starts = list(range(0, 2_000_000, 100_000))
    ranges = fs.cat_ranges([str(file)] * len(starts), starts, [start + 1000 for start in starts])
    assert ranges == [DATA[start : start + 1000] for start in starts]
    assert fs.cat([str(file), f"{small}/b"]) == {str(file): DATA, f"{small}/b": SMALL}
    assert fs.cat(str(small)) == SMALL
    assert fs.cat_ranges([], [], []) == []
    with pytest.raises(ValueError, match="as many"):
        fs.cat_ranges([str(file)], [1, 2], 3)


def test_a_missing_file_takes_the_place_of_its_bytes_or_is_raised(fs: XetFileSystem, small: Hash) -> None:
    missing = str(Hash(bytes([7]) * 32))
    read, error = fs.cat_ranges([str(small), missing], 0, 5)
    assert read == SMALL[:5]
    assert isinstance(error, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges([str(small), missing], 0, 5, on_error="raise")
    assert not fs.exists(missing)
    assert not fs.isfile(missing)
    assert fs.find(missing) == []
    with pytest.raises(FileNotFoundError) as caught:
        fs.open(missing)
    assert isinstance(caught.value.__cause__, NotFoundError)
    assert str(caught.value.__cause__) in str(caught.value)


def test_a_file_is_copied_verified_and_its_progress_told(fs: XetFileSystem, file: Hash, tmp_path: Path) -> None:
    callback = fsspec.callbacks.Callback()
    fs.get_file(f"xet://{file}/x.bin", tmp_path / "new" / "copy.bin", callback=callback)
    assert (tmp_path / "new" / "copy.bin").read_bytes() == DATA
    assert (callback.size, callback.value) == (len(DATA), len(DATA))
    fs.get(str(file), str(tmp_path / "again.bin"))
    assert (tmp_path / "again.bin").read_bytes() == DATA
    buffer = io.BytesIO()
    fs.get_file(str(file), buffer)
    assert buffer.getvalue() == DATA


@pytest.mark.parametrize("mode", ["wb", "ab", "xb", "w", "r+b"])
def test_writing_says_how_it_is_done(fs: XetFileSystem, small: Hash, mode: str) -> None:
    with pytest.raises(io.UnsupportedOperation, match="xet put"):
        fs.open(str(small), mode)


def test_without_a_token_access_is_refused_and_not_taken_for_absence(server: LiveServer, file: Hash) -> None:
    bare = XetFileSystem(store=server.url, skip_instance_cache=True)
    for ask in (bare.exists, bare.isfile, bare.info, bare.cat_file, bare.open, bare.find):
        with pytest.raises(PermissionError) as caught:
            ask(f"{file}/x")
        assert isinstance(caught.value.__cause__, UnauthenticatedError)
    bare.close()


def test_a_path_that_is_none_says_what_one_is(fs: XetFileSystem) -> None:
    with pytest.raises(StoreError, match=r"HASH/any/name\.parquet"):
        fs.open("xet://nothing")
    assert not fs.exists("xet://nothing")
    assert fs.isdir("xet://")
    with pytest.raises(IsADirectoryError):
        fs.cat_file("xet://")


def test_a_server_lists_its_files_to_a_writer_and_a_directory_to_all(
    fs: XetFileSystem, server: LiveServer, tmp_path: Path, file: Hash, small: Hash, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PermissionError, match="scope write"):
        fs.ls("")
    writer = XetFileSystem(store=server.url, token=server.token("write"), skip_instance_cache=True)
    assert writer.ls("", detail=False) == sorted([str(file), str(small)])
    writer.close()
    (tmp_path / "small").write_bytes(SMALL)
    with xetstore.open(tmp_path / "store") as store:
        assert store.put(tmp_path / "small").hash == small
    monkeypatch.setenv("XET_STORE", str(tmp_path / "store"))
    local = XetFileSystem(skip_instance_cache=True)
    assert local.ls("xet://", detail=False) == [str(small)]
    assert local.glob("xet://*") == [str(small)]
    assert local.find("") == [str(small)]
    assert local.cat_file(f"{small}/x.csv") == SMALL
    local.close()


def test_without_a_store_a_hash_is_not_found_anywhere(small: Hash) -> None:
    with pytest.raises(StoreError, match="XET_STORE"):
        XetFileSystem(skip_instance_cache=True).cat_file(str(small))


@pytest.mark.parametrize("on_error", ["omit", "return", "raise"])
def test_damage_is_never_passed_over(tmp_path: Path, on_error: str) -> None:
    (tmp_path / "data").write_bytes(DATA)
    with xetstore.open(tmp_path / "store") as store:
        file = store.put(tmp_path / "data").hash
    [xorb] = [path for path in (tmp_path / "store").glob("**/xorbs/**/*") if path.is_file()]
    xorb.chmod(0o600)
    content = bytearray(xorb.read_bytes())
    content[1_000_000] ^= 1
    xorb.write_bytes(content)
    local = XetFileSystem(store=tmp_path / "store", skip_instance_cache=True)
    for ask in (
        lambda: local.cat([str(file)], on_error=on_error),
        lambda: local.cat_ranges([str(file)], 0, None, on_error=on_error),
        lambda: local.cat_file(str(file)),
        lambda: local.open(str(file)).read(),
        lambda: local.get_file(str(file), tmp_path / "copy"),
    ):
        with pytest.raises(DamagedFileError) as caught:
            ask()
        assert isinstance(caught.value.__cause__, IntegrityError)
    assert not (tmp_path / "copy").exists()
    local.close()


def test_a_repository_is_listed_and_globbed(hub_fs: XetFileSystem, double: HubDouble, small: Hash) -> None:
    root = ROOT.removeprefix("xet://")
    assert hub_fs.ls(ROOT, detail=False) == [f"{root}/{name}" for name in ("README.md", "big.bin", "top.csv", "train")]
    train = {one["name"]: one for one in hub_fs.ls(f"{ROOT}/train")}
    assert train[f"{root}/train/a.csv"] == {
        "name": f"{root}/train/a.csv",
        "size": len(SMALL),
        "type": "file",
        "xet_hash": str(small),
    }
    assert train[f"{root}/train/deep"]["type"] == "directory"
    assert hub_fs.glob(f"{ROOT}/train/*.csv") == [f"{root}/train/a.csv", f"{root}/train/b.csv"]
    assert hub_fs.glob(f"{ROOT}/**/c.csv") == [f"{root}/train/deep/c.csv"]
    assert hub_fs.glob(f"{ROOT}/tr*/d*") == [f"{root}/train/deep"]
    assert hub_fs.find(f"{ROOT}/train") == [f"{root}/train/{name}" for name in ("a.csv", "b.csv", "deep/c.csv")]
    assert set(hub_fs.find(f"{ROOT}/train", withdirs=True)) >= {f"{root}/train", f"{root}/train/deep"}
    assert hub_fs.find(f"{ROOT}/train", maxdepth=1) == [f"{root}/train/{name}" for name in ("a.csv", "b.csv")]
    assert [folder for folder, _, _ in hub_fs.walk(f"{ROOT}/train")] == [f"{root}/train", f"{root}/train/deep"]
    assert hub_fs.isdir(ROOT)
    assert hub_fs.isdir(f"{ROOT}/train/deep")
    assert hub_fs.isfile(f"{ROOT}@main/top.csv")
    assert hub_fs.isfile(f"{ROOT}/README.md")
    assert not hub_fs.exists(f"{ROOT}/nothing")
    assert not hub_fs.exists("xet://datasets/ns/other")
    assert hub_fs.find(f"{ROOT}/nothing") == []


def test_files_of_a_repository_are_read_by_their_names(hub_fs: XetFileSystem, double: HubDouble) -> None:
    with hub_fs.open(f"{ROOT}/big.bin") as opened:
        opened.seek(2_000_000)
        assert opened.read(1000) == DATA[2_000_000:2_001_000]
    assert [asked.method for asked in double.calls("resolve")] == ["HEAD"]
    assert hub_fs.cat(f"{ROOT}/train/*.csv") == {
        "datasets/ns/name/train/a.csv": SMALL,
        "datasets/ns/name/train/b.csv": SMALL,
    }
    assert {scope for scope, _ in double.issued} == {"read"}
    assert len(double.issued) == 1


def test_a_folder_that_was_listed_is_copied_without_asking_for_each_file(
    hub_fs: XetFileSystem, double: HubDouble, tmp_path: Path
) -> None:
    hub_fs.get(f"{ROOT}/train", str(tmp_path / "copied"), recursive=True)
    assert (tmp_path / "copied" / "deep" / "c.csv").read_bytes() == SMALL
    assert [asked.path for asked in double.calls("resolve")] == ["/datasets/ns/name/resolve/main/train"]


def test_a_file_that_xet_does_not_store_is_listed(hub_fs: XetFileSystem, double: HubDouble) -> None:
    assert hub_fs.info(f"{ROOT}/README.md")["xet_hash"] is None
    with pytest.raises(IsADirectoryError):
        hub_fs.open(f"{ROOT}/train")


def test_a_hub_that_refuses_is_not_an_empty_one(double: HubDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another-5678")
    refused = XetFileSystem(skip_instance_cache=True)
    for ask in (refused.find, refused.ls, refused.exists, lambda path: list(refused.walk(path))):
        with pytest.raises(PermissionError) as caught:
            ask(ROOT)
        assert "5678" not in str(caught.value)
    with pytest.raises(PermissionError):
        refused.glob(f"{ROOT}/*.csv")
    refused.close()


def test_what_a_name_stood_for_is_remembered_until_that_is_forgotten(
    hub_fs: XetFileSystem, double: HubDouble, file: Hash
) -> None:
    path = f"{ROOT}/top.csv"
    before = hub_fs.ukey(path), hub_fs.checksum(path), hub_fs.modified(path)
    with hub_fs.open(path) as opened:
        double.add("datasets", "ns/name", "main", "top.csv", file, len(DATA))
        assert hub_fs.cat_file(path) == SMALL
        hub_fs.invalidate_cache()
        assert hub_fs.cat_file(path) == DATA
        after = hub_fs.ukey(path), hub_fs.checksum(path), hub_fs.modified(path)
        assert not set(before) & set(after)
        again = pickle.loads(pickle.dumps(opened))
        assert opened.read() == again.read() == SMALL


def test_names_can_be_looked_up_anew_each_time(double: HubDouble, file: Hash) -> None:
    fresh = XetFileSystem(use_listings_cache=False, skip_instance_cache=True)
    assert fresh.cat_file(f"{ROOT}/top.csv") == SMALL
    assert len(fresh.ls(ROOT)) == 4
    double.add("datasets", "ns/name", "main", "top.csv", file, len(DATA))
    double.add("datasets", "ns/name", "main", "new.csv", file, len(DATA))
    assert fresh.cat_file(f"{ROOT}/top.csv") == DATA
    assert len(fresh.ls(ROOT)) == 5
    fresh.close()


def test_a_token_for_a_server_is_not_given_to_the_hub(server: LiveServer, double: HubDouble, file: Hash) -> None:
    token = server.token("read")
    both = XetFileSystem(store=server.url, token=token, skip_instance_cache=True)
    assert both.cat_file(str(file), 0, 5) == DATA[:5]
    with pytest.raises(OSError, match=r"ns/name"):
        both.cat_file(f"{ROOT}/big.bin", 0, 5)
    assert double.asked == [], "the names of repositories are those of the store that is named"
    both.close()


def test_the_token_option_is_for_the_hub_where_no_store_is_named(
    double: HubDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    given = XetFileSystem(token=HUB_TOKEN, skip_instance_cache=True)
    assert given.cat_file(f"{ROOT}/top.csv") == SMALL
    given.close()


def test_a_repository_can_be_the_store_of_hashes(double: HubDouble, file: Hash) -> None:
    named = XetFileSystem(store="hf://datasets/ns/name", skip_instance_cache=True)
    assert named.cat_file(f"{file}/x", 5, 9) == DATA[5:9]
    named.close()


def test_a_filesystem_is_pickled_by_its_options_without_what_it_has_open(fs: XetFileSystem, file: Hash) -> None:
    assert fs.cat_file(str(file), 0, 3) == DATA[:3]
    again = pickle.loads(pickle.dumps(fs))
    assert again.storage_options == fs.storage_options
    assert again.cat_file(str(file), 0, 3) == DATA[:3]
    again.close()
    with fs.open(f"{file}/x") as opened:
        opened.seek(5)
        reopened = pickle.loads(pickle.dumps(opened))
        assert reopened.read(5) == DATA[5:10]
        reopened.fs.close()


@pytest.mark.parametrize("limits", [{"jobs": 2, "max_memory": 512 << 20}, {}], ids=["limits", "none"])
@pytest.mark.parametrize("kind", [dict, Limits])
def test_a_filesystem_is_json_by_its_options(
    server: LiveServer, file: Hash, tmp_path: Path, kind: type, limits: dict[str, Any]
) -> None:
    token = server.token("read")
    options: dict[str, Any] = {"token": token, "cache": tmp_path / "other", "allow_http": True, "max_paths": 7}
    made = XetFileSystem(server.url, limits=kind(**limits), skip_instance_cache=True, **options)
    text = made.to_json()
    again = AbstractFileSystem.from_json(text)
    assert isinstance(again, XetFileSystem)
    assert again._stores._options == made._stores._options
    assert again._stores._options.limits == Limits(**limits)
    assert again.cat_file(str(file), 0, 3) == DATA[:3]
    assert again.to_json() == AbstractFileSystem.from_json(again.to_json()).to_json()
    assert token in text
    assert token not in made.to_json(include_password=False)
    for one in (made, again):
        one.close()
    assert AbstractFileSystem.from_json(XetFileSystem(None, None, None).to_json()).storage_options == {
        "store": None,
        "token": None,
        "cache": None,
    }


def test_a_token_that_is_called_for_is_in_no_json() -> None:
    with pytest.raises(UsageError, match="called for"):
        XetFileSystem("https://xet.example.org", lambda scope: (scope, None)).to_json()


def test_an_option_that_is_none_is_refused_by_name() -> None:
    for options in ({"stroe": "x"}, {"anon": True}, {"limits": {"job": 1}}):
        with pytest.raises(TypeError, match=r"stroe|anon|job"):
            fsspec.filesystem("xet", **options)
    fsspec.filesystem("xet", use_listings_cache=False, asynchronous=True, loop=None, skip_instance_cache=True)


def test_times_are_real_ones_where_they_are_known(
    fs: XetFileSystem, hub_fs: XetFileSystem, double: HubDouble, tmp_path: Path, file: Hash
) -> None:
    (tmp_path / "small").write_bytes(SMALL)
    before = int(time.time())
    with xetstore.open(tmp_path / "store") as store:
        stored = str(store.put(tmp_path / "small").hash)
    local = XetFileSystem(tmp_path / "store", skip_instance_cache=True)
    assert before <= local.created(stored).timestamp() <= time.time()
    assert local.modified(stored) == local.created(f"{stored}/x.csv")
    [listed] = local.ls("")
    assert listed == local.info(stored)
    local.close()
    with pytest.raises(NotImplementedError, match="directory"):
        fs.created(str(file))
    first = hub_fs.modified(f"{ROOT}/top.csv")
    assert first == hub_fs.modified(f"{ROOT}/train/a.csv") != hub_fs.modified(f"{ROOT}/big.bin")
    assert first.year < 2005
    with pytest.raises(NotImplementedError):
        hub_fs.created(f"{ROOT}/top.csv")


def test_a_token_from_the_environment_is_in_no_pickle(
    server: LiveServer, file: Hash, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = server.token("read")
    monkeypatch.setenv("XET_TOKEN", token)
    quiet = XetFileSystem(store=server.url, skip_instance_cache=True)
    assert quiet.cat_file(str(file), 0, 3) == DATA[:3]
    assert token.encode() not in pickle.dumps(quiet)
    assert token not in repr(quiet) + repr(vars(quiet)) + quiet.to_json()
    quiet.close()


def test_it_works_in_a_forked_child_and_goes_on_in_the_parent(fs: XetFileSystem, file: Hash) -> None:
    with fs.open(str(file)) as opened:
        assert opened.read(3) == DATA[:3]
        child = os.fork()
        if child == 0:
            good = fs.cat_file(str(file), 5, 9) == DATA[5:9] and opened.read(3) == DATA[3:6]
            os._exit(0 if good else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert opened.read(3) == DATA[3:6]
    assert fs.cat_file(str(file), 5, 9) == DATA[5:9]


def test_another_process_reads_what_was_pickled(fs: XetFileSystem, small: Hash) -> None:
    program = "import pickle, sys; fs, path = pickle.load(sys.stdin.buffer); sys.stdout.buffer.write(fs.cat_file(path))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=pickle.dumps((fs, str(small))),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == (SMALL, b"")


def test_threads_share_one_filesystem(fs: XetFileSystem, file: Hash) -> None:
    def read(start: int) -> bool:
        with fs.open(str(file), block_size=1000) as opened:
            opened.seek(start)
            return bool(opened.read(5000) == DATA[start : start + 5000])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(0, 2_000_000, 100_000)))


def test_errors_can_be_sent_to_another_process(fs: XetFileSystem) -> None:
    missing = str(Hash(bytes([7]) * 32))
    with pytest.raises(FileNotFoundError) as caught:
        fs.info(missing)
    sent = pickle.loads(pickle.dumps(caught.value))
    assert (type(sent), str(sent)) == (FileNotFoundError, str(caught.value))
    damaged: Any = pickle.loads(pickle.dumps(DamagedFileError(5, "damaged", "x")))
    assert isinstance(damaged, DamagedFileError)
