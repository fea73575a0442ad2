"""Writing through fsspec without a repository: a file is stored by its bytes, and its hash is told."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fsspec", reason="needs fsspec: pip install 'xetstore[fs]'")

import fsspec

import xetstore
from tests.support.live import live_server
from tests.support.strategies import splitmix64
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import UsageError
from xetstore.fs import StoreError, XetFileSystem
from xetstore.protocol.hashes import Hash
from xetstore.store import Store

DATA = splitmix64(12, 3 << 20)


@pytest.fixture(params=["directory", "server"])
def where(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A directory, and a server that knows files by their hashes only."""
    monkeypatch.setenv("XET_CACHE", str(tmp_path / "cache"))
    with EmbeddedCas.open(tmp_path / "store") as cas:
        if request.param == "directory":
            yield str(tmp_path / "store")
            return
        with live_server(cas) as server:
            monkeypatch.setenv("XET_TOKEN", server.token("write"))
            yield server.url


@pytest.fixture
def fs(where: str) -> Iterator[XetFileSystem]:
    opened = XetFileSystem(store=where, skip_instance_cache=True)
    yield opened
    opened.close()


@pytest.fixture
def store(where: str) -> Iterator[Store]:
    with xetstore.open(where, create=False) as opened:
        yield opened


def test_a_file_that_is_written_is_read_by_its_name_and_by_its_hash(fs: XetFileSystem, store: Store) -> None:
    with fs.open("xet://model.bin", "wb") as file:
        file.write(DATA[: 1 << 20])
        assert file.xet_hash is None
        file.write(DATA[1 << 20 :])
    info = fs.info("xet://model.bin")
    assert info["xet_hash"] == str(file.xet_hash)
    assert (info["name"], info["size"], info["type"]) == ("model.bin", len(DATA), "file")
    assert store.read(info["xet_hash"]) == DATA
    assert fs.cat_file("xet://model.bin", 5, 10) == DATA[5:10]
    assert fs.cat_file(f"{info['xet_hash']}/model.bin") == DATA
    with fs.open("xet://model.bin", "rb") as again:
        assert again.read() == DATA
    assert fs.exists("xet://model.bin")
    assert fs.isfile("model.bin")


def test_bytes_and_local_files_are_stored_too(fs: XetFileSystem, store: Store, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(DATA)
    fs.pipe("xet://one.txt", b"one")
    fs.pipe({"xet://two.txt": b"two", "xet://three.txt": b"three"})
    fs.put(str(tmp_path / "local"), "xet://copy.bin")
    fs.put_file(tmp_path / "local", "xet://again.bin")
    fs.touch("xet://empty")
    names = {
        "one.txt": b"one",
        "two.txt": b"two",
        "three.txt": b"three",
        "copy.bin": DATA,
        "again.bin": DATA,
        "empty": b"",
    }
    for name, content in names.items():
        assert store.read(fs.info(name)["xet_hash"]) == content if content else store.stat(fs.info(name)["xet_hash"])
        assert fs.cat_file(name) == content
    assert fs.info("copy.bin")["xet_hash"] == fs.info("again.bin")["xet_hash"]


def test_a_name_stands_for_what_was_written_last(fs: XetFileSystem) -> None:
    fs.pipe("xet://a", b"old")
    old = fs.info("xet://a")["xet_hash"]
    with fs.open("xet://a", "ab") as file:
        file.write(b" and new")
    assert fs.cat_file("xet://a") == b"old and new"
    assert fs.cat_file(old) == b"old"
    with pytest.raises(FileExistsError):
        fs.open("xet://a", "xb")


def test_a_transaction_stores_all_or_nothing_of_it_by_name(fs: XetFileSystem) -> None:
    with fs.transaction:
        fs.pipe("xet://a", b"a")
        with fs.open("xet://b", "wb") as file:
            file.write(b"b")
        assert not fs.exists("xet://a")
    assert (fs.cat_file("xet://a"), fs.cat_file("xet://b")) == (b"a", b"b")
    with pytest.raises(KeyError), fs.transaction:
        fs.pipe("xet://c", b"c")
        raise KeyError
    assert not fs.exists("xet://c")
    with pytest.raises(KeyError), fs.open("xet://d", "wb") as file:
        file.write(b"d")
        raise KeyError
    assert not fs.exists("xet://d")


def test_many_files_of_one_call_share_xorbs(tmp_path: Path) -> None:
    with EmbeddedCas.open(tmp_path / "store"):
        pass
    fs = XetFileSystem(store=tmp_path / "store", skip_instance_cache=True)
    fs.pipe({f"xet://{number}": splitmix64(number, 1000) for number in range(50)})
    fs.close()
    assert len([path for path in (tmp_path / "store" / "xorbs").rglob("*") if path.is_file()]) == 1


def test_a_name_is_known_to_its_filesystem_only(fs: XetFileSystem, where: str, tmp_path: Path) -> None:
    fs.pipe("xet://a", b"a")
    other = XetFileSystem(store=where, skip_instance_cache=True)
    assert not other.exists("xet://a")
    with pytest.raises(StoreError, match="neither a hash nor in a repository"):
        other.cat_file("xet://a")
    other.close()


def test_a_hash_is_not_written_to(fs: XetFileSystem) -> None:
    fs.pipe("xet://a", b"a")
    file = fs.info("xet://a")["xet_hash"]
    for path in (file, f"{file}/name"):
        with pytest.raises(io.UnsupportedOperation, match="xet put"):
            fs.open(path, "wb")
        with pytest.raises(StoreError) as caught:
            fs.pipe_file(path, b"b")
        assert isinstance(caught.value.__cause__, UsageError)


def test_pandas_writes_and_the_hash_is_told(where: str) -> None:
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    options = {"store": where}
    frame = pandas.DataFrame({"price": range(100)})
    frame.to_csv("xet://prices.csv", index=False, storage_options=options)
    file = Hash.parse(fsspec.filesystem("xet", **options).info("xet://prices.csv")["xet_hash"])
    assert pandas.read_csv(f"xet://{file}/prices.csv", storage_options=options).equals(frame)


def test_what_cannot_be_stored_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XET_STORE", raising=False)
    bare = XetFileSystem(skip_instance_cache=True)
    with pytest.raises(StoreError, match="no store is named"):
        bare.open("xet://a", "wb")
    lost = XetFileSystem(store=tmp_path / "none", skip_instance_cache=True)
    with pytest.raises(FileNotFoundError):
        lost.pipe("xet://a", b"a")
    assert not (tmp_path / "none").exists()
