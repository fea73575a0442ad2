"""Deleting over HTTP, where a server says something else than ours does, and more files than one call takes."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest

from tests.support.live import live_server
from tests.support.scripted import Scripted, reply, scripted
from xetstore.cas import EmbeddedCas
from xetstore.errors import ForbiddenError, NotFoundError, UnavailableError, UsageError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import Shard
from xetstore.remote.deletions import AT_A_TIME
from xetstore.remote.http import HttpCas
from xetstore.remote.tokens import FixedToken
from xetstore.remote.transport import Patience, Transport
from xetstore.testing import make_sample, random_bytes
from xetstore.testing.samples import entry_of

FILE = Hash(bytes(range(32)))
OTHER = Hash(bytes(range(1, 33)))
DELETED = {"hash": str(FILE), "size": 3, "deleted_at": 1.5, "until": 2.5}
SHORT = Patience(attempts=2, base_delay=0.01)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"files": []}',
        {"files": [DELETED | {"hash": str(OTHER)}]},
        {"files": [DELETED, DELETED]},
        {"files": [DELETED | {"hash": "../../etc"}]},
        {"files": [DELETED | {"size": -1}]},
        {"files": [DELETED | {"until": "soon"}]},
    ],
    ids=repr,
)
def test_an_answer_that_is_none_is_no_success(body: object) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with scripted(reply(200, data)) as server, Transport(patience=SHORT) as transport:
        cas = HttpCas(server.url, transport=transport)
        with pytest.raises(UnavailableError):
            cas.delete([FILE])
        if b"soon" in data:
            with pytest.raises(UnavailableError):
                [*cas.deleted()]


def test_a_list_that_never_ends_is_left() -> None:
    """A page that leads to itself."""
    data = json.dumps({"files": [DELETED], "next": "here"}).encode()
    with scripted(reply(200, data)) as server, Transport(patience=SHORT) as transport:
        assert len([*HttpCas(server.url, transport=transport).deleted()]) == 2
        assert server.requests[-1].target.endswith("?after=here")


@pytest.mark.parametrize("verb", ["deleted", "files"])
def test_pages_of_nothing_are_left(verb: str) -> None:
    """Each leads to another one."""
    data = (json.dumps({"files": [], "next": f"page {number}"}).encode() for number in range(1000))
    with Scripted(lambda _: reply(200, next(data))) as server, Transport(patience=SHORT) as transport:
        assert [*getattr(HttpCas(server.url, transport=transport), verb)()] == []
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_that_lists_no_files_is_told_of(status: int) -> None:
    with scripted(reply(status)) as server, Transport(patience=SHORT) as transport:
        with pytest.raises(UsageError, match="does not list its files") as caught:
            next(HttpCas(server.url, transport=transport).files())
        assert caught.value.hint


@pytest.mark.parametrize(
    "file", [{"hash": "../../etc", "size": 1}, {"hash": str(FILE), "size": -1}, {"hash": str(FILE)}]
)
def test_a_list_of_files_that_is_none_is_refused(file: dict[str, object]) -> None:
    body = json.dumps({"files": [file]}).encode()
    with (
        scripted(reply(200, body)) as server,
        Transport(patience=SHORT) as transport,
        pytest.raises(UnavailableError),
    ):
        next(HttpCas(server.url, transport=transport).files())


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (404, f"there is no file {FILE}", NotFoundError),
        (404, "there is nothing at this path", UsageError),
        (404, "", UsageError),
        (405, "this path takes HEAD", UsageError),
        (403, f"file {FILE} is part of models/alice/bert", ForbiddenError),
        (400, "the body is not JSON", UsageError),
    ],
)
def test_a_refusal_says_which_it_is(status: int, message: str, error: type[Exception]) -> None:
    data = json.dumps({"code": "x", "message": message}).encode()
    with scripted(reply(status, data)) as server, Transport(patience=SHORT) as transport:
        for verb in ("delete", "undelete"):
            with pytest.raises(error) as caught:
                getattr(HttpCas(server.url, transport=transport), verb)([FILE])
            assert type(caught.value) is error


def test_more_files_than_one_call_takes(tmp_path: Path) -> None:
    """All are looked at before the first goes."""
    source = make_sample(random_bytes(4_000_000, 1))
    chunks = source.xorb.chunks
    entries = [
        entry_of([(Term(source.xorb.hash, start, end, part.total_bytes), part)])
        for start, end in combinations(range(len(chunks) + 1), 2)
        for part in [chunks.slice(start, end)]
    ][: AT_A_TIME + 5]
    files = [entry.hash for entry in entries]
    assert len(set(files)) > AT_A_TIME
    with EmbeddedCas.open(tmp_path / "store") as store, live_server(store, auth="tokens") as server:
        cas = HttpCas(server.url, tokens=FixedToken(server.token("write")))
        cas.put_xorb(source.xorb.hash, source.body)
        cas.put_shard(Shard(tuple(entries)))
        with pytest.raises(NotFoundError):
            cas.delete([*files, OTHER])
        assert len([*store.files()]) == len(files)
        assert [done.hash for done in cas.delete(files)] == files
        assert {done.hash for done in cas.deleted()} == set(files)
        assert [record.hash for record in cas.undelete(files)] == files
        assert len([*store.files()]) == len(files)
        cas.close()
