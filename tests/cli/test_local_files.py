"""Stdin as a file of ``xet put``, and patterns that leave files out."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.runner import COMMAND, Ran, Xet
from tests.support.live import live_server, until
from tests.support.strategies import splitmix64
from tests.support.terminal import Terminal
from xetstore.cas import EmbeddedCas
from xetstore.protocol.hashes import Hash
from xetstore.repositories.staging import MAX_BLOB_BYTES

DATA = splitmix64(1, 3_000_000)


def piped(xet: Xet, data: bytes, *args: object) -> Ran:
    command = [*COMMAND, *map(str, args)]
    done = subprocess.run(command, input=data, env=xet.environment, capture_output=True, timeout=60, check=False)
    return Ran(done.returncode, done.stdout, done.stderr.decode())


def got(xet: Xet, what: str) -> bytes:
    return xet.process("get", what, "-o", "-").data


def test_a_pipe_is_stored_and_comes_back_through_one(xet: Xet) -> None:
    ran = piped(xet, DATA, "put", "-")
    assert (ran.code, ran.stdout[64:]) == (0, "  -\n")
    assert ran.stderr.startswith("1 file, 2.9 MiB: 2.9 MiB new, ")
    assert got(xet, ran.stdout[:64]) == DATA


def test_stdin_is_one_of_several_files_in_their_order(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    ran = piped(xet, DATA, "put", "--json", tmp_path / "a", "-", tmp_path / "b")
    assert [Path(record["path"]).name for record in ran.records] == ["a", "-", "b"]
    assert [record["size"] for record in ran.records] == [1, len(DATA), 1]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("backups/d.tar", "xet://backups/d.tar/d.tar"),
        ("backups/all/2026/d.tar", "xet://backups/all/2026/d.tar"),
        ("xet://datasets/alice/news@main/d.tar", "xet://datasets/alice/news@main/d.tar"),
    ],
)
@pytest.mark.parametrize("size", [5, len(DATA), MAX_BLOB_BYTES + 1])
def test_a_pipe_with_a_name_is_a_commit(xet: Xet, name: str, path: str, size: int) -> None:
    data = (DATA * 12)[:size]
    ran = piped(xet, data, "put", "-", "--name", name, "-m", "Nightly")
    assert ran.code == 0, ran.stderr
    assert f"xet get {path.replace('@main', '')} -o - brings it back" in ran.stderr
    assert got(xet, path) == data
    assert "Nightly" in xet("log", path.rpartition("/")[0].split("/2026")[0]).stdout or "d.tar/d.tar" in path


def test_cp_takes_a_pipe_too(xet: Xet) -> None:
    assert piped(xet, DATA, "cp", "-", "xet://alice/bert/sub/d.tar").code == 0
    assert got(xet, "xet://alice/bert/sub/d.tar") == DATA
    assert piped(xet, DATA, "cp", "-", "xet://alice/bert", "--delete").code == 2
    back = xet("cp", "xet://alice/bert/sub/d.tar", "-")
    assert (back.code, "xet cat" in back.stderr) == (2, True)


def test_stdin_is_either_the_token_or_the_file(xet: Xet) -> None:
    ran = piped(xet, DATA, "put", "-", "--token-file", "-")
    assert ran.code == 2
    assert "both want stdin" in ran.stderr


def test_a_server_takes_a_pipe_too(tmp_path: Path) -> None:
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas) as live:
        xet = Xet(tmp_path / "store", live.url, XET_TOKEN=live.token("write"))
        ran = piped(xet, DATA, "put", "-")
        assert ran.code == 0, ran.stderr
        assert got(xet, ran.stdout[:64]) == DATA


def test_an_empty_pipe_is_a_writer_that_failed(xet: Xet, tmp_path: Path) -> None:
    for name in ([], ["--name", "alice/d.tar"]):
        ran = piped(xet, b"", "put", "-", *name)
        assert (ran.code, ran.stdout) == (6, "")
        assert "nothing came through the pipe" in ran.stderr
    assert not (tmp_path / "store").exists()


def test_an_empty_file_is_no_failure(xet: Xet) -> None:
    ran = xet.process("put", "-", stdin=subprocess.DEVNULL)
    assert (ran.code, ran.stdout) == (0, f"{Hash.ZERO}  -\n")


def test_a_writer_that_breaks_off_is_not_the_end(xet: Xet, tmp_path: Path) -> None:
    """A connection that is reset: of a pipe the system does not tell."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        writer = socket.create_connection(listening.getsockname())
        reader, _ = listening.accept()
    with (
        reader,
        subprocess.Popen(
            [*COMMAND, "put", "-"],
            stdin=reader.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=xet.environment,
        ) as process,
    ):
        writer.sendall(DATA)
        writer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, b"")
    assert b"xet: stdin cannot be read: Connection reset by peer\n0 files, 1 failed" in stderr


def test_stdin_that_is_closed_or_named_twice(xet: Xet) -> None:
    closed = [sys.executable, "-c", "import os, sys; os.close(0); os.execv(sys.argv[1], sys.argv[1:])", *COMMAND]
    done = subprocess.run([*closed, "put", "-"], env=xet.environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, b"xet: stdin is closed")
    assert (ran := piped(xet, DATA, "put", "-", "-")).code == 2
    assert "can be read once" in ran.stderr


def test_a_terminal_is_told_how_to_end(xet: Xet) -> None:
    terminal = Terminal()
    command = [*COMMAND, "put", "-"]
    with subprocess.Popen(
        command,
        env={**xet.environment, "TERM": "dumb"},
        stdin=terminal.slave,
        stderr=terminal.slave,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            until(lambda: "Ctrl-D" in terminal.so_far)
            terminal.type(b"hello\n\x04")
            stdout, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    terminal.seen()
    assert got(xet, stdout[:64].decode()) == b"hello\n"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_a_pipe(xet: Xet) -> None:
    program = (
        "import re, sys\nfrom pathlib import Path\nfrom xetstore.cli.main import run\ntry:\n    run()\nfinally:\n"
        "    print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1], file=sys.stderr)"
    )
    with subprocess.Popen(["head", "-c", "700M", "/dev/zero"], stdout=subprocess.PIPE) as head:
        command = [sys.executable, "-c", program, "put", "-", "--quiet"]
        done = subprocess.run(
            command, stdin=head.stdout, env=xet.environment, capture_output=True, timeout=120, check=False
        )
    assert done.returncode == 0
    assert int(done.stderr) << 10 < 300 << 20


# --- Patterns ---------------------------------------------------------------------------------------------


@pytest.fixture
def top(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    for name in ("a.txt", "b.tmp", "build/x.bin", "sub/build/y.bin", "sub/b.tmp", "sub/keep.tmp", "sub/deep/c.txt"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    return top


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["*.tmp"], "a.txt build/x.bin sub/build/y.bin sub/deep/c.txt"),
        (["*.tmp", "!keep.tmp"], "a.txt build/x.bin sub/keep.tmp sub/build/y.bin sub/deep/c.txt"),
        (["build/"], "a.txt b.tmp sub/b.tmp sub/keep.tmp sub/deep/c.txt"),
        (["/build"], "a.txt b.tmp sub/b.tmp sub/keep.tmp sub/build/y.bin sub/deep/c.txt"),
        (["sub/*.tmp"], "a.txt b.tmp build/x.bin sub/build/y.bin sub/deep/c.txt"),
        (["**/deep", "a.*"], "b.tmp build/x.bin sub/b.tmp sub/keep.tmp sub/build/y.bin"),
        (["top"], ""),
    ],
)
@pytest.mark.parametrize("verb", ["put", "estimate", "cp"])
def test_patterns_leave_out_what_those_of_git_do(
    xet: Xet, top: Path, verb: str, patterns: list[str], left: str
) -> None:
    if verb == "cp" and patterns == ["top"]:
        return  # all that is below it is copied, not the folder itself
    options = [part for pattern in patterns for part in ("--exclude", pattern)]
    ran = xet(verb, "--json", top, *(["xet://a/b"] if verb == "cp" else []), *options)
    assert ran.code == 0, ran.stderr
    paths = [record["path"] for record in ran.records if "path" in record]
    names = [Path(path).relative_to(top if verb != "cp" else ".").as_posix() for path in paths]
    assert sorted(names) == sorted(left.split())


@pytest.mark.parametrize("verb", ["put", "estimate", "cp"])
def test_what_is_left_out_is_counted_and_named_to_those_who_ask(xet: Xet, top: Path, verb: str) -> None:
    target = ["xet://a/b"] if verb == "cp" else []
    ran = xet(verb, top, *target, "--exclude", "build/", "--exclude", "*.tmp")
    assert ", 5 paths excluded" in ran.stderr
    assert "left out" not in ran.stderr
    told = xet(verb, top, *target, "--exclude", "build/", "--exclude", "*.tmp", "-v").stderr
    assert f"{top}/sub/build is left out: it is excluded\n" in told
    assert f"{top}/sub/b.tmp is left out: it is excluded\n" in told


def test_files_that_are_named_are_left_out_by_their_names(xet: Xet, top: Path) -> None:
    ran = xet("put", "--json", top / "a.txt", top / "b.tmp", "--exclude", "*.tmp")
    assert [Path(record["path"]).name for record in ran.records] == ["a.txt"]


def test_odd_names_are_matched(xet: Xet, tmp_path: Path) -> None:
    top = tmp_path / "odd"
    top.mkdir()
    for name in (b"line\nend.tmp", b"byte\xff.tmp", b"kept\xff"):
        (top / os.fsdecode(name)).write_bytes(b"1")
    ran = xet("put", "--json", top, "--exclude", "*.tmp")
    assert [os.fsencode(record["path"])[-5:] for record in ran.records] == [b"kept\xff"]


@pytest.mark.parametrize("patterns", [[""], ["/"], ["a//b"], ["x" * 600], [f"*{number}*" for number in range(101)]])
def test_patterns_that_match_nothing_are_errors(xet: Xet, top: Path, patterns: list[str]) -> None:
    options = [part for pattern in patterns for part in ("--exclude", pattern)]
    for verb in ("put", "estimate"):
        assert xet(verb, top, *options).code == 2
    assert xet("cp", top, "xet://a/b", *options).code == 2


def test_stdin_is_not_left_out(xet: Xet, top: Path) -> None:
    assert piped(xet, DATA, "put", "-", "--exclude", "*").code == 2
    assert piped(xet, DATA, "put", "-", top, "--exclude", "*").stdout.endswith("  -\n")
