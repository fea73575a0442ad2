"""A client that is killed at any moment goes on where it was: what comes over the wire again is next to nothing."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.double import Double, Kind
from tests.support.forked import ForkedServer, ServerWorker
from tests.support.process import Ended, Worker
from tests.support.strategies import ramp, splitmix64
from xetstore.cas.check import check
from xetstore.cas.service import EmbeddedCas
from xetstore.store import Store

KIB, MIB = 1 << 10, 1 << 20
POINTS = 16
JOBS = 2


@pytest.fixture(scope="module")
def client() -> Iterator[Worker]:
    """Clients, forked when they are wanted."""
    with Worker(module="tests.faults.client_worker") as started:
        yield started


@pytest.fixture(scope="module")
def servers() -> Iterator[ServerWorker]:
    with ServerWorker() as started:
        yield started


class Killer:
    """Kills the process that wrote its number into a file, if it still runs."""

    def __init__(self, pid_file: Path) -> None:
        self.pid_file = pid_file
        pid_file.unlink(missing_ok=True)

    def __call__(self) -> None:
        # Its end is not waited for before all of its bytes were counted: the number is still its own.
        os.kill(int(self.pid_file.read_text()), signal.SIGKILL)


def points(total: int) -> list[int]:
    """Counts of bytes at which clients are killed: from the first one to shortly before the last, in no order."""
    chosen = [total * number // POINTS + number for number in range(POINTS)]
    random.Random(6).shuffle(chosen)
    return chosen


def killed_at(client: Worker, double: Double, count: int, folder: Path, call: dict[str, Any]) -> Ended:
    """A call that is killed when so many bytes of xorbs have passed."""
    killer = Killer(folder / "pid")
    double.clear()
    double.at_byte(count, killer)
    ended = client.run(**call, pid_file=str(killer.pid_file))
    double.hang_up()  # nothing is counted any more
    return ended


# --- Uploads -------------------------------------------------------------------------------------------------------

XORB_BYTES = 512 * KIB
UPLOAD_FLIGHT = (JOBS + 1) * XORB_BYTES
"""Xorbs under way at a time, and one whose answer was not written down: what may go up twice."""


def write_sources(folder: Path, seed: int) -> list[Path]:
    """Six files of 5 MB in all, in a dozen xorbs, with parts in common; with another seed others."""
    folder.mkdir()
    shared = splitmix64(seed, 300 * KIB)
    for i in range(6):
        content = splitmix64(seed + 1 + i, (300 + i * 530 % 1500) * KIB)
        (folder / str(i)).write_bytes(content + (shared if i % 3 == 0 else ramp(70_000)))
    return sorted(folder.iterdir())


def test_an_upload_killed_at_any_byte_is_taken_up_where_it_was(
    client: Worker, servers: ServerWorker, scratch: Path
) -> None:
    root = scratch / "store"
    most = 0.0
    with (
        ForkedServer(servers, root, log_level="error", rate_per_token=0, rate_per_address=0) as server,
        Double(server.url) as double,
        EmbeddedCas.open(root) as cas,
    ):
        sources = write_sources(scratch / "sources", 0)
        assert client.run(**upload_call(double, server, sources, scratch / "known")).code == 0
        total = double.xorb_bytes_up
        assert double.traffic[Kind.XORB_POST].calls > 10
        for number, count in enumerate(points(int(0.99 * total))):
            sources = write_sources(scratch / f"sources{number}", 100 * (number + 1))
            call = upload_call(double, server, sources, scratch / f"known{number}.sqlite3")
            ended = killed_at(client, double, count, scratch, call)
            assert ended.code == -signal.SIGKILL
            for told in ended.told:  # what was acknowledged is there
                assert b"".join(Store(cas).iter_range(told["hash"])) == Path(told["path"]).read_bytes()
            stored = double.traffic[Kind.XORB_POST].acknowledged
            double.clear()
            again = client.run(**call)
            assert (again.code, again.error) == (0, None), again.message
            missing, moved = total - stored, double.xorb_bytes_up
            assert moved <= 1.05 * missing + UPLOAD_FLIGHT, f"{moved} moved, {missing} were missing"
            most = max(most, (moved - missing) / XORB_BYTES)
            hashes = {told["hash"]: told["path"] for told in again.told if "hash" in told}
            assert len(hashes) == len(sources)
            for name, path in hashes.items():
                assert b"".join(Store(cas).iter_range(name)) == Path(path).read_bytes()
            shutil.rmtree(sources[0].parent)
        assert check(cas, read_data=True).problems == ()
    print(f"{POINTS} killed; at most {most:.2f} xorbs went up twice")


def upload_call(double: Double, server: ForkedServer, sources: list[Path], known: Path) -> dict[str, Any]:
    return {
        "call": "upload",
        "url": double.url,
        "token": server.token,
        "paths": [str(path) for path in sources],
        "known": str(known),
        "xorb_bytes": XORB_BYTES,
        "files_a_shard": 3,
        "jobs": JOBS,
    }


# --- Downloads -----------------------------------------------------------------------------------------------------

DOWNLOAD_FLIGHT = JOBS * 2 * MIB
"""Pieces of a xorb that were under way, not decoded or not written down yet: what may come down twice."""


def test_a_download_killed_at_any_byte_is_taken_up_where_it_was(
    client: Worker, servers: ServerWorker, scratch: Path
) -> None:
    content = splitmix64(7, 18 * MIB)
    source, out = scratch / "source", scratch / "folder" / "out"
    out.parent.mkdir()
    source.write_bytes(content)
    chance = random.Random(8)
    with ForkedServer(servers, scratch / "store", log_level="error") as server, Double(server.url) as double:
        uploaded = client.run(**upload_call(double, server, [source], scratch / "known") | {"xorb_bytes": 4 * MIB})
        call = {
            "call": "download",
            "url": double.url,
            "token": server.token,
            "file": uploaded.told[0]["hash"],
            "out": str(out),
            "cache": str(scratch / "cache"),
            "jobs": JOBS,
        }
        double.clear()
        whole = client.run(**call)
        assert (whole.code, whole.error) == (0, None), whole.message
        total = double.xorb_bytes_down
        assert len(content) <= total < 1.01 * len(content)
        most = 0
        for number, count in enumerate(points(total)):
            out.write_bytes(b"old")
            ended = killed_at(client, double, count, scratch, call)
            assert ended.code == -signal.SIGKILL
            assert out.read_bytes() == b"old"
            missing, kills = total - double.xorb_bytes_down, 1
            if number % 5 == 0:  # and once more, before it is done
                killed_at(client, double, chance.randrange(max(missing, 1)), scratch, call)
                missing, kills = missing - double.xorb_bytes_down, 2
            double.clear()
            again = client.run(**call)
            assert (again.code, again.error) == (0, None), again.message
            moved = double.xorb_bytes_down
            assert moved <= 1.05 * missing + kills * DOWNLOAD_FLIGHT, f"{moved} moved, {missing} were missing"
            most = max(most, (moved - missing) // kills)
            assert again.told[0]["verified"]
            assert out.read_bytes() == content
            assert [path.name for path in out.parent.iterdir()] == ["out"]
        print(f"{POINTS} killed; at most {most} bytes came down twice")
