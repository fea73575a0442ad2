"""A store that a file names, at every place where a store can be named; in separate places, here as one user would."""

from __future__ import annotations

import asyncio
import json
import pickle
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

import xetstore
from tests.cli.runner import Xet
from tests.support.live import ServerFailedError, ServerProcess
from xetstore import aio
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.errors import NotFoundError, UsageError

CONTENT = b"Hello World!" * 1000

WORKER = """
import json, pickle, sys
store, file = pickle.load(sys.stdin.buffer)
print(json.dumps([store.location, len(b"".join(store.iter_range(file)))]))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A store file: objects in one place, the index in another."""
    path = tmp_path / "store.toml"
    path.write_text('objects = "objects"\nindex = "index/of-all.sqlite3"\n')
    return path


def is_there(folder: Path) -> bool:
    """True if the parts lie where the file of the fixture says, and nowhere else."""
    objects = {path.name for path in (folder / "objects").iterdir()}
    return objects >= {"format", "xorbs", "shards", "stores"} and "index.sqlite3" not in objects


def test_the_library_opens_it(file: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with xetstore.open(file) as store:
        info = store.put(source)
        assert store.location == str(file)
        assert store.check().problems == ()
    assert is_there(tmp_path)
    assert (tmp_path / "index" / "of-all.sqlite3").stat().st_size
    monkeypatch.chdir(tmp_path)
    with xetstore.open("store.toml", create=False) as store:
        store.get(info.hash, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT
    with xetstore.open(tmp_path) as store:
        assert [record.hash for record in store.files()] == [info.hash], "or by the folder that it lies in"
    with EmbeddedCas.open(file) as cas:
        verify_invariants(cas)
        assert check(cas, read_data=True).problems == ()


def test_asyncio_opens_it(file: Path, source: Path) -> None:
    async def main() -> bytes:
        async with await aio.open(file) as store:
            info = await store.put(source)
            async with await store.open(info.hash) as opened:
                return await opened.read()

    assert asyncio.run(main()) == CONTENT


def test_a_filesystem_reads_it(file: Path, source: Path) -> None:
    with xetstore.open(file) as store:
        info = store.put(source)
    filesystem = fsspec.filesystem("xet", store=str(file))
    assert filesystem.cat(f"xet://{info.hash}/name") == CONTENT


def test_it_travels_by_its_path(file: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with xetstore.open("store.toml") as store:
        info = store.put(source)
        done = subprocess.run(
            [sys.executable, "-c", WORKER],
            input=pickle.dumps((store, info.hash)),
            capture_output=True,
            cwd=tmp_path / "elsewhere",
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [str(file), len(CONTENT)]


def test_what_travels_has_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "store.toml"
    file.write_text('objects = "objects"\nindex = "index.sqlite3"\n')
    with xetstore.open(file) as store:
        # A secret is in the file by the time that another process opens it.
        file.write_text(file.read_text() + '# "xyzzy"\n')
        assert b"xyzzy" not in pickle.dumps(store)


def test_a_store_file_that_is_missing_makes_no_store(tmp_path: Path) -> None:
    for create in (True, False):
        with pytest.raises(NotFoundError, match="no store file"):
            xetstore.open(tmp_path / "store.toml", create=create)
    assert list(tmp_path.iterdir()) == []
    file = tmp_path / "store.toml"
    file.write_text('objects = "objects"\nindex = "index.sqlite3"\n')
    with pytest.raises(NotFoundError):
        xetstore.open(file, create=False)
    assert list(tmp_path.iterdir()) == [file]


def test_a_part_alone_is_no_store() -> None:
    for where in ("s3://bucket/prefix", "postgresql://host/database"):
        with pytest.raises(UsageError, match="is no kind of store") as caught:
            xetstore.open(where)
        assert "in a store file" in str(caught.value.hint)


# The command line


def test_every_command_takes_it(file: Path, source: Path, tmp_path: Path) -> None:
    xet = Xet(tmp_path / "nothing")
    put = xet("--store", file, "--json", "put", source)
    assert put.code == 0, put.stderr
    name = put.records[0]["hash"]
    for command in (
        ("cat", name),
        ("ls",),
        ("ls", file),
        ("stat", name),
        ("check",),
        ("check", "--read-data"),
        ("get", name, "-o", tmp_path / "copy"),
        ("put", "--dry-run", source),
        ("token", "issue", "--scope", "read"),
        ("token", "admin"),
        ("token", "rotate"),
    ):
        store = () if command == ("ls", file) else ("--store", file)
        ran = xet(*store, *command)
        assert ran.code == 0, (command, ran.stderr)
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert is_there(tmp_path)
    assert not xet.store.exists()
    by_variable = Xet(tmp_path / "nothing", XET_STORE=str(file))
    assert by_variable("cat", name).data == CONTENT


def test_a_dry_run_on_a_store_file_that_is_missing_says_so(source: Path, tmp_path: Path) -> None:
    ran = Xet(tmp_path / "missing.toml")("put", "--dry-run", source)
    assert ran.code == 3
    assert "no store file" in ran.stderr


def test_the_admin_has_one_token(file: Path, source: Path, tmp_path: Path) -> None:
    xet = Xet(file)
    xet.put(source)
    first = xet("token", "admin")
    assert first.code == 0, first.stderr
    assert xet("token", "admin").stdout == first.stdout
    [record] = xet("token", "admin", "--json").records
    assert (record["token"], record["scope"]) == (first.stdout.strip(), "admin")
    kept = tmp_path / "objects" / "access" / "admin-token"
    assert kept.read_text() == first.stdout
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert xet("token", "revoke", first.stdout.strip()).code == 0
    assert xet("token", "admin").stdout != first.stdout


# The server


def test_a_server_serves_it(file: Path, source: Path, tmp_path: Path) -> None:
    with ServerProcess(file) as server:
        assert server.started["store"] == str(file)
        assert server.started["token_file"] == str(tmp_path / "objects" / "access" / "admin-token")
        issued = Xet(file)("token", "issue", "--scope", "write")
        with xetstore.open(server.url, token=issued.stdout.strip(), cache=False) as store:
            info = store.put(source)
            store.get(info.hash, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert is_there(tmp_path)


def test_flags_name_the_parts(source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "xetstore", "serve", "--json"]
    flags = ["--objects", str(tmp_path / "objects"), "--index", str(tmp_path / "index" / "of-all.sqlite3")]
    with ServerProcess(None, *flags) as server:
        shown = f"{tmp_path}/objects with the index {tmp_path}/index/of-all.sqlite3"
        assert server.started["store"] == shown
        token = Path(server.started["token_file"]).read_text().strip()
        with xetstore.open(server.url, token=token, cache=False) as store:
            store.put(source)
    assert is_there(tmp_path)
    for wrong, said in (
        ([*flags, str(tmp_path / "store")], "names a part of a store, and"),
        ([*flags, "--store", str(tmp_path / "store")], "names a part of a store, and"),
        (flags[:2], "--objects is given, and --index is missing"),
        (flags[2:], "--index is given, and --objects is missing"),
        (["--cache", "c"], "--cache is given, and --objects is missing"),
        ([*flags[:2], "--index", "postgresql://u:xyzzy@127.0.0.1:1/d"], "--index holds a password"),
        ([*flags[:2], "--index", "mysql://u:xyzzy@h/d"], "--index has the scheme mysql://"),
    ):
        done = subprocess.run([*command, *wrong], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert "xyzzy" not in done.stderr


def test_a_server_over_a_file_that_is_wrong_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "store.toml"
    file.write_text('objects = "objects"\nindxe = "index.sqlite3"\n')
    with pytest.raises(ServerFailedError, match=r"exit code 2.*did you mean index\?"):
        ServerProcess(file)


def test_what_a_start_says_can_be_done(file: Path) -> None:
    """The three commands for a store that a file names, and the token of its admin."""
    command = [sys.executable, "-m", "xetstore", "serve", str(file), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said: list[str] = []
        try:
            while not said or said[-1] != "Ctrl-C stops it":
                line = process.stderr.readline()
                assert line, said
                said.append(line.rstrip("\n"))
            [token] = [line.strip() for line in said if "token issue" in line]
            script = f'{token}; echo "$XET_TOKEN"'
            done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
        finally:
            process.kill()
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", done.stdout), done.stderr


def test_moving_the_parts_of_a_store_apart_is_an_edit(source: Path, tmp_path: Path) -> None:
    """A directory store whose index gets a place of its own."""
    with xetstore.open(tmp_path / "store") as store:
        info = store.put(source)
    (tmp_path / "index").mkdir()
    shutil.move(tmp_path / "store" / "index.sqlite3", tmp_path / "index" / "index.sqlite3")
    (tmp_path / "store" / "store.toml").write_text('objects = "."\nindex = "../index/index.sqlite3"\n')
    with xetstore.open(tmp_path / "store") as store:
        assert store.stat(info.hash).size == len(CONTENT)
        assert store.check(read_data=True).problems == ()
