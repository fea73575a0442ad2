"""Reconstructions that bring their bytes along: exactly those that their URLs give, to those who were given these."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.server.routes.test_damaged_xorbs import flip, metric
from tests.support import deployments
from tests.support.live import LiveServer, Response
from tests.support.objects import put_in_place, xorb_row
from tests.support.stored import NO_FILE, get_range, scattered
from xetstore.blobs.layers import forget
from xetstore.cas.service import EmbeddedCas
from xetstore.protocol import reference
from xetstore.protocol.binding import batch_question, ranges_question, reconstruction_question
from xetstore.protocol.hashes import Hash
from xetstore.protocol.inline import INLINE_TYPE, listed
from xetstore.protocol.reconstruction import BatchReconstruction, FetchRange, Reconstruction, ranges_from_json
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.testing.samples import make_sample, random_bytes, upload

DEPLOYMENTS = deployments.BOTH

BIG = make_sample(random_bytes(3_000_000, 1), policy=CompressionPolicy.NONE)
SMALL = make_sample(random_bytes(200_000, 2), before=random_bytes(150_000, 3))
MANY = scattered(20)
ENDS = [0, *memoryview(BIG.xorb.ends).cast("Q")]

MIB = 1 << 20


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ask(
    server: LiveServer,
    file: Hash,
    start: int,
    end: int,
    inline: int | str | None = 8 * MIB,
    *,
    token: str | None = None,
    method: str = "GET",
) -> Response:
    headers = {"Range": f"bytes={start}-{end - 1}", "X-Xet-Chunk-Hashes": "true"}
    headers |= {} if inline is None else {"X-Xet-Inline": str(inline)}
    return server.request(method, f"/v2/reconstructions/{file}", headers=headers, token=token or server.token())


def ask_for_ranges(server: LiveServer, spans: Sequence[tuple[Hash, int, int]], inline: int = 8 * MIB) -> Response:
    body = json.dumps({"ranges": [{"hash": str(file), "start": start, "end": end} for file, start, end in spans]})
    headers = {"X-Xet-Inline": str(inline), "Content-Type": "application/json"}
    return server.request("POST", "/v2/reconstructions", headers=headers, body=body.encode(), token=server.token())


def opened(answer: Response, question: str) -> tuple[bytes, int, bytes]:
    """The JSON of a frame, the number of its ranges, and their bytes."""
    assert (answer.status, answer.headers["Content-Type"]) == (200, INLINE_TYPE)
    assert answer.headers["Cache-Control"] == "private, no-store"
    return reference.read_inline(answer.body, question)


def by_url(server: LiveServer, fetches: Sequence[FetchRange]) -> bytes:
    """The bytes of ranges as their URLs give them."""
    return b"".join(
        get_range(server, fetch.url.partition("#")[0], (fetch.byte_start, fetch.byte_end)).body for fetch in fetches
    )


def without_urls(told: Reconstruction) -> Reconstruction:
    return told.with_urls(lambda *_: "", 64)


class TestOneRange:
    def test_it_is_the_json_as_ever_and_the_bytes_of_its_urls(self, cas: EmbeddedCas, server: LiveServer) -> None:
        for sample in (BIG, SMALL, MANY):
            upload(cas, sample)
        for sample, start, end in ((BIG, 0, 10), (BIG, 1_000_001, 2_000_001), (SMALL, 5, 199_000), (MANY, 0, 20_000)):
            file = sample.file.hash
            data, ranges, body = opened(ask(server, file, start, end), reconstruction_question(file, start, end - 1))
            told = Reconstruction.from_json(data)
            plain = Reconstruction.from_json(ask(server, file, start, end, None).body)
            assert without_urls(told) == without_urls(plain)
            fetches = list(listed(told.fetches))
            assert ranges == len(fetches)
            assert body == by_url(server, fetches)

    def test_more_than_was_asked_for_is_left_to_its_urls(self, cas: EmbeddedCas, server: LiveServer) -> None:
        upload(cas, BIG)
        for inline in (0, 1, 500_000):
            answer = ask(server, BIG.file.hash, 0, 1_000_000, inline)
            assert answer.headers["Content-Type"] == "application/json"
            assert Reconstruction.from_json(answer.body).fetches

    @pytest.mark.parametrize("inline", ["", "-1", "1e6", "true", "9" * 13, "0x10", "1, 2"])
    def test_what_is_no_number_asks_for_nothing(self, cas: EmbeddedCas, server: LiveServer, inline: str) -> None:
        upload(cas, BIG)
        assert ask(server, BIG.file.hash, 0, 10, inline).headers["Content-Type"] == "application/json"

    def test_who_does_not_ask_notices_nothing(self, cas: EmbeddedCas, server: LiveServer) -> None:
        upload(cas, BIG)
        answer = ask(server, BIG.file.hash, 0, 10, None)
        assert answer.headers["Content-Type"] == "application/json"
        head = ask(server, BIG.file.hash, 0, 10, method="HEAD")
        assert (head.status, head.headers["Content-Type"], head.body) == (200, "application/json", b"")
        v1 = server.request(
            "GET",
            f"/v1/reconstructions/{BIG.file.hash}",
            headers={"X-Xet-Inline": "1000000", "Range": "bytes=0-9"},
            token=server.token(),
        )
        assert v1.headers["Content-Type"] == "application/json"

    def test_a_file_of_another_namespace_looks_as_if_it_were_missing(
        self, cas: EmbeddedCas, server: LiveServer
    ) -> None:
        upload(cas, BIG)
        other = server.token(namespace="other")
        hidden, missing = (ask(server, file, 0, 10, token=other) for file in (BIG.file.hash, Hash.parse(NO_FILE)))
        assert (hidden.status, missing.status) == (404, 404)
        assert hidden.json()["message"].replace(str(BIG.file.hash), NO_FILE) == missing.json()["message"]
        assert ask(server, BIG.file.hash, 0, 10, token="wrong").status == 401

    def test_a_range_past_the_end_is_416(self, cas: EmbeddedCas, server: LiveServer) -> None:
        upload(cas, BIG)
        assert ask(server, BIG.file.hash, 3_000_000, 3_000_001).status == 416

    def test_an_answer_breaks_off_before_the_first_wrong_byte(self, cas: EmbeddedCas, server: LiveServer) -> None:
        """The JSON is there, with the URL that says why."""
        upload(cas, BIG)
        question = reconstruction_question(BIG.file.hash, 0, 2_999_999)
        for place in (0, 8, ENDS[3] - 1, 1_500_000):
            whole = flip(cas, BIG, place)
            with pytest.raises(http.client.IncompleteRead) as caught:
                ask(server, BIG.file.hash, 0, 3_000_000)
            _, _, body = reference.read_inline(caught.value.partial, question)
            hurt = next(start for start, end in pairwise(ENDS) if start <= place < end)
            assert BIG.body.startswith(body)
            assert len(body) <= hurt
            key = xorb_row(cas, BIG.xorb.hash).key
            put_in_place(cas.blobs, key, whole)
            forget(cas.blobs, key)

    def test_it_is_counted_as_bytes_of_xorbs_and_logged(
        self, cas: EmbeddedCas, server: LiveServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        upload(cas, BIG)
        before = metric(server, "xetstore_xorb_served_bytes_total")
        caplog.set_level("INFO", "xetstore.access")
        answer = ask(server, BIG.file.hash, 0, 1_000_000)
        _, _, body = opened(answer, reconstruction_question(BIG.file.hash, 0, 999_999))
        eventually(lambda: metric(server, "xetstore_xorb_served_bytes_total") - before == len(body))
        eventually(lambda: any(f"out={len(answer.body)}" in record.getMessage() for record in caplog.records))

    def test_it_holds_a_part_of_the_budget_until_it_was_taken(self, cas: EmbeddedCas, server: LiveServer) -> None:
        """Two blocks at the most, however long it is; and nothing once the client has left."""
        upload(cas, BIG)
        parts = urlsplit(server.url)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect((parts.hostname, parts.port))
            head = (
                f"GET /v2/reconstructions/{BIG.file.hash} HTTP/1.1\r\nHost: localhost\r\n"
                f"X-Xet-Inline: {8 * MIB}\r\n"
                f"Authorization: Bearer {server.token()}\r\n\r\n"
            )
            sock.sendall(head.encode())
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
            eventually(lambda: 0 < server.site.limits.reading.used <= MIB)
        eventually(lambda: server.site.limits.reading.used == 0)


class TestSeveralFiles:
    def test_a_batch_brings_the_ranges_of_all_its_files(self, cas: EmbeddedCas, server: LiveServer) -> None:
        files = [upload(cas, sample) for sample in (SMALL, BIG, MANY)]
        path = "/v1/reconstructions?" + "&".join(f"file_id={file}" for file in files)
        token = server.token()
        answer = server.request("GET", path, headers={"X-Xet-Inline": str(8 * MIB)}, token=token)
        data, ranges, body = opened(answer, batch_question(files))
        fetches = list(listed(BatchReconstruction.from_json(data, files).fetches))
        assert ranges == len(fetches)
        assert body == by_url(server, fetches)
        # As many as fit, from the first on.
        most = sum(fetch.byte_end - fetch.byte_start for fetch in fetches) - 1
        answer = server.request("GET", path, headers={"X-Xet-Inline": str(most)}, token=token)
        _, ranges, body = opened(answer, batch_question(files))
        assert ranges == len(fetches) - 1
        assert body == by_url(server, fetches[:-1])


class TestSeveralRanges:
    def test_each_comes_with_its_bytes(self, cas: EmbeddedCas, server: LiveServer) -> None:
        for sample in (BIG, SMALL, MANY):
            upload(cas, sample)
        spans = [(BIG.file.hash, 5, 100_000), (SMALL.file.hash, 0, 10**9), (BIG.file.hash, 2_500_000, 2_500_001)]
        data, ranges, body = opened(ask_for_ranges(server, spans), ranges_question(spans))
        told = ranges_from_json(data, 3)
        alone = [Reconstruction.from_json(ask(server, *span, None).body) for span in spans]
        assert [without_urls(one) for one in told if one] == [without_urls(one) for one in alone]
        fetches = [fetch for one in told if one for fetch in listed(one.fetches)]
        assert ranges == len(fetches)
        assert body == by_url(server, fetches)

    def test_what_may_not_be_read_is_null_as_what_is_missing(self, cas: EmbeddedCas, server: LiveServer) -> None:
        upload(cas, BIG)
        upload(cas.in_namespace("other"), SMALL)
        spans = [
            (Hash.parse(NO_FILE), 0, 10),
            (SMALL.file.hash, 0, 10),
            (BIG.file.hash, 3_000_000, 3_000_010),
            (BIG.file.hash, 0, 10),
        ]
        data, _, _ = opened(ask_for_ranges(server, spans), ranges_question(spans))
        told = ranges_from_json(data, 4)
        assert [one is None for one in told] == [True, True, True, False]

    def test_what_makes_a_long_answer_is_null(self, cas: EmbeddedCas, server: LiveServer) -> None:
        many = scattered(60)
        upload(cas, many)
        spans = [(many.file.hash, 0, 60_000)] * 3
        data, _, _ = opened(ask_for_ranges(server, spans), ranges_question(spans))
        assert [one is None for one in ranges_from_json(data, 3)] == [False, True, True]

    def test_without_room_for_bytes_it_is_the_json_alone(self, cas: EmbeddedCas, server: LiveServer) -> None:
        upload(cas, BIG)
        answer = ask_for_ranges(server, [(BIG.file.hash, 0, 10)], 0)
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["X-Xet-Answers"]
        assert ranges_from_json(answer.body, 1)[0]

    @pytest.mark.parametrize(
        "body",
        [
            {},
            [],
            {"ranges": []},
            {"ranges": [{"hash": NO_FILE, "start": 0, "end": 1}] * 65},
            {"ranges": [{"hash": NO_FILE, "start": 1, "end": 1}]},
            {"ranges": [{"hash": NO_FILE, "start": -1, "end": 1}]},
            {"ranges": [{"hash": NO_FILE[1:], "start": 0, "end": 1}]},
            {"ranges": [{"hash": NO_FILE, "start": 0}]},
            {"ranges": [{"hash": NO_FILE, "start": 0, "end": 1e3}]},
        ],
    )
    def test_what_is_no_list_of_ranges_is_refused(self, server: LiveServer, body: Any) -> None:
        answer = server.request("POST", "/v2/reconstructions", body=json.dumps(body).encode(), token=server.token())
        assert (answer.status, answer.json()["code"]) == (400, "usage")

    def test_a_body_that_is_too_long_is_refused(self, server: LiveServer) -> None:
        answer = server.request("POST", "/v2/reconstructions", body=bytes(20_000), token=server.token())
        assert answer.status == 413

    def test_it_takes_a_token(self, server: LiveServer) -> None:
        assert server.request("POST", "/v2/reconstructions", body=b"{}").status == 401


def test_many_clients_at_once_get_their_own_bytes(cas: EmbeddedCas, server: LiveServer) -> None:
    upload(cas, BIG)
    wrong: list[int] = []

    def read(number: int) -> None:
        start = number * 100_000
        _, _, body = opened(
            ask(server, BIG.file.hash, start, start + 300_000),
            reconstruction_question(BIG.file.hash, start, start + 299_999),
        )
        if body not in BIG.body:
            wrong.append(number)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong
