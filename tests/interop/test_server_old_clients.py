"""Older releases of the reference client against our server: their routes, and their one way to read an answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import xetstore
from tests.interop.old_clients import COMMAND, VERSIONS, path_of
from tests.support.hf_process import Connection, HfError, HfProcess
from tests.support.proxy import proxy
from tests.support.servers import Server
from tests.support.strategies import splitmix64

MIB = 1 << 20
ROUTES = {
    "1.1.3": {"chunk", "xorb", "shard", "reconstruction"},
    "1.1.10": {"chunks", "xorbs", "shards", "reconstructions"},
    "1.2.0": {"chunks", "xorbs", "shards", "reconstructions"},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server") / "store") as running:
        yield running


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if not path_of(name).is_dir():
        pytest.skip(f"hf_xet {name} is not installed: {COMMAND}")
    return name


@pytest.fixture
def old(server: Server, scratch: Path, version: str) -> HfProcess:
    return HfProcess(server.connect(), scratch / "old", path=path_of(version))


@pytest.fixture
def today(server: Server, scratch: Path) -> HfProcess:
    return HfProcess(server.connect(), scratch / "today")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_every_kind_of_file_comes_back(
    old: HfProcess, today: HfProcess, corpus: dict[str, Path], scratch: Path, version: str
) -> None:
    # What a download of the empty file makes is nothing at all; callers of that time never asked for it.
    paths = [path for path in corpus.values() if path.stat().st_size]
    contents = [path.read_bytes() for path in paths]
    infos = old.upload(paths, "upload_files").infos
    assert old.download(infos, "download_files") == contents
    assert today.download(infos) == contents
    again = old.upload(paths, "upload_bytes")
    assert [info.hash for info in again.infos] == [info.hash for info in infos]
    # 1.1.3 cuts a few chunks elsewhere, and so has other hashes for the same content.
    expected = [xetstore.hash_file(path).hash for path in paths]
    assert ([info.hash for info in infos] == expected) == (version != "1.1.3")


def test_the_empty_file_is_uploaded(old: HfProcess, today: HfProcess, corpus: dict[str, Path]) -> None:
    infos = old.upload([corpus["empty"], corpus["greeting"]], "upload_files").infos
    assert today.download(infos) == [b"", b"Hello World!"]


def test_files_larger_than_a_xorb_come_back(old: HfProcess, today: HfProcess, server: Server, scratch: Path) -> None:
    content = splitmix64(old_seed(old), 70 * MIB)
    before = server.totals()
    [info] = old.upload([write(scratch / "file", content)], "upload_files").infos
    assert server.totals().xorbs - before.xorbs == 2
    assert old.download([info], "download_files") == [content]
    assert today.download([info]) == [content]


def test_what_today_uploads_an_old_client_reads(old: HfProcess, today: HfProcess, scratch: Path) -> None:
    contents = [splitmix64(old_seed(old) + 1, 66 * MIB), b"x"]
    infos = today.upload([write(scratch / str(i), content) for i, content in enumerate(contents)]).infos
    assert old.download(infos, "download_files") == contents


def test_ranges_that_touch_are_read_by_old_clients(old: HfProcess, today: HfProcess, scratch: Path) -> None:
    """A file of parts of another one: out of order, next to each other, and overlapping."""
    whole = splitmix64(old_seed(old) + 2, 12_000_000)
    mib = 1_000_000
    parts = [(8, 10), (6, 8), (0, 3), (3, 5), (2, 4), (7, 9), (11, 12), (0, 12)]
    patchwork = b"".join(whole[start * mib : end * mib] for start, end in parts)
    [first] = today.upload([write(scratch / "whole", whole)]).infos
    for name, uploader, how in (("today", today, "upload_session"), ("old", old, "upload_files")):
        content = patchwork + name.encode()
        [info] = uploader.upload([write(scratch / f"{name} file", content)], how).infos
        assert old.download([first, info], "download_files") == [whole, content]
        assert today.download([info]) == [content]


def test_bare_urls_are_told_apart_by_old_clients(scratch: Path, version: str) -> None:
    """They take two downloads at once from one URL for the same, whatever ranges they want of it."""
    with Server(scratch / "store", ("--xorb-urls", "edge", "--auth", "none")) as server:
        client = HfProcess(Connection(server.endpoint), scratch / "old", path=path_of(version))
        contents = [splitmix64(1 + i, 300_000) for i in range(30)]
        uploads = [write(scratch / str(i), content) for i, content in enumerate(contents)]
        infos = client.upload(uploads, "upload_files").infos
        assert client.download(infos, "download_files") == contents


def test_an_edited_file_from_another_machine_uploads_only_the_edit(server: Server, scratch: Path, version: str) -> None:
    content = splitmix64(old_seed(version) + 3, 30_000_000)
    edited = content[:10_000_000] + b"a small insertion" + content[10_000_000:]
    HfProcess(server.connect(), scratch / "first").upload([write(scratch / "file", content)])
    before = server.totals()
    other = HfProcess(server.connect(), scratch / "second", path=path_of(version))
    [info] = other.upload([write(scratch / "edited", edited)], "upload_files").infos
    # Much less where chunks are cut as today.
    assert server.totals().unique_bytes - before.unique_bytes < (6_000_000 if version == "1.1.3" else 1_000_000)
    assert other.download([info], "download_files") == [edited]


def test_each_version_calls_its_own_routes(server: Server, scratch: Path, version: str) -> None:
    with proxy(server.endpoint) as recorded:
        client = HfProcess(server.connect(endpoint=recorded.endpoint), scratch / "old", path=path_of(version))
        content = splitmix64(old_seed(version) + 4, 1_000_000)
        [info] = client.upload([write(scratch / "file", content)], "upload_files").infos
        assert client.download([info], "download_files") == [content]
        assert {seen.path.split("/")[1] for seen in recorded.seen} == ROUTES[version] | {"v1"}
        assert all(seen.path.startswith("/v1/xorbs/") for seen in recorded.requests("GET", "/v1/"))


def test_a_read_token_cannot_upload(server: Server, scratch: Path, version: str) -> None:
    before = server.totals()
    client = HfProcess(server.connect("read"), scratch / "old", path=path_of(version))
    # 1.1.3 looks for its JSON in whatever comes back.
    with pytest.raises(HfError, match="error decoding response body" if version == "1.1.3" else "403"):
        client.upload([write(scratch / "file", splitmix64(old_seed(version) + 5, 100_000))], "upload_files")
    assert server.totals() == before


def old_seed(client: HfProcess | str) -> int:
    """A number for each version, so that none finds what another one uploaded."""
    name = client if isinstance(client, str) else client.path.name if client.path else ""
    return 1000 * (1 + VERSIONS.index(name))
