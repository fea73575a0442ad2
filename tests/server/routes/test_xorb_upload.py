"""Uploading xorbs: what is not the xorb it is said to be leaves nothing behind, and what is, is stored once."""

from __future__ import annotations

import json
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from tests.support import deployments
from tests.support.live import PATIENCE_SECONDS, LiveServer, Response, live_server, until
from tests.support.stored import download, error_of, exchange
from tests.support.strategies import hashed_chunks, splitmix64
from xetstore import _kernel
from xetstore.cas.layout import XORBS
from xetstore.cas.service import EmbeddedCas
from xetstore.protocol.xorb import XorbBuilder
from xetstore.server.routes.xorbs import MAX_BODY_BYTES
from xetstore.testing.samples import make_sample, random_bytes

DEPLOYMENTS = deployments.BOTH

SAMPLE = make_sample(random_bytes(3_000_000, 1))
OTHER = make_sample(random_bytes(100_000, 2))
NAME = SAMPLE.xorb.hash
PATH = f"/v1/xorbs/default/{NAME}"
WITH_FOOTER = SAMPLE.body + SAMPLE.xorb.serialize_footer()


@pytest.fixture
def stored(cas: EmbeddedCas, tmp_path: Path) -> Callable[[], list[str]]:
    """The xorbs of all objects in the store, and in a directory the names of whatever is being written."""

    def names() -> list[str]:
        objects = [blob.key.rpartition("/")[2] for blob in cas.blobs.list(XORBS)]
        unfinished = [path.name for path in (tmp_path / "store" / "tmp").rglob("*") if path.is_file()]
        return sorted(name.rpartition("-")[0] for name in objects + unfinished)

    return names


def post(server: LiveServer, body: bytes, path: str = PATH, *, namespace: str = "default") -> Response:
    return server.request("POST", path, body=body, token=server.token("write", namespace))


def head_of(server: LiveServer, length: int | None, path: str = PATH) -> list[str]:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    token = server.token("write")
    return [f"POST {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}", framing]


# --- What is accepted -----------------------------------------------------------------------------------


def test_a_xorb_is_new_once(server: LiveServer, stored: Callable[[], list[str]]) -> None:
    first, second = post(server, SAMPLE.body), post(server, SAMPLE.body)
    assert (first.status, first.json()) == (200, {"was_inserted": True})
    assert (second.status, second.json()) == (200, {"was_inserted": False})
    assert stored() == [str(NAME)]


def test_what_was_uploaded_can_be_downloaded_once_a_shard_names_it(server: LiveServer) -> None:
    token = server.token("write")
    assert post(server, SAMPLE.body).status == 200
    assert server.request("POST", "/v1/shards", body=SAMPLE.shard.serialize(), token=token).status == 200
    assert download(server, token, SAMPLE.file.hash) == SAMPLE.data


def test_a_footer_that_comes_along_is_accepted_and_never_served(server: LiveServer) -> None:
    assert post(server, WITH_FOOTER).json() == {"was_inserted": True}
    answer = server.request("HEAD", PATH, token=server.token("write"))
    assert answer.headers["Content-Length"] == str(len(SAMPLE.body))


def test_a_body_of_unknown_length_is_accepted(server: LiveServer) -> None:
    with server.connect() as connection:
        pieces = [SAMPLE.body[at : at + 100_000] for at in range(0, len(SAMPLE.body), 100_000)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
        answer = exchange(connection, head_of(server, None), body)
        assert (answer.status, json.loads(answer.read())) == (200, {"was_inserted": True})


def test_the_longest_xorb_there_can_be_is_accepted(server: LiveServer) -> None:
    data = splitmix64(1, 8192 * 8192)
    chunks = hashed_chunks([data[at : at + 8192] for at in range(0, len(data), 8192)])
    builder = XorbBuilder()
    builder.append([data], chunks, policy=_kernel.NONE)
    info, region = builder.finish()
    body = bytes(region) + info.serialize_footer()
    assert len(body) == MAX_BODY_BYTES
    assert post(server, body, f"/v1/xorbs/default/{info.hash}").json() == {"was_inserted": True}


@pytest.mark.parametrize(
    "path", ["/v1/xorbs/default", "/v1/xorbs/x", "/xorbs/default", "/xorb/default", "//v1//xorbs/a"]
)
def test_every_client_finds_the_route_by_its_own_name(server: LiveServer, path: str) -> None:
    assert post(server, SAMPLE.body, f"{path}/{NAME}").json() == {"was_inserted": True}


def test_of_many_uploads_at_once_one_is_new_and_one_is_stored(
    server: LiveServer, stored: Callable[[], list[str]]
) -> None:
    clients = 64
    barrier = Barrier(clients)

    def upload(_: int) -> tuple[int, bool]:
        barrier.wait(PATIENCE_SECONDS)
        answer = post(server, OTHER.body, f"/v1/xorbs/default/{OTHER.xorb.hash}")
        return answer.status, answer.json()["was_inserted"]

    with ThreadPoolExecutor(clients) as pool:
        assert Counter(pool.map(upload, range(clients))) == {(200, True): 1, (200, False): clients - 1}
    assert stored() == [str(OTHER.xorb.hash)]


def test_many_different_uploads_at_once_do_not_mix(cas: EmbeddedCas, stored: Callable[[], list[str]]) -> None:
    samples = [make_sample(random_bytes(2_500_000, seed)) for seed in range(8)]
    with live_server(cas, max_bytes_in_flight=16 << 20) as server, ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda one: post(server, one.body, f"/v1/xorbs/default/{one.xorb.hash}"), samples)
        assert [answer.json() for answer in answers] == [{"was_inserted": True}] * 8
    assert stored() == sorted(str(sample.xorb.hash) for sample in samples)


# --- What is refused ------------------------------------------------------------------------------------


def broken(at: int) -> bytes:
    return SAMPLE.body[:at] + bytes([SAMPLE.body[at] ^ 1]) + SAMPLE.body[at + 1 :]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"x", "format"),
        (b"\0" * 8, "format"),
        (b"<html>" * 1000, "format"),
        (random_bytes(5_000_000), "format"),
        (SAMPLE.body[:-1], "format"),
        (SAMPLE.body[:5], "format"),
        (SAMPLE.body + b"\0", "format"),
        (broken(0), "format"),
        (broken(8), "hash_mismatch"),
        (broken(2_999_000), "hash_mismatch"),
        (SAMPLE.body[: 1_000_000 - 3], "format"),
        (OTHER.body, "hash_mismatch"),
        (SAMPLE.body + OTHER.body, "hash_mismatch"),
        (WITH_FOOTER[:-1], "format"),
        (WITH_FOOTER + b"x", "format"),
        (SAMPLE.body + OTHER.xorb.serialize_footer(), None),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else str(value),
)
def test_a_body_that_is_not_the_xorb_leaves_nothing(
    server: LiveServer, stored: Callable[[], list[str]], body: bytes, code: str | None
) -> None:
    status, found = error_of(post(server, body))
    assert status == 400
    assert code is None or found == code
    assert stored() == []
    assert post(server, SAMPLE.body).json() == {"was_inserted": True}


def test_an_empty_body_is_no_xorb_even_if_the_xorb_is_known(server: LiveServer) -> None:
    assert error_of(post(server, b""))[0] == 400
    post(server, SAMPLE.body)
    assert error_of(post(server, b""))[0] == 400


def test_a_body_that_no_xorb_can_have_is_refused_before_it_is_read(
    server: LiveServer, stored: Callable[[], list[str]]
) -> None:
    with server.connect() as connection:
        answer = exchange(connection, head_of(server, MAX_BODY_BYTES + 1))
        assert (answer.status, json.loads(answer.read())["code"]) == (413, "too_large")
    assert stored() == []


def test_a_body_of_unknown_length_is_refused_once_it_is_too_long(
    server: LiveServer, stored: Callable[[], list[str]]
) -> None:
    # Valid chunks, more than there may be: the kind of body that is refused for its length, not its form.
    piece = OTHER.body
    with server.connect() as connection:
        connection.sendall("\r\n".join([*head_of(server, None), "", ""]).encode())
        sent = 0
        try:
            while sent <= MAX_BODY_BYTES:
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                sent += len(piece)
        except ConnectionError:
            pass
        assert connection.recv(12) in (b"HTTP/1.1 413", b"HTTP/1.1 400")
    until(lambda: stored() == [])


@pytest.mark.parametrize("name", ["x", "AB" * 32, "ab" * 31, "ab" * 33, "g" * 64])
def test_only_a_hash_names_a_xorb(server: LiveServer, stored: Callable[[], list[str]], name: str) -> None:
    assert error_of(post(server, SAMPLE.body, f"/v1/xorbs/default/{name}")) == (400, "usage")
    assert stored() == []


def test_a_refusal_reaches_a_client_that_is_still_sending(server: LiveServer) -> None:
    body = b"x" * (60 << 20)  # http.client sends all of it before it looks at the answer
    assert error_of(post(server, body)) == (400, "format")


# --- Who may --------------------------------------------------------------------------------------------


def test_a_read_token_cannot_upload(server: LiveServer, stored: Callable[[], list[str]]) -> None:
    assert error_of(server.request("POST", PATH, body=SAMPLE.body, token=server.token("read"))) == (403, "forbidden")
    assert stored() == []


def test_without_a_token_nothing_is_uploaded(server: LiveServer, stored: Callable[[], list[str]]) -> None:
    for token in (None, "x", server.token("write") + "x"):
        answer = server.request("POST", PATH, body=SAMPLE.body, token=token)
        assert error_of(answer) == (401, "unauthenticated")
    assert stored() == []


def test_who_uploads_what_another_namespace_has_does_not_learn_it(server: LiveServer) -> None:
    assert post(server, SAMPLE.body).json() == {"was_inserted": True}
    # Not "known", as it would be to its owner: so a body is needed, and it has to be the right one.
    assert error_of(post(server, broken(8), namespace="strangers")) == (400, "hash_mismatch")
    assert post(server, SAMPLE.body, namespace="strangers").json() == {"was_inserted": True}
    assert post(server, SAMPLE.body, namespace="strangers").json() == {"was_inserted": False}


@pytest.mark.parametrize("scope", ["read", "write", None])
def test_there_are_no_grants_for_direct_uploads(server: LiveServer, scope: str | None) -> None:
    token = server.token(scope) if scope else None
    body = b'{"length":5,"checksum":{"algo":"crc64nvme","value":"1"}}'
    answer = server.request("POST", f"/v1/xorb-grants/default/{NAME}", body=body, token=token)
    assert error_of(answer) == (404, "not_found")


# --- Clients that do not finish -------------------------------------------------------------------------


def lingering(seconds: int) -> bytes:
    return struct.pack("ii", 1, seconds)


@pytest.mark.usefixtures("one_server")
@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("sent", [0, 5, 2_500_000], ids="{} bytes".format)
def test_an_upload_that_breaks_off_leaves_nothing(
    server: LiveServer, stored: Callable[[], list[str]], is_reset: bool, sent: int
) -> None:
    with server.connect() as connection:
        connection.sendall("\r\n".join([*head_of(server, len(SAMPLE.body)), "", ""]).encode() + SAMPLE.body[:sent])
        if sent > 2 << 20:
            until(lambda: stored() != [])
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering(0))
    until(lambda: stored() == [] and server.site.limits.receiving.used == 0)
    assert post(server, SAMPLE.body).json() == {"was_inserted": True}


@pytest.fixture
def impatient(cas: EmbeddedCas) -> Iterator[LiveServer]:
    with live_server(cas, stall_seconds=0.2) as running:
        yield running


def test_an_upload_that_stands_still_is_cut_off(impatient: LiveServer, stored: Callable[[], list[str]]) -> None:
    with impatient.connect() as connection:
        answer = exchange(connection, head_of(impatient, len(SAMPLE.body)), SAMPLE.body[:2_500_000])
        assert (answer.status, json.loads(answer.read())["code"]) == (408, "timeout")
        assert connection.recv(1) == b""
    until(lambda: stored() == [])


def test_uploads_that_find_no_room_are_told_when_to_come_back(cas: EmbeddedCas) -> None:
    with live_server(cas, max_bytes_in_flight=1 << 20, queue_seconds=0.1) as server, server.connect() as connection:
        connection.sendall("\r\n".join([*head_of(server, len(SAMPLE.body)), "", ""]).encode() + SAMPLE.body[:1000])
        until(lambda: server.site.limits.receiving.used > 0)
        answer = post(server, OTHER.body, f"/v1/xorbs/default/{OTHER.xorb.hash}")
        assert error_of(answer) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        connection.sendall(SAMPLE.body[1000:])
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert post(server, OTHER.body, f"/v1/xorbs/default/{OTHER.xorb.hash}").status == 200


@pytest.mark.usefixtures("one_server")
def test_uploads_are_counted(server: LiveServer) -> None:
    post(server, SAMPLE.body)
    post(server, SAMPLE.body)
    post(server, b"x", f"/v1/xorbs/default/{OTHER.xorb.hash}")
    counted = server.site.metrics.registry.get_sample_value
    assert counted("xetstore_xorb_received_bytes_total") == 2 * len(SAMPLE.body)
    assert counted("xetstore_xorbs_received_total", {"is_new": "true"}) == 1
    assert counted("xetstore_xorbs_received_total", {"is_new": "false"}) == 1
