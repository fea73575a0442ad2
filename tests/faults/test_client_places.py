"""Processes that lack what most have: a home, threads, locks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.refused import UNSUPPORTED
from tests.support.live import LiveServer, live_server
from tests.support.process import ROOT
from tests.support.strategies import splitmix64
from xetstore.cas.folder import open_directory
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import UnavailableError
from xetstore.store import Store

DATA = splitmix64(1, 9_000_000)
STRANGER = 54_321


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas, log_level="error") as running:
        yield running


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").write_bytes(DATA)
    return tmp_path / "source"


# No home

STRANGE = f"""
import os, sys
from tests.support import rights
os.chdir(sys.argv.pop(1))
rights.become({STRANGER})
from xetstore.cli.main import run
run()
"""


@pytest.fixture
def abroad() -> Iterator[Path]:
    """A folder of a user who is in no list of users."""
    with tempfile.TemporaryDirectory(prefix="xet") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "here").mkdir()
        os.chown(folder / "here", STRANGER, STRANGER)
        yield folder / "here"


def strange(abroad: Path, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command run by that user, without a home."""
    kept = {"PATH", "LANG", "LC_ALL", "SSL_CERT_FILE"}
    environment = {name: value for name, value in os.environ.items() if name in kept} | variables
    command = [sys.executable, "-c", STRANGE, str(abroad), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=environment, cwd=ROOT, timeout=120, check=False
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become a user who is in no list")
@pytest.mark.parametrize("cache", [None, "~/cache", "~nobody-at-all/cache"])
def test_without_a_home_files_are_transferred_and_no_cache_is_kept(
    server: LiveServer, abroad: Path, cache: str | None
) -> None:
    (abroad / "source").write_bytes(DATA)
    variables = {"XET_STORE": server.url, "XET_TOKEN": server.token("write"), **({"XET_CACHE": cache} if cache else {})}
    put = strange(abroad, "put", "source", **variables)
    assert put.returncode == 0, put.stderr
    file = put.stdout.split()[0]
    got = strange(abroad, "get", file, "-o", "out", "--events", **variables)
    assert got.returncode == 0, got.stderr
    assert '"event": "cache_disabled"' in got.stderr
    assert "no home directory" in got.stderr
    assert (abroad / "out").read_bytes() == DATA
    cat = strange(abroad, "cat", file, "--range", "0:5", **variables)
    assert cat.returncode == 0, cat.stderr
    assert sorted(path.name for path in abroad.iterdir()) == ["out", "source"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become a user who is in no list")
@pytest.mark.parametrize(
    ("arguments", "variables", "code", "message"),
    [
        (["ls"], {}, 2, "name a store with --store"),
        (["stat", "1" * 64], {"XET_STORE": "http://127.0.0.1:1", "XET_TOKEN_FILE": "~/t"}, 2, "XET_TOKEN_FILE is ~/t"),
        (["stat", "hf://models/a/b/c"], {"HF_ENDPOINT": "http://127.0.0.1:1"}, 6, "cannot be reached"),
        (["stat", "hf://models/a/b/c"], {"HF_HOME": "~/hf"}, 2, "HF_HOME is ~/hf"),
    ],
)
def test_without_a_home_what_needs_one_says_so(
    abroad: Path, arguments: list[str], variables: dict[str, str], code: int, message: str
) -> None:
    ran = strange(abroad, *arguments, **variables)
    assert ran.returncode == code, ran.stderr
    assert message in ran.stderr
    assert "unexpected" not in ran.stderr
    assert list(abroad.iterdir()) == []


# No threads, no locks


def refused(what: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process whose system refuses this."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XET")} | variables
    command = [sys.executable, "-m", "tests.faults.refused", what, *map(str, arguments)]
    ran = subprocess.run(
        command, capture_output=True, text=True, errors="replace", env=environment, cwd=ROOT, timeout=120, check=False
    )
    if ran.returncode == UNSUPPORTED:
        pytest.skip("no filters of system calls here")
    return ran


def test_threads_that_are_refused_are_a_reason_and_no_interruption(
    server: LiveServer, source: Path, tmp_path: Path
) -> None:
    file = Store(server.site.cas).put(source).hash
    (tmp_path / "list").write_text(f"{file}  a\n{file}  b\n")
    variables = {"XET_STORE": server.url, "XET_TOKEN": server.token("write"), "XET_CACHE": str(tmp_path / "cache")}
    (tmp_path / "new").write_bytes(splitmix64(2, 20_000_000))
    codes = []
    for arguments in (
        ["put", tmp_path / "new"],
        ["get", "--list", tmp_path / "list", "-o", tmp_path / "out"],
        ["cat", str(file)],
        ["hash", tmp_path / "new"],
    ):
        ran = refused("threads", *arguments, **variables)
        codes.append(ran.returncode)
        if ran.returncode == 0:
            continue  # it did without
        assert ran.returncode == 6, ran.stderr
        assert "the system refuses to start another thread" in ran.stderr
        assert "ulimit -u" in ran.stderr
        assert "interrupted" not in ran.stderr
    assert codes == [6, 6, 0, 6]


def test_a_store_on_a_file_system_without_locks_says_so(source: Path, tmp_path: Path) -> None:
    with EmbeddedCas.open(tmp_path / "old"):
        pass
    for store in ("old", "new"):
        ran = refused("locks", "put", source, "--store", tmp_path / store)
        assert ran.returncode == 6, ran.stderr
        assert "has no locks, which a store needs" in ran.stderr
        assert "another process" not in ran.stderr


def test_a_download_onto_a_file_system_without_locks_leaves_nothing(
    server: LiveServer, source: Path, tmp_path: Path
) -> None:
    file = Store(server.site.cas).put(source).hash
    variables = {"XET_STORE": server.url, "XET_TOKEN": server.token("read"), "XET_CACHE": str(tmp_path / "cache")}
    (tmp_path / "folder").mkdir()
    ran = refused("locks", "get", file, "-o", tmp_path / "folder" / "out", **variables)
    assert ran.returncode == 0, ran.stderr
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["out"]
    assert (tmp_path / "folder" / "out").read_bytes() == DATA


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_store_without_locks_is_known_by_what_the_system_says(tmp_path: Path, code: int) -> None:
    def refuses(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(UnavailableError, match="has no locks") as caught:
        open_directory(tmp_path / "store", create=True, lockf=refuses)
    assert caught.value.hint


AT_EXIT = """
import atexit, sys

def late():
    try:
        list(store.get_many([(sys.argv[3], sys.argv[4]), (sys.argv[3], sys.argv[4] + "2")]))
        print("done")
    except UnavailableError as error:
        print(f"{error}; {error.hint}")

def register():
    atexit.register(late)

if sys.argv[5] == "last":  # the last functions are registered first
    register()
import xetstore
from xetstore.errors import UnavailableError

store = xetstore.open(sys.argv[1], token=sys.argv[2], cache=False)
if sys.argv[5] == "before":
    register()
"""


@pytest.mark.parametrize(("when", "said"), [("before", "done"), ("last", "the program is ending")])
def test_a_program_that_ends_has_its_files_still_or_hears_that_it_ends(
    server: LiveServer, source: Path, tmp_path: Path, when: str, said: str
) -> None:
    file = Store(server.site.cas).put(source).hash
    command = [sys.executable, "-c", AT_EXIT, server.url, server.token("read"), str(file), str(tmp_path / "out")]
    ran = subprocess.run([*command, when], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(said)
