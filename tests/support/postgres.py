"""A PostgreSQL server of the tests' own: the real one, in a folder below the system's temporary one, on 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.support.ports import free_port

PATIENCE_SECONDS: Final = 60.0
"""The longest wait for a server to start, or to end."""

MISSING: Final = "the PostgreSQL server is not installed: apt-get install postgresql"

OWNER: Final = "postgres"
"""The role that may do everything, without a password. Every other role needs its own."""

_RIGHTS: Final = f"""
local all all trust
host all {OWNER} 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""
_SETTINGS: Final = {
    # A power loss is not what is tested: what was handed to the system outlives the server, also one that is killed.
    "fsync": "off",
    # A commit waits for nothing unless its session asks for that: who forgets to loses rows when the server is killed.
    "synchronous_commit": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "listen_addresses": "127.0.0.1",
}
_GUARD: Final = """
import os, shutil, signal, sys, time
sys.stdin.read()
folder = sys.argv[1]
try:
    with open(folder + "/data/postmaster.pid") as file:
        server = int(file.readline())
    os.kill(server, signal.SIGQUIT)
    for _ in range(500):
        os.kill(server, 0)
        time.sleep(0.02)
except (OSError, ValueError):
    pass
shutil.rmtree(folder, ignore_errors=True)
"""
"""Ends the server when the tests are gone, however they ended, and removes its folder."""


def find_programs() -> Path | None:
    """The folder of the newest PostgreSQL server that is installed, or None."""
    versions = [path for path in Path("/usr/lib/postgresql").glob("*/bin/postgres") if path.parts[-3].isdigit()]
    if versions:
        return max(versions, key=lambda path: int(path.parts[-3])).parent
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found else None


class PostgresServer:
    """One private cluster. ``port`` stays the same when it is stopped and started again."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self.port = free_port()
        self._as_owner = _as_owner(folder)
        self._run("initdb", "-A", "trust", "-U", OWNER, "-E", "UTF8", "--locale=C", "--no-sync")
        (folder / "data" / "pg_hba.conf").write_text(_RIGHTS)

    # The server

    def start(self) -> None:
        """Start it, and wait until it answers."""
        assert self._process is None
        settings = {**_SETTINGS, "port": self.port, "unix_socket_directories": self._folder}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._folder / "data", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,  # Ctrl-C is for the tests, which end it
                **self._as_owner,
            )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self.query("SELECT 1")
            except psycopg.OperationalError:
                assert self._process.poll() is None, self.log()[-2000:]
                assert time.monotonic() < deadline, self.log()[-2000:]
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Shut it down in order: who is connected is thrown out, and nothing is lost. Nothing, if it is not running."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Let it die at once, with all its processes, as where the machine dies."""
        if self._process is not None:
            children = _children(self._process.pid)
            self._end(signal.SIGKILL)
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)

    @contextmanager
    def as_standby(self) -> Iterator[None]:
        """Meanwhile it takes no changes, as one that follows another."""
        mark = self._folder / "data" / "standby.signal"
        self.stop()
        mark.touch()
        self.start()
        try:
            yield
        finally:
            self.stop()
            mark.unlink()
            self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Meanwhile it answers nothing, and refuses nothing: as where its machine hangs."""
        assert self._process is not None
        everyone = [self._process.pid, *_children(self._process.pid)]
        for process in everyone:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in everyone:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        """True from its start to its end."""
        return self._process is not None

    def log(self) -> str:
        """All that it has logged."""
        return (self._folder / "log").read_text(errors="replace")

    # What is in it

    def url(self, database: str, *, role: str = OWNER, password: str | None = None) -> str:
        """The URL of a database."""
        secret = "" if password is None else f":{password}"
        return f"postgresql://{role}{secret}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new database, which is gone afterwards, with all who are connected to it."""
        name = f"test{next(self._numbers)}"
        self.query(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            if not self.is_running:
                self.start()
            self.query(f"DROP DATABASE {name} WITH (FORCE)")

    def query(self, statement: str, *, url: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement by a connection of its own, not in a transaction, in the database of ``url``."""
        where = url or self.url("postgres")
        with psycopg.connect(where, connect_timeout=10, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def connections(self, url: str) -> int:
        """The number of connections to the database of ``url``."""
        [(number,)] = self.query(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{_name(url)}'")
        return int(number)

    def terminate(self, url: str) -> int:
        """End every connection to the database of ``url`` from the server's side; how many it were."""
        ended = self.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{_name(url)}'")
        return len(ended)

    # Beneath

    def _run(self, program: str, *options: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), "-D", str(self._folder / "data"), *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
            cwd=self._folder,
            **self._as_owner,
        )
        assert done.returncode == 0, done.stderr

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running() -> Iterator[PostgresServer]:
    """A server, once it answers. It ends with the block, and with the process, also one that is killed."""
    programs = find_programs()
    assert programs is not None, MISSING
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # short: the path of a socket has at most 107 bytes
    guard = subprocess.Popen(
        [sys.executable, "-c", _GUARD, folder], stdin=subprocess.PIPE, start_new_session=True, cwd="/"
    )
    try:
        server = PostgresServer(programs, folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        guard.communicate()


def _name(url: str) -> str:
    return url.rpartition("/")[2].partition("?")[0]


def _as_owner(folder: Path) -> dict[str, Any]:
    """Options of Popen: the server does not run as the superuser."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            os.chown(folder, user.pw_uid, user.pw_gid)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise AssertionError("there is no user as whom the server could run")


def _children(process: int) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = (line.split() for line in listed.splitlines())
    return [int(child) for child, parent in pairs if int(parent) == process]
