"""Ctrl-C and SIGTERM while a server says nothing: gone at once, with 130, and nothing left behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from tests.cli.runner import Xet
from tests.support.live import live_server, until
from tests.support.strategies import splitmix64
from tests.support.terminal import Terminal, as_controlling_terminal
from xetstore.cas import EmbeddedCas
from xetstore.cli.interruption import SAME_SECONDS

# A shell may have made this process, and so its children, deaf to Ctrl-C.
LISTENING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
PROGRAM = f"{LISTENING}from xetstore.cli.main import run; run()"
# A name server that says nothing: a thread in there hears of no signal, as one that waits for a mutex.
NO_NAMES = """
import ctypes, socket
def look_up(*_, flags=0, **__):
    if flags:  # only to see whether it is an address already
        raise socket.gaierror
    open("looking", "w").close()
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    while True:
        libc.pthread_mutex_lock(mutex)
socket.getaddrinfo = look_up
"""


# A disk that hangs while the command unwinds.
STUCK = """
import time
import xetstore.cli.interruption, xetstore.store
def stuck(_):
    open("unwinding", "w").close()
    time.sleep(60)
xetstore.store.Store.close = stuck
xetstore.cli.interruption.UNWIND_SECONDS = 60
"""


class Silent:
    """A server that takes connections and requests, and never answers."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._take, name="silent server")
        self._thread.start()

    def _take(self) -> None:
        with suppress(OSError):
            while True:
                taken, _ = self._listening.accept()
                self.taken.append(taken)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        for taken in self.taken:
            taken.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.close()


@contextmanager
def started(
    xet: Xet, folder: Path, *args: object, program: str = PROGRAM, stderr: int | IO[str] = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, *(str(arg) for arg in args)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=stderr, env=xet.environment, cwd=folder, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], hint: str = "") -> None:
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    empty, said, *hints = stderr.splitlines()
    assert (empty, said) == ("", "xet: interrupted"), "on a line of its own, behind the ^C of a terminal"
    assert len(hints) == bool(hint)
    assert hint in "".join(hints)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["get", "put", "cat"])
def test_a_silent_server_is_not_waited_for(silent: Silent, tmp_path: Path, command: str, number: int) -> None:
    (tmp_path / "file").write_bytes(splitmix64(1, 300_000))
    xet = Xet(tmp_path / "store", silent.url, XET_TOKEN="t")
    arguments = {"get": ["ab" * 32, "-o", "copy"], "put": ["file"], "cat": ["ab" * 32]}[command]
    hint = {"get": "--keep-partial", "put": "run the same command again", "cat": ""}[command]
    with started(xet, tmp_path, command, *arguments) as process:
        until(lambda: len(silent.taken) > 0)
        process.send_signal(number)
        ended(process, hint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "file"]


def test_ctrl_c_again_and_again_shows_no_traceback(silent: Silent, tmp_path: Path) -> None:
    xet = Xet(tmp_path / "store", silent.url, XET_TOKEN="t")
    with started(xet, tmp_path, "get", "ab" * 32, "-o", "copy") as process:
        until(lambda: len(silent.taken) > 0)
        for _ in range(50):
            process.send_signal(signal.SIGINT)
            time.sleep(0.002)
        ended(process, "--keep-partial")


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_second_ctrl_c_ends_an_unwinding_at_once(silent: Silent, tmp_path: Path, number: int, ends: bool) -> None:
    xet = Xet(tmp_path / "store", silent.url, XET_TOKEN="t")
    with started(xet, tmp_path, "get", "ab" * 32, "-o", "copy", program=STUCK + PROGRAM) as process:
        until(lambda: len(silent.taken) > 0)
        process.send_signal(signal.SIGINT)
        until((tmp_path / "unwinding").exists)
        time.sleep(2 * SAME_SECONDS)
        process.send_signal(number)
        if ends:
            ended(process, "--keep-partial")
        else:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)


def test_ctrl_c_typed_at_a_terminal(tmp_path: Path) -> None:
    """The bar is gone, and the last lines stand for themselves."""
    (tmp_path / "file").write_bytes(splitmix64(1, 8_000_000))
    terminal = Terminal(120)
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas) as live:
        xet = Xet(tmp_path / "store", live.url, XET_TOKEN=live.token("write"), TERM="xterm")
        command = [sys.executable, "-c", PROGRAM, "put", str(tmp_path / "file"), "--limit-rate", "500k"]
        with subprocess.Popen(
            command, env=xet.environment, stderr=terminal.slave, preexec_fn=as_controlling_terminal
        ) as process:
            try:
                until(lambda: any("ETA" in frame for frame in terminal.screen.erased))
                terminal.type(b"\x03")
                assert process.wait(60) == 130
            finally:
                process.kill()
    terminal.seen()
    assert terminal.screen.wraps == 0
    assert [line for line in terminal.screen.lines if line not in ("", "^C")] == [
        "xet: interrupted",
        "hint: run the same command again: what is stored already is not stored again",
    ]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["cp", "file", "xet://alice/bert"], "nothing is committed; run the same command again"),
        (["cp", "xet://alice/bert", "copy"], "files that are there already stay"),
        (["put", "file", "--name", "alice/bert"], "nothing is committed; run the same command again"),
        (["get", "ab" * 32, "-o", "copy", "--keep-partial"], "it goes on from what has arrived"),
    ],
)
def test_a_command_says_how_it_goes_on(silent: Silent, tmp_path: Path, arguments: list[str], hint: str) -> None:
    (tmp_path / "file").write_bytes(b"1")
    xet = Xet(tmp_path / "store", silent.url, XET_TOKEN="t")
    with started(xet, tmp_path, *arguments) as process:
        until(lambda: len(silent.taken) > 0)
        process.send_signal(signal.SIGINT)
        ended(process, hint)


@pytest.mark.parametrize(
    ("arguments", "module", "hint"),
    [
        (["check"], "xetstore.cas.check:check", "run the same command again"),
        (["check", "--read-data"], "xetstore.cas.check:check", "with --subset 100% the next check reads first"),
        (
            ["check", "--read-data", "--subset", "1/2"],
            "xetstore.cas.check:check",
            "what was not read yet is read first",
        ),
        (["copy-store", "store", "other"], "xetstore.hub.copying.copy_store:copy_store", "it goes on from here"),
    ],
)
def test_care_says_how_it_goes_on(tmp_path: Path, arguments: list[str], module: str, hint: str) -> None:
    EmbeddedCas.open(tmp_path / "store").close()
    name, _, function = module.partition(":")
    slow = (
        f"import signal, time, {name}\n"
        f"{name}.{function} = lambda *_, **__: signal.raise_signal(signal.SIGINT) or time.sleep(60)\n"
    )
    with started(Xet(tmp_path / "store"), tmp_path, *arguments, program=slow + PROGRAM) as process:
        ended(process, hint)


def test_what_is_for_programs_has_no_hint(silent: Silent, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    xet = Xet(tmp_path / "store", silent.url, XET_TOKEN="t")
    for option in ("--quiet", "--json"):
        before = len(silent.taken)
        with started(xet, tmp_path, "put", "file", option) as process:
            until(lambda before=before: len(silent.taken) > before)  # type: ignore[misc]
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr.strip()) == (130, "")


def test_a_name_that_is_being_looked_up_is_not_waited_for(tmp_path: Path) -> None:
    xet = Xet(tmp_path / "store", "https://example.invalid", XET_TOKEN="t")
    with started(xet, tmp_path, "get", "ab" * 32, "-o", "copy", program=NO_NAMES + PROGRAM) as process:
        until((tmp_path / "looking").exists)
        process.send_signal(signal.SIGINT)
        ended(process, "--keep-partial")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "looking"]


def test_a_terminal_sees_that_a_call_is_made_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    xet = Xet(tmp_path / "store", url, XET_TOKEN="t")
    terminal = Terminal()
    with started(xet, tmp_path, "get", "ab" * 32, "-o", "copy", stderr=terminal.slave) as process:
        until(lambda: "retrying" in terminal.so_far)
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.returncode == 130, terminal.so_far
    seen = terminal.seen()
    assert "127.0.0.1" in seen.partition("retrying")[2]
    assert "xet: interrupted" in seen


@pytest.mark.parametrize("options", [(), ("--keep-partial",)])
def test_what_has_arrived_is_kept_only_if_it_is_wanted(tmp_path: Path, options: tuple[str, ...]) -> None:
    data = splitmix64(2, 32_000_000)
    (tmp_path / "file").write_bytes(data)
    folder = tmp_path / "out"
    folder.mkdir()
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas) as live:
        xet = Xet(tmp_path / "store", live.url, XET_TOKEN=live.token("write"))
        name = xet.put(tmp_path / "file")
        slow = ("--limit-rate", "16M", *options)
        with started(xet, folder, "get", name, "-o", "copy", "--events", *slow) as process:
            assert process.stderr is not None
            until(lambda: any(path.stat().st_blocks * 512 > 12_000_000 for path in folder.iterdir()))
            process.send_signal(signal.SIGINT)
            process.wait(60)
            assert process.returncode == 130
            assert "Traceback" not in process.stderr.read()
        left = sorted(path.name for path in folder.iterdir())
        if not options:
            assert left == []
            return
        assert left
        assert all(name.startswith(".copy.") for name in left)
        ran = xet("get", "--json", name, "-o", folder / "copy", "--keep-partial")
        [report] = ran.records
        assert report["reused_bytes"] > 4_000_000
        assert (folder / "copy").read_bytes() == data
        assert [path.name for path in folder.iterdir()] == ["copy"]
