"""A full disk: what is stored can be deleted and collected there, because a reserve is kept for that.

A disk of 16 MiB, with a reserve of some hundred KiB beside the index.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.faults.test_full_disk import SmallDisk, small
from tests.faults.test_server_disk import SmallDisk as ServedDisk
from tests.faults.test_server_disk import disk
from tests.support.forked import ForkedServer
from tests.support.hf_process import Connection, HfError, HfProcess
from tests.support.strategies import splitmix64

__all__ = ["disk", "small"]  # fixtures

KIB, MIB = 1 << 10, 1 << 20
GC = ("gc", "--grace", "0s", "--undelete", "0s")
ROUNDS = 4
"""Each collection does a part: a file, its xorbs, their objects."""


def test_a_client_that_is_refused_gets_room_by_deleting(disk: ServedDisk, tmp_path: Path) -> None:
    """The real client: it sees 507, reads go on, and its next upload is stored once what was deleted is collected."""
    paths = {name: tmp_path / name for name in ("kept", "deleted", "new")}
    for seed, (name, size) in enumerate({"kept": MIB, "deleted": 6 * MIB, "new": 3 * MIB}.items()):
        paths[name].write_bytes(splitmix64(seed, size))

    def xet(*arguments: str) -> int:
        code: int = disk.worker.call("cli", "code", arguments=["--store", str(disk.store), *arguments])
        return code

    with ForkedServer(disk.worker, disk.store) as server:
        connection = Connection(server.url, (server.token, int(time.time()) + 3600))
        client = HfProcess(connection, tmp_path / "home")
        kept, deleted = (client.upload([paths[name]]).infos[0] for name in ("kept", "deleted"))
        disk.fill(0)
        with pytest.raises(HfError) as refused:
            client.upload([paths["new"]])
        assert "507" in str(refused.value)
        assert client.download([kept, deleted]) == [paths["kept"].read_bytes(), paths["deleted"].read_bytes()]
        for _ in range(3):
            assert xet("rm", str(deleted.hash)) == 0
            assert xet("undelete", str(deleted.hash)) == 0
        assert xet("rm", str(deleted.hash)) == 0
        for _ in range(ROUNDS):
            assert xet(*GC) == 0
        [new] = client.upload([paths["new"]]).infos
        assert client.download([kept, new]) == [paths["kept"].read_bytes(), paths["new"].read_bytes()]
        with pytest.raises(HfError):
            client.download([deleted])
    disk.free()
    assert xet("check", "--read-data") == 0


@pytest.mark.slow
def test_wherever_the_disk_ends_care_gets_done_and_uploads_do_not(small: SmallDisk) -> None:
    """What is left of the disk grows from nothing; each time all verbs of care are asked for."""
    chance = random.Random(1)

    def xet(*arguments: str) -> int:
        return small.worker.run("cli", arguments=["--store", str(small.store), *arguments]).code

    kept = small.source(300 * KIB)
    _, _, [stored] = small.put(kept)
    for leave in range(0, 200 * KIB, 60 * KIB):
        source = small.source(700 * KIB)
        code, _, [doomed] = small.put(source)
        assert code == 0
        small.fill(leave)
        code, error, _ = small.put(small.source(2 * MIB))
        assert (code, error) == (6, "StorageFullError")
        assert xet("rm", doomed) == 0
        assert xet("undelete", doomed) == 0
        assert xet("rm", doomed) == 0
        for _ in range(ROUNDS):
            assert xet(*GC) == 0
        assert xet("check") == 0
        small.expect_stored({stored: kept})
        assert small.worker.run("hurt", store=str(small.store), seed=chance.randrange(1000)).code == 0
        assert xet("repair", "--yes", "--read-data") in (0, 4, 6), "a xorb takes room, that it may find or not"
        small.free()
        assert xet("repair", "--yes", "--read-data") in (0, 4)
        assert small.put(kept)[0] == 0
        small.expect_stored({stored: kept})
