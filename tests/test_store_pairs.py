"""A store file for each pair of objects and index, with the real servers: a directory or S3, SQLite or PostgreSQL."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

import xetstore
from tests.cli.runner import Xet
from tests.support.cluster import write_store_file
from tests.support.live import PATIENCE_SECONDS, ServerProcess, until
from tests.support.postgres import PostgresServer
from tests.support.seaweed import Seaweed
from xetstore.cas import EmbeddedCas
from xetstore.database.postgres import PostgresDatabase
from xetstore.errors import DamagedError, NotFoundError

CONTENT = b"Hello World!" * 10_000
PAIRS = [(objects, index) for objects in ("directory", "s3") for index in ("sqlite", "postgres")]


@pytest.fixture(params=PAIRS, ids=["-".join(pair) for pair in PAIRS])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A store file for one pair, whose store is not there yet."""
    objects, index = request.param
    where, options = "objects", {}
    if objects == "s3":
        seaweed: Seaweed = request.getfixturevalue("seaweed")
        where, options = seaweed.prefix(), seaweed.options
    rows = request.getfixturevalue("postgres_url") if index == "postgres" else "index/index.sqlite3"
    return write_store_file(tmp_path / "store.toml", objects=where, index=rows, s3=options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def test_no_token_is_issued_and_nothing_is_made_where_no_store_is(file: Path, request: pytest.FixtureRequest) -> None:
    """A name may be wrong, and the database that of another program."""
    for command in (("token", "admin"), ("token", "issue", "--scope", "read"), ("token", "rotate")):
        assert Xet(file)(*command).code == NotFoundError.exit_code
    if "postgresql://" in file.read_text():
        database = PostgresDatabase(request.getfixturevalue("postgres_url"))
        with closing(database), database.snapshot() as connection:
            assert not connection.has_table("secret")


def test_a_token_is_issued_by_the_clock_that_servers_go_by(
    file: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xet = Xet(file)
    assert xet("put", str(source)).code == 0
    ahead = 3600 if "postgresql://" in file.read_text() else 0
    clock = PostgresDatabase.clock
    monkeypatch.setattr(PostgresDatabase, "clock", lambda database: clock(database) + 3600)
    [issued] = xet("token", "issue", "--scope", "read", "--ttl", "15m", "--json").records
    assert abs(issued["expires_at"] - time.time() - 900 - ahead) < 600


def test_every_pair_is_served(file: Path, source: Path, tmp_path: Path) -> None:
    with ServerProcess(file) as server, ServerProcess(file, "--status", "open") as other:
        token = Xet(file)("token", "admin").stdout.strip()
        with xetstore.open(server.url, token=token, cache=False) as store:
            info = store.put(source)
        with xetstore.open(other.url, token=token, cache=False) as store:
            store.get(info.hash, tmp_path / "copy")
        for one in (server, other):
            assert one.request("GET", "/health/ready").json() == {"status": "ready", "reason": None}
        revoked = Xet(file)("token", "revoke", token)
        assert revoked.code == 0, revoked.stderr
        path = f"/v1/reconstructions/{info.hash}"
        until(lambda: server.request("GET", path, token=token).status == 401)
        assert "testsecret123" not in server.log + json.dumps(server.started)
    assert (tmp_path / "copy").read_bytes() == CONTENT


def test_of_several_that_create_a_pair_at_once_one_id_wins(file: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from xetstore.cas import EmbeddedCas\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "with EmbeddedCas.open(sys.argv[1]) as cas, cas.index.snapshot() as reader: print(reader.store_id())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, file],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        ends = [process.communicate(timeout=PATIENCE_SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert len({said for said, _ in ends}) == 1, [error for _, error in ends]
    EmbeddedCas.open(file, create=False).close()


def test_parts_of_two_stores_are_refused(
    seaweed: Seaweed, postgres: PostgresServer, postgres_url: str, source: Path, tmp_path: Path
) -> None:
    def written(name: str, objects: str, index: str) -> Path:
        path = tmp_path / name
        options = "\n".join(f"{name} = {json.dumps(value)}" for name, value in seaweed.options.items())
        path.write_text(f'objects = "{objects}"\nindex = "{index}"\n[s3]\n{options}\n')
        path.chmod(0o600)
        return path

    ours, theirs = seaweed.prefix(), seaweed.prefix()
    with postgres.database() as other_url:
        for path in (written("ours.toml", ours, postgres_url), written("theirs.toml", theirs, other_url)):
            with xetstore.open(path) as store:
                store.put(source)
        for objects, index, said in (
            (theirs, postgres_url, f"objects in {theirs} are those of store"),
            (ours, other_url, f"objects in {ours} are those of store"),
            (seaweed.prefix(), postgres_url, "have no mark of any store"),
        ):
            with pytest.raises(DamagedError, match=said):
                xetstore.open(written("wrong.toml", objects, index))
    with postgres.database() as empty_url, pytest.raises(DamagedError, match="is empty"):
        xetstore.open(written("wrong.toml", ours, empty_url))
    assert postgres.query("SELECT 1", url=postgres_url) == [(1,)]
