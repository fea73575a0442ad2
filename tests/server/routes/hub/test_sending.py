"""The bytes of a file, as any HTTP client asks for them: whole and in ranges, verified, or not at all."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response as Answer

from tests.support import deployments
from tests.support.live import LiveServer, Response, live_server, until
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas.service import EmbeddedCas
from xetstore.protocol.hashes import Hash
from xetstore.server.http.edge import Edge
from xetstore.server.http.router import Route
from xetstore.server.routes.hub.sending import MAX_RANGES, WINDOW_BYTES, send_file, send_kept
from xetstore.server.site import Site, site_of
from xetstore.testing.samples import make_sample, random_bytes, upload

DEPLOYMENTS = deployments.BOTH

DATA = random_bytes(3 * WINDOW_BYTES + 12_345, 7)
SIZE = len(DATA)
SMALL = b"0123456789" * 50
RESERVED: list[int] = []
"""The memory that was reserved each time when the small file was loaded."""
HEADERS = {"ETag": '"abc"', "Content-Type": "text/plain", "X-Repo-Commit": "c" * 40}


async def answer_stored(request: Request) -> Answer:
    cas = site_of(request).cas
    file = Hash.parse(request.path_params["hash"])
    return send_file(request, cas, file, 0 if file == Hash.ZERO else cas.stat(file).size, HEADERS)


async def answer_small(request: Request) -> Answer:
    def load() -> bytes:
        RESERVED.append(site_of(request).limits.reading.used)
        return SMALL

    return send_kept(request, load, len(SMALL), HEADERS)


def make_app(site: Site) -> Edge:
    both = {"GET": answer_stored, "HEAD": answer_stored}
    return Edge(site, (Route("/stored/{hash}", both), Route("/small", {"GET": answer_small, "HEAD": answer_small})))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, deployment: deployments.Deployment) -> Iterator[LiveServer]:
    with deployment.open(tmp_path_factory.mktemp("sending")) as cas:
        upload(cas, make_sample(DATA))
        with deployment.serve(cas, app=make_app) as running:
            yield running


def get(server: LiveServer, path: str, method: str = "GET", **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.request(method, path, headers=named)


@pytest.fixture(scope="module", params=["stored", "small"])
def file(request: pytest.FixtureRequest, server: LiveServer) -> tuple[str, bytes]:
    """The path of a file and its bytes: of one in the store, and one at hand."""
    if request.param == "small":
        return "/small", SMALL
    return f"/stored/{make_sample(DATA).file.hash}", DATA


def test_a_file_that_is_kept_whole_is_loaded_once_there_is_memory_for_it(server: LiveServer) -> None:
    """A server has thousands of connections, and no memory for as many files."""
    RESERVED.clear()
    assert get(server, "/small", "HEAD").status == 200
    assert get(server, "/small", If_None_Match='"abc"').status == 304
    assert get(server, "/small", Range="bytes=9999-").status == 416
    assert RESERVED == []
    assert get(server, "/small", Range="bytes=1-2").body == b"12"
    assert [reserved >= len(SMALL) for reserved in RESERVED] == [True]


def test_a_file_comes_whole_with_its_headers(server: LiveServer, file: tuple[str, bytes]) -> None:
    path, data = file
    answer = get(server, path)
    assert (answer.status, answer.body) == (200, data)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert answer.headers["Content-Length"] == str(len(data))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert "Content-Range" not in answer.headers
    head = get(server, path, "HEAD", Range="bytes=1-2")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(data)))


def test_a_range_comes_as_asked_for(server: LiveServer, file: tuple[str, bytes]) -> None:
    path, data = file
    size = len(data)
    for asked, (start, end) in {
        "bytes=0-0": (0, 1),
        "bytes=100-299": (100, 300),
        f"bytes={size - 7}-": (size - 7, size),
        "bytes=-5": (size - 5, size),
        f"bytes=3-{size * 2}": (3, size),
        f"bytes={size // 3}-{size * 2 // 3}": (size // 3, size * 2 // 3 + 1),
    }.items():
        answer = get(server, path, Range=asked)
        assert (answer.status, answer.body == data[start:end]) == (206, True), asked
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
        assert answer.headers["Content-Length"] == str(end - start)
        assert answer.headers["Content-Type"] == "text/plain"


def test_several_ranges_come_as_parts(server: LiveServer, file: tuple[str, bytes]) -> None:
    path, data = file
    answer = get(server, path, Range="bytes=0-9,100-109")
    assert answer.status == 206
    assert answer.headers["Content-Type"].startswith("multipart/byteranges; boundary=")
    assert answer.body.count(b"Content-Range: bytes ") == 2
    assert data[:10] in answer.body
    assert data[100:110] in answer.body
    many = ",".join(f"{2 * at}-{2 * at}" for at in range(MAX_RANGES + 1))
    assert get(server, path, Range=f"bytes={many}").status == 200


def test_a_range_behind_the_end_is_416_with_the_size(server: LiveServer, file: tuple[str, bytes]) -> None:
    path, data = file
    answer = get(server, path, Range=f"bytes={len(data)}-")
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(data)}")


def test_conditions_are_compared_with_the_tag(server: LiveServer, file: tuple[str, bytes]) -> None:
    path, data = file
    for listed in ('"abc"', 'W/"abc"', '"x", "abc"', "*"):
        for method in ("GET", "HEAD"):
            unchanged = get(server, path, method, If_None_Match=listed)
            assert (unchanged.status, unchanged.body, unchanged.headers["ETag"]) == (304, b"", '"abc"')
    assert get(server, path, "HEAD", If_None_Match='"abcd"').status == 200
    assert get(server, path, Range="bytes=0-0", If_Range='"abc"').body == data[:1]
    assert get(server, path, Range="bytes=0-0", If_Range='"abd"').body == data


def test_an_empty_file_has_a_content_range_where_one_is_asked_for(server: LiveServer) -> None:
    path = f"/stored/{Hash.ZERO}"
    plain, ranged = get(server, path), get(server, path, Range="bytes=0-0")
    assert [plain.status, plain.headers["Content-Length"], plain.headers["Content-Range"]] == [200, "0", None]
    assert [ranged.status, ranged.headers["Content-Length"], ranged.headers["Content-Range"]] == [200, "0", "bytes */0"]
    assert get(server, path, "HEAD").headers["Content-Length"] == "0"


@pytest.mark.usefixtures("one_server")
def test_a_client_that_leaves_gives_back_what_it_held(server: LiveServer) -> None:
    reading = server.site.limits.reading
    with server.connect() as client:
        client.sendall(f"GET /stored/{make_sample(DATA).file.hash} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert client.recv(100)
        assert 2 * WINDOW_BYTES < reading.used < 2 * SIZE
    until(lambda: reading.used == 0)


def damaged_server(tmp_path: Path, where: int) -> tuple[EmbeddedCas, str]:
    """A store in which the chunk that has this part of DATA is damaged."""
    cas = EmbeddedCas.open(tmp_path / "store")
    sample = make_sample(DATA)
    upload(cas, sample)
    blobs = cas.blobs
    assert isinstance(blobs, LocalBlobStore)
    (path,) = (tmp_path / "store" / "xorbs").rglob("*-*")
    content = bytearray(path.read_bytes())
    content[int(len(sample.body) * where / SIZE)] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    return cas, f"/stored/{sample.file.hash}"


def test_damage_at_the_start_is_an_error(tmp_path: Path) -> None:
    cas, path = damaged_server(tmp_path, 1000)
    with cas, live_server(cas, app=make_app) as server:
        answer = server.request("GET", path)
        assert answer.status == 500
        assert DATA[:100] not in answer.body


def test_damage_further_on_breaks_the_answer_off(tmp_path: Path) -> None:
    cas, path = damaged_server(tmp_path, SIZE - 1000)
    with cas, live_server(cas, app=make_app) as server:
        with pytest.raises(http.client.IncompleteRead) as caught:
            server.request("GET", path)
        assert DATA.startswith(caught.value.partial)
        until(lambda: server.site.limits.reading.used == 0)
