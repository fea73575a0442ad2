"""Plain LFS over HTTP: what a batch tells, and which bytes are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.clients import at_once
from tests.support.live import LiveServer, Response, live_server, until
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.hub.accounts import Accounts
from xetstore.hub.lfs import PART_SECONDS
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.rights import LOCAL, Actor
from xetstore.hub.service import EmbeddedHub
from xetstore.testing import FakeClock, read_back

PART = 1 << 16
BERT = "/alice/bert.git/info/lfs/objects/batch"


@pytest.fixture
def cas(tmp_path_factory: pytest.TempPathFactory, clock: FakeClock) -> Iterator[EmbeddedCas]:
    with EmbeddedCas.open(tmp_path_factory.mktemp("lfs") / "store", clock=clock) as cas:
        yield cas
        assert check(cas, read_data=True).problems == ()


@pytest.fixture
def server(cas: EmbeddedCas, clock: FakeClock) -> Iterator[LiveServer]:
    with live_server(cas, clock=clock, lfs_part_bytes=PART) as running:
        for name in ("alice", "bob"):
            accounts(running).add_user(name)
        alice = actor(running, "alice")
        hub(running).create(alice, RepositoryName(Kind.MODELS, "alice", "bert"))
        hub(running).create(alice, RepositoryName(Kind.DATASETS, "alice", "secret"), visibility="private")
        yield running


def hub(server: LiveServer) -> EmbeddedHub:
    assert server.site.hub is not None
    return server.site.hub


def bert(server: LiveServer) -> int:
    """The id of the repository that most tests are about."""
    return hub(server).repository(LOCAL, Kind.MODELS, "alice/bert").row.id


def accounts(server: LiveServer) -> Accounts:
    return hub(server).accounts


def actor(server: LiveServer, name: str) -> Actor:
    return accounts(server).authenticate(accounts(server).issue(name))


def oid_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def batch(
    server: LiveServer,
    *objects: bytes | dict[str, Any],
    by: str | None = "alice",
    path: str = BERT,
    operation: str = "upload",
    transfers: tuple[str, ...] | None = ("basic",),
    **more: Any,
) -> Response:
    listed = [each if isinstance(each, dict) else {"oid": oid_of(each), "size": len(each)} for each in objects]
    body = {"operation": operation, "transfers": transfers, "objects": listed, **more}
    headers = {"Accept": "application/vnd.git-lfs+json", "Content-Type": "application/vnd.git-lfs+json"}
    token = None if by is None else accounts(server).issue(by)
    return server.request("POST", path, headers=headers, body=json.dumps(body).encode(), token=token)


def only(answer: Response) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    [each] = answer.json()["objects"]
    assert isinstance(each, dict)
    return each


def put(server: LiveServer, data: bytes, body: bytes | None = None, by: str | None = "alice") -> Response:
    """PUT an object as a batch tells, or another body in its place."""
    action = only(batch(server, data, by=by))["actions"]["upload"]
    return server.request("PUT", action["href"], body=data if body is None else body)


def is_there(server: LiveServer, data: bytes, by: str | None = "alice") -> bool:
    return "actions" not in only(batch(server, data, by=by))


# Whole objects


@pytest.mark.parametrize("size", [0, 1, 5000, 3 << 20])
def test_an_object_is_taken_and_given(server: LiveServer, size: int) -> None:
    data = splitmix64(1, size)
    told = only(batch(server, data))
    assert (told["oid"], told["size"], told["authenticated"]) == (oid_of(data), size, True)
    answer = server.request("PUT", told["actions"]["upload"]["href"], body=data)
    assert answer.status == 200
    checked = server.request("POST", told["actions"]["verify"]["href"], body=b"{}")
    assert checked.status == 200
    assert "actions" not in only(batch(server, data))
    action = only(batch(server, data, operation="download", by=None))["actions"]["download"]
    assert server.request("GET", action["href"]).body == data
    assert server.request("GET", action["href"], headers={"Range": "bytes=0-9"}).body == data[:10]
    head = server.request("HEAD", action["href"])
    assert (head.status, head.headers["content-length"]) == (200, str(size))
    assert head.headers["cache-control"] == "private, no-cache"


def test_an_object_has_a_xet_file_that_its_repository_alone_may_read(server: LiveServer) -> None:
    data = splitmix64(2, 100_000)
    put(server, data)
    repository = hub(server).repository(actor(server, "alice"), Kind.MODELS, "alice/bert")
    with repository.cas.index.snapshot() as reader:
        found = reader.file_by_sha256(repository.row.namespace, hashlib.sha256(data).digest())
    assert found is not None
    assert found[1], "its SHA-256 was computed"
    assert read_back(repository.cas, found[0].hash) == data
    assert not is_in(server, "/datasets/alice/secret/info/lfs/objects/batch", data)


def is_in(server: LiveServer, path: str, data: bytes) -> bool:
    return "actions" not in only(batch(server, data, path=path))


@pytest.mark.parametrize("body", [b"other bytes", b"bytes of an objecT", b"bytes of an object and more", b""])
def test_a_body_that_is_not_the_object_is_not_kept(server: LiveServer, cas: EmbeddedCas, body: bytes) -> None:
    data = b"bytes of an object"
    answer = put(server, data, body)
    assert answer.status in (400, 413)
    assert not is_there(server, data)
    assert cas.totals().files == 0


def test_a_body_that_breaks_off_is_not_kept(server: LiveServer, cas: EmbeddedCas) -> None:
    data = splitmix64(3, 3 << 20)
    href = only(batch(server, data))["actions"]["upload"]["href"].removeprefix(server.url)
    with server.connect() as sock:
        head = f"PUT {href} HTTP/1.1\r\nHost: {server.url[7:]}\r\nContent-Length: {len(data)}\r\n\r\n"
        sock.sendall(head.encode() + data[: 2 << 20])
        until(lambda: server.site.limits.receiving.used > 0)
    until(lambda: server.site.limits.receiving.used == 0)
    assert cas.totals().files == 0
    assert put(server, data).status == 200


def test_a_body_may_come_in_chunks_of_unknown_number(server: LiveServer) -> None:
    data = splitmix64(4, 200_000)
    href = only(batch(server, data))["actions"]["upload"]["href"].removeprefix(server.url)
    with server.connect() as sock:
        head = f"PUT {href} HTTP/1.1\r\nHost: {server.url[7:]}\r\nTransfer-Encoding: chunked\r\n\r\n"
        sock.sendall(head.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert is_there(server, data)


def test_a_url_is_for_one_method_one_object_and_some_time(server: LiveServer, clock: FakeClock) -> None:
    data = b"bytes of an object"
    href = only(batch(server, data))["actions"]["upload"]["href"]
    assert server.request("GET", href).status == 403
    assert server.request("PUT", href.replace(oid_of(data), oid_of(b"other")), body=b"other").status == 403
    assert server.request("PUT", href.partition("?")[0], body=data).status == 403
    clock.advance(86_401)
    assert server.request("PUT", href, body=data).status == 403
    assert not is_there(server, data)


def test_a_url_ends_with_its_repository(server: LiveServer) -> None:
    data = b"bytes of an object"
    href = only(batch(server, data))["actions"]["upload"]["href"]
    alice = actor(server, "alice")
    hub(server).delete(alice, Kind.MODELS, "alice/bert")
    assert server.request("PUT", href, body=data).status == 404
    hub(server).create(alice, RepositoryName(Kind.MODELS, "alice", "bert"))
    assert server.request("PUT", href, body=data).status == 404


# What a batch tells


@pytest.mark.parametrize("path", [BERT, BERT.replace(".git", ""), "/datasets/alice/secret.git/info/lfs/objects/batch"])
def test_a_batch_is_asked_for_with_and_without_git(server: LiveServer, path: str) -> None:
    answer = batch(server, b"data", path=path)
    assert answer.headers["content-type"] == "application/vnd.git-lfs+json"
    assert answer.json()["transfer"] == "basic"


@pytest.mark.parametrize(
    ("each", "code"),
    [
        ({"oid": "ab", "size": 5}, 422),
        ({"oid": "AB" * 32, "size": 5}, 422),
        ({"oid": "../" * 22, "size": 5}, 422),
        ({"oid": "ab" * 32, "size": -1}, 422),
        ({"oid": "ab" * 32, "size": 1 << 60}, 413),
    ],
)
@pytest.mark.parametrize("transfers", [("basic",), ("multipart",), ("xet",)])
def test_an_object_that_cannot_be_is_an_error_of_its_own(
    server: LiveServer, each: dict[str, Any], code: int, transfers: tuple[str, ...]
) -> None:
    [refused, taken] = batch(server, each, b"data", transfers=transfers).json()["objects"]
    assert refused["error"]["code"] == code
    assert isinstance(refused["error"]["message"], str)
    assert "actions" not in refused
    assert "upload" in taken["actions"]


def test_an_object_of_another_size_is_refused(server: LiveServer) -> None:
    put(server, b"data")
    assert only(batch(server, {"oid": oid_of(b"data"), "size": 5}))["error"]["code"] == 422
    told = only(batch(server, {"oid": oid_of(b"data"), "size": 5}, operation="download"))
    assert told["error"]["code"] == 404


def test_an_object_that_is_not_there_is_an_error_of_its_own(server: LiveServer) -> None:
    put(server, b"data")
    [missing, there] = batch(server, b"none", b"data", operation="download").json()["objects"]
    assert missing["error"]["code"] == 404
    assert "download" in there["actions"]


@pytest.mark.parametrize("transfers", [None, (), ("lfs-standalone-file",)])
def test_a_client_that_names_no_way_that_is_known_gets_the_basic_one(
    server: LiveServer, transfers: tuple[str, ...] | None
) -> None:
    answer = batch(server, b"data", transfers=transfers, hash_algo=None)
    assert answer.json()["transfer"] == "basic"
    assert "header" not in only(answer)["actions"]["upload"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"operation": "delete"}, 422),
        ({"hash_algo": "md5"}, 422),
        ({"objects": "all"}, 400),
        ({"objects": [{"oid": "ab" * 32, "size": 1}] * 1001}, 413),
    ],
)
def test_a_batch_that_cannot_be_is_refused(server: LiveServer, change: dict[str, Any], status: int) -> None:
    assert batch(server, **change).status == status


def test_xet_is_for_uploads_alone(server: LiveServer) -> None:
    answer = batch(server, b"data", transfers=("basic", "multipart", "xet"))
    assert answer.json()["transfer"] == "xet"
    upload = only(answer)["actions"]["upload"]
    assert upload["href"] == f"{server.url}/api/models/alice/bert/xet-write-token/main"
    assert upload["header"]["X-Xet-Cas-Url"] == f"{server.url}/cas"
    assert set(upload["header"]) == {
        "X-Xet-Cas-Url",
        "X-Xet-Access-Token",
        "X-Xet-Token-Expiration",
        "X-Xet-Session-Id",
    }
    refreshed = server.request("GET", upload["href"], token=accounts(server).issue("alice"))
    assert refreshed.status == 200
    put(server, b"data")
    assert batch(server, b"data", operation="download", transfers=("basic", "xet")).json()["transfer"] == "basic"


@pytest.mark.parametrize(
    ("by", "path", "operation", "status"),
    [
        (None, BERT, "download", 200),
        (None, BERT, "upload", 401),
        ("bob", BERT, "download", 200),
        ("bob", BERT, "upload", 200),  # for a pull request
        (None, "/datasets/alice/secret/info/lfs/objects/batch", "download", 401),
        ("bob", "/datasets/alice/secret/info/lfs/objects/batch", "download", 404),
        ("bob", "/datasets/alice/secret/info/lfs/objects/batch", "upload", 404),
        (None, "/alice/none/info/lfs/objects/batch", "download", 401),
        ("alice", "/alice/none/info/lfs/objects/batch", "upload", 404),
    ],
)
def test_a_batch_is_for_those_who_may(
    server: LiveServer, by: str | None, path: str, operation: str, status: int
) -> None:
    answer = batch(server, b"data", by=by, path=path, operation=operation)
    assert answer.status == status
    if status == 401:
        assert answer.headers["lfs-authenticate"] == "Basic"
        assert answer.headers["www-authenticate"].startswith("Basic ")


# Parts


def in_parts(server: LiveServer, data: bytes) -> tuple[str, dict[int, str]]:
    """Where a file in parts is completed, and where each part goes, by number."""
    answer = batch(server, data, transfers=("basic", "multipart"))
    assert answer.json()["transfer"] == "multipart"
    upload = only(answer)["actions"]["upload"]
    assert upload["header"].pop("chunk_size") == str(PART)
    return upload["href"], {int(number): url for number, url in upload["header"].items()}


def part_of(data: bytes, number: int) -> bytes:
    return data[(number - 1) * PART : number * PART]


def upload_parts(server: LiveServer, data: bytes, urls: dict[int, str]) -> dict[int, str]:
    tags = {}
    for number in reversed(urls):
        answer = server.request("PUT", urls[number], body=part_of(data, number))
        assert answer.status == 200, answer.body
        tags[number] = answer.headers["etag"]
    return tags


def finish(server: LiveServer, href: str, data: bytes, tags: dict[int, str]) -> Response:
    parts = [{"partNumber": number, "etag": tag} for number, tag in tags.items()]
    return server.request("POST", href, body=json.dumps({"oid": oid_of(data), "parts": parts}).encode())


@pytest.mark.parametrize("size", [PART + 1, 3 * PART, 4 * PART + 77])
def test_a_long_file_comes_in_parts(server: LiveServer, cas: EmbeddedCas, size: int) -> None:
    data = splitmix64(5, size)
    href, urls = in_parts(server, data)
    assert list(urls) == list(range(1, -(-size // PART) + 1))
    tags = upload_parts(server, data, urls)
    assert not is_there(server, data)
    assert finish(server, href, data, tags).status == 200
    assert is_there(server, data)
    action = only(batch(server, data, operation="download"))["actions"]["download"]
    assert server.request("GET", action["href"]).body == data
    assert finish(server, href, data, tags).status == 200, "the same call once more, after its answer was lost"
    with hub(server).snapshot() as reader:
        assert reader.parts(bert(server), hashlib.sha256(data).digest()) == []
    assert cas.totals().stored_bytes < 2 * size + 300_000


def test_a_short_file_is_not_asked_for_in_parts(server: LiveServer) -> None:
    upload = only(batch(server, bytes(PART), transfers=("basic", "multipart")))["actions"]["upload"]
    assert "header" not in upload


def test_many_very_long_files_come_in_long_parts(server: LiveServer) -> None:
    size = 4 << 40
    asked = [{"oid": oid_of(b"%d" % number), "size": size} for number in range(100)]
    told = batch(server, *asked, transfers=("multipart",)).json()["objects"]
    headers = [each["actions"]["upload"]["header"] for each in told]
    assert sum(len(header) for header in headers) < 10_500
    for header in headers:
        assert len(header) - 1 == -(-size // int(header["chunk_size"]))


def test_a_missing_part_is_asked_for(server: LiveServer) -> None:
    data = splitmix64(6, 3 * PART)
    href, urls = in_parts(server, data)
    tags = upload_parts(server, data, {number: urls[number] for number in (1, 3)})
    for named in (tags, tags | {2: tags[1]}, {1: tags[1]}, {}):
        answer = finish(server, href, data, named)
        assert answer.status == 422
        assert "part" in answer.json()["error"]
    assert not is_there(server, data)
    assert finish(server, href, data, upload_parts(server, data, urls)).status == 200


def test_a_part_that_comes_again_takes_the_place_of_the_one_before(server: LiveServer) -> None:
    data = splitmix64(7, 2 * PART)
    href, urls = in_parts(server, data)
    wrong = server.request("PUT", urls[2], body=bytes(PART)).headers["etag"]
    tags = upload_parts(server, data, urls)
    assert finish(server, href, data, tags | {2: wrong}).status == 422
    assert finish(server, href, data, tags).status == 200


def test_parts_that_make_another_file_are_refused(server: LiveServer, cas: EmbeddedCas) -> None:
    data = splitmix64(8, 2 * PART)
    href, urls = in_parts(server, data)
    tags = upload_parts(server, data[::-1], urls)
    answer = finish(server, href, data, tags)
    assert answer.status == 400
    assert not is_there(server, data)
    assert finish(server, href, data, upload_parts(server, data, urls)).status == 200


@pytest.mark.parametrize("size", [PART - 1, PART + 1])
def test_a_part_of_another_length_is_refused(server: LiveServer, size: int) -> None:
    _, urls = in_parts(server, splitmix64(9, 2 * PART))
    assert server.request("PUT", urls[1], body=bytes(size)).status in (400, 413)


@pytest.mark.parametrize(
    "body",
    [
        {"oid": "ab" * 32, "parts": []},
        {"parts": [{"partNumber": 1, "etag": "a"}, {"partNumber": 1, "etag": "a"}]},
        {"parts": [{"partNumber": 0, "etag": "a"}]},
        {"parts": [{"partNumber": 10**12, "etag": "a"}]},
        {"parts": "all"},
        [],
    ],
)
def test_a_completion_that_cannot_be_is_refused(server: LiveServer, body: object) -> None:
    href, _ = in_parts(server, splitmix64(10, 2 * PART))
    assert server.request("POST", href, body=json.dumps(body).encode()).status in (400, 422)


def test_parts_of_an_upload_that_was_given_up_are_forgotten(server: LiveServer, clock: FakeClock) -> None:
    data, other = splitmix64(11, 2 * PART), splitmix64(12, 2 * PART)
    href, urls = in_parts(server, data)
    tags = upload_parts(server, data, urls)
    clock.advance(PART_SECONDS - 10)
    _, later = in_parts(server, other)
    upload_parts(server, other, later)
    clock.advance(20)
    batch(server, b"next")
    with hub(server).snapshot() as reader:
        assert reader.parts(bert(server), hashlib.sha256(data).digest()) == []
        assert len(reader.parts(bert(server), hashlib.sha256(other).digest())) == 2
    assert finish(server, href, data, tags).status in (403, 422)


# Limits


def test_a_sender_that_stands_still_is_cut_off(cas: EmbeddedCas, clock: FakeClock) -> None:
    with live_server(cas, clock=clock, auth="none", stall_seconds=0.2) as server:
        hub(server).create(LOCAL, RepositoryName(Kind.MODELS, "alice", "bert"))
        data = splitmix64(13, 2 << 20)
        href = only(batch(server, data, by=None))["actions"]["upload"]["href"].removeprefix(server.url)
        with server.connect() as sock:
            head = f"PUT {href} HTTP/1.1\r\nHost: {server.url[7:]}\r\nContent-Length: {len(data)}\r\n\r\n"
            sock.sendall(head.encode() + data[: 1 << 20])
            assert sock.recv(100).startswith(b"HTTP/1.1 408")
        until(lambda: server.site.limits.receiving.used == 0)
        assert cas.totals().files == 0


def test_many_uploads_at_once_wait_for_their_turn_in_little_memory(cas: EmbeddedCas, clock: FakeClock) -> None:
    budget = 64 << 20
    with live_server(cas, clock=clock, auth="none", max_bytes_in_flight=budget, queue_seconds=60) as server:
        hub(server).create(LOCAL, RepositoryName(Kind.MODELS, "alice", "bert"))
        objects = [splitmix64(100 + number, 9 << 20) for number in range(6)]
        answers = at_once(lambda data: put(server, data, by=None).status, objects)
        assert answers == [200] * 6
        assert all(is_there(server, data, by=None) for data in objects)
        assert server.site.limits.receiving.used == 0
