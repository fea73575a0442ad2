"""Run as a program: this Python with what Windows lacks taken away, and its locks given by fcntl. Then put and get.

Only what the operating system gives is replaced; all of the package, and every file, is real.
"""

from __future__ import annotations

import fcntl as _fcntl
import os
import select
import signal
import sys
import types
from pathlib import Path

GONE = (
    *("fork", "forkpty", "register_at_fork", "pread", "preadv", "pwrite", "pwritev", "readv", "writev", "geteuid"),
    *("getuid", "chown", "fchown", "fchmod", "posix_fallocate", "sched_getaffinity", "mkfifo"),
    *("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_DIRECTORY", "SEEK_DATA", "SEEK_HOLE", "memfd_create"),
    *("set_blocking", "sendfile", "copy_file_range", "killpg", "setsid"),
)


def locking(fd: int, mode: int, nbytes: int) -> None:
    """As msvcrt.locking: at the position of the file, and PermissionError where another process has it."""
    position = os.lseek(fd, 0, os.SEEK_CUR)
    assert position == 0x7FFF_FFF0
    operation = _fcntl.LOCK_UN if mode == 0 else _fcntl.LOCK_EX | _fcntl.LOCK_NB
    try:
        _fcntl.flock(fd, operation)
    except BlockingIOError as error:
        raise PermissionError(13, "Permission denied") from error


def main(folder: Path, server: str, token: str) -> None:
    """Put and get with a directory, then with a server, then by the command; the last line says that all is right."""
    # Those that Python itself, and what it brings, imports by what they find here: before anything is taken away.
    import asyncio
    import concurrent.futures.thread
    import http.client
    import logging.handlers
    import multiprocessing.connection
    import shutil
    import sqlite3
    import ssl
    import subprocess
    import tempfile
    import uuid

    import click.testing
    import msgspec
    import urllib3

    loaded = (asyncio, concurrent, http, logging, multiprocessing, shutil, sqlite3, ssl, subprocess, tempfile, uuid)
    assert loaded
    assert click
    assert msgspec
    assert urllib3
    for name in GONE:
        if hasattr(os, name):
            delattr(os, name)
    for module, name in ((select, "poll"), (signal, "pthread_kill"), (signal, "pthread_sigmask")):
        delattr(module, name)
    msvcrt = types.ModuleType("msvcrt")
    vars(msvcrt).update(LK_UNLCK=0, LK_LOCK=1, LK_NBLCK=2, locking=locking)
    sys.modules["msvcrt"] = msvcrt
    for missing in ("fcntl", "termios", "resource", "pwd", "grp", "pty"):
        sys.modules[missing] = None  # type: ignore[assignment]
    sys.platform = "win32"

    import xetstore

    data = os.urandom(3 << 20)
    source = folder / "source"
    source.mkdir()
    (source / "one").write_bytes(data + bytes(2 << 20) + b"end")
    (source / "two").write_bytes(data[: 1 << 20] + b"between" + data[1 << 20 :])
    with xetstore.open(folder / "store") as store:
        infos = [store.put(source / name) for name in ("one", "two")]
        again = store.put(source / "one")
        assert again.hash == infos[0].hash
        for name, info in zip(("one", "two"), infos, strict=True):
            store.get(info.hash, folder / f"copy-{name}", fsync=True)
            assert (folder / f"copy-{name}").read_bytes() == (source / name).read_bytes()
            store.get(info.hash, folder / f"copy-{name}")  # over one that is there
            assert (folder / f"copy-{name}").read_bytes() == (source / name).read_bytes()
        store.get(infos[1].hash, folder / "based", base=source / "one")
        assert (folder / "based").read_bytes() == (source / "two").read_bytes()
        with store.open(infos[0].hash) as stream:
            stream.seek(5)
            assert stream.read(10) == data[5:15]
        repo = store.create_repo("alice/bert")
        repo.commit(add={"": source}, message="First")
        repo.download("main", folder / "restored")
        assert (folder / "restored" / "two").read_bytes() == (source / "two").read_bytes()
    with xetstore.open(server, token=token) as far:
        info = far.put(source / "two")
        far.get(info.hash, folder / "far")
        assert (folder / "far").read_bytes() == (source / "two").read_bytes()
    assert not list(folder.rglob("*.incomplete*"))

    from xetstore.cli.main import cli

    def ran(*words: str) -> str:
        result = click.testing.CliRunner().invoke(cli, ["--store", str(folder / "store"), *words])
        assert result.exit_code == 0, result.output
        return result.output

    listed = ran("put", str(source / "one"))
    (folder / "list").write_text(f"{listed.partition('  ')[0]}  aux.txt\n{listed.partition('  ')[0]}  deep\\\\er\n")
    refused = click.testing.CliRunner().invoke(
        cli, ["--store", str(folder / "store"), "get", "--list", str(folder / "list"), "-o", str(folder / "out")]
    )
    assert refused.exit_code
    assert "device" in refused.output
    assert (folder / "out" / "deep" / "er").read_bytes() == (source / "one").read_bytes()
    assert not (folder / "out" / "aux.txt").exists()
    refused = click.testing.CliRunner().invoke(cli, ["serve", str(folder / "store")])
    assert refused.exit_code
    assert "Linux and macOS" in str(refused.output) + str(refused.exception)
    print("right")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
