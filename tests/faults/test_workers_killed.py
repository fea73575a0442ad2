"""Workers killed while the real hf_xet uploads and downloads: it tries again, and what was acknowledged is whole."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.hf_process import Connection, HfError, HfProcess
from tests.support.live import ServerProcess, until
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.service import EmbeddedCas
from xetstore.records import FileInfo
from xetstore.testing.samples import random_bytes, read_back

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for the workers in /proc")

ROUNDS = 4
FILES_A_ROUND = 3
FILE_BYTES = 6_000_000


@contextmanager
def killing(server: ServerProcess, seconds: float) -> Iterator[list[int]]:
    """While this is open, one worker after the other is killed, each once it serves; the other goes on meanwhile."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        number = 1
        while not over.wait(seconds):
            ready = server.request("GET", "/metrics").body
            if all(b'worker="%d"' % each in ready for each in (1, 2)):
                with suppress(KeyError, ProcessLookupError):
                    pid = server.workers[number]
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    number = 3 - number

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def client(server: ServerProcess, home: Path) -> HfProcess:
    token = server.token("write"), int(time.time()) + 900
    return HfProcess(Connection(server.url, token), home)


def files(folder: Path, first: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / str(number) for number in range(first, first + FILES_A_ROUND)]
    for number, path in enumerate(paths, first):
        path.write_bytes(random_bytes(FILE_BYTES, number))
    return paths


def test_workers_are_killed_under_uploads_and_downloads(tmp_path: Path) -> None:
    acknowledged: list[tuple[FileInfo, Path]] = []
    with ServerProcess(tmp_path / "store", "--workers", "2", "--log-level", "warning") as server:
        with killing(server, 0.2) as killed:
            for round_ in range(ROUNDS):
                paths = files(tmp_path / "files", round_ * FILES_A_ROUND)
                uploaded = client(server, tmp_path / f"up{round_}").upload(paths)
                acknowledged += zip(uploaded.infos, paths, strict=True)
                contents = client(server, tmp_path / "down").download([info for info, _ in acknowledged])
                assert contents == [path.read_bytes() for _, path in acknowledged]
        assert len(killed) >= 2
        assert "giving up" not in server.log
        server.terminate()
        assert server.wait() == 0
    is_sound(tmp_path / "store", acknowledged)


def test_sigterm_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[tuple[FileInfo, Path]] = []
    failures: list[HfError] = []
    with ServerProcess(tmp_path / "store", "--workers", "2", "--log-level", "warning") as server:

        def upload() -> None:
            try:
                for round_ in range(100):
                    paths = files(tmp_path / "files", round_ * FILES_A_ROUND)
                    uploaded = client(server, tmp_path / f"up{round_}").upload(paths)
                    acknowledged.extend(zip(uploaded.infos, paths, strict=True))
            except HfError as error:
                failures.append(error)

        uploading = threading.Thread(target=upload)
        uploading.start()
        try:
            until(lambda: len(acknowledged) >= FILES_A_ROUND)
            time.sleep(0.1)
        finally:
            server.terminate()
            code = server.wait()
            uploading.join()
        assert code == 0
        assert failures, "the client found no server any more"
    is_sound(tmp_path / "store", acknowledged)


def is_sound(store: Path, acknowledged: list[tuple[FileInfo, Path]]) -> None:
    with EmbeddedCas.open(store) as cas:
        verify_invariants(cas)
        assert check(cas).problems == ()
        for info, path in acknowledged:
            assert read_back(cas, info.hash) == path.read_bytes()
