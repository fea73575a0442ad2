"""Registering files over HTTP: nothing but what the stored xorbs hold, all of a shard or nothing of it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.support import deployments
from tests.support.live import LiveServer, Response, live_server, until
from tests.support.stored import download, error_of, exchange, file_of, scattered
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas.index import Index
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import RejectedShardError, StorageFullError, UnavailableError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard, XorbEntry
from xetstore.protocol.suite import MAX_SHARD_BYTES
from xetstore.server.routes import shards
from xetstore.testing.samples import Sample, make_sample, random_bytes

DEPLOYMENTS = deployments.BOTH

SAMPLE = make_sample(random_bytes(1_000_000, 1))
OTHER = make_sample(random_bytes(100_000, 2))
SHARD = SAMPLE.shard.serialize()
FILE = SAMPLE.file.hash


def post(
    server: LiveServer, body: bytes, version: int = 1, *, scope: str = "write", namespace: str = "default"
) -> Response:
    return server.request("POST", f"/v{version}/shards", body=body, token=server.token(scope, namespace))


def put_xorb(server: LiveServer, sample: Sample = SAMPLE, namespace: str = "default") -> None:
    path = f"/v1/xorbs/default/{sample.xorb.hash}"
    assert server.request("POST", path, body=sample.body, token=server.token("write", namespace)).status == 200


def frames(answer: Response) -> list[dict[str, Any]]:
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.body.endswith(b"\n")
    return [json.loads(line) for line in answer.body.splitlines()]


def refusal(answer: Response, version: int) -> str:
    """Why a shard was refused: /v1 says it by an error, /v2 by its last frame."""
    if version == 1:
        status, code = error_of(answer)
        assert (status, code) in [(400, "rejected_shard"), (400, "missing_xorb")]
        return str(answer.json()["message"])
    last = frames(answer)[-1]
    assert last.keys() == {"type", "message", "retryable"}
    assert (last["type"], last["retryable"]) == ("error", False)
    return str(last["message"])


def is_registered(server: LiveServer, file: Hash = FILE, namespace: str = "default") -> bool:
    return server.request("HEAD", f"/v1/files/{file}", token=server.token("read", namespace)).status == 200


# --- What is registered ---------------------------------------------------------------------------------


def test_a_shard_registers_its_files(server: LiveServer) -> None:
    put_xorb(server)
    answer = post(server, SHARD)
    assert (answer.status, answer.json()) == (200, {"result": 1})
    assert download(server, server.token(), FILE) == SAMPLE.data


def test_the_last_frame_says_that_it_is_done(server: LiveServer) -> None:
    put_xorb(server)
    *_, last = frames(post(server, SHARD, 2))
    assert last == {"type": "result", "result": 1}
    assert download(server, server.token(), FILE) == SAMPLE.data


def test_the_same_shard_again_is_no_error(server: LiveServer) -> None:
    put_xorb(server)
    assert [post(server, SHARD).json()["result"] for _ in range(3)] == [1, 0, 0]
    assert frames(post(server, SHARD, 2))[-1] == {"type": "result", "result": 0}


@pytest.mark.parametrize("version", [1, 2])
def test_a_footer_that_comes_along_is_accepted(server: LiveServer, version: int) -> None:
    put_xorb(server)
    assert post(server, SAMPLE.shard.serialize_with_footer(), version).status == 200
    assert is_registered(server)


@pytest.mark.parametrize("version", [1, 2])
def test_a_shard_may_name_xorbs_of_earlier_uploads_only(server: LiveServer, version: int) -> None:
    put_xorb(server)
    assert post(server, Shard((SAMPLE.file,)).serialize(), version).status == 200
    assert download(server, server.token(), FILE) == SAMPLE.data


def test_the_empty_file_can_be_registered(server: LiveServer) -> None:
    assert post(server, Shard((FileEntry(Hash.ZERO, (), ()),)).serialize()).json() == {"result": 1}
    assert is_registered(server, Hash.ZERO)


def test_many_files_are_registered_at_once(server: LiveServer) -> None:
    many = scattered(300)
    put_xorb(server, many)
    made = [file_of(many, [(at, at + 2)]) for at in range(300)]
    shard = Shard(tuple(entry for _, _, one in made for entry in one.files), many.shard.xorbs)
    assert frames(post(server, shard.serialize(), 2))[-1]["type"] == "result"
    for file, content, _ in made[::50]:
        assert download(server, server.token(), file) == content


@pytest.mark.parametrize("path", ["/v1/shards", "/shards", f"/shard/default/{'ab' * 32}", "//v1//shards"])
def test_every_client_finds_the_route_by_its_own_name(server: LiveServer, path: str) -> None:
    put_xorb(server)
    answer = server.request("POST", path, body=SHARD, token=server.token("write"))
    assert (answer.status, answer.json()) == (200, {"result": 1})


@pytest.mark.usefixtures("one_server")
def test_uploads_are_counted(server: LiveServer) -> None:
    put_xorb(server)
    for version in (1, 2):
        post(server, SHARD, version)
    post(server, b"x")
    counted = server.site.metrics.registry.get_sample_value
    assert counted("xetstore_shards_received_total", {"is_new": "true"}) == 1
    assert counted("xetstore_shards_received_total", {"is_new": "false"}) == 1
    assert counted("xetstore_files_received_total") == 2


# --- What is refused ------------------------------------------------------------------------------------

TERM = SAMPLE.file.terms[0]
CHUNKS = SAMPLE.xorb.chunks
FALSE: dict[str, Shard] = {
    "a chunk that the xorb has not": Shard(
        (replace(SAMPLE.file, terms=(Term(TERM.xorb, 0, len(CHUNKS) + 1, TERM.unpacked_bytes),)),)
    ),
    "a length that the chunks have not": Shard(
        (replace(SAMPLE.file, terms=(Term(TERM.xorb, 0, len(CHUNKS), TERM.unpacked_bytes - 1),)),)
    ),
    "another verification hash": Shard((replace(SAMPLE.file, verification=(Hash(bytes([1]) * 32),)),)),
    "the verification hash of other chunks": Shard((replace(SAMPLE.file, verification=OTHER.file.verification),)),
    "the name of another file": Shard((replace(SAMPLE.file, hash=OTHER.file.hash),)),
    "the name of the empty file": Shard((replace(SAMPLE.file, hash=Hash.ZERO),)),
    "no terms": Shard((FileEntry(FILE, (), ()),)),
    "other chunks of the xorb": Shard((SAMPLE.file,), (XorbEntry(SAMPLE.xorb.hash, OTHER.xorb.chunks),)),
}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("claim", FALSE)
def test_a_shard_that_claims_what_is_not_so_registers_nothing(server: LiveServer, claim: str, version: int) -> None:
    put_xorb(server)
    put_xorb(server, OTHER)
    false = FALSE[claim]
    # A good file in the same shard is not registered either.
    shard = Shard((*false.files, OTHER.file), false.xorbs)
    assert "the shard was refused" in refusal(post(server, shard.serialize(), version), version)
    assert not is_registered(server)
    assert not is_registered(server, OTHER.file.hash)


@pytest.mark.parametrize("version", [1, 2])
def test_a_shard_without_verification_hashes_is_refused(server: LiveServer, version: int) -> None:
    put_xorb(server)
    unverified = Shard((replace(SAMPLE.file, verification=None),), SAMPLE.shard.xorbs)
    assert "verification hashes" in refusal(post(server, unverified.serialize_with_footer(), version), version)
    assert not is_registered(server)


@pytest.mark.parametrize("version", [1, 2])
def test_an_answer_to_a_dedup_query_is_no_upload(server: LiveServer, version: int) -> None:
    put_xorb(server)
    keyed = SAMPLE.shard.keyed(bytes([7]) * 32, 1, 2)
    assert "keyed" in refusal(post(server, keyed.serialize_with_footer(), version), version)


@pytest.mark.parametrize("version", [1, 2])
def test_a_shard_whose_xorb_is_not_there_is_refused_and_says_which(server: LiveServer, version: int) -> None:
    message = refusal(post(server, SHARD, version), version)
    assert str(SAMPLE.xorb.hash) in message
    assert "client cache" in message
    assert not is_registered(server)


@pytest.mark.parametrize("version", [1, 2])
def test_nobody_can_claim_the_file_of_another_by_what_is_public_of_it(server: LiveServer, version: int) -> None:
    put_xorb(server)
    assert post(server, SHARD).status == 200
    claims = [
        replace(SAMPLE.file, verification=(Hash.ZERO,)),
        replace(SAMPLE.file, verification=(Hash(FILE.digest),)),
        replace(SAMPLE.file, terms=(), verification=()),
    ]
    for claim in claims:
        assert refusal(post(server, Shard((claim,)).serialize(), version, namespace="thieves"), version)
    assert not is_registered(server, namespace="thieves")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"{}",
        SHARD[:-1],
        SHARD[:47],
        SHARD[:100],
        b"x" + SHARD[1:],
        SHARD[:32] + b"\x03" + SHARD[33:],
        random_bytes(10_000),
        SAMPLE.body,
    ],
    ids=lambda body: f"{len(body)} bytes",
)
def test_what_is_no_shard_is_refused_by_its_status(server: LiveServer, body: bytes, version: int) -> None:
    put_xorb(server)
    status, _ = error_of(post(server, body, version))
    assert status == 400
    assert not is_registered(server)


@pytest.mark.parametrize("version", [1, 2])
def test_a_body_that_no_shard_may_have_is_refused_before_it_is_read(server: LiveServer, version: int) -> None:
    with server.connect() as connection:
        head = [
            f"POST /v{version}/shards HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {server.token('write')}",
            f"Content-Length: {MAX_SHARD_BYTES + 1}",
        ]
        assert exchange(connection, head).status == 413


@pytest.mark.parametrize("name", ["x", "AB" * 32, "ab" * 33])
def test_the_name_that_old_clients_give_a_shard_is_a_hash(server: LiveServer, name: str) -> None:
    put_xorb(server)
    answer = server.request("POST", f"/shard/default/{name}", body=SHARD, token=server.token("write"))
    assert error_of(answer) == (400, "usage")


@pytest.mark.parametrize("version", [1, 2])
def test_a_read_token_registers_nothing(server: LiveServer, version: int) -> None:
    put_xorb(server)
    assert error_of(post(server, SHARD, version, scope="read")) == (403, "forbidden")
    assert error_of(server.request("POST", f"/v{version}/shards", body=SHARD)) == (401, "unauthenticated")
    assert error_of(server.request("POST", f"/v{version}/shards", body=SHARD, token="x")) == (401, "unauthenticated")
    assert not is_registered(server)


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_is_readable_where_it_was_registered_and_nowhere_else(server: LiveServer, version: int) -> None:
    put_xorb(server)
    assert post(server, SHARD, version).status == 200
    assert not is_registered(server, namespace="strangers")
    assert post(server, SHARD, version, namespace="strangers").status == 200  # it has the verification hashes
    assert is_registered(server, namespace="strangers")


@pytest.mark.parametrize("version", [1, 2])
def test_a_xorb_that_is_not_shared_cannot_be_built_upon(cas: EmbeddedCas, version: int) -> None:
    with live_server(cas, dedup="namespace") as server:
        put_xorb(server)
        assert "not stored" in refusal(post(server, SHARD, version, namespace="strangers"), version)
        put_xorb(server, namespace="strangers")
        assert post(server, SHARD, version, namespace="strangers").status == 200


# --- A commit that takes its time -----------------------------------------------------------------------


class PacedBlobs(MemoryBlobStore):
    """Objects in memory. While ``gate`` is closed, reading a footer and writing a shard wait before it; what is in
    ``failure`` then is raised.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.passed = threading.Semaphore(0)
        self.failure: Exception | None = None

    def put_new(self, key: str, parts: Any) -> None:
        if key.startswith("shards/"):
            self._pass()
        super().put_new(key, parts)

    def get_range(self, key: str, start: int, end: int) -> Any:
        self._pass()
        return super().get_range(key, start, end)

    def let_one_pass(self) -> None:
        self.passed.release()

    def _pass(self) -> None:
        while not self.gate.is_set():
            if self.passed.acquire(timeout=0.01):
                break
        if self.failure is not None:
            raise self.failure


@dataclass(frozen=True)
class Commit:
    """A shard that was posted to /v2 while the gate of the store is closed, and its answer as it comes."""

    server: LiveServer
    blobs: PacedBlobs
    connection: socket.socket
    answer: http.client.HTTPResponse

    def next_frame(self) -> dict[str, Any]:
        return dict(json.loads(self.answer.readline()))

    def leave(self) -> None:
        """Close the connection; on return the server has noticed."""
        self.answer.close()
        self.connection.close()
        until(lambda: self.server.connections == 0)
        assert self.server.request("GET", "/health/live").status == 200

    def next_other_than(self, frame: dict[str, Any]) -> dict[str, Any]:
        """The next frame that does not repeat this one."""
        while (found := self.next_frame()) == frame:
            pass
        return found


@pytest.fixture
def commit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Commit]:
    monkeypatch.setattr(shards, "TICK_SECONDS", 0.01)
    blobs = PacedBlobs()
    with EmbeddedCas(blobs, Index.in_memory(), footer_cache_bytes=0) as cas, live_server(cas) as server:
        put_xorb(server)
        put_xorb(server, OTHER)
        both = Shard((SAMPLE.file, OTHER.file))
        blobs.gate.clear()
        try:
            with server.connect() as connection:
                body = both.serialize()
                head = [
                    "POST /v2/shards HTTP/1.1",
                    "Host: localhost",
                    f"Authorization: Bearer {server.token('write')}",
                    f"Content-Length: {len(body)}",
                ]
                yield Commit(server, blobs, connection, exchange(connection, head, body))
        finally:
            blobs.gate.set()


def test_the_frames_tell_how_far_it_is(commit: Commit) -> None:
    assert commit.answer.status == 200
    first = commit.next_frame()
    assert first == {"type": "validating", "verified": 0, "total": 2}
    commit.blobs.let_one_pass()
    second = commit.next_other_than(first)
    assert second == {"type": "validating", "verified": 1, "total": 2}
    commit.blobs.let_one_pass()
    third = commit.next_other_than(second)
    assert third == {"type": "committing", "stage": "syncing"}
    assert not is_registered(commit.server)
    commit.blobs.let_one_pass()
    assert commit.next_other_than(third) == {"type": "result", "result": 1}
    assert commit.answer.readline() == b""
    assert is_registered(commit.server)
    assert is_registered(commit.server, OTHER.file.hash)


def test_while_nothing_moves_the_last_frame_is_repeated(commit: Commit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "HEARTBEAT_SECONDS", 0.02)
    first = commit.next_frame()
    assert [commit.next_frame() for _ in range(3)] == [first] * 3


def test_a_commit_holds_its_share_of_the_memory_until_it_is_over(commit: Commit) -> None:
    budget = commit.server.site.limits.committing
    assert budget.used == 12 * len(Shard((SAMPLE.file, OTHER.file)).serialize())
    commit.blobs.gate.set()
    commit.answer.read()
    assert budget.used == 0


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (StorageFullError("no room"), {"message": "no room", "retryable": True}),
        (UnavailableError("cannot write /srv/secret/x", hint="buy a disk"), {"retryable": True}),
        (
            RejectedShardError("the shard lies", hint="do not"),
            {"message": "the shard lies; do not", "retryable": False},
        ),
        (RuntimeError("/srv/secret/x: token hunter2"), {"message": "internal error", "retryable": False}),
        (PermissionError(13, "/srv/secret/x"), {"retryable": False}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_commit_that_fails_later_says_so_in_its_last_frame(
    commit: Commit, failure: Exception, expected: dict[str, Any]
) -> None:
    first = commit.next_frame()
    commit.blobs.failure = failure
    commit.blobs.gate.set()
    last = commit.next_other_than(first)
    assert last.keys() == {"type", "message", "retryable"}
    assert last["type"] == "error"
    assert last.items() >= expected.items()
    assert "secret" not in last["message"]
    assert commit.answer.readline() == b""
    commit.blobs.failure = None
    assert not is_registered(commit.server)


def test_a_client_that_leaves_while_its_shard_is_verified_stops_that(commit: Commit) -> None:
    commit.next_frame()
    commit.leave()
    commit.blobs.gate.set()
    until(lambda: commit.server.site.limits.committing.used == 0)
    assert commit.server.site.metrics.in_flight == 0
    assert not is_registered(commit.server)


def test_a_client_that_leaves_does_not_stop_what_is_verified(commit: Commit) -> None:
    first = commit.next_frame()
    commit.blobs.let_one_pass()
    second = commit.next_other_than(first)
    commit.blobs.let_one_pass()
    commit.next_other_than(second)
    commit.leave()
    commit.blobs.gate.set()
    until(lambda: is_registered(commit.server) and is_registered(commit.server, OTHER.file.hash))
    until(lambda: commit.server.site.limits.committing.used == 0)


def test_a_server_that_is_told_to_stop_still_says_what_came_of_a_commit(commit: Commit) -> None:
    first = commit.next_frame()
    commit.server.drain()
    commit.blobs.gate.set()
    frame = first
    while frame["type"] != "result":
        frame = commit.next_other_than(frame)
    assert frame["result"] == 1
