"""Buckets over HTTP, as clients send it and as attackers would."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest

import xetstore
from tests.support.hubs import ServedHub, served_hub
from tests.support.live import Response
from xetstore.hub.names import Kind
from xetstore.hub.rights import Right
from xetstore.server.routes.hub.handling import LONG_BODY_BYTES
from xetstore.testing.samples import make_sample, random_bytes, upload

DATA = random_bytes(300_000, 3)
FILE = str(make_sample(DATA).file.hash)
EMPTY = "0" * 64
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedHub]:
    with served_hub(tmp_path_factory.mktemp("buckets") / "store") as running:
        yield running


@pytest.fixture
def bucket(hub: ServedHub) -> str:
    """A new public bucket of Alice's, in which DATA was uploaded; the path of its name in the API."""
    return new_bucket(hub)


def new_bucket(hub: ServedHub, *, private: bool = False, user: str = "Alice") -> str:
    path = f"/api/buckets/{user}/bucket-{next(_numbers)}"
    assert hub.ask("POST", path, {"private": private}, user=user).status == 200
    repository = hub.hub.repository(hub.actor(user), Kind.BUCKETS, path.removeprefix("/api/buckets/"), Right.WRITE)
    upload(repository.cas, make_sample(DATA))
    return path


def batch(hub: ServedHub, bucket: str, *operations: object, user: str | None = "Alice") -> Response:
    body = b"\n".join(json.dumps(operation).encode() for operation in operations)
    return hub.ask("POST", f"{bucket}/batch", user=user, body=body, Content_Type="application/x-ndjson")


def add(path: str, file: str = FILE, **more: object) -> dict[str, object]:
    return {"type": "addFile", "path": path, "xetHash": file, "mtime": 1_700_000_000_123, **more}


def copy(path: str, source: str, file: str = FILE, kind: str = "bucket") -> dict[str, object]:
    name = source.removeprefix("/api/buckets/")
    return {"type": "copyFile", "path": path, "xetHash": file, "sourceRepoType": kind, "sourceRepoId": name}


def tree(hub: ServedHub, bucket: str, rest: str = "") -> list[str]:
    answer = hub.ask("GET", f"{bucket}/tree{rest}")
    assert answer.status == 200, answer.body
    return [entry["path"] + "/" * (entry["type"] == "directory") for entry in answer.json()]


# --- The bucket -----------------------------------------------------------------------------------------


def test_a_bucket_is_made_told_changed_moved_and_deleted(hub: ServedHub) -> None:
    made = hub.ask("POST", "/api/buckets/me/first", {"visibility": "private", "region": "eu"})
    url = f"{hub.server.url}/buckets/Alice/first"
    assert (made.status, made.json()["url"], made.json()["name"]) == (200, url, "Alice/first")
    assert hub.ask("POST", "/api/buckets/Alice/other", {}, user="bob").status == 403
    assert hub.ask("POST", "/api/buckets/Alice/first", {}, user="bob").status == 403, "as for one that is not there"
    assert hub.ask("POST", "/api/buckets/Alice/first", {}, user=None).status == 401
    assert hub.ask("POST", "/api/buckets/Alice/fi--rst", {}).status == 400
    again = hub.ask("POST", "/api/buckets/alice/First", {})
    assert (again.status, again.json()["url"].lower()) == (409, url.lower())
    told = hub.ask("GET", "/api/buckets/Alice/first").json()
    assert (told["id"], told["private"], told["size"], told["totalFiles"]) == ("Alice/first", True, 0, 0)
    assert told["createdAt"].endswith("Z")
    assert hub.ask("PUT", "/api/buckets/Alice/first/settings", {"private": False}).status == 200
    assert hub.ask("GET", "/api/buckets/Alice/first", user=None).json()["private"] is False
    batch(hub, "/api/buckets/Alice/first", add("a", EMPTY))
    move = {"fromRepo": "Alice/first", "toRepo": "Alice/second", "type": "bucket"}
    assert hub.ask("POST", "/api/repos/move", move).status == 200
    assert tree(hub, "/api/buckets/Alice/second") == ["a"]
    former = hub.ask("GET", "/api/buckets/Alice/first/tree/a?recursive=true")
    assert former.status == 307
    assert former.headers["Location"] == "/api/buckets/Alice/second/tree/a?recursive=true"
    assert hub.ask("DELETE", "/api/buckets/Alice/second").status == 200
    assert hub.ask("GET", "/api/buckets/Alice/second").status == 404


@pytest.mark.parametrize(("method", "path"), [("GET", "first"), ("DELETE", "first"), ("GET", "first%2Fx")])
def test_a_name_without_a_namespace_is_no_bucket(hub: ServedHub, method: str, path: str) -> None:
    answer = hub.ask(method, f"/api/buckets/{path}")
    assert (answer.status, answer.headers["X-Error-Code"]) == (404, "RepoNotFound")


def test_buckets_are_listed_for_those_who_may_see_them(hub: ServedHub) -> None:
    ours = [new_bucket(hub, user="bob", private=private) for private in (False, True, False)]

    def listed(path: str, user: str | None) -> list[str]:
        names, url = [], f"/api/buckets/{path}"
        while url:
            answer = hub.ask("GET", url, user=user)
            assert answer.status == 200
            names += [f"/api/buckets/{told['id']}" for told in answer.json()]
            link = answer.headers.get("Link", "")
            assert not link or link.startswith(f"<{hub.server.url}/api/buckets/")
            url = link.partition("<")[2].partition(">")[0]
        return names

    assert listed("bob", "bob") == listed("me?limit=1", "bob") == ours[::-1]
    assert listed("bob", "Alice") == listed("BOB?limit=2", None) == [ours[2], ours[0]]
    assert listed(f"bob?search={ours[1].rpartition('-')[2]}", "bob") == [ours[1]]
    assert listed("bob?search=buckets", "bob") == [], "which is the kind of all"
    assert hub.ask("GET", "/api/buckets/me", user=None).status == 401
    assert hub.ask("GET", "/api/buckets/bob?cursor=x").status == 400
    for _ in range(2):  # a private namespace without public buckets is no secret: the account is there
        assert hub.ask("GET", "/api/buckets/nobody").status == 404


# --- Its files ------------------------------------------------------------------------------------------


def test_a_listing_is_files_alone_unless_one_level_is_asked_for(hub: ServedHub, bucket: str) -> None:
    names = ("a b/c", "logs.json", "logs/1", "logs/sub/2", "x#y?/z%")
    assert batch(hub, bucket, *(add(path) for path in names)).status == 200
    assert tree(hub, bucket) == tree(hub, bucket, "?recursive=true") == tree(hub, bucket, "?recursive=1") == list(names)
    assert tree(hub, bucket, "?recursive=false") == ["a b/", "logs.json", "logs/", "x#y?/"]
    for spelled in ("logs/sub", "logs%2Fsub", "logs/sub/", "logs%2Fsub%2F"):
        assert tree(hub, bucket, f"/{spelled}?recursive=false") == ["logs/sub/2"]
    assert tree(hub, bucket, "/logs") == ["logs.json", "logs/1", "logs/sub/2"]
    assert tree(hub, bucket, f"/{quote('x#y?/z', safe='')}") == ["x#y?/z%"]
    assert tree(hub, bucket, "/absent") == []
    page = hub.ask("GET", f"{bucket}/tree?limit=2")
    assert [entry["path"] for entry in page.json()] == ["a b/c", "logs.json"]
    link = page.headers["Link"]
    assert link.startswith(f"<{hub.server.url}{bucket}/tree?limit=2&cursor=")
    assert link.endswith('>; rel="next"')
    more = hub.ask("GET", link[1:].partition(">")[0])
    assert [entry["path"] for entry in more.json()] == ["logs/1", "logs/sub/2"]
    for odd in ("!", "AA==", "_" * 5000):
        assert hub.ask("GET", f"{bucket}/tree?cursor={odd}").status in (400, 422)


def test_a_file_is_told_as_it_was_put(hub: ServedHub, bucket: str) -> None:
    assert batch(hub, bucket, add("a", contentType="text/plain"), add("old", EMPTY, mtime=-1)).json() == {
        "success": True,
        "processed": 2,
        "succeeded": 2,
        "failed": [],
    }
    found = hub.ask("POST", f"{bucket}/paths-info", {"paths": ["old", "absent", "a", "../a"]}, user=None)
    [old, told] = found.json()
    assert old["mtime"] == "1969-12-31T23:59:59.999Z"
    assert told.pop("uploadedAt").endswith("Z")
    assert told == {
        "type": "file",
        "path": "a",
        "size": len(DATA),
        "xetHash": FILE,
        "mtime": "2023-11-14T22:13:20.123Z",
        "contentType": "text/plain",
    }
    info = hub.ask("GET", bucket).json()
    assert (info["size"], info["totalFiles"]) == (len(DATA), 2)
    assert hub.ask("POST", f"{bucket}/paths-info", {"paths": ["a"] * 1001}).status == 422
    assert hub.ask("POST", f"{bucket}/paths-info", {"paths": 1}).status == 400


def test_a_batch_tells_what_was_not_done(hub: ServedHub, bucket: str) -> None:
    bad = [
        add("../up"),
        add("/root"),
        add("a\\b"),
        add("half", "x" * 64),
        add("upper", FILE.upper() if FILE.upper() != FILE else "F" * 64),
        add("unknown", "7" * 64),
        add("far", mtime=10**18),
        add("infinite", mtime=1e300),
        copy("kind", bucket, kind="folder"),
        copy("gone", "Alice/gone"),
        copy("empty", bucket, EMPTY),
    ]
    some = batch(hub, bucket, *bad[:5], add("good"), {"type": "deleteFile", "path": "absent"}, *bad[5:])
    assert some.status == 200
    told = some.json()
    assert (told["success"], told["processed"], told["succeeded"]) == (False, len(bad) + 2, 2)
    assert sorted(failed["path"] for failed in told["failed"]) == sorted(str(each["path"]) for each in bad)
    assert all(failed["error"] for failed in told["failed"])
    assert tree(hub, bucket) == ["good"]
    none = batch(hub, bucket, *bad)
    assert (none.status, none.json()["succeeded"], len(none.json()["failed"])) == (422, 0, len(bad))
    assert batch(hub, bucket).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b'{"type":"renameFile","path":"a"}', 400),
        (b'{"type":"addFile","path":"a"}', 400),
        (b'{"type":"addFile","path":1,"xetHash":"a"}', 400),
        (b'{"type":"deleteFile","path":"\xff"}', 400),
        (b"[" * 100_000, 400),
        (b'\n\n{"type":"deleteFile","path":"a"}\r\n\n', 200),
        (b'{"type":"deleteFile","path":"a"}\n' * 1000, 200),
        (b'{"type":"deleteFile","path":"a"}\n' * 1001, 413),
        (b" " * (LONG_BODY_BYTES + 1), 413),
    ],
    ids=["cut", "unknown", "without", "number", "bytes", "deep", "blank", "1000", "1001", "oversize"],
)
def test_a_body_is_operations_or_refused(hub: ServedHub, bucket: str, body: bytes, status: int) -> None:
    assert hub.ask("POST", f"{bucket}/batch", body=body).status == status


def test_bytes_come_by_any_spelling_of_the_path(hub: ServedHub, bucket: str) -> None:
    batch(hub, bucket, add("a b/c.html", contentType="text/html"), add("empty", EMPTY))
    base = bucket.removeprefix("/api")
    for spelled in ("a%20b/c.html", "a%20b%2Fc.html"):
        url = f"{base}/resolve/{spelled}"
        head = hub.ask("HEAD", url, user=None)
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(DATA)))
        assert head.headers["X-Xet-Hash"] == head.headers["ETag"].strip('"') == FILE
        assert head.headers["X-Linked-Size"] == str(len(DATA))
        refresh, reconstruction = head.headers["Link"].split(", ")
        assert refresh == f'<{hub.server.url}{bucket}/xet-read-token>; rel="xet-auth"'
        assert reconstruction == f'<{hub.server.url}/cas/v1/reconstructions/{FILE}>; rel="xet-reconstruction-info"'
        assert hub.ask("GET", url, user=None).body == DATA
        part = hub.ask("GET", url, user=None, Range="bytes=1000-1999")
        assert (part.status, part.body) == (206, DATA[1000:2000])
        # What comes must be no page of this server's.
        assert (part.headers["Content-Type"], part.headers["X-Content-Type-Options"]) == ("text/html", "nosniff")
        assert part.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    nothing = hub.ask("GET", f"{base}/resolve/empty")
    assert (nothing.status, nothing.body, nothing.headers["X-Xet-Hash"]) == (200, b"", EMPTY)
    for absent in ("absent", "a%20b", "a%20b/c.html/d"):
        for method in ("GET", "HEAD"):
            answer = hub.ask(method, f"{base}/resolve/{absent}")
            assert (answer.status, answer.headers["X-Error-Code"]) == (404, "EntryNotFound")
    for odd in ("a%20b/%2e%2e/empty", "..", "%00"):
        assert hub.ask("GET", f"{base}/resolve/{odd}").status == 404


def test_tokens_read_or_write_this_bucket_alone(hub: ServedHub, bucket: str) -> None:
    read = hub.ask("GET", f"{bucket}/xet-read-token", user=None)
    write = hub.ask("GET", f"{bucket}/xet-write-token")
    assert read.json()["casUrl"] == read.headers["X-Xet-Cas-Url"] == f"{hub.server.url}/cas"
    sample = make_sample(random_bytes(5000, next(_numbers)))
    with xetstore.open(write.json()["casUrl"], token=write.json()["accessToken"]) as store:
        upload(store.cas, sample)
    assert batch(hub, bucket, add("new", str(sample.file.hash))).status == 200
    with xetstore.open(read.json()["casUrl"], token=read.json()["accessToken"]) as store:
        assert store.stat(sample.file.hash).size == 5000
        assert store.stat(FILE).size == len(DATA)
    for user, status in (("bob", 403), (None, 401)):
        assert hub.ask("GET", f"{bucket}/xet-write-token", user=user).status == status


# --- Others ---------------------------------------------------------------------------------------------

ROUTES = [
    ("GET", ""),
    ("DELETE", ""),
    ("PUT", "/settings"),
    ("GET", "/tree"),
    ("GET", "/tree/a"),
    ("POST", "/paths-info"),
    ("POST", "/batch"),
    ("GET", "/xet-read-token"),
    ("GET", "/xet-write-token"),
    ("GET", "/resolve/a"),
    ("HEAD", "/resolve/a"),
]


@pytest.mark.parametrize(("method", "rest"), ROUTES)
def test_a_private_bucket_is_as_if_missing(hub: ServedHub, method: str, rest: str) -> None:
    private = new_bucket(hub, private=True)
    batch(hub, private, add("a"))
    for user in ("bob", None):
        answers = []
        for path in (private, "/api/buckets/Alice/missing", "/api/buckets/nobody/missing"):
            where = path.removeprefix("/api") if "resolve" in rest else path
            answer = hub.ask(
                method, where + rest, {} if method in ("PUT", "POST") else None, user=user, X_Request_Id="1"
            )
            answers.append((answer.status, answer.headers["X-Error-Code"], answer.body.replace(path.encode(), b"")))
        assert answers == [answers[0]] * 3
        assert answers[0][:2] == (401 if user is None else 404, "RepoNotFound")


@pytest.mark.parametrize(("method", "rest"), [each for each in ROUTES if each[1] in ("/settings", "/batch", "")])
def test_who_may_read_changes_nothing(hub: ServedHub, bucket: str, method: str, rest: str) -> None:
    for user, status in (("bob", 403), (None, 401)):
        if method != "GET":
            assert hub.ask(method, bucket + rest, {} if rest else None, user=user).status == status
    assert hub.ask("GET", bucket).status == 200


def test_a_file_that_only_another_bucket_has_is_not_given(hub: ServedHub, bucket: str) -> None:
    private, ours = new_bucket(hub, private=True), "/api/buckets/bob/thief"
    hub.ask("POST", ours, {}, user="bob")
    batch(hub, private, add("secret"))
    attempts = [
        (add("x"), add("x", "7" * 64)),
        (copy("x", private), copy("x", "Alice/missing")),
        (copy("x", bucket, "7" * 64), copy("x", "Alice/missing", "7" * 64)),
    ]
    for tried, missing in attempts:
        errors = []
        for operation, file in ((tried, tried["xetHash"]), (missing, missing["xetHash"])):
            answer = batch(hub, ours, operation, user="bob")
            assert answer.status == 422
            errors.append(answer.json()["failed"][0]["error"].replace(str(file), ""))
        assert errors[0] == errors[1]
    assert tree(hub, ours) == []
    assert hub.ask("GET", f"{ours.removeprefix('/api')}/resolve/x", user="bob").status == 404
