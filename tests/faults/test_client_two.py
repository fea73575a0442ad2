"""Several clients on one machine at once, sharing the cache and what is known of a server; one of them is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.double import Double, Kind
from tests.support.live import LiveServer, live_server
from tests.support.process import Ended, Worker
from tests.support.strategies import splitmix64
from xetstore.cas.check import check
from xetstore.cas.service import EmbeddedCas
from xetstore.store import Store

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(scope="module")
def client() -> Iterator[Worker]:
    with Worker(module="tests.faults.client_worker") as started:
        yield started


@pytest.fixture
def server(scratch: Path) -> Iterator[LiveServer]:
    with EmbeddedCas.open(scratch / "store") as cas:
        with live_server(cas, log_level="error") as running:
            yield running
        assert check(cas, read_data=True).problems == ()


class Machine:
    """One whose clients share a cache folder."""

    def __init__(self, folder: Path, server: LiveServer, url: str | None = None) -> None:
        self.folder, self._server = folder, server
        self._common = {"url": url or server.url, "token": server.token("write")}

    def source(self, number: int, *parts: bytes) -> Path:
        path = self.folder / f"source{number}"
        path.write_bytes(b"".join(parts) or splitmix64(number, 6 * MIB))
        return path

    def upload(self, *paths: Path, **more: Any) -> dict[str, Any]:
        return {
            "call": "upload",
            "paths": [str(path) for path in paths],
            "known": str(self.folder / "known.sqlite3"),
            "xorb_bytes": 512 * KIB,
            "files_a_shard": 2,
            **self._common,
            **more,
        }

    def download(self, file: str, out: Path, **more: Any) -> dict[str, Any]:
        return {
            "call": "download",
            "file": file,
            "out": str(out),
            "cache": str(self.folder / "cache"),
            **self._common,
            **more,
        }

    def read(self, file: str, like: Path, start: int = 0, end: int | None = None, **more: Any) -> dict[str, Any]:
        return {
            "call": "read",
            "file": file,
            "start": start,
            "end": end,
            "like": str(like),
            "cache": str(self.folder / "cache"),
            **self._common,
            **more,
        }

    def expect_stored(self, ended: Ended) -> None:
        assert (ended.code, ended.error) == (0, None), ended.message
        stored = [told for told in ended.told if "hash" in told]
        for told in stored:
            found = b"".join(Store(self._server.site.cas).iter_range(told["hash"]))
            assert found == Path(told["path"]).read_bytes()
        assert stored


def test_clients_that_upload_the_same_at_once_are_both_right(client: Worker, server: LiveServer, scratch: Path) -> None:
    machine = Machine(scratch, server)
    paths = [machine.source(i) for i in range(2)]
    for ended in client.run_all(*[machine.upload(*paths)] * 3):
        machine.expect_stored(ended)


def test_clients_that_upload_files_with_parts_in_common_are_all_right(
    client: Worker, server: LiveServer, scratch: Path
) -> None:
    machine = Machine(scratch, server)
    shared = splitmix64(50, 2 * MIB)
    calls = [
        machine.upload(
            machine.source(i, shared, splitmix64(i, MIB)), machine.source(i + 10, splitmix64(i + 1, MIB), shared)
        )
        for i in range(3)
    ]
    for ended in client.run_all(*calls):
        machine.expect_stored(ended)


def test_what_one_client_uploaded_the_next_one_does_not(client: Worker, server: LiveServer, scratch: Path) -> None:
    with Double(server.url) as double:
        machine = Machine(scratch, server, double.url)
        source = machine.source(1)
        machine.expect_stored(client.run(**machine.upload(source)))
        double.clear()
        machine.expect_stored(client.run(**machine.upload(source)))
        assert double.xorb_bytes_up == 0
        assert double.traffic[Kind.XORB_POST].calls == 0


def test_a_client_that_is_killed_does_no_harm_to_another(client: Worker, server: LiveServer, scratch: Path) -> None:
    """They upload the same; whoever is killed, wherever it is, what it has written down is true."""
    machine = Machine(scratch, server)
    for number in range(8):
        path = machine.source(100 + number)
        first, other, killed = client.run_all(
            machine.upload(path), machine.upload(path), machine.upload(path, kill_after=0.02 * number)
        )
        assert killed.code == 0 or killed.was_killed
        for ended in (first, other, client.run(**machine.upload(path))):
            machine.expect_stored(ended)


def test_clients_that_download_to_the_same_place_leave_one_whole_file(
    client: Worker, server: LiveServer, scratch: Path
) -> None:
    machine = Machine(scratch, server)
    out = scratch / "folder" / "out"
    out.parent.mkdir()
    source, other = machine.source(1, splitmix64(1, 20 * MIB)), machine.source(2, splitmix64(2, 20 * MIB))
    file, second = (str(Store(server.site.cas).put(path).hash) for path in (source, other))
    for ended in client.run_all(*[machine.download(file, out)] * 3):
        assert (ended.code, ended.error) == (0, None), ended.message
    assert out.read_bytes() == source.read_bytes()
    for ended in client.run_all(machine.download(file, out), machine.download(second, out)):
        assert (ended.code, ended.error) == (0, None), ended.message
    assert out.read_bytes() in (source.read_bytes(), other.read_bytes())
    for number in range(6):
        out.write_bytes(b"old")
        whole, killed = client.run_all(
            machine.download(file, out), machine.download(file, out, kill_after=0.03 * number)
        )
        assert killed.code == 0 or killed.was_killed
        assert (whole.code, whole.error) == (0, None), whole.message
        assert out.read_bytes() == source.read_bytes()
    # What those left who were killed is taken up, or replaced: at most the file of the second of two stays.
    out.unlink()
    assert client.run(**machine.download(file, out)).code == 0
    assert out.read_bytes() == source.read_bytes()
    assert {path.name for path in out.parent.iterdir()} <= {"out", ".out.1.incomplete"}


def test_readers_that_share_a_chunk_cache_read_right_even_if_one_is_killed(
    client: Worker, server: LiveServer, scratch: Path
) -> None:
    source = scratch / "source"
    source.write_bytes(splitmix64(3, 8 * MIB))
    file = str(Store(server.site.cas).put(source).hash)
    with Double(server.url) as double:
        machine = Machine(scratch, server, double.url)
        for number in range(6):
            start = number * MIB
            calls = [machine.read(file, source, start, start + 3 * MIB)] * 2
            *read, killed = client.run_all(*calls, machine.read(file, source, kill_after=0.03 * number))
            assert killed.code == 0 or killed.was_killed
            for ended in read:
                assert (ended.code, ended.told) == (0, [{"right": True, "disabled": []}]), ended.message
        [told] = client.run(**machine.read(file, source)).told
        double.clear()
        assert client.run(**machine.read(file, source)).told == [told] == [{"right": True, "disabled": []}]
        assert double.xorb_bytes_down == 0, "all of it was in the cache"
