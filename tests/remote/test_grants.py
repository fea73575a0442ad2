"""Xorbs go where the server's grants send them, and to the server itself wherever that does not work out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.support.scripted import Scripted, Seen, Step, raw, reply
from xetstore.cancellation import Cancellation
from xetstore.errors import ForbiddenError, IntegrityError, StorageFullError, UnavailableError, UsageError, XetError
from xetstore.events import Event, FellBack, Retrying
from xetstore.protocol.hashes import Hash
from xetstore.remote.http import HttpCas
from xetstore.remote.tokens import FixedToken
from xetstore.remote.transport import Patience, Transport

BODY = b"123456789"
XORB = Hash(bytes(range(32)))
QUICK = Patience(answer=5, idle=5, base_delay=0.001, max_delay=0.002, attempts=3)
POSTED = reply(200, b'{"was_inserted": true}')

GRANTS, PUT, COMMITS, POST = "POST /v1/xorb-grants", "PUT /bucket", "POST /v1/xorb-commits", "POST /v1/xorbs"


def grant(**changes: object) -> Callable[[Scripted], Step]:
    def step(server: Scripted) -> Step:
        told = {
            "id": "grant/1",
            "method": "PUT",
            "url": f"{server.url}/bucket/x?signature=s1",
            "headers": {"x-amz-thing": "1", "content-type": "application/octet-stream"},
            **changes,
        }
        return reply(201, json.dumps(told).encode())

    return step


class Client:
    """An HttpCas, and a server that takes steps in turn, for each kind of call its own."""

    def __init__(self, steps: dict[str, list[Step | Callable[[Scripted], Step]]]) -> None:
        self.steps = steps
        self.events: list[Event] = []
        self.server = Scripted(self._answer)
        self.transport = Transport(patience=QUICK)
        self.cas = HttpCas(
            self.server.url, tokens=FixedToken("s3cret"), transport=self.transport, emit=self.events.append
        )

    def _answer(self, seen: Seen) -> Step:
        for name, left in self.steps.items():
            if f"{seen.method} {seen.path}".startswith(name):
                step = left.pop(0) if len(left) > 1 else left[0]
                return step(self.server) if step.__qualname__.startswith("grant.") else step  # type: ignore[call-arg,return-value,arg-type]
        return reply(404)

    @property
    def calls(self) -> list[str]:
        """What was called, in order, without hashes."""
        return [f"{seen.method} {'/'.join(seen.path.split('/')[:3])}" for seen in self.server.requests]

    @property
    def fallbacks(self) -> list[tuple[str, str]]:
        return [(event.call, event.used) for event in self.events if isinstance(event, FellBack)]


Make = Callable[..., Client]


@pytest.fixture
def client() -> Iterator[Make]:
    opened: list[Client] = []

    def make(**steps: list[Step | Callable[[Scripted], Step]]) -> Client:
        names = {"grants": GRANTS, "put": PUT, "commits": COMMITS, "post": POST}
        opened.append(Client({names[name]: left for name, left in steps.items()}))
        return opened[-1]

    yield make
    for made in opened:
        made.transport.close()
        with made.server:
            pass


def test_a_xorb_goes_where_its_grant_says_and_is_committed(client: Make) -> None:
    made = client(grants=[grant()], put=[reply(200)], commits=[reply(200, b"{}")])
    assert made.cas.put_xorb(XORB, BODY)
    asked, put, commit = made.server.requests
    assert json.loads(asked.body) == {"length": 9, "checksum": {"algo": "crc64nvme", "value": str(0xAE8B14860A799888)}}
    assert (asked.path, asked.headers["content-type"]) == (
        f"/v1/xorb-grants/default/{XORB}",
        "application/json",
    )
    assert (put.target, put.body, put.headers["x-amz-thing"]) == ("/bucket/x?signature=s1", BODY, "1")
    assert "authorization" not in put.headers
    assert (commit.path, commit.body) == (f"/v1/xorb-commits/default/{XORB}/grant/grant%2F1", b"")
    for seen in (asked, commit):
        assert seen.headers["authorization"] == "Bearer s3cret"
    assert len({seen.headers["x-xet-session-id"] for seen in made.server.requests}) == 1
    assert made.events == []


def test_a_xorb_that_exists_is_not_sent(client: Make) -> None:
    made = client(grants=[reply(200, b"{}")])
    assert not made.cas.put_xorb(XORB, BODY)
    assert made.calls == ["POST /v1/xorb-grants"]


def test_a_server_without_grants_is_asked_once(client: Make) -> None:
    made = client(grants=[reply(404)], post=[POSTED, reply(200, b'{"was_inserted": false}')])
    assert made.cas.put_xorb(XORB, BODY)
    assert not made.cas.under(Cancellation()).put_xorb(XORB, BODY)
    assert made.calls == ["POST /v1/xorb-grants", "POST /v1/xorbs", "POST /v1/xorbs"]
    assert made.fallbacks == [(GRANTS, POST)]


def test_a_xorb_that_is_there_already_is_committed(client: Make) -> None:
    made = client(grants=[grant()], put=[reply(412)], commits=[reply(204)])
    assert not made.cas.put_xorb(XORB, BODY)
    assert made.calls == ["POST /v1/xorb-grants", "PUT /bucket/x", "POST /v1/xorb-commits"]


@pytest.mark.parametrize("status", [400, 403])
def test_a_grant_that_is_refused_is_replaced(client: Make, status: int) -> None:
    made = client(grants=[grant()], put=[reply(status), reply(200)], commits=[reply(200)])
    assert made.cas.put_xorb(XORB, BODY)
    assert made.calls == ["POST /v1/xorb-grants", "PUT /bucket/x"] * 2 + ["POST /v1/xorb-commits"]


def test_after_three_refused_grants_the_xorb_is_posted(client: Make) -> None:
    made = client(grants=[grant()], put=[reply(403)], post=[POSTED])
    assert made.cas.put_xorb(XORB, BODY)
    assert made.calls == ["POST /v1/xorb-grants", "PUT /bucket/x"] * 3 + ["POST /v1/xorbs"]
    assert made.fallbacks == [("PUT to the grant's URL", POST)]
    made.cas.put_xorb(XORB, BODY)
    assert made.calls[-7:] == ["POST /v1/xorb-grants", "PUT /bucket/x"] * 3 + ["POST /v1/xorbs"]


def test_a_commit_that_is_not_known_starts_again(client: Make) -> None:
    made = client(grants=[grant()], put=[reply(200)], commits=[reply(404), reply(200)])
    assert made.cas.put_xorb(XORB, BODY)
    assert made.calls == ["POST /v1/xorb-grants", "PUT /bucket/x", "POST /v1/xorb-commits"] * 2


def test_after_three_unknown_commits_the_xorb_is_posted(client: Make) -> None:
    made = client(grants=[grant()], put=[reply(200)], commits=[reply(404)], post=[POSTED])
    assert made.cas.put_xorb(XORB, BODY)
    assert made.calls[-1] == "POST /v1/xorbs"
    assert len(made.calls) == 10


def test_a_busy_bucket_is_tried_again_at_the_same_url(client: Make) -> None:
    made = client(grants=[grant()], put=[reply(503), reply(200)], commits=[reply(200)])
    assert made.cas.put_xorb(XORB, BODY)
    assert made.calls == ["POST /v1/xorb-grants", "PUT /bucket/x", "PUT /bucket/x", "POST /v1/xorb-commits"]
    assert [type(event) for event in made.events] == [Retrying]


@pytest.mark.parametrize("put", [reply(503), raw(), reply(507)])
def test_where_the_bucket_stays_out_of_reach_the_xorb_is_posted(client: Make, put: Step) -> None:
    made = client(grants=[grant()], put=[put], post=[POSTED])
    assert made.cas.put_xorb(XORB, BODY)
    assert made.calls[-1] == "POST /v1/xorbs"
    assert made.fallbacks == [("PUT to the grant's URL", POST)]


@pytest.mark.parametrize(
    ("step", "kind"), [(reply(501), UsageError), (reply(405), UsageError), (reply(503), UnavailableError)]
)
def test_grants_that_fail_otherwise_are_no_reason_to_post(client: Make, step: Step, kind: type[XetError]) -> None:
    made = client(grants=[step], post=[POSTED])
    with pytest.raises(kind):
        made.cas.put_xorb(XORB, BODY)
    assert "POST /v1/xorbs" not in made.calls


@pytest.mark.parametrize(
    "changes", [{"id": ""}, {"id": "."}, {"id": ".."}, {"method": "put me"}, {"url": 1}, {"headers": None}]
)
def test_a_grant_that_is_none_is_an_error(client: Make, changes: dict[str, object]) -> None:
    made = client(grants=[grant(**changes)], post=[POSTED])
    with pytest.raises(UnavailableError, match="not JSON of the right form") as caught:
        made.cas.put_xorb(XORB, BODY)
    assert caught.value.hint


def test_a_grant_cannot_change_how_the_body_is_framed(client: Make) -> None:
    headers = {"Content-Length": "3", "Transfer-Encoding": "chunked", "Host": "elsewhere", "x-kept": "1"}
    made = client(grants=[grant(headers=headers)], put=[reply(200)], commits=[reply(200)])
    assert made.cas.put_xorb(XORB, BODY)
    put = made.server.requests[1]
    assert (put.body, put.headers["content-length"], put.headers["x-kept"]) == (BODY, "9", "1")
    assert put.headers["host"].startswith("127.0.0.1")


def test_a_grant_to_plain_http_elsewhere_is_refused(client: Make) -> None:
    made = client(grants=[grant(url="http://bucket.example/x")])
    with pytest.raises(UsageError, match="plain http"):
        made.cas.put_xorb(XORB, BODY)


def test_no_secret_of_a_grant_is_told(client: Make) -> None:
    secret = "very-secret-header-value"
    step = reply(503, f"no {secret} for /x?signature=s1".encode())
    made = client(grants=[grant(headers={"x-amz-key": secret})], put=[step], post=[reply(503)])
    with pytest.raises(UnavailableError) as caught:
        made.cas.put_xorb(XORB, BODY)
    told = f"{made.events} {caught.value} {made.cas!r}"
    for hidden in (secret, "signature=s1", "s3cret"):
        assert hidden not in told


# Posting


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (reply(400, b'{"code": "usage", "message": "the body is empty"}'), IntegrityError),
        (reply(400, b"bad"), IntegrityError),
        (reply(403), ForbiddenError),
        (reply(507), StorageFullError),
        (reply(200, b"not json"), UnavailableError),
        (reply(200, b"{}"), UnavailableError),
    ],
)
def test_a_refused_xorb_is_told(client: Make, step: Step, kind: type[XetError]) -> None:
    made = client(post=[step])
    with pytest.raises(kind, match=str(XORB)) as caught:
        made.cas.put_xorb(XORB, BODY)
    assert caught.value.hint
