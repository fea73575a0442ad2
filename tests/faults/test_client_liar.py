"""A server that lies about sizes, or makes much of little, fills neither disk nor memory, and is told apart early."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import xetstore
from tests.faults.test_client_memory import COMMAND
from tests.support.liar import file_name, liar
from tests.support.process import ROOT
from tests.support.scripted import Scripted, Seen, Step, reply
from xetstore.errors import FormatError, IntegrityError
from xetstore.protocol.reconstruction import Reconstruction, Term

CAP = 128 << 20


@pytest.fixture
def server() -> Iterator[Scripted]:
    with liar() as made:
        yield made


def xorb_calls(server: Scripted) -> int:
    return sum(seen.path == "/xorb" for seen in server.requests)


def test_a_size_that_was_told_before_is_not_exceeded(server: Scripted, tmp_path: Path) -> None:
    with (
        xetstore.open(server.url, cache=False) as store,
        pytest.raises(IntegrityError, match="of a file of 1000 bytes"),
    ):
        store.get(file_name(), tmp_path / "out", size=1000)
    assert list(tmp_path.iterdir()) == []
    assert xorb_calls(server) == 0


def test_a_size_that_the_hub_told_is_not_exceeded(
    server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hub(seen: Seen) -> Step:
        if "/resolve/" in seen.path:
            return reply(302, b"", {"X-Xet-Hash": str(file_name()), "X-Linked-Size": "1000", "Location": "https://x/y"})
        told = {"casUrl": server.url, "exp": 4_000_000_000, "accessToken": "t"}
        return reply(200, json.dumps(told).encode())

    with Scripted(hub) as front:
        monkeypatch.setenv("HF_ENDPOINT", front.url)
        store, file = xetstore.open_locator("hf://models/ns/name/file", token="hf_x", cache=False)
        with store:
            with pytest.raises(IntegrityError, match="of a file of 1000 bytes"):
                store.get(file, tmp_path / "out")
            with pytest.raises(IntegrityError, match="of a file of 1000 bytes"):
                list(store.get_many([("hf://models/ns/name/file", tmp_path / "out")]))
            with pytest.raises(IntegrityError, match="of a file of 1000 bytes"):
                list(store.iter_range(file))
    assert list(tmp_path.iterdir()) == []
    assert xorb_calls(server) == 0


def test_an_answer_of_too_many_chunks_is_refused(tmp_path: Path) -> None:
    """Each term claims 8,192 chunks, which are tiny: a kilobyte of JSON stands for millions of hashes."""

    def many(_: Seen, told: Reconstruction) -> Reconstruction:
        [fetch] = next(iter(told.fetches.values()))
        fetch = replace(fetch, chunk_end=8192, byte_end=9 * 8192)
        return replace(told, terms=(Term(fetch.xorb, 0, 8192, 8192),) * 300, fetches={fetch.xorb: (fetch,)})

    with liar(many) as server, xetstore.open(server.url, cache=False) as store:
        with pytest.raises(FormatError, match="2457600 chunks are said to make one part"):
            store.get(file_name(), tmp_path / "out")
        assert xorb_calls(server) == 0
    assert list(tmp_path.iterdir()) == []


def test_no_answer_takes_more_memory_than_is_allowed(tmp_path: Path) -> None:
    """A megabyte of gzip is a gigabyte of JSON."""
    term = b'{"hash":"%s","unpacked_length":1,"range":{"start":0,"end":1}},' % str(file_name()).encode()
    packed = gzip.compress(b'{"offset_into_first_range":0,"terms":[' + term * ((256 << 20) // len(term)))
    with Scripted(lambda _: reply(200, packed, {"Content-Encoding": "gzip"})) as server:
        command = [sys.executable, "-c", COMMAND, "--store", server.url, "get", str(file_name())]
        command += ["-o", str(tmp_path / "out"), "--max-memory", str(CAP), "--no-cache"]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert ended.returncode == 4, ended.stderr
    assert "longer than" in ended.stderr
    assert int(ended.stderr.splitlines()[-1]) < CAP
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_the_largest_answer_that_is_taken_fits_into_the_memory_that_is_allowed(tmp_path: Path) -> None:
    """Of as many terms and ranges as two megabytes can name, each a chunk of its own."""
    xorb = str(file_name())
    terms = [
        {"hash": xorb, "unpacked_length": 8192, "range": {"start": index, "end": index + 1}} for index in range(8000)
    ]

    def answer(seen: Seen) -> Step:
        if "/reconstructions/" not in seen.path:
            return reply(404)
        spans = (
            {"chunks": {"start": index, "end": index + 1}, "bytes": {"start": index * 8208, "end": index * 8208 + 8207}}
            for index in range(8000)
        )
        ranges = [{"url": f"{running.url}/xorb", "ranges": [span]} for span in spans]
        told = {"offset_into_first_range": 0, "terms": terms, "xorbs": {xorb: ranges}}
        return reply(200, json.dumps(told, separators=(",", ":")).encode())

    with Scripted(answer) as running:
        command = [sys.executable, "-c", COMMAND, "--store", running.url, "get", str(file_name())]
        command += ["-o", str(tmp_path / "out"), "--max-memory", str(CAP), "--no-cache"]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert ended.returncode == 3, ended.stderr
    assert "HTTP 404" in ended.stderr
    assert int(ended.stderr.splitlines()[-1]) < CAP
