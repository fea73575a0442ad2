"""HttpNames against Hubs that do what none should: wrong bytes, too many of them or too few, odd answers, redirects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.support.scripted import Scripted, Seen, Step, by_call, head, in_turn, raw, reply
from xetstore.errors import (
    ExistsError,
    FormatError,
    GatedError,
    HashMismatchError,
    OutdatedError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    UnprocessableError,
    XetError,
)
from xetstore.records import Change, NewBlob, NewPointer, Removal, RepoFile, RepositoryId
from xetstore.remote.hub.client import Hub
from xetstore.remote.hub.names import HttpNames
from xetstore.remote.retry import Patience
from xetstore.remote.transport import Transport
from xetstore.repositories.staging import blob_id

REPO = RepositoryId("models", "alice/bert")
COMMIT = "c" * 40
SECRET = "hf_mellon-1234"
DATA = b"small bytes"
FILE = RepoFile("folder/a b.txt", len(DATA), blob_id(DATA))


def names_of(url: str) -> HttpNames:
    patience = Patience(attempts=3, base_delay=0.01, max_delay=0.02)
    return HttpNames(Hub(endpoint=url, token=SECRET, transport=Transport(patience=patience)))


def told(body: object, status: int = 200, **headers: str) -> Step:
    return reply(status, json.dumps(body).encode(), headers)


def test_a_file_is_verified_by_its_id() -> None:
    for wrong in (b"small bytez", DATA + b"!", DATA[:-1], b""):
        answers = by_call({"GET /alice/bert/resolve": reply(200, wrong)})
        with Scripted(answers) as hub, pytest.raises(HashMismatchError):
            names_of(hub.url).read_many(REPO, COMMIT, [FILE])
    with Scripted(by_call({"GET /alice/bert/resolve": reply(200, DATA)})) as hub:
        assert names_of(hub.url).read_many(REPO, COMMIT, [FILE]) == [DATA]
        [seen] = hub.requests
        assert seen.target == f"/alice/bert/resolve/{COMMIT}/folder/a%20b.txt"
        assert seen.headers["authorization"] == f"Bearer {SECRET}"


def test_bytes_without_end_are_not_read_to_their_end() -> None:
    endless = raw(head(200, {"Content-Length": str(1 << 40)}), b"x" * (4 << 20), then="stall")
    with Scripted(by_call({"GET /alice/bert/resolve": endless})) as hub, pytest.raises(HashMismatchError):
        b"".join(bytes(part) for part in names_of(hub.url).read(REPO, COMMIT, FILE))


def test_what_is_cut_short_is_asked_for_again() -> None:
    cut = raw(head(200, {"Content-Length": str(len(DATA))}), DATA[:4], then="reset")
    with Scripted(in_turn(cut, reply(503), reply(200, DATA))) as hub:
        assert names_of(hub.url).read_many(REPO, COMMIT, [FILE]) == [DATA]
        assert len(hub.requests) == 3


def test_the_token_does_not_follow_a_redirect_to_elsewhere() -> None:
    with Scripted(lambda _: reply(200, DATA)) as elsewhere:
        with Scripted(by_call({"GET /alice": reply(302, headers={"Location": f"{elsewhere.url}/x"})})) as hub:
            assert names_of(hub.url).read_many(REPO, COMMIT, [FILE]) == [DATA]
        assert [seen.headers.get("authorization") for seen in elsewhere.requests] == [None]


def test_redirects_have_an_end() -> None:
    def around(seen: Seen) -> Step:
        return reply(307, headers={"Location": seen.target})

    with Scripted(around) as hub:
        with pytest.raises(XetError, match="redirects more than"):
            names_of(hub.url).read_many(REPO, COMMIT, [FILE])
        assert len(hub.requests) < 10


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "RepoNotFound", RepositoryNotFoundError),
        (404, "RepoNotFound", RepositoryNotFoundError),
        (404, "RevisionNotFound", RevisionNotFoundError),
        (403, "GatedRepo", GatedError),
        (409, "", ExistsError),
        (412, "", OutdatedError),
        (422, "", UnprocessableError),
    ],
)
def test_errors_are_those_of_a_store_here(status: int, code: str, kind: type[XetError]) -> None:
    headers = {"X-Error-Code": code} if code else {}
    with Scripted(lambda _: told({"error": "no"}, status, **headers)) as hub:
        names = names_of(hub.url)
        for call in (
            lambda: names.info(REPO),
            lambda: names.commit_at(REPO, "main"),
            lambda: list(names.entries(REPO, "main")),
            lambda: names.commit(REPO, "main", [Removal("x")], message="m"),
            lambda: names.create_tag(REPO, "v1", "main"),
        ):
            with pytest.raises(kind) as caught:
                call()
            assert SECRET not in str(caught.value)


ODD: list[Any] = [None, [], "text", 7, {}, {"sha": 5}, [1], {"files": 3}, {"branches": [1]}, {"id": ""}]


@pytest.mark.parametrize("odd", ODD)
def test_an_answer_of_no_known_shape_is_a_format_error(odd: object) -> None:
    with Scripted(lambda _: told(odd)) as hub:
        names = names_of(hub.url)
        calls: list[Callable[[], object]] = [
            lambda: names.commit_at(REPO, "main"),
            lambda: names.branches(REPO),
            lambda: names.commit(REPO, "main", [Removal("x")], message="m"),
            lambda: names.info(REPO),
        ]
        if odd != []:
            calls += [lambda: list(names.entries(REPO, "main"))]
        for call in calls:
            with pytest.raises(FormatError):
                call()


def test_the_lines_of_a_commit() -> None:
    with Scripted(lambda _: told({"commitOid": COMMIT, "success": True})) as hub:
        changes: list[Change] = [NewBlob("a", b"\xff\x00"), Removal("old"), NewPointer("b.bin", "d" * 64, 12)]
        made = names_of(hub.url).commit(REPO, "dev/x", changes, message="Title", description="More", parent="p" * 40)
        assert (made.oid, made.message) == (COMMIT, "Title\n\nMore")
        [seen] = hub.requests
        assert seen.target == "/api/models/alice/bert/commit/dev%2Fx"
        assert seen.headers["content-type"] == "application/x-ndjson"
        assert [json.loads(line) for line in seen.body.splitlines()] == [
            {"key": "header", "value": {"summary": "Title", "description": "More", "parentCommit": "p" * 40}},
            {"key": "deletedFile", "value": {"path": "old"}},
            {"key": "file", "value": {"path": "a", "content": "/wA=", "encoding": "base64"}},
            {"key": "lfsFile", "value": {"path": "b.bin", "algo": "sha256", "oid": "d" * 64, "size": 12}},
        ]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "a//b"])
def test_a_listing_that_leads_out_restores_nothing(path: str, tmp_path: Path) -> None:
    entry = {"type": "file", "path": path, "size": 1, "oid": "0" * 40}
    answers = by_call({"GET /api/models/alice/bert/revision": told({"sha": COMMIT}), "GET /api": told([entry])})
    with Scripted(answers) as hub, xetstore.open(hub.url, cache=False) as store, pytest.raises(FormatError):
        store.repo("alice/bert").download("main", tmp_path / "out")
    assert not (tmp_path / "out").exists()
