"""Xorbs whose objects are damaged: no byte is sent that is not as it was stored, and all else is served."""

from __future__ import annotations

import http.client
import random
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support import deployments
from tests.support.live import LiveServer, Response
from tests.support.objects import put_in_place, xorb_row
from tests.support.stored import download, exchange, get_range, urls_of
from xetstore.blobs.layers import forget
from xetstore.cas.service import EmbeddedCas
from xetstore.protocol.hashes import Hash
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.testing.samples import Sample, make_sample, random_bytes, upload

DEPLOYMENTS = deployments.BOTH

HURT = make_sample(random_bytes(3_000_000, 1), policy=CompressionPolicy.NONE)
OTHER = make_sample(random_bytes(200_000, 2))
ENDS = [0, *memoryview(HURT.xorb.ends).cast("Q")]


def flip(cas: EmbeddedCas, sample: Sample, place: int, bit: int = 0) -> bytes:
    """Flip a bit of the object of a xorb, past all caches; the whole object as it was."""
    key = xorb_row(cas, sample.xorb.hash).key
    whole = cas.blobs.get(key)
    changed = bytearray(whole)
    changed[place] ^= 1 << bit
    put_in_place(cas.blobs, key, bytes(changed))
    forget(cas.blobs, key)
    return whole


def signed(server: LiveServer) -> str:
    ((url, _),) = urls_of(server, server.token(), HURT.file.hash)
    return url


def broken_off(server: LiveServer, url: str, *ranges: tuple[int, int]) -> bytes:
    """The bytes of an answer that ends before its length; b"" for an error in place of it."""
    try:
        answer: Response = get_range(server, url, *ranges)
    except http.client.IncompleteRead as error:
        return error.partial
    assert (answer.status, answer.json()["code"]) == (500, "damaged")
    return b""


def metric(server: LiveServer, name: str) -> float:
    return server.site.metrics.registry.get_sample_value(name) or 0.0


def test_an_answer_breaks_off_before_the_first_wrong_byte(cas: EmbeddedCas, server: LiveServer) -> None:
    upload(cas, HURT)
    upload(cas, OTHER)
    url = signed(server)
    chance = random.Random(1)
    for place in (0, 7, 8, ENDS[3] - 1, 1_500_000, len(HURT.body) - 1):
        whole = flip(cas, HURT, place, chance.randrange(8))
        got = broken_off(server, url, (0, len(HURT.body)))
        hurt = next(start for start, end in pairwise(ENDS) if start <= place < end)
        assert HURT.body.startswith(got)
        assert len(got) <= hurt
        if place > 1_000_000:
            assert got, "what was well is sent"
        for start, end in random.Random(2).sample([*pairwise(ENDS)], 5):  # each chunk alone, and a part of it
            for part in ((start, end), (start + 10, end - 10)):
                if start == hurt:
                    assert broken_off(server, url, part) == b""
                else:
                    assert get_range(server, url, part).body == HURT.body[slice(*part)]
        with pytest.raises((http.client.IncompleteRead, AssertionError)):
            download(server, server.token(), HURT.file.hash)
        assert download(server, server.token(), OTHER.file.hash) == OTHER.data
        assert xorb_row(cas, HURT.xorb.hash).is_damaged
        put_in_place(cas.blobs, xorb_row(cas, HURT.xorb.hash).key, whole)
        assert download(server, server.token(), HURT.file.hash) == HURT.data
        cas.healing.mark(xorb_row(cas, HURT.xorb.hash), whole=True)


def test_of_several_ranges_those_before_the_damage_are_sent(cas: EmbeddedCas, server: LiveServer) -> None:
    upload(cas, HURT)
    url = signed(server)
    ranges = [(start, end) for start, end in pairwise(ENDS)][::2]
    flip(cas, HURT, ranges[-1][0] + 20)
    got = broken_off(server, url, *ranges)
    assert HURT.body[slice(*ranges[0])] in got
    assert HURT.body[ranges[-1][0] + 30 : ranges[-1][1]] not in got
    assert b"--" not in got[-4:], "it does not look whole"
    assert get_range(server, url, (0, len(HURT.body)), method="HEAD").status == 206
    assert get_range(server, url, (0, 10), headers={"If-None-Match": "*"}).status == 304


def test_damage_while_it_is_sent_breaks_the_answer_off(
    one_server: None, tmp_path: Path, cas: EmbeddedCas, server: LiveServer
) -> None:
    """Some of the body is on its way, and the client slow, when a bit flips on the disk further behind."""
    big = make_sample(random_bytes(40_000_000, 3), policy=CompressionPolicy.NONE)
    upload(cas, big)
    ((url, _),) = urls_of(server, server.token(), big.file.hash)
    place = len(big.body) - 100_000
    [path] = tmp_path.rglob(f"{big.xorb.hash}-*")
    with server.connect() as connection:
        head = f"GET {url.removeprefix(server.url)} HTTP/1.1", "Host: x", f"Range: bytes=0-{len(big.body) - 1}"
        answer = exchange(connection, head)
        assert answer.status == 206
        got = answer.read(1_000_000)
        with path.open("r+b") as file:
            file.seek(place)
            [byte] = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 1]))
        with pytest.raises(http.client.IncompleteRead) as caught:
            answer.read()
    got += caught.value.partial
    assert 10_000_000 < len(got) <= place
    assert big.body.startswith(got)


def test_damage_is_marked_told_and_healed_by_the_next_upload(
    one_server: None, cas: EmbeddedCas, server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    upload(cas, HURT)
    url = signed(server)
    server.site.soundness._max_age = 0
    assert server.request("GET", "/health/ready").json() == {"status": "ready", "reason": None}
    flip(cas, HURT, 5)
    for _ in range(3):
        assert broken_off(server, url, (0, len(HURT.body))) == b""
    lines = [record for record in caplog.records if record.name == "xetstore.cas"]
    assert [str(HURT.xorb.hash) in record.getMessage() for record in lines] == [True], "one line, however many reads"
    assert all(record.exc_info is None for record in caplog.records)
    assert metric(server, "xetstore_damaged_reads_total") == 3
    assert metric(server, "xetstore_damaged_xorbs") == 1
    ready = server.request("GET", "/health/ready")
    assert (ready.status, ready.json()["status"]) == (200, "degraded")
    assert server.request("GET", "/health/live").status == 200
    chunk = HURT.xorb.chunks.digest(0)
    eligible = server.request("GET", f"/v1/chunks/default-merkledb/{Hash(chunk)}", token=server.token())
    assert eligible.status == 404, "no answer offers it"
    upload(cas, HURT)
    assert download(server, server.token(), HURT.file.hash) == HURT.data
    assert get_range(server, url, (0, 10)).status == 403, "ranges of the damaged object are not those of the new one"
    assert metric(server, "xetstore_damaged_xorbs") == 0
    assert server.request("GET", "/health/ready").json()["status"] == "ready"
    found = server.request("GET", f"/v1/chunks/default-merkledb/{Hash(chunk)}", token=server.token())
    assert found.status == 200
