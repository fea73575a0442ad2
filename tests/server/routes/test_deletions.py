"""Deleting over HTTP: one file and lists of them, what may do it, what is told, and what nobody is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import LiveServer, Response, live_server
from tests.support.stored import error_of
from xetstore.cas.service import EmbeddedCas
from xetstore.server.routes.deletions import MAX_FILES
from xetstore.server.settings import ServerSettings
from xetstore.server.threads import MAX_SEARCHES, MAX_THREADS
from xetstore.testing.samples import make_sample, random_bytes, upload

SAMPLES = [make_sample(random_bytes(20_000, seed)) for seed in range(5)]
FILES = [sample.file.hash for sample in SAMPLES]
UNKNOWN = "ab" * 32


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with EmbeddedCas.open(tmp_path / "store") as cas:
        for sample in SAMPLES:
            upload(cas, sample)
        with live_server(cas) as running:
            yield running


@pytest.fixture
def token(server: LiveServer) -> str:
    return server.token("write")


def post(server: LiveServer, verb: str, body: object, token: str | None) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.request("POST", f"/v1/files/{verb}", body=data, token=token)


def named(files: Sequence[object]) -> dict[str, list[str]]:
    return {"files": [str(file) for file in files]}


def is_there(server: LiveServer, file: object, token: str) -> bool:
    status = server.request("HEAD", f"/v1/files/{file}", token=token).status
    assert status in (200, 404)
    return status == 200


def listed(server: LiveServer, token: str, **query: object) -> Any:
    text = "&".join(f"{name}={value}" for name, value in query.items())
    answer = server.request("GET", f"/v1/files/deleted?{text}", token=token)
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "private, no-store"
    return answer.json()


def test_one_file_goes_and_comes(server: LiveServer, token: str) -> None:
    path = f"/v1/files/{FILES[0]}"
    answer = server.request("DELETE", path, token=token)
    assert answer.status == 200
    done = answer.json()
    assert (done["hash"], done["size"]) == (str(FILES[0]), 20_000)
    assert done["until"] - done["deleted_at"] == pytest.approx(server.site.settings.undelete)
    assert not is_there(server, FILES[0], token)
    assert server.request("GET", f"/v2/reconstructions/{FILES[0]}", token=token).status == 404
    assert server.request("DELETE", path, token=token).json() == done, "once more changes nothing"
    assert listed(server, token) == {"files": [done], "next": None}
    for _ in range(2):
        answer = server.request("POST", f"{path}/undelete", token=token)
        assert (answer.status, answer.json()) == (200, {"hash": str(FILES[0]), "size": 20_000})
    assert is_there(server, FILES[0], token)
    assert listed(server, token) == {"files": [], "next": None}


def test_a_list_goes_and_comes(server: LiveServer, token: str) -> None:
    tried = post(server, "delete", named(FILES) | {"dry_run": True}, token)
    assert [file["hash"] for file in tried.json()["files"]] == list(map(str, FILES))
    assert all(is_there(server, file, token) for file in FILES)
    answer = post(server, "delete", named(FILES), token)
    assert [file["hash"] for file in answer.json()["files"]] == list(map(str, FILES))
    assert not any(is_there(server, file, token) for file in FILES)
    answer = post(server, "undelete", named(FILES[1:]), token)
    assert answer.json() == {"files": [{"hash": str(file), "size": 20_000} for file in FILES[1:]]}
    assert [is_there(server, file, token) for file in FILES] == [False, True, True, True, True]


def test_the_list_of_deleted_files_comes_in_pages(server: LiveServer, token: str) -> None:
    post(server, "delete", named(FILES), token)
    every = listed(server, token)
    assert every["next"] is None
    pages: list[Any] = []
    after: dict[str, str] = {}
    while True:
        page = listed(server, token, limit=2, **after)
        pages.append(page["files"])
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [file for page in pages for file in page] == every["files"]
    assert len(listed(server, token, limit=MAX_FILES * 1000)["files"]) == 5


@pytest.mark.parametrize("scope", [None, "read"])
def test_it_takes_a_token_for_writing(server: LiveServer, token: str, scope: str | None) -> None:
    expected = 401 if scope is None else 403
    weak = None if scope is None else server.token(scope)
    for method, path in (
        ("DELETE", f"/v1/files/{FILES[0]}"),
        ("POST", f"/v1/files/{FILES[0]}/undelete"),
        ("GET", "/v1/files/deleted"),
        ("GET", "/v1/files"),
        ("HEAD", "/v1/files"),
    ):
        assert server.request(method, path, token=weak).status == expected
    for verb in ("delete", "undelete"):
        assert post(server, verb, named(FILES), weak).status == expected
    assert is_there(server, FILES[0], token)


def test_a_file_of_others_is_as_none(server: LiveServer, token: str) -> None:
    """In status and words, whether it is there or was deleted there; and it stays."""
    other = server.token("write", namespace="other")
    server.request("DELETE", f"/v1/files/{FILES[1]}", token=token)
    for method, path in (("DELETE", "/v1/files/{}"), ("POST", "/v1/files/{}/undelete")):
        told = set()
        for file in (FILES[0], FILES[1], UNKNOWN):
            answer = server.request(method, path.format(file), token=other)
            told.add((error_of(answer), answer.json()["message"].replace(str(file), "?")))
        assert len(told) == 1
        assert {error for error, _ in told} == {(404, "not_found")}
    for verb in ("delete", "undelete"):
        assert post(server, verb, named([FILES[0]]), other).status == 404
    assert is_there(server, FILES[0], token)
    assert listed(server, other) == {"files": [], "next": None}


def test_of_a_list_with_a_file_that_is_not_there_none_goes(server: LiveServer, token: str) -> None:
    answer = post(server, "delete", named([*FILES, UNKNOWN]), token)
    assert error_of(answer) == (404, "not_found")
    assert UNKNOWN in answer.json()["message"]
    assert all(is_there(server, file, token) for file in FILES)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"files": []}',
        b'{"files": "ab"}',
        {"files": ["xyz"]},
        {"files": [UNKNOWN.upper()]},
        {"files": [UNKNOWN], "dryrun": True},
        {"files": [UNKNOWN], "dry_run": "yes"},
        b"[" * 100_000,
    ],
    ids=repr,
)
def test_a_body_that_is_none_is_refused(server: LiveServer, token: str, body: object) -> None:
    """A word that is not known may mean "do not"."""
    for verb in ("delete", "undelete"):
        assert post(server, verb, body, token).status == 400


def test_a_trial_is_no_part_of_giving_back(server: LiveServer, token: str) -> None:
    assert post(server, "undelete", named(FILES) | {"dry_run": True}, token).status == 400


def test_a_list_has_an_end(server: LiveServer, token: str) -> None:
    many = [f"{number:064x}" for number in range(MAX_FILES + 1)]
    assert post(server, "delete", named(many), token).status == 400
    assert post(server, "delete", named(many[1:]), token).status == 404
    assert post(server, "delete", named(many * 2), token).status == 413


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=-1", "limit=x", "limit=", "limit=1e3", "limit=999999999999"),
        *("after=", "after=1", f"after={UNKNOWN}", f"after=1-{UNKNOWN}", f"after=nan-{UNKNOWN}"),
        f"after={'9' * 400}.0-{UNKNOWN}",
    ],
)
def test_a_page_that_is_none_is_refused(server: LiveServer, token: str, query: str) -> None:
    assert server.request("GET", f"/v1/files/deleted?{query}", token=token).status == 400
    assert server.request("GET", f"/v1/files?{query}", token=token).status == 400


def test_the_files_of_a_namespace_are_listed_in_pages(server: LiveServer, token: str) -> None:
    seen: list[str] = []
    after = ""
    while True:
        page = server.request("GET", f"/v1/files?limit=2{after}", token=token).json()
        seen += [file["hash"] for file in page["files"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
        # What a page leads from may be deleted meanwhile, and leads on.
        server.request("DELETE", f"/v1/files/{page['next']}", token=token)
    assert seen == [str(file) for file in FILES]


def test_a_place_that_no_file_has_is_a_time(server: LiveServer, token: str) -> None:
    """It may have been collected since; and it tells nothing of files of others."""
    post(server, "delete", named(FILES), token)
    for file in (UNKNOWN, FILES[0]):
        assert len(listed(server, token, after=f"99999999999.5-{file}")["files"]) == 5
        assert listed(server, token, after=f"5.5-{file}")["files"] == []


def test_without_tokens_no_page_of_another_site_deletes(tmp_path: Path) -> None:
    with EmbeddedCas.open(tmp_path / "store") as cas:
        upload(cas, SAMPLES[0])
        with live_server(cas, auth="none") as server:
            path = f"/v1/files/{FILES[0]}"
            for origin in ("https://example.com", "null"):
                answer = server.request("DELETE", path, headers={"Origin": origin})
                assert answer.status == 403
            assert server.request("DELETE", path).status == 200


def test_the_settings_say_how_long_it_can_be_given_back(tmp_path: Path) -> None:
    assert ServerSettings().undelete == 7 * 24 * 3600
    with EmbeddedCas.open(tmp_path / "store") as cas:
        upload(cas, SAMPLES[0])
        with live_server(cas, undelete=60.0) as server:
            done = server.request("DELETE", f"/v1/files/{FILES[0]}", token=server.token("write")).json()
            assert done["until"] - done["deleted_at"] == pytest.approx(60)


def test_searches_by_first_digits_keep_none_from_a_thread(
    server: LiveServer, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search reads every row of the namespace; more of them than there are threads for other questions."""
    begun, go_on = threading.Semaphore(0), threading.Event()
    page = EmbeddedCas.files_page

    def slow(cas: EmbeddedCas, *asked: Any) -> Any:
        begun.release()
        go_on.wait(60)
        return page(cas, *asked)

    monkeypatch.setattr(EmbeddedCas, "files_page", slow)
    target = f"/v1/files?prefix={str(FILES[0])[:6]}"
    with ThreadPoolExecutor(MAX_THREADS + 1) as pool:
        searches = [pool.submit(server.request, "GET", target, token=token) for _ in range(MAX_THREADS + 1)]
        try:
            assert all(begun.acquire(timeout=60) for _ in range(MAX_SEARCHES))
            assert is_there(server, FILES[0], token)
        finally:
            go_on.set()
        answers = [search.result() for search in searches]
    assert {answer.status for answer in answers} == {200}
    assert [file["hash"] for file in answers[0].json()["files"]] == [str(FILES[0])]
