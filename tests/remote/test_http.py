"""HttpCas keeps the contract of its seam over real servers of ours, and copes with what other servers do."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import live_server
from tests.support.scripted import Scripted, Seen, Step, head, raw, reply
from xetstore.cancellation import Cancellation
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.errors import (
    ForbiddenError,
    FormatError,
    InterruptedCallError,
    MissingXorbError,
    NotFoundError,
    RangeError,
    RejectedShardError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UsageError,
    XetError,
)
from xetstore.events import Event, FellBack, Retrying, TokenRenewed
from xetstore.interfaces import MANY_CHUNKS, MANY_FILES, Cas
from xetstore.protocol.dedup import WIRE_QUERIES
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.reconstruction import BatchReconstruction, FetchRange, Reconstruction, Term
from xetstore.protocol.shard import Shard
from xetstore.records import FileRecord
from xetstore.remote.http import ANSWER_SIZES, AnswerSizes, HttpCas
from xetstore.remote.server import QUERY_PAUSE_SECONDS, Queries
from xetstore.remote.tokens import CallbackTokens, FixedToken, TokenSource
from xetstore.remote.transport import Patience, Transport
from xetstore.testing import CasContract, make_sample, random_bytes
from xetstore.testing.cas import FALSE_CLAIMS
from xetstore.testing.samples import Sample, read_back, upload

# The contract


@contextmanager
def _served(folder: Path, **settings: Any) -> Iterator[HttpCas]:
    # URLs that are made in the same second are the same.
    now = time.time()
    with EmbeddedCas.open(folder) as store, live_server(store, clock=lambda: now, **settings) as server:
        cas = HttpCas(server.url, tokens=FixedToken(server.token("write")))
        yield cas
        cas.close()
        verify_invariants(store)


class TestOverHttp(CasContract):
    """All of it, but for the empty file: that is one everywhere, and no server is asked for it."""

    @pytest.fixture
    def cas(self, tmp_path: Path) -> Iterator[HttpCas]:
        with _served(tmp_path / "store", auth="tokens") as cas:
            yield cas

    def test_the_empty_file_is_a_file(self, cas: Cas) -> None:
        found = cas.reconstruct(Hash.ZERO, hashes=True)
        assert (found.terms, dict(found.fetches), found.term_hashes) == ((), {}, ())
        with pytest.raises(RangeError):
            cas.reconstruct(Hash.ZERO, 1)

    @pytest.mark.parametrize("claim", [claim for claim in FALSE_CLAIMS if "zeros" not in claim])
    def test_a_false_claim_is_refused(self, cas: Cas, sample: Sample, claim: str) -> None:
        super().test_a_false_claim_is_refused(cas, sample, claim)

    def test_a_false_claim_of_emptiness_is_refused(self, cas: Cas, sample: Sample) -> None:
        cas.put_xorb(sample.xorb.hash, sample.body)
        with pytest.raises(RejectedShardError):
            cas.put_shard(FALSE_CLAIMS["a file hash of zeros"](sample))


def test_bytes_at_an_edge_are_read_with_the_token(tmp_path: Path) -> None:
    sample = make_sample(random_bytes(300_000, 1))
    with _served(tmp_path / "store", auth="tokens", xorb_urls="edge") as cas:
        assert read_back(cas, upload(cas, sample)) == sample.data


def test_a_file_is_known_by_its_size(tmp_path: Path) -> None:
    sample = make_sample(random_bytes(300_000, 1))
    with _served(tmp_path / "store", auth="tokens") as cas:
        file = upload(cas, sample)
        assert cas.stat(file) == FileRecord(file, 300_000)
        assert cas.stat(Hash.ZERO) == FileRecord(Hash.ZERO, 0)
        with pytest.raises(NotFoundError):
            cas.stat(sample.xorb.hash)


def test_many_threads_share_a_client(tmp_path: Path) -> None:
    sample = make_sample(random_bytes(300_000, 1))
    with _served(tmp_path / "store", auth="tokens") as cas:
        file = upload(cas, sample)
        wrong: list[object] = []

        def read() -> None:
            for _ in range(5):
                if read_back(cas.under(Cancellation()), file) != sample.data:
                    wrong.append(file)

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_chunk_hashes_come_where_they_are_asked_for(tmp_path: Path) -> None:
    sample = make_sample(random_bytes(300_000, 1))
    with _served(tmp_path / "store", auth="tokens") as cas:
        file = upload(cas, sample)
        assert cas.reconstruct(file).term_hashes is None
        assert cas.reconstruct(file, hashes=True).term_hashes == (sample.xorb.chunks.hashes,)


# Other servers

QUICK = Patience(answer=5, idle=5, shard=5, base_delay=0.001, max_delay=0.002, attempts=3)
FILE = Hash(bytes(range(32)))
XORB = Hash(bytes(range(1, 33)))
FOUND = Reconstruction(
    0, (Term(XORB, 0, 2, 1000),), {XORB: (FetchRange(XORB, "https://cdn.example/x?s=1", 0, 2, 0, 900),)}
)
V1, V2 = "GET /v1/reconstructions", "GET /v2/reconstructions"


class Client:
    """An HttpCas, and a server that takes steps in turn, for each kind of call its own; 404 for all others."""

    def __init__(
        self,
        steps: dict[str, list[Step]],
        *,
        tokens: TokenSource | None = None,
        path: str = "",
        answer_sizes: AnswerSizes = ANSWER_SIZES,
    ) -> None:
        self.steps = steps
        self.events: list[Event] = []
        self.server = Scripted(self._answer)
        self.transport = Transport(patience=QUICK)
        self.cas = HttpCas(
            f"{self.server.url}{path}",
            tokens=tokens,
            transport=self.transport,
            emit=self.events.append,
            answer_sizes=answer_sizes,
        )

    def _answer(self, seen: Seen) -> Step:
        for name, left in self.steps.items():
            if f"{seen.method} {seen.path}".startswith(name):
                return left.pop(0) if len(left) > 1 else left[0]
        return reply(404)

    @property
    def calls(self) -> list[str]:
        return [f"{seen.method} {seen.path.removesuffix(f'/{FILE}')}" for seen in self.server.requests]

    @property
    def kinds(self) -> list[type[Event]]:
        return [type(event) for event in self.events]


Make = Callable[..., Client]


@pytest.fixture
def client() -> Iterator[Make]:
    opened: list[Client] = []

    def make(steps: dict[str, list[Step]], **options: Any) -> Client:
        opened.append(Client(steps, **options))
        return opened[-1]

    yield make
    for made in opened:
        made.cas.close()
        made.transport.close()
        with made.server:
            pass


# Reconstructions


def test_a_range_is_asked_for_with_its_last_byte(client: Make) -> None:
    made = client({V2: [reply(200, FOUND.to_v2_json())]})
    assert made.cas.reconstruct(FILE) == FOUND
    made.cas.reconstruct(FILE, 0, 10)
    made.cas.reconstruct(FILE, 5, hashes=True)
    sent = [seen.headers for seen in made.server.requests]
    assert [headers.get("range") for headers in sent] == [None, "bytes=0-9", "bytes=5-"]
    assert [headers.get("x-xet-chunk-hashes") for headers in sent] == [None, None, "true"]
    assert {headers["accept-encoding"] for headers in sent} == {"gzip"}
    assert not any("authorization" in headers for headers in sent)


def test_a_compressed_answer_is_read(client: Make) -> None:
    step = reply(200, gzip.compress(FOUND.to_v2_json()), {"Content-Encoding": "gzip"})
    assert client({V2: [step]}).cas.reconstruct(FILE) == FOUND


@pytest.mark.parametrize("status", [404, 501])
def test_a_server_without_v2_is_asked_by_v1_from_then_on(client: Make, status: int) -> None:
    made = client({V2: [reply(status)], V1: [reply(200, FOUND.to_v1_json())]})
    assert made.cas.reconstruct(FILE) == FOUND
    assert made.cas.under(Cancellation()).reconstruct(FILE) == FOUND
    assert made.calls == [V2, V1, V1]
    assert made.events == [FellBack(V2, V1)]


BATCH = BatchReconstruction({FILE: FOUND.terms}, FOUND.fetches)


def test_several_files_are_asked_for_in_one_url(client: Make) -> None:
    files = [Hash(bytes([number]) * 32) for number in range(1, MANY_FILES + 1)]
    told = BatchReconstruction(dict.fromkeys(files, FOUND.terms), FOUND.fetches)
    made = client({V1: [reply(200, gzip.compress(told.to_json()), {"Content-Encoding": "gzip"})]})
    assert made.cas.reconstruct_many(files) == told
    [seen] = made.server.requests
    assert seen.target == "/v1/reconstructions?" + "&".join(f"file_id={file}" for file in files)
    assert len(f"{made.server.url}{seen.target}") < 8000
    assert seen.headers["accept-encoding"] == "gzip"


def test_more_files_than_a_url_takes_are_not_asked_for(client: Make) -> None:
    made = client({})
    for files in ([], [FILE] * (MANY_FILES + 1)):
        with pytest.raises(UsageError):
            made.cas.reconstruct_many(files)
    assert made.server.requests == []


def test_what_is_missing_of_several_files_nobody_can_tell(client: Make) -> None:
    made = client({V1: [reply(404), reply(200, BATCH.to_json())]})
    assert made.cas.reconstruct_many([FILE]) is None
    assert made.cas.reconstruct_many([FILE]) == BATCH
    assert made.events == []


@pytest.mark.parametrize("status", [405, 501])
def test_a_server_that_takes_one_file_at_a_time_is_remembered(client: Make, status: int) -> None:
    made = client({V1: [reply(status)]})
    assert made.cas.reconstruct_many([FILE]) is None
    assert made.cas.under(Cancellation()).reconstruct_many([FILE]) is None
    assert made.calls == [V1]
    assert made.events == [FellBack("GET /v1/reconstructions?file_id", V2)]


@pytest.mark.parametrize(
    "body",
    [
        b"garbage",
        BatchReconstruction({XORB: FOUND.terms}, FOUND.fetches).to_json(),
        BatchReconstruction({FILE: FOUND.terms, XORB: FOUND.terms}, FOUND.fetches).to_json(),
        BatchReconstruction({}, FOUND.fetches).to_json(),
    ],
)
def test_an_answer_about_other_files_is_asked_for_once_more_and_refused(client: Make, body: bytes) -> None:
    made = client({V1: [reply(200, body), reply(200, BATCH.to_json()), reply(200, body)]})
    assert made.cas.reconstruct_many([FILE]) == BATCH
    with pytest.raises(FormatError) as caught:
        made.cas.reconstruct_many([FILE])
    assert "wrong answers" in (caught.value.hint or "")
    assert made.kinds == [Retrying, Retrying]


def test_a_busy_server_is_asked_for_several_files_again(client: Make) -> None:
    made = client({V1: [reply(503), reply(200, BATCH.to_json())]})
    assert made.cas.reconstruct_many([FILE]) == BATCH
    made = client({V1: [reply(400)]})
    with pytest.raises(UsageError, match="1 file"):
        made.cas.reconstruct_many([FILE])


def test_a_file_that_neither_version_knows_is_not_there(client: Make) -> None:
    made = client({})
    with pytest.raises(NotFoundError, match=str(FILE)):
        made.cas.reconstruct(FILE)
    made.steps[V2] = [reply(200, FOUND.to_v2_json())]
    assert made.cas.reconstruct(FILE) == FOUND
    assert made.calls == [V2, V1, V2]


def test_405_is_no_reason_to_fall_back(client: Make) -> None:
    made = client({V2: [reply(405)], V1: [reply(200, FOUND.to_v1_json())]})
    with pytest.raises(UsageError, match="HTTP 405"):
        made.cas.reconstruct(FILE)
    assert made.calls == [V2]


def test_past_the_end_is_past_the_end(client: Make) -> None:
    with pytest.raises(RangeError):
        client({V2: [reply(416)]}).cas.reconstruct(FILE, 10**12, 10**12 + 1)


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 5), (6, 5)])
def test_a_range_that_is_none_is_not_asked_for(client: Make, start: int, end: int) -> None:
    made = client({})
    with pytest.raises(UsageError):
        made.cas.reconstruct(FILE, start, end)
    assert made.calls == []


def test_a_garbled_answer_is_asked_for_once_more(client: Make) -> None:
    made = client({V2: [reply(200, FOUND.to_v2_json()[:-3]), reply(200, FOUND.to_v2_json())]})
    assert made.cas.reconstruct(FILE) == FOUND
    assert made.kinds == [Retrying]
    made = client({V2: [reply(200, b"{}")]})
    with pytest.raises(FormatError) as caught:
        made.cas.reconstruct(FILE)
    assert caught.value.hint
    assert made.calls == [V2, V2]


def test_a_busy_server_is_asked_again_and_told(client: Make) -> None:
    made = client({V2: [reply(503, b"draining", {"Retry-After": "0"}), reply(502), reply(200, FOUND.to_v2_json())]})
    assert made.cas.reconstruct(FILE) == FOUND
    assert [event.attempt for event in made.events if isinstance(event, Retrying)] == [1, 2]
    made = client({V2: [reply(429)]})
    with pytest.raises(UnavailableError, match="3 attempts were made"):
        made.cas.reconstruct(FILE)


def test_the_address_may_have_a_path(client: Make) -> None:
    made = client({"GET /a/b/v2": [reply(200, FOUND.to_v2_json())]}, path="/a/b//")
    assert made.cas.url == f"{made.server.url}/a/b"
    assert made.cas.reconstruct(FILE) == FOUND


@pytest.mark.parametrize(
    "url", ["", "host", "ftp://host", "https://host?x=1", "https://me:s3cret@host", "http://host.example"]
)
def test_an_address_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        HttpCas(url)
    assert caught.value.hint
    assert "s3cret" not in str(caught.value)


def test_an_answer_without_end_is_not_taken_in(client: Make) -> None:
    bomb = gzip.compress(bytes(1_000_000))
    made = client({V2: [reply(200, bomb, {"Content-Encoding": "gzip"})]}, answer_sizes=AnswerSizes(reconstruction=1000))
    with pytest.raises(XetError, match="longer than 1000 bytes"):
        made.cas.reconstruct(FILE)


# Sizes


def test_without_a_route_for_it_a_size_is_the_sum_of_the_terms(client: Make) -> None:
    made = client({"HEAD": [reply(405)], V2: [reply(200, FOUND.to_v2_json())]})
    assert made.cas.stat(FILE) == FileRecord(FILE, 1000)
    assert made.cas.stat(FILE) == FileRecord(FILE, 1000)
    assert made.calls == ["HEAD /v1/files", V2, V2]
    assert made.events == [FellBack("HEAD /v1/files", V2)]


def test_a_file_without_size_is_not_there(client: Make) -> None:
    made = client({})
    with pytest.raises(NotFoundError):
        made.cas.stat(FILE)
    assert made.events == []


def test_a_size_that_must_not_be_known_is_told(client: Make) -> None:
    with pytest.raises(ForbiddenError):
        client({"HEAD": [reply(403)]}).cas.stat(FILE)


# Tokens


class Renewed:
    """A callback that gives ``token0``, ``token1``, and so on."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    def __call__(self, scope: str) -> tuple[str, float]:
        self.scopes.append(scope)
        return f"token{len(self.scopes) - 1}", time.time() + 3600


def test_a_refused_token_is_renewed_once(client: Make) -> None:
    renewed = Renewed()
    made = client({V2: [reply(401), reply(200, FOUND.to_v2_json())]}, tokens=CallbackTokens(renewed))
    assert made.cas.reconstruct(FILE) == FOUND
    assert [seen.headers["authorization"] for seen in made.server.requests] == ["Bearer token0", "Bearer token1"]
    made = client({V2: [reply(401, b"no token0 or token1")]}, tokens=CallbackTokens(Renewed()))
    with pytest.raises(UnauthenticatedError) as caught:
        made.cas.reconstruct(FILE)
    assert len(made.calls) == 2
    assert "token1" not in str(caught.value)


def test_a_token_that_cannot_be_renewed_is_refused_at_once(client: Make) -> None:
    made = client({V2: [reply(401)]}, tokens=FixedToken("t"))
    with pytest.raises(UnauthenticatedError):
        made.cas.reconstruct(FILE)
    assert len(made.calls) == 1


def test_a_write_that_is_forbidden_is_tried_with_another_token_once(client: Make) -> None:
    renewed = Renewed()
    made = client(
        {"POST /v1/xorbs": [reply(403), reply(200, b'{"was_inserted": true}')]}, tokens=CallbackTokens(renewed)
    )
    assert made.cas.put_xorb(XORB, b"body")
    assert set(renewed.scopes) == {"write"}
    made = client({"POST /v1/xorbs": [reply(403)]}, tokens=CallbackTokens(Renewed()))
    with pytest.raises(ForbiddenError):
        made.cas.put_xorb(XORB, b"body")
    assert len(made.calls) == 3


def test_a_read_that_is_forbidden_is_not_tried_again(client: Make) -> None:
    made = client({V2: [reply(403)]}, tokens=CallbackTokens(Renewed()))
    with pytest.raises(ForbiddenError):
        made.cas.reconstruct(FILE)
    assert len(made.calls) == 1


def test_a_refused_token_is_renewed_for_the_bytes_too(client: Make) -> None:
    body = reply(206, b"bytes", {"Content-Range": "bytes 0-4/*"})
    made = client({"GET /v1/xorbs": [reply(401), body]}, tokens=CallbackTokens(Renewed()))
    fetch = FetchRange(XORB, f"{made.server.url}/v1/xorbs/default/{XORB}", 0, 1, 0, 5)
    with made.cas.fetch_xorb(fetch) as stream:
        assert stream.readinto(memoryview(bytearray(9))) == 5
    assert [seen.headers["authorization"] for seen in made.server.requests] == ["Bearer token0", "Bearer token1"]


def test_reading_asks_for_no_right_to_write(client: Make) -> None:
    renewed = Renewed()
    made = client({V2: [reply(200, FOUND.to_v2_json())]}, tokens=CallbackTokens(renewed))
    made.cas.reconstruct(FILE)
    made.cas.find_chunks(FILE)
    made.cas.stat(FILE)
    assert renewed.scopes == ["read"]


def test_who_gives_tokens_may_fail(client: Make) -> None:
    def fail(scope: str) -> tuple[str, float]:
        raise UnauthenticatedError("not logged in", hint="log in")

    made = client({}, tokens=CallbackTokens(fail))
    with pytest.raises(UnauthenticatedError, match="not logged in"):
        made.cas.reconstruct(FILE)
    assert made.cas.find_chunks(FILE) is None


def test_renewals_are_told(client: Make) -> None:
    events: list[Event] = []
    tokens = CallbackTokens(Renewed(), emit=events.append)
    client({V2: [reply(401), reply(200, FOUND.to_v2_json())]}, tokens=tokens).cas.reconstruct(FILE)
    assert TokenRenewed("read") in events


# Dedup queries


def _answer() -> Shard:
    return Shard((), make_sample(random_bytes(100_000, 1)).shard.xorbs).keyed(bytes(range(32)), 1, 2)


def test_a_dedup_answer_is_read(client: Make) -> None:
    shard = _answer()
    made = client({"GET /v1/chunks": [reply(200, shard.serialize_with_footer())]})
    assert made.cas.find_chunks(FILE) == shard
    assert made.calls == ["GET /v1/chunks/default"]


@pytest.mark.parametrize(
    "step",
    [
        reply(404),
        reply(403),
        reply(429),
        reply(500),
        reply(200, b"garbage"),
        reply(200, b""),
        reply(200, make_sample(random_bytes(1000, 1)).shard.serialize()),
        raw(head(200, {"Content-Length": "100"}), b"short"),
        raw(),
    ],
)
def test_whatever_else_comes_is_no(client: Make, step: Step) -> None:
    made = client({"GET /v1/chunks": [step]})
    assert made.cas.find_chunks(FILE) is None
    assert len(made.calls) == 1
    assert made.events == []


def test_after_three_failures_there_are_no_queries_for_a_while(client: Make) -> None:
    made = client({"GET /v1/chunks": [reply(500)]})
    for _ in range(5):
        assert made.cas.under(Cancellation()).find_chunks(FILE) is None
    assert len(made.calls) == 3


def test_a_server_that_asks_for_a_rest_gets_it(client: Make) -> None:
    made = client({"GET /v1/chunks": [reply(429, b"", {"Retry-After": "30"})]})
    for _ in range(3):
        made.cas.find_chunks(FILE)
    assert len(made.calls) == 1


def test_a_pause_ends_and_an_answer_makes_failures_forgotten() -> None:
    now = 0.0
    queries = Queries(lambda: now)
    for _ in range(2):
        queries.failed()
    queries.succeeded()
    for _ in range(2):
        queries.failed()
    assert not queries.are_paused
    queries.failed()
    assert queries.are_paused
    now = QUERY_PAUSE_SECONDS
    assert not queries.are_paused
    queries.failed(7)
    assert queries.are_paused
    now += 7
    assert not queries.are_paused


RULE = {"X-Xet-Chunk-Queries": "modulus=64, most=1024"}
CHUNKS = [chunk_hash(b"%d" % number) for number in range(3)]


def test_several_chunks_are_asked_for_in_one_body_and_one_in_the_protocols_own_way(client: Make) -> None:
    shard = _answer()
    found = reply(200, shard.serialize_with_footer(), RULE)
    made = client({"GET /v1/chunks": [reply(404, b"", RULE)], "POST /v1/chunks": [found, reply(204, b"", RULE)]})
    assert made.cas.queries == WIRE_QUERIES
    assert made.cas.find_chunks(CHUNKS[0]) is None
    assert (made.cas.queries.modulus, made.cas.queries.most_at_once) == (64, 1024)
    assert made.cas.queries.spacing_chunks == made.cas.queries.spacing_bytes == 0
    assert made.cas.find_chunks(*CHUNKS) == shard
    assert made.cas.find_chunks(*CHUNKS) is None
    sent = made.server.requests[1]
    assert (sent.method, sent.target) == ("POST", "/v1/chunks")
    assert (sent.headers["content-type"], sent.headers["content-length"]) == ("application/octet-stream", "96")
    assert len(made.calls) == 3


@pytest.mark.parametrize(
    "announced",
    [
        "",
        "modulus=64",
        "most=1024, modulus=64",
        "modulus=0, most=1024",
        "modulus=2048, most=1024",
        "modulus=-64, most=1024",
        "modulus=64, most=1",
        "modulus=64, most=1024, more=1",
        "modulus=1234567890, most=1024",
        "modulus=64, most=9999999999",
        "modulus=\u0664, most=\u0664",
        "x" * 1000,
    ],
)
def test_a_rule_that_makes_no_sense_is_that_of_the_protocol(announced: str) -> None:
    queries = Queries()
    queries.succeeded("modulus=64, most=1024")
    assert queries.rule != WIRE_QUERIES
    queries.succeeded(announced)
    assert queries.rule == WIRE_QUERIES


def test_a_rule_is_believed_as_far_as_it_goes() -> None:
    queries = Queries()
    queries.succeeded("modulus=1, most=999999999")
    assert (queries.rule.modulus, queries.rule.most_at_once) == (1, MANY_CHUNKS)
    queries.failed()
    assert queries.rule.modulus == 1, "a failure tells nothing of the rule"
    queries.succeeded(None)
    assert queries.rule == WIRE_QUERIES


@pytest.mark.parametrize("step", [reply(404), reply(405), reply(501)])
def test_a_server_that_does_not_take_several_any_more_is_asked_for_one_by_one(client: Make, step: Step) -> None:
    """It was replaced by another one meanwhile: that is no failure, after which there would be a pause."""
    made = client({"GET /v1/chunks": [reply(404, b"", RULE), reply(404)], "POST /v1/chunks": [step]})
    made.cas.find_chunks(CHUNKS[0])
    for _ in range(3):
        assert made.cas.find_chunks(*CHUNKS) is None
        assert made.cas.queries == WIRE_QUERIES
    assert made.cas.find_chunks(CHUNKS[1]) is None
    assert [call.partition(" ")[0] for call in made.calls] == ["GET", "POST", "POST", "POST", "GET"]


@pytest.mark.parametrize("status", [405, 501])
def test_of_one_chunk_such_an_answer_is_a_failure(client: Make, status: int) -> None:
    made = client({"GET /v1/chunks": [reply(status)]})
    for _ in range(5):
        made.cas.find_chunks(CHUNKS[0])
    assert len(made.calls) == 3


@pytest.mark.parametrize("count", [0, MANY_CHUNKS + 1])
def test_no_chunks_or_too_many_are_not_asked_for(client: Make, count: int) -> None:
    made = client({})
    with pytest.raises(UsageError, match=f"between 1 and 1024 .* not {count}"):
        made.cas.find_chunks(*[FILE] * count)
    assert made.calls == []


@pytest.mark.parametrize(
    "answer", [b"", head(200, {"Content-Length": "100"})[:20], head(200, {"Content-Length": "100"})]
)
def test_a_slow_answer_to_a_query_is_not_waited_for(answer: bytes) -> None:
    with (
        Scripted(lambda _: raw(answer, then="stall")) as server,
        Transport(patience=Patience(query=0.05)) as transport,
    ):
        assert HttpCas(server.url, transport=transport).find_chunks(FILE) is None


def test_an_answer_to_a_query_is_taken_in_up_to_a_size(client: Make) -> None:
    shard = _answer()
    steps = {"GET /v1/chunks": [reply(200, shard.serialize_with_footer())]}
    size = len(shard.serialize_with_footer())
    assert client(steps, answer_sizes=AnswerSizes(chunks=size)).cas.find_chunks(FILE) == shard
    assert client(steps, answer_sizes=AnswerSizes(chunks=size - 1)).cas.find_chunks(FILE) is None


# Shards

SHARD = make_sample(random_bytes(1000, 1)).shard
V2_SHARDS, V1_SHARDS = "POST /v2/shards", "POST /v1/shards"
RESULT = b'{"type":"result","result":1}\n'


def stream(*lines: bytes) -> Step:
    """The frames as chunks of a body."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in lines if line)
    return raw(head(200, {"Transfer-Encoding": "chunked"}), body, b"0\r\n\r\n", then="keep")


@pytest.mark.parametrize(
    "lines",
    [
        [RESULT],
        [b'{"type":"result"}'],
        [b'{"type":"validating","verified":1,"total":2}\n', b'{"type":"committing","stage":"syncing"}\n', RESULT],
        [b"\n\r\n  \n", b'{"type":"of another time","message":"x"}\n', b'{"no type":1}\n', RESULT, b"\n"],
        [b'{"type":"resu', b'lt","resu', b'lt":1}', b"\n"],
        [b'{"type":"validating"}\n' * 1000 + RESULT],
        [b'{"type":"padded","x":"' + b"y" * 1_000_000 + b'"}\n', RESULT],
    ],
)
def test_the_last_frame_decides(client: Make, lines: list[bytes]) -> None:
    made = client({V2_SHARDS: [stream(*lines)]})
    assert made.cas.put_shard(SHARD) is True
    assert made.server.requests[0].body == SHARD.serialize()
    assert made.events == []


def test_a_shard_that_is_known_is_not_new(client: Make) -> None:
    assert client({V2_SHARDS: [stream(b'{"type":"result","result":0}\n')]}).cas.put_shard(SHARD) is False


@pytest.mark.parametrize(
    "step",
    [
        stream(b'{"type":"error","message":"busy","retryable":true}\n'),
        stream(b'{"type":"validating","verified":1,"total":2}\n'),
        stream(b"\n"),
        stream(b"not json\n"),
        stream(b"[]\n"),
        stream(b'{"x":"' + b"y" * (1 << 20) + b'"}\n'),
        raw(head(200, {"Transfer-Encoding": "chunked"}), b"5\r\n12345\r\n"),
        reply(503),
        raw(),
    ],
)
def test_a_shard_whose_fate_is_not_known_is_posted_again(client: Make, step: Step) -> None:
    made = client({V2_SHARDS: [step, stream(RESULT)]})
    assert made.cas.put_shard(SHARD)
    assert made.kinds == [Retrying]
    made = client({V2_SHARDS: [step]})
    with pytest.raises(UnavailableError, match="3 attempts were made") as caught:
        made.cas.put_shard(SHARD)
    assert caught.value.hint
    assert made.calls == [V2_SHARDS] * 3


@pytest.mark.parametrize(
    "step",
    [
        stream(b'{"type":"error","message":"a file hash is wrong","retryable":false}\n'),
        stream(b'{"type":"error"}\n'),
        reply(400, b"bad shard"),
        reply(400, b'{"code":"format","message":"bad (rule x.y, at byte 1)"}'),
    ],
)
def test_a_shard_that_is_refused_is_told(client: Make, step: Step) -> None:
    made = client({V2_SHARDS: [step]})
    with pytest.raises(RejectedShardError) as caught:
        made.cas.put_shard(SHARD)
    assert caught.value.hint
    assert made.calls == [V2_SHARDS]


@pytest.mark.parametrize("version", [V2_SHARDS, V1_SHARDS])
def test_a_missing_xorb_is_named(client: Make, version: str) -> None:
    said = str(MissingXorbError(str(XORB)))
    frame = json.dumps({"type": "error", "message": said, "retryable": False}).encode()
    problem = reply(400, json.dumps({"code": "missing_xorb", "message": said}).encode())
    made = client({version: [stream(frame) if version == V2_SHARDS else problem]})
    with pytest.raises(MissingXorbError) as caught:
        made.cas.put_shard(SHARD)
    assert caught.value.xorb == str(XORB)


@pytest.mark.parametrize("status", [404, 501])
def test_a_server_without_v2_is_posted_to_v1_from_then_on(client: Make, status: int) -> None:
    made = client({V2_SHARDS: [reply(status)], V1_SHARDS: [reply(200, b'{"result":1}'), reply(200, b'{"result":0}')]})
    assert made.cas.put_shard(SHARD)
    assert not made.cas.put_shard(SHARD)
    assert made.calls == [V2_SHARDS, V1_SHARDS, V1_SHARDS]
    assert made.events == [FellBack(V2_SHARDS, V1_SHARDS)]


@pytest.mark.parametrize(
    ("step", "kind"),
    [(reply(405), UsageError), (reply(413), TooLargeError), (reply(401), UnauthenticatedError), (reply(404), XetError)],
)
def test_a_shard_that_cannot_be_posted_is_told(client: Make, step: Step, kind: type[XetError]) -> None:
    with pytest.raises(kind):
        client({V2_SHARDS: [step]}).cas.put_shard(SHARD)


def test_a_silent_commit_is_given_its_time() -> None:
    """A server may take long: the patience is that for shards, not for answers."""
    patience = Patience(shard=0.1, attempts=1)
    with (
        Scripted(lambda _: raw(then="stall")) as server,
        Transport(patience=patience) as transport,
        pytest.raises(UnavailableError, match=r"no answer for 0\.1 s"),
    ):
        HttpCas(server.url, transport=transport).put_shard(SHARD)


# Interruption, closing


@pytest.mark.parametrize(
    "work",
    [
        lambda cas: cas.reconstruct(FILE),
        lambda cas: cas.find_chunks(FILE),
        lambda cas: cas.put_xorb(XORB, b"body"),
        lambda cas: cas.put_shard(SHARD),
        lambda cas: cas.stat(FILE),
        lambda cas: cas.fetch_xorb(FetchRange(XORB, f"{cas.url}/x?s=1", 0, 1, 0, 5)),
    ],
)
def test_every_call_can_be_interrupted(work: Callable[[HttpCas], object]) -> None:
    errors: list[XetError] = []
    with Scripted(lambda _: raw(then="stall")) as server, Transport() as transport:
        call = Cancellation()
        cas = HttpCas(server.url, transport=transport).under(call)

        def run() -> None:
            try:
                work(cas)
            except XetError as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.requests and time.monotonic() < deadline:
            time.sleep(0.005)
        call.cancel()
        thread.join(20)
        assert not thread.is_alive()
        assert [type(error) for error in errors] == [InterruptedCallError]


def test_a_client_closes_what_it_opened_and_nothing_else() -> None:
    with Scripted(lambda _: reply(200, FOUND.to_v2_json())) as server, Transport() as transport:
        for cas in (HttpCas(server.url), HttpCas(server.url, transport=transport)):
            cas.reconstruct(FILE)
            cas.under(Cancellation()).close()
            cas.reconstruct(FILE)
            cas.close()
        with pytest.raises(UsageError, match="closed"):
            own = HttpCas(server.url)
            own.close()
            own.reconstruct(FILE)
        HttpCas(server.url, transport=transport).reconstruct(FILE)


def test_a_client_shows_its_address_only() -> None:
    cas = HttpCas("https://host/path", tokens=FixedToken("s3cret"))
    assert repr(cas) == "HttpCas('https://host/path')"
