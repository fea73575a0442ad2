"""Repositories through fsspec: reading and writing by name, over a directory and over a server."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fsspec", reason="needs fsspec: pip install 'xetstore[fs]'")

import fsspec

import xetstore
from tests.support.live import live_server
from tests.support.strategies import splitmix64
from xetstore.cas.service import EmbeddedCas
from xetstore.fs import XetFileSystem
from xetstore.repositories.repository import Repository
from xetstore.store import Store

LARGE = splitmix64(11, 3 << 20)
ROOT = "xet://alice/bert@main"


@pytest.fixture(params=["directory", "server"])
def where(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("XET_CACHE", str(tmp_path / "cache"))
    if request.param == "directory":
        yield str(tmp_path / "store")
        return
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas, auth="none") as server:
        yield server.url


@pytest.fixture
def store(where: str) -> Iterator[Store]:
    with xetstore.open(where) as opened:
        yield opened


@pytest.fixture
def repo(store: Store) -> Repository:
    repo = store.create_repo("alice/bert")
    repo.commit({"data/large.bin": LARGE, "data/small.csv": b"a,b\n1,2\n", "empty": b""}, message="before")
    return repo


@pytest.fixture
def fs(where: str, repo: Repository) -> Iterator[XetFileSystem]:
    opened = XetFileSystem(store=where, skip_instance_cache=True)
    yield opened
    opened.close()


def titles(repo: Repository) -> list[str]:
    return [commit.title for commit in repo.log()]


def test_files_are_read_and_listed(fs: XetFileSystem, repo: Repository) -> None:
    assert fs.ls(ROOT, detail=False) == [f"{ROOT[6:]}/{name}" for name in (".gitattributes", "data", "empty")]
    assert fs.find(f"{ROOT}/data") == ["alice/bert@main/data/large.bin", "alice/bert@main/data/small.csv"]
    assert fs.glob(f"{ROOT}/*/*.csv") == ["alice/bert@main/data/small.csv"]
    assert fs.du(f"{ROOT}/data") == len(LARGE) + 8
    assert fs.cat_file(f"{ROOT}/data/small.csv") == b"a,b\n1,2\n"
    assert fs.cat_file("alice/bert/data/large.bin", 10, 20) == LARGE[10:20]
    assert fs.cat_file(f"{ROOT}/data/small.csv", -4) == b"1,2\n"
    assert fs.cat_ranges([f"{ROOT}/data/large.bin", f"{ROOT}/empty"], [0, 0], [5, None]) == [LARGE[:5], b""]
    with fs.open(f"{ROOT}/data/large.bin") as file:
        file.seek(-5, 2)
        assert file.read() == LARGE[-5:]
    with fs.open(f"{ROOT}/data/small.csv", "r") as text:
        assert text.readlines() == ["a,b\n", "1,2\n"]
    info = fs.info(f"{ROOT}/data/large.bin")
    assert (info["size"], info["xet_hash"], info["type"]) == (len(LARGE), str(repo.file("data/large.bin").hash), "file")
    assert fs.isdir(f"{ROOT}/data")
    assert fs.isdir(ROOT)
    for missing in ("nothing", "data/nothing", "empty/below"):
        assert not fs.exists(f"{ROOT}/{missing}")
        with pytest.raises(FileNotFoundError):
            fs.open(f"{ROOT}/{missing}")
    for missing in ("xet://alice/nothing/x", "xet://alice/bert@nothing/data"):
        with pytest.raises(FileNotFoundError):
            fs.ls(missing)


def test_a_write_is_one_commit(fs: XetFileSystem, repo: Repository) -> None:
    with fs.open(f"{ROOT}/new/file.bin", "wb", block_size=1 << 20) as file:
        for start in range(0, len(LARGE), 100_000):
            file.write(LARGE[start : start + 100_000])
        assert not repo.files_at(["new/file.bin"]), "nothing is there before it is closed"
    with repo.open("new/file.bin") as stored:
        assert stored.read() == LARGE
    with fs.open(f"{ROOT}/text", "w") as text:
        text.write("a line\n")
    with fs.open(f"{ROOT}/text", "ab") as file:
        file.write(b"one more\n")
    assert fs.cat_file(f"{ROOT}/text") == b"a line\none more\n"
    fs.pipe_file(f"{ROOT}/piped", b"bytes")
    assert titles(repo) == ["Add piped", "Add text", "Add text", "Add new/file.bin", "before", "initial commit"]
    with pytest.raises(FileExistsError):
        fs.open(f"{ROOT}/piped", "xb")
    with fs.open(f"{ROOT}/fresh", "xb") as file:
        file.write(b"1")
    assert fs.cat_file(f"{ROOT}/fresh") == b"1"


def test_a_file_that_an_exception_leaves_is_not_committed(fs: XetFileSystem, repo: Repository) -> None:
    before = titles(repo)
    with pytest.raises(KeyboardInterrupt), fs.open(f"{ROOT}/half", "wb", block_size=10) as file:
        file.write(LARGE)
        raise KeyboardInterrupt
    del file
    forgotten = fs.open(f"{ROOT}/half", "wb", block_size=10)
    forgotten.write(LARGE)
    temporary = forgotten._temporary
    del forgotten
    assert temporary is not None
    assert not temporary.exists()
    assert titles(repo) == before
    assert not fs.exists(f"{ROOT}/half")


def test_a_transaction_is_one_commit(fs: XetFileSystem, repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(b"local")
    with fs.transaction:
        with fs.open(f"{ROOT}/one", "wb") as file:
            file.write(b"1")
        fs.pipe_file(f"{ROOT}/two", b"2")
        fs.put_file(tmp_path / "local", f"{ROOT}/three")
        fs.rm_file(f"{ROOT}/empty")
        fs.cp_file(f"{ROOT}/data/large.bin", f"{ROOT}/copy.bin")
        fs.pipe_file(f"{ROOT}/never", b"3")
        fs.touch(f"{ROOT}/touched")
        assert not repo.files_at(["one", "two", "three"])
        assert fs.exists(f"{ROOT}/empty")
    assert len(titles(repo)) == 3
    assert {file.path for file in repo.files() if not file.is_folder} == {
        *(".gitattributes", "data/large.bin", "data/small.csv", "one", "two", "three", "copy.bin", "never", "touched"),
    }
    assert fs.cat_file(f"{ROOT}/copy.bin", 0, 5) == LARGE[:5]
    with pytest.raises(KeyboardInterrupt), fs.transaction:
        fs.pipe_file(f"{ROOT}/four", b"4")
        with fs.open(f"{ROOT}/five", "wb") as file:
            file.write(b"5")
        raise KeyboardInterrupt
    assert len(titles(repo)) == 3
    fs.pipe_file(f"{ROOT}/six", b"6")
    assert len(titles(repo)) == 4, "after a transaction a write is a commit again"


def test_calls_for_many_files_are_one_commit_each(fs: XetFileSystem, repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    for name in ("a", "b", "deep/c"):
        (tmp_path / "folder" / name).write_bytes(name.encode())
    fs.put(str(tmp_path / "folder"), f"{ROOT}/up", recursive=True)
    assert [path.removeprefix("alice/bert@main/") for path in fs.find(f"{ROOT}/up")] == ["up/a", "up/b", "up/deep/c"]
    fs.pipe({f"{ROOT}/x": b"1", f"{ROOT}/y": b"2"})
    fs.copy(f"{ROOT}/up", f"{ROOT}/copied", recursive=True)
    fs.mv(f"{ROOT}/copied", f"{ROOT}/moved", recursive=True)
    fs.mv(f"{ROOT}/x", f"{ROOT}/z")
    fs.rm(f"{ROOT}/up", recursive=True)
    assert len(titles(repo)) == 8
    assert {file.path for file in repo.files() if not file.is_folder} == {
        *(".gitattributes", "data/large.bin", "data/small.csv", "empty", "y", "z", "moved/a", "moved/b", "moved/deep/c")
    }
    fs.get(f"{ROOT}/moved", str(tmp_path / "down"), recursive=True)
    assert (tmp_path / "down" / "deep" / "c").read_bytes() == b"deep/c"
    for refused in (f"{ROOT}/moved", ROOT):
        with pytest.raises(OSError, match=r"folder|repository"):
            fs.rm(refused)
    with pytest.raises(OSError, match="repository"):
        fs.rm(ROOT, recursive=True)
    with pytest.raises(FileNotFoundError):
        fs.rm(f"{ROOT}/nothing")


def test_branches_are_apart(fs: XetFileSystem, repo: Repository) -> None:
    repo.create_branch("dev")
    repo.create_tag("v1")
    fs.pipe_file("xet://alice/bert@dev/new", b"1")
    assert fs.exists("alice/bert@dev/new")
    assert not fs.exists(f"{ROOT}/new")
    with fs.transaction:
        fs.pipe_file("xet://alice/bert@dev/other", b"2")
        fs.pipe_file(f"{ROOT}/other", b"3")
    assert (fs.cat_file("alice/bert@dev/other"), fs.cat_file(f"{ROOT}/other")) == (b"2", b"3")
    with pytest.raises(OSError, match=r"v1|branch|revision"):
        fs.pipe_file("xet://alice/bert@v1/new", b"1")
    assert fs.cat_file("alice/bert@v1/data/small.csv") == b"a,b\n1,2\n"


def test_what_cannot_be_written_is_refused(fs: XetFileSystem, store: Store, repo: Repository) -> None:
    before = titles(repo)
    for path in ("xet://alice/nothing/file", f"{ROOT}/data", ROOT, f"{ROOT}/.git/config", "xet://" + "0" * 64):
        with pytest.raises(OSError):
            fs.pipe_file(path, b"1")
        with pytest.raises(OSError), fs.open(path, "wb") as file:
            file.write(b"1")
    assert titles(repo) == before


def test_what_is_open_stays_as_it_was(fs: XetFileSystem, repo: Repository) -> None:
    with fs.open(f"{ROOT}/data/large.bin", block_size=1000) as file:
        assert file.read(10) == LARGE[:10]
        repo.commit({"data/large.bin": b"other" * 1000})
        file.seek(1 << 20)
        assert file.read(10) == LARGE[1 << 20 : (1 << 20) + 10]
        pickled = pickle.dumps(file)
    with pickle.loads(pickled) as again:
        again.seek(2 << 20)
        assert again.read(5) == LARGE[2 << 20 : (2 << 20) + 5]
    fs.invalidate_cache()
    assert fs.cat_file(f"{ROOT}/data/large.bin", 0, 5) == b"other"


def test_modified_tells_one_content_from_another(fs: XetFileSystem, repo: Repository) -> None:
    for path in (f"{ROOT}/data/large.bin", f"{ROOT}/data/small.csv"):
        before = fs.modified(path)
        assert fs.modified(path) == before
        fs.pipe_file(path, b"other content")
        assert fs.modified(path) != before


WRITER = """
import sys, fsspec
fs = fsspec.filesystem("xet", store=sys.argv[1])
with fs.open("xet://alice/bert@main/half", "wb") as file:
    file.write(b"x" * (20 << 20))
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_killed_writer_leaves_nothing(fs: XetFileSystem, where: str, repo: Repository) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
    finally:
        writer.kill()
        writer.communicate(timeout=60)
    assert titles(repo) == ["before", "initial commit"]


def test_tables_go_up_and_come_back(fs: XetFileSystem, where: str, repo: Repository) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = pandas.DataFrame({"number": range(10_000), "text": [f"row {number}" for number in range(10_000)]})
    options = {"store": where}
    table.to_parquet(f"{ROOT}/tables/t.parquet", storage_options=options)
    table.to_csv(f"{ROOT}/tables/t.csv", index=False, storage_options=options)
    assert len(titles(repo)) == 4
    read = pandas.read_parquet(f"{ROOT}/tables/t.parquet", storage_options=options)
    assert read.equals(table)
    assert pandas.read_csv(f"{ROOT}/tables/t.csv", storage_options=options).equals(table)
    assert repo.file("tables/t.parquet").hash is not None


def test_a_partitioned_dataset_of_pyarrow_is_one_commit(fs: XetFileSystem, repo: Repository) -> None:
    arrow = pytest.importorskip("pyarrow")
    dataset = pytest.importorskip("pyarrow.dataset")
    table = arrow.table({"number": list(range(900)), "part": [number % 3 for number in range(900)]})
    with fs.transaction:
        dataset.write_dataset(table, f"{ROOT[6:]}/ds", filesystem=fs, format="parquet", partitioning=["part"])
    assert len(titles(repo)) == 3
    read = dataset.dataset(f"{ROOT[6:]}/ds", filesystem=fs, partitioning=["part"]).to_table()
    assert sorted(read["number"].to_pylist()) == list(range(900))


def test_the_url_alone_opens_it(where: str, repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XET_STORE", where)
    XetFileSystem.clear_instance_cache()
    with fsspec.open("xet://alice/bert/written", "wb") as file:
        file.write(b"1")
    with fsspec.open("xet://alice/bert/written") as file:
        assert file.read() == b"1"
    XetFileSystem.clear_instance_cache()
