"""The PostgreSQL server of the tests: it ends with them, however they end, and comes back where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.support.postgres import PATIENCE_SECONDS, PostgresServer
from tests.support.process import ROOT

_HOLD_ONE = """
import sys
from tests.support.postgres import running
with running() as server:
    print(server.port, server._folder, flush=True)
    sys.stdin.read()
"""


@pytest.mark.usefixtures("postgres")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_ends_with_the_tests_that_are_killed(number: signal.Signals) -> None:
    command = [sys.executable, "-c", _HOLD_ONE]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port, folder = process.stdout.readline().split()
        server = int((Path(folder) / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(process.pid, number)
        process.wait()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while Path(folder).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=5)


def test_a_server_that_was_stopped_or_killed_has_all_that_was_durable(
    postgres: PostgresServer, postgres_url: str
) -> None:
    postgres.query("CREATE TABLE one (number INTEGER)", url=postgres_url)
    for number, end in enumerate((postgres.stop, postgres.kill)):
        with closing(psycopg.connect(postgres_url)) as connection:
            connection.execute("SET synchronous_commit = on")
            connection.execute("INSERT INTO one VALUES (%s)", [number])
            connection.commit()
            assert postgres.connections(postgres_url) == 1
            end()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(postgres_url, connect_timeout=5)
        postgres.start()
    assert postgres.query("SELECT number FROM one ORDER BY 1", url=postgres_url) == [(0,), (1,)]
