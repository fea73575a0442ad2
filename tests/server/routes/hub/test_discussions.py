"""Discussions, access requests and files given to others, over HTTP: what clients read, and what strangers get."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.support.hubs import ServedHub, served_hub, uploaded
from xetstore.hub.names import Kind
from xetstore.hub.operations import AddFile
from xetstore.hub.repository import Repository

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedHub]:
    with served_hub(tmp_path_factory.mktemp("discussions") / "store") as running:
        yield running


def new(hub: ServedHub, **more: object) -> str:
    """A new model of Alice's; its path in the API."""
    name = f"model-{next(_numbers)}"
    assert hub.ask("POST", "/api/repos/create", {"name": name, **more}).status == 200
    return f"/api/models/Alice/{name}"


def opened(hub: ServedHub, path: str, user: str = "Alice") -> Repository:
    return hub.hub.repository(hub.actor(user), Kind.MODELS, path.removeprefix("/api/models/"))


def test_a_discussion_has_the_form_that_clients_read(hub: ServedHub) -> None:
    path = new(hub)
    made = hub.ask("POST", f"{path}/discussions", {"title": " A <b> ", "description": "<i>&"}, user="bob").json()
    assert (made["num"], made["url"]) == (1, f"{hub.server.url}/{path.removeprefix('/api/models/')}/discussions/1")
    told = hub.ask("GET", f"{path}/discussions/1?diff=1", user=None).json()
    assert {key: told[key] for key in ("num", "title", "status", "isPullRequest", "author", "repo")} == {
        "num": 1,
        "title": "A <b>",
        "status": "open",
        "isPullRequest": False,
        "author": {"name": "bob", "type": "user"},
        "repo": {"name": path.removeprefix("/api/models/"), "type": "model"},
    }
    [first] = told["events"]
    latest = first["data"]["latest"]
    assert (first["type"], latest["raw"], latest["html"]) == ("comment", "<i>&", "<p>&lt;i&gt;&amp;</p>")
    comment = f"{path}/discussions/1/comment"
    for named, status in (
        (first["id"], 200),
        (first["id"][:-1], 404),
        ("0" * 24, 404),
        ("x" * 24, 404),
        ("f" * 24, 404),
    ):
        assert hub.ask("POST", f"{comment}/{named}/edit", {"content": "new"}, user="bob").status == status
    for number in ("0", "2", "x", "1" * 30, "-1", "%20"):
        assert hub.ask("GET", f"{path}/discussions/{number}").status == 404
    for query in ("status=odd", "type=odd", "p=-1"):
        assert hub.ask("GET", f"{path}/discussions?{query}").status == 400
    assert hub.ask("GET", f"{path}/discussions?p=99999").json() == {"discussions": [], "count": 1, "start": 50 * 99999}
    for body, status in (({"title": ""}, 422), ({}, 400), ({"title": 1}, 400), ({"title": "x" * 256}, 422)):
        assert hub.ask("POST", f"{path}/discussions", body).status == status
    assert hub.ask("POST", comment, {"comment": "x" * (32 << 10)}).status == 200
    assert hub.ask("POST", comment, {"comment": "x" * (32 << 10) + "x"}).status == 422
    assert hub.ask("POST", comment, {"comment": "x" * (1 << 20)}).status == 413


def test_a_page_has_fifty_and_says_how_many_there_are(hub: ServedHub) -> None:
    path = new(hub)
    for number in range(51):
        hub.ask("POST", f"{path}/discussions", {"title": f"{number}"})
    first, second = (hub.ask("GET", f"{path}/discussions?p={page}&status=all").json() for page in (0, 1))
    assert [each["num"] for each in first["discussions"]] == [*range(51, 1, -1)]
    assert (first["count"], second["count"], first["start"], second["start"]) == (51, 51, 0, 50)
    assert [each["num"] for each in second["discussions"]] == [1]


def test_the_words_of_gated_files_are_for_those_who_read_them(hub: ServedHub) -> None:
    path = new(hub)
    hub.ask("POST", f"{path}/discussions", {"title": "change", "pullRequest": True})
    opened(hub, path).commit("refs/pr/1", [AddFile("a.txt", b"secret words")], "a secret title")
    assert b"secret words" in hub.ask("GET", f"{path}/discussions/1?diff=1", user="bob").body
    assert hub.ask("PUT", f"{path}/settings", {"gated": "manual"}).status == 200
    for user in ("bob", None):
        told = hub.ask("GET", f"{path}/discussions/1?diff=1", user=user)
        assert told.json()["changes"] == {"base": "refs/heads/main"}
        assert b"secret" not in told.body
    assert hub.ask("POST", f"{path}/discussions", {"title": "x"}, user="bob").headers["X-Error-Code"] == "GatedRepo"


def test_a_gated_repository_lists_who_asked_and_who_may(hub: ServedHub) -> None:
    path = new(hub)
    page = path.removeprefix("/api/models")
    assert hub.ask("POST", f"{page}/ask-access", {}, user="bob").status == 400, "it is not gated"
    assert hub.ask("POST", f"{path}/user-access-request/grant", {"user": "bob"}).status == 400
    hub.ask("PUT", f"{path}/settings", {"gated": "manual"})

    def listed() -> dict[str, list[str]]:
        return {
            status: [each["user"]["user"] for each in hub.ask("GET", f"{path}/user-access-request/{status}").json()]
            for status in ("pending", "accepted", "rejected")
        }

    def reads() -> int:
        return hub.ask("GET", f"{page}/resolve/main/.gitattributes", user="bob").status

    def handle(status: str, **named: str) -> int:
        return hub.ask("POST", f"{path}/user-access-request/handle", {"status": status, **named}).status

    assert (listed(), reads()) == ({"pending": [], "accepted": [], "rejected": []}, 403)
    assert hub.ask("POST", f"{path}/ask-access", user=None).status == 401
    assert handle("accepted", user="bob") == 404, "who has not asked is granted access, not accepted"
    for _ in range(2):
        assert hub.ask("POST", f"{page}/ask-access", body=b"company=x", user="bob").json() == {"status": "pending"}
    assert (listed()["pending"], reads()) == (["bob"], 403)
    [request] = hub.ask("GET", f"{path}/user-access-request/pending").json()
    assert handle("accepted", requestId=request["requestId"]) == 200
    assert (listed()["accepted"], reads()) == (["bob"], 200)
    assert handle("accepted", user="bob") == 400
    assert handle("pending", user="bob") == 200
    assert handle("rejected", user="bob", rejectionReason="no") == 200
    assert (listed(), reads()) == ({"pending": [], "accepted": [], "rejected": ["bob"]}, 403)
    assert hub.ask("POST", f"{path}/user-access-request/grant", {"user": "bob"}).status == 200
    assert hub.ask("POST", f"{path}/user-access-request/grant", {"user": "bob"}).status == 400
    assert hub.ask("POST", f"{path}/user-access-request/grant", {"user": "nobody"}).status == 404
    for odd in (
        {"status": "accepted"},
        {"status": "accepted", "user": "bob", "requestId": "1"},
        {"status": "odd", "user": "bob"},
    ):
        assert hub.ask("POST", f"{path}/user-access-request/handle", odd).status == 400
    for request_id in ("", "x", "f" * 24, "0" * 24, "-" + "0" * 23):
        assert handle("accepted", requestId=request_id) == 404
    for verb, body in (("grant", {"user": "bob"}), ("handle", {"status": "pending", "user": "bob"})):
        assert hub.ask("POST", f"{path}/user-access-request/{verb}", body, user="bob").status == 403
    assert hub.ask("GET", f"{path}/user-access-request/accepted", user="bob").status == 403
    assert hub.ask("GET", f"{path}/user-access-request/odd").status == 404


def test_an_automatic_gate_opens_for_who_asks(hub: ServedHub) -> None:
    path = new(hub)
    hub.ask("PUT", f"{path}/settings", {"gated": "auto"})
    assert hub.ask("POST", f"{path}/ask-access", {}, user="bob").json() == {"status": "accepted"}
    assert hub.ask("GET", f"{path.removeprefix('/api/models')}/raw/main/.gitattributes", user="bob").status == 200


def test_files_are_given_by_who_reads_them(hub: ServedHub) -> None:
    source, hidden, target = new(hub), new(hub, private=True), "/api/models/bob/target"
    hub.ask("POST", "/api/repos/create", {"name": "target"}, user="bob")
    given = [
        {"xetHash": str(uploaded(opened(hub, each), 900, seed)), "sha256": "7" * 64}
        for seed, each in enumerate((source, hidden))
    ]
    body = {"target": {"type": "model", "name": "bob/target"}, "files": given}
    answer = hub.ask("POST", f"{source}/lfs-files/duplicate", body, user="bob")
    assert answer.status == 200
    assert [each["sha256"] for each in answer.json()["failed"]] == ["7" * 64] * 2, "no such SHA-256"
    for where, user, status in ((hidden, "bob", 404), (source, None, 401), ("/api/models/Alice/missing", "bob", 404)):
        assert hub.ask("POST", f"{where}/lfs-files/duplicate", body, user=user).status == status
    body["target"] = {"type": "model", "name": hidden.removeprefix("/api/models/")}
    assert hub.ask("POST", f"{source}/lfs-files/duplicate", body, user="bob").status == 404
    for odd in ({"xetHash": "x", "sha256": "7" * 64}, {"xetHash": "7" * 64, "sha256": "F" * 64}, {"xetHash": "7" * 64}):
        odd_body = {"target": {"name": "bob/target"}, "files": [odd]}
        assert hub.ask("POST", f"{source}/lfs-files/duplicate", odd_body, user="bob").status == 400
    many = {"target": {"name": "bob/target"}, "files": [given[0]] * 1001}
    assert hub.ask("POST", f"{source}/lfs-files/duplicate", many, user="bob").status == 422
    assert hub.ask("GET", target, user="bob").status == 200


ROUTES = [
    ("GET", "discussions", None),
    ("POST", "discussions", {"title": "x"}),
    ("GET", "discussions/1", None),
    ("POST", "discussions/1/comment", {"comment": "x"}),
    ("POST", "discussions/1/comment/000000000001000000000001/edit", {"content": "x"}),
    ("POST", "discussions/1/comment/000000000001000000000001/hide", None),
    ("POST", "discussions/1/title", {"title": "x"}),
    ("POST", "discussions/1/status", {"status": "closed"}),
    ("POST", "discussions/1/merge", None),
    ("GET", "user-access-request/pending", None),
    ("POST", "user-access-request/grant", {"user": "bob"}),
    ("POST", "user-access-request/handle", {"user": "bob", "status": "accepted"}),
    ("POST", "ask-access", None),
    ("POST", "lfs-files/duplicate", {"target": {"name": "bob/x"}, "files": []}),
]


@pytest.mark.parametrize(("method", "rest", "body"), ROUTES)
def test_a_private_repository_is_as_if_missing(hub: ServedHub, method: str, rest: str, body: object) -> None:
    private = new(hub, private=True)
    hub.ask("POST", f"{private}/discussions", {"title": "hidden"})
    for user in ("bob", None):
        answers = []
        for path in (private, "/api/models/Alice/missing"):
            answer = hub.ask(method, f"{path}/{rest}", body, user=user, X_Request_Id="1")
            answers.append((answer.status, answer.headers["X-Error-Code"], answer.body))
        assert answers[0] == answers[1]
        assert answers[0][:2] == (401 if user is None else 404, "RepoNotFound")
    assert hub.ask("GET", f"{private}/discussions/1").json()["numEvents"] == 1
