"""Putting again by the hash alone over HTTP: what may do it, what is told, and what is not."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.live import LiveServer, live_server
from tests.support.stored import error_of
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import ForbiddenError
from xetstore.interfaces import MANY_PUT_AGAIN
from xetstore.protocol.hashes import Hash
from xetstore.remote.http import HttpCas
from xetstore.remote.tokens import FixedToken
from xetstore.server.threads import MAX_SEARCHES, MAX_THREADS
from xetstore.testing.samples import make_sample, random_bytes, upload

OURS, THEIRS = (make_sample(random_bytes(20_000, seed)) for seed in range(2))
PATH = "/v1/files/again"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with EmbeddedCas.open(tmp_path / "store") as cas:
        upload(cas, OURS)
        upload(cas.in_namespace("theirs"), THEIRS)
        with live_server(cas) as running:
            yield running


def test_only_what_the_caller_has_is_told(server: LiveServer) -> None:
    """A file of another namespace is as one that is nowhere."""
    ours, theirs, nowhere = OURS.file.hash.digest, THEIRS.file.hash.digest, b"x" * 32
    token = server.token("write")
    for query in ("", "?dry_run=true", "?dry_run=false"):
        answer = server.request("POST", PATH + query, body=theirs + ours + nowhere + ours, token=token)
        assert (answer.status, answer.body) == (200, ours)
        assert answer.headers["Cache-Control"] == "private, no-store"
        assert server.request("POST", PATH + query, body=theirs, token=token).body == b""
        assert server.request("POST", PATH + query, body=nowhere, token=token).body == b""


@pytest.mark.parametrize(("scope", "expected"), [(None, 401), ("read", 403)])
def test_it_takes_a_token_for_writing(server: LiveServer, scope: str | None, expected: int) -> None:
    token = None if scope is None else server.token(scope)
    answer = server.request("POST", PATH, body=OURS.file.hash.digest, token=token)
    assert answer.status == expected
    assert answer.body != OURS.file.hash.digest


def test_a_token_for_reading_may_try(server: LiveServer) -> None:
    """As it may ask for files and chunks: `xet put --dry-run` takes no more."""
    ours, theirs = OURS.file.hash.digest, THEIRS.file.hash.digest
    answer = server.request("POST", f"{PATH}?dry_run=true", body=ours + theirs, token=server.token("read"))
    assert (answer.status, answer.body) == (200, ours)
    with closing(HttpCas(server.url, tokens=FixedToken(server.token("read")))) as cas:
        assert cas.put_again([OURS.file.hash, THEIRS.file.hash], dry_run=True) == {OURS.file.hash}
        with pytest.raises(ForbiddenError):
            cas.put_again([OURS.file.hash])


@pytest.mark.parametrize("body", [b"", b"x" * 31, b"x" * 33])
def test_what_are_no_hashes_is_refused(server: LiveServer, body: bytes) -> None:
    answer = server.request("POST", PATH, body=body, token=server.token("write"))
    assert error_of(answer) == (400, "usage")


def test_more_than_it_takes_is_refused(server: LiveServer) -> None:
    body = b"".join(number.to_bytes(32, "big") for number in range(MANY_PUT_AGAIN))
    token = server.token("write")
    assert server.request("POST", PATH, body=body, token=token).body == b""
    assert server.request("POST", PATH, body=body + b"x" * 32, token=token).status == 413


def test_a_dry_run_is_true_or_false(server: LiveServer) -> None:
    answer = server.request("POST", f"{PATH}?dry_run=maybe", body=b"x" * 32, token=server.token("write"))
    assert answer.status == 400


def test_dry_runs_keep_no_other_question_from_a_thread(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They look at objects, which may take long in a bucket, and a token for reading may ask for them."""
    begun, go_on = threading.Semaphore(0), threading.Event()
    put_again = EmbeddedCas.put_again

    def slow(cas: EmbeddedCas, files: Sequence[Hash], *, dry_run: bool = False) -> set[Hash]:
        begun.release()
        go_on.wait(60)
        return put_again(cas, files, dry_run=dry_run)

    monkeypatch.setattr(EmbeddedCas, "put_again", slow)
    ours, token = OURS.file.hash, server.token("read")
    with ThreadPoolExecutor(MAX_THREADS + 1) as pool:
        asked = f"{PATH}?dry_run=true"
        tries = [
            pool.submit(server.request, "POST", asked, body=ours.digest, token=token) for _ in range(MAX_THREADS + 1)
        ]
        try:
            assert all(begun.acquire(timeout=60) for _ in range(MAX_SEARCHES))
            assert server.request("HEAD", f"/v1/files/{ours}", token=token).status == 200
        finally:
            go_on.set()
        assert {(each.result().status, each.result().body) for each in tries} == {(200, ours.digest)}
