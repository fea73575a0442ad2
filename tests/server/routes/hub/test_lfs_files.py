"""Large files over HTTP: pages of them, their end, and what is answered for a file that was deleted for good."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.live import LiveServer, Response, live_server
from xetstore.cas import EmbeddedCas
from xetstore.hub.arrivals import arrive
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.operations import AddPointer
from xetstore.hub.repository import Repository
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub

FILES = [b"file %d" % number for number in range(5)]
BERT = "/api/models/alice/bert/lfs-files"


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("lfs-files")
    with EmbeddedCas.open(folder / "store") as cas, live_server(cas) as running:
        hub = hub_of(running)
        for name in ("alice", "bob"):
            hub.accounts.add_user(name)
        repository = hub.create(LOCAL, RepositoryName(Kind.MODELS, "alice", "bert"))
        for number, data in enumerate(FILES):
            repository.commit("main", [AddPointer(f"{number}.bin", arrive(repository.cas, data).sha256)], "add")
        yield running


def hub_of(server: LiveServer) -> EmbeddedHub:
    assert server.site.hub is not None
    return server.site.hub


def bert(server: LiveServer) -> Repository:
    return hub_of(server).repository(LOCAL, Kind.MODELS, "alice/bert")


def ask(server: LiveServer, method: str, path: str, body: object = None, by: str | None = "alice") -> Response:
    token = None if by is None else hub_of(server).accounts.issue(by)
    return server.request(method, path, body=b"" if body is None else json.dumps(body).encode(), token=token)


def oid(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def deletion(*files: bytes, rewrite: bool = True) -> dict[str, Any]:
    return {"deletions": {"sha": [oid(data) for data in files], "rewriteHistory": rewrite}}


def test_the_files_are_listed_by_page(server: LiveServer) -> None:
    found: list[dict[str, Any]] = []
    path = f"{BERT}?limit=2"
    pages = 0
    while path:
        answer = ask(server, "GET", path, by=None)
        found += answer.json()
        pages += 1
        path = answer.headers.get("link", "").partition(">")[0].removeprefix("<")
    assert pages == 3
    assert {each["fileOid"]: each["filename"] for each in found} == {
        oid(data): f"{number}.bin" for number, data in enumerate(FILES)
    }
    assert {"fileOid", "filename", "oid", "pushedAt", "ref", "size", "xetHash"} <= found[0].keys()
    assert {each["ref"] for each in found} == {"main"}


def test_a_file_that_is_deleted_is_missing_everywhere(server: LiveServer) -> None:
    before = bert(server).revision()
    assert ask(server, "POST", f"{BERT}/batch", deletion(FILES[0])).status == 200
    for revision in ("main", before.id):
        answer = ask(server, "GET", f"/alice/bert/resolve/{revision}/0.bin")
        assert (answer.status, answer.headers["x-error-code"]) == (404, "EntryNotFound")
    assert ask(server, "GET", "/alice/bert/resolve/main/1.bin").body == FILES[1]
    assert len(ask(server, "GET", BERT).json()) == 4
    listed = ask(server, "GET", f"/api/models/alice/bert/tree/{before.id}").json()
    [dangling] = [each for each in listed if each["path"] == "0.bin"]
    assert dangling["lfs"]["oid"] == oid(FILES[0])
    assert "xetHash" not in dangling


@pytest.mark.parametrize(
    ("by", "status"),
    [(None, 401), ("bob", 403)],
)
def test_files_are_deleted_by_those_who_may_write(server: LiveServer, by: str | None, status: int) -> None:
    assert ask(server, "POST", f"{BERT}/batch", deletion(FILES[0]), by).status == status
    assert len(ask(server, "GET", BERT).json()) == 5


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"deletions": {"sha": ["ab"]}}, 422),
        ({"deletions": {"sha": ["ab" * 32] * 1001}}, 413),
        ({"deletions": {"sha": "all"}}, 400),
        ({}, 400),
        ([], 400),
    ],
)
def test_a_deletion_that_cannot_be_is_refused(server: LiveServer, body: object, status: int) -> None:
    assert ask(server, "POST", f"{BERT}/batch", body).status == status


@pytest.mark.parametrize("query", ["cursor=x", "cursor=../..", "limit=x"])
def test_a_page_that_cannot_be_is_refused(server: LiveServer, query: str) -> None:
    assert ask(server, "GET", f"{BERT}?{query}").status == 400
