"""Reading xorbs: by a signed URL exactly what it was signed for, at the edge what the token's files are made of."""

from __future__ import annotations

import email.policy
import http.client
import re
import socket
import time
from collections.abc import Iterator
from email.parser import BytesParser
from email.utils import parsedate_to_datetime
from itertools import combinations
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest

from tests.support import deployments
from tests.support.live import PATIENCE_SECONDS, LiveServer, Response, live_server, open_sockets, until
from tests.support.stored import error_of, exchange, file_of, gaps, get_range, scattered, urls_of
from xetstore.cas.service import EmbeddedCas
from xetstore.server.http.direct import BodySocket
from xetstore.testing.clock import FakeClock
from xetstore.testing.samples import make_sample, random_bytes, upload

DEPLOYMENTS = deployments.BOTH

SAMPLE = scattered(5, chunk_bytes=20_000)
BIG = make_sample(random_bytes(30_000_000, 2))
BODY = SAMPLE.body
SIZE = len(BODY)
NAME = SAMPLE.xorb.hash
PATH = f"/v1/xorbs/default/{NAME}"
START = 1_800_000_000.5


@pytest.fixture(scope="module")
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, deployment: deployments.Deployment, clock: FakeClock
) -> Iterator[LiveServer]:
    with deployment.open(tmp_path_factory.mktemp("bytes")) as cas:
        upload(cas, SAMPLE)
        upload(cas, BIG)
        with deployment.serve(cas, clock=clock) as running:
            yield running


@pytest.fixture(autouse=True)
def _reset(clock: FakeClock) -> None:
    clock.advance(START - clock())


@pytest.fixture
def signed(server: LiveServer) -> tuple[str, list[tuple[int, int]]]:
    """A URL and the ranges it is for, which do not touch."""
    ((url, ranges),) = urls_of(server, server.token(), SAMPLE.file.hash)
    assert len(ranges) == 5
    return url, ranges


def object_of(url: str) -> str:
    """The name of the object that a URL leads to: the hash of a xorb and the generation."""
    return url.partition("?")[0].rpartition("/")[2]


def parts_of(answer: Response) -> list[tuple[str, bytes]]:
    """Content-Range and data of each part, as a parser of mail reads them."""
    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    message = BytesParser(policy=email.policy.HTTP).parsebytes(head + answer.body)
    assert message.get_content_type() == "multipart/byteranges"
    boundary = message.get_boundary()
    assert boundary is not None
    assert answer.body.endswith(f"\r\n--{boundary}--\r\n".encode())
    found = []
    for part in answer.body.split(f"--{boundary}".encode())[1:-1]:
        part_head, _, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in part_head.decode().split("\r\n"))
        assert fields["Content-Type"] == "application/octet-stream"
        found.append((fields["Content-Range"], data.removesuffix(b"\r\n")))
    return found


# --- What a URL gives -----------------------------------------------------------------------------------


def test_a_url_gives_each_range_it_was_signed_for(
    server: LiveServer, signed: tuple[str, list[tuple[int, int]]]
) -> None:
    url, ranges = signed
    for start, end in ranges:
        answer = get_range(server, url, (start, end))
        assert (answer.status, answer.body) == (206, BODY[start:end])
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{SIZE}"
        assert answer.headers["Content-Length"] == str(end - start)
        assert answer.headers["Content-Type"] == "application/octet-stream"


def test_a_url_gives_any_part_of_its_ranges(server: LiveServer, signed: tuple[str, list[tuple[int, int]]]) -> None:
    url, ranges = signed
    for start, end in ranges:
        for part in ((start, start + 1), (end - 1, end), (start + 5, end - 5)):
            answer = get_range(server, url, part)
            assert (answer.status, answer.body) == (206, BODY[part[0] : part[1]])


def test_a_url_gives_any_set_of_its_ranges_at_once(
    server: LiveServer, signed: tuple[str, list[tuple[int, int]]]
) -> None:
    url, ranges = signed
    sets = [*combinations(ranges, 2), tuple(ranges), tuple(reversed(ranges)), ((0, 1), (5, 9), (9, 10))]
    for wanted in sets:
        answer = get_range(server, url, *wanted)
        assert answer.status == 206
        assert "Content-Range" not in answer.headers
        assert parts_of(answer) == [(f"bytes {start}-{end - 1}/{SIZE}", BODY[start:end]) for start, end in wanted]


def test_every_answer_of_several_parts_has_a_boundary_of_its_own(
    server: LiveServer, signed: tuple[str, list[tuple[int, int]]]
) -> None:
    url, ranges = signed
    types = {get_range(server, url, *ranges[:2]).headers["Content-Type"] for _ in range(5)}
    assert len(types) == 5
    assert all(re.fullmatch(r"multipart/byteranges; boundary=[0-9a-f]{32}", value) for value in types)


def test_whole_xorbs_of_many_blocks_arrive_unchanged(server: LiveServer) -> None:
    ((url, ranges),) = urls_of(server, server.token(), BIG.file.hash)
    assert ranges == [(0, len(BIG.body))]
    assert get_range(server, url, (0, len(BIG.body))).body == BIG.body
    cut = [(0, 3_000_000), (3_000_001, 20_000_000), (20_000_007, len(BIG.body))]
    assert [data for _, data in parts_of(get_range(server, url, *cut))] == [BIG.body[a:b] for a, b in cut]


def test_a_range_is_cut_off_at_the_end_of_the_xorb(server: LiveServer) -> None:
    ((url, _),) = urls_of(server, server.token(), BIG.file.hash)
    for value in (f"bytes=29999000-{10**15}", "bytes=29999000-", f"bytes=-{len(BIG.body) - 29999000}"):
        answer = server.request("GET", url, headers={"Range": value})
        assert (answer.status, answer.body) == (206, BIG.body[29999000:])
        assert answer.headers["Content-Range"] == f"bytes 29999000-{len(BIG.body) - 1}/{len(BIG.body)}"


def test_of_several_ranges_those_past_the_end_are_left_out(
    server: LiveServer, signed: tuple[str, list[tuple[int, int]]]
) -> None:
    answer = server.request("GET", signed[0], headers={"Range": f"bytes={SIZE}-,0-9,{SIZE + 5}-{SIZE + 6}"})
    assert (answer.status, answer.body) == (206, BODY[:10])
    assert answer.headers["Content-Range"] == f"bytes 0-9/{SIZE}"


def test_a_url_may_be_used_again_and_at_once(server: LiveServer, signed: tuple[str, list[tuple[int, int]]]) -> None:
    url, ranges = signed
    path = url.removeprefix(server.url)
    with server.connect() as connection:
        for start, end in ranges * 3:
            head = [f"GET {path} HTTP/1.1", "Host: localhost", f"Range: bytes={start}-{end - 1}"]
            assert exchange(connection, head).read() == BODY[start:end]


def test_head_has_the_headers_of_get_and_no_body(server: LiveServer, signed: tuple[str, list[tuple[int, int]]]) -> None:
    url, ranges = signed
    for wanted in (ranges[:1], ranges[1:3]):
        get, head = (get_range(server, url, *wanted, method=method) for method in ("GET", "HEAD"))
        assert (head.status, head.body) == (206, b"")
        changing = {"date", "x-request-id"} | ({"content-type"} if len(wanted) > 1 else set())  # a new boundary
        get_headers, head_headers = (
            {name.lower(): value for name, value in answer.headers.items() if name.lower() not in changing}
            for answer in (get, head)
        )
        assert get_headers == head_headers


# --- Caching --------------------------------------------------------------------------------------------


def test_what_a_url_gives_may_be_kept_exactly_as_long_as_the_url_is_valid(
    server: LiveServer, clock: FakeClock, signed: tuple[str, list[tuple[int, int]]]
) -> None:
    url, ranges = signed
    expires_at = int(START) + 900
    for passed in (0, 1, 500, 398):
        clock.advance(passed)
        headers = get_range(server, url, ranges[0]).headers
        assert headers["Cache-Control"] == f"public, immutable, max-age={int(expires_at - clock())}"
        assert parsedate_to_datetime(headers["Expires"]).timestamp() == expires_at
        assert headers["ETag"] == f'"{object_of(url)}"'
        assert headers["Accept-Ranges"] == "bytes"
        assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("value", ['"{}"', 'W/"{}"', '"x", "{}"', '"x","{}","y"', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_has_it_already_is_told_so(
    server: LiveServer, signed: tuple[str, list[tuple[int, int]]], value: str, method: str
) -> None:
    url, ranges = signed
    headers = {"If-None-Match": value.format(object_of(url))}
    answer = get_range(server, url, ranges[0], method=method, headers=headers)
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["ETag"] == f'"{object_of(url)}"'
    assert answer.headers["Cache-Control"].startswith("public, immutable, max-age=")
    assert "Content-Range" not in answer.headers


@pytest.mark.parametrize("value", ['"x"', "", "{}", '"{}x"', '"', "x*"])
def test_who_has_another_version_is_sent_the_bytes(
    server: LiveServer, signed: tuple[str, list[tuple[int, int]]], value: str
) -> None:
    url, ranges = signed
    headers = {"If-None-Match": value.format(object_of(url))}
    assert get_range(server, url, ranges[0], headers=headers).status == 206


def test_a_range_of_another_version_is_not_given(server: LiveServer, signed: tuple[str, list[tuple[int, int]]]) -> None:
    url, ranges = signed
    assert get_range(server, url, ranges[0], headers={"If-Range": f'"{object_of(url)}"'}).status == 206
    for value in ('"x"', f'W/"{object_of(url)}"', "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert error_of(get_range(server, url, ranges[0], headers={"If-Range": value})) == (403, "forbidden")


def test_a_url_that_is_not_valid_does_not_tell_whether_the_client_is_up_to_date(
    server: LiveServer, signed: tuple[str, list[tuple[int, int]]]
) -> None:
    url, ranges = signed
    headers = {"If-None-Match": f'"{object_of(url)}"'}
    assert get_range(server, url + "0", ranges[0], headers=headers).status == 403
    assert get_range(server, url, gaps(ranges)[0], headers=headers).status == 403


# --- What a URL does not give ---------------------------------------------------------------------------


def test_nothing_outside_of_its_ranges(server: LiveServer, signed: tuple[str, list[tuple[int, int]]]) -> None:
    url, ranges = signed
    (start, end), *_ = ranges
    outside = [*gaps(ranges), (start, end + 1), (end - 1, end + 1), (end, end + 1), (0, SIZE)]
    for wanted in outside:
        assert error_of(get_range(server, url, wanted)) == (403, "forbidden")
    for wanted in gaps(ranges):
        assert error_of(get_range(server, url, ranges[0], wanted)) == (403, "forbidden")
    for value in ("bytes=0-", "bytes=-1", "bytes=-5000000", f"bytes=0-0,{ranges[0][1]}-"):
        assert error_of(server.request("GET", url, headers={"Range": value})) == (403, "forbidden")


@pytest.mark.parametrize("value", [None, "", "bytes", "bytes=", "bytes=5-4", "bytes=a-b", "items=0-1", "bytes=0-1,x"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_nothing_without_a_range(
    server: LiveServer, signed: tuple[str, list[tuple[int, int]]], method: str, value: str | None
) -> None:
    headers = {} if value is None else {"Range": value}
    answer = server.request(method, signed[0], headers=headers)
    assert answer.status == 403
    if method == "GET":
        assert error_of(answer) == (403, "forbidden")


def test_nothing_with_two_range_headers(server: LiveServer, signed: tuple[str, list[tuple[int, int]]]) -> None:
    path = signed[0].removeprefix(server.url)
    with server.connect() as connection:
        head = [f"GET {path} HTTP/1.1", "Host: localhost", "Range: bytes=0-1", "Range: bytes=0-1"]
        assert exchange(connection, head).status == 403


def test_a_range_past_the_end_is_416_and_says_where_the_end_is(
    server: LiveServer, signed: tuple[str, list[tuple[int, int]]]
) -> None:
    for value in (f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 9}", "bytes=-0", f"bytes={10**30}-"):
        answer = server.request("GET", signed[0], headers={"Range": value})
        assert error_of(answer) == (416, "range")
        assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


def test_one_request_cannot_ask_for_the_same_bytes_again_and_again(server: LiveServer) -> None:
    ((url, _),) = urls_of(server, server.token(), BIG.file.hash)
    answer = server.request("GET", url, headers={"Range": "bytes=" + ",".join(["0-"] * 1000)})
    assert error_of(answer) == (416, "range")


def test_nothing_once_it_has_expired(
    server: LiveServer, clock: FakeClock, signed: tuple[str, list[tuple[int, int]]]
) -> None:
    url, ranges = signed
    clock.advance(899)
    assert get_range(server, url, ranges[0]).status == 206
    clock.advance(0.5)
    for passed in (0, 1, 10**6):
        clock.advance(passed)
        answer = get_range(server, url, ranges[0])
        assert error_of(answer) == (403, "forbidden")
        assert "max-age" not in answer.headers["Cache-Control"]


def test_nothing_if_a_single_character_of_the_query_is_another(
    server: LiveServer, signed: tuple[str, list[tuple[int, int]]]
) -> None:
    url, ranges = signed
    path, _, query = url.partition("?")
    for at, char in enumerate(query):
        other = "B" if char != "B" else "A"
        changed = f"{path}?{query[:at]}{other}{query[at + 1 :]}"
        # `%3D` and `%3d` are the same character: of those nothing is changed by a change of case.
        if parse_qsl(changed.partition("?")[2]) == parse_qsl(query):
            continue
        assert get_range(server, changed, ranges[0]).status == 403, changed
    for at in range(len(query)):
        assert get_range(server, f"{path}?{query[:at]}", ranges[0]).status == 403
        if query[at] not in "0123456789ABCDEFabcdef" or query[at - 2 : at].count("%") == 0:
            assert get_range(server, f"{path}?{query[:at]}{query[at + 1 :]}", ranges[0]).status == 403


def test_nothing_if_a_parameter_is_missing_or_there_twice_or_of_another_url(
    server: LiveServer, signed: tuple[str, list[tuple[int, int]]]
) -> None:
    url, ranges = signed
    path, _, query = url.partition("?")
    ((other, _),) = urls_of(server, server.token(), BIG.file.hash)
    theirs = dict(parse_qsl(other.partition("?")[2]))
    pairs = parse_qsl(query)
    changed = [[pair for pair in pairs if pair[0] != name] for name, _ in pairs]
    changed += [[*pairs, pair] for pair in pairs]
    changed += [[*pairs, ("x", "y")]]
    changed += [
        [(name, theirs[name] if name == replaced else value) for name, value in pairs]
        for replaced in ("X-Xet-Signed-Range", "X-Xet-Signature")
    ]
    changed += [[(name, "" if name == emptied else value) for name, value in pairs] for emptied, _ in pairs]
    for listed in changed:
        assert get_range(server, f"{path}?{urlencode(listed)}", ranges[0]).status == 403, listed
    assert get_range(server, f"{path}?{urlencode(pairs)}", ranges[0]).status == 206


def test_nothing_if_the_signed_range_or_the_expiry_is_made_wider(
    server: LiveServer, signed: tuple[str, list[tuple[int, int]]]
) -> None:
    url, _ = signed
    path, _, query = url.partition("?")
    pairs = dict(parse_qsl(query))
    wide = {**pairs, "X-Xet-Signed-Range": f"bytes=0-{SIZE - 1}"}
    late = {**pairs, "X-Xet-Expires": str(int(pairs["X-Xet-Expires"]) + 1)}
    for changed in (wide, late):
        assert error_of(get_range(server, f"{path}?{urlencode(changed)}", (0, 1))) == (403, "forbidden")


def test_nothing_of_another_object(server: LiveServer, signed: tuple[str, list[tuple[int, int]]]) -> None:
    name, query = object_of(signed[0]), signed[0].partition("?")[2]
    for path in (
        f"/v1/xorbs/default/{BIG.xorb.hash}",
        f"/v1/xorbs/default/{'ab' * 32}",
        f"/v1/xorbs/default/{NAME}",
        f"/v1/xorbs/other/{name}",
        f"/xorbs/default/{name}",
        f"/xorb/default/{name}",
    ):
        assert error_of(get_range(server, f"{path}?{query}", (0, 10))) == (403, "forbidden")


def test_nothing_is_uploaded_with_it(server: LiveServer, signed: tuple[str, list[tuple[int, int]]]) -> None:
    answer = server.request("POST", signed[0], body=BODY)
    assert error_of(answer) == (401, "unauthenticated")
    for method in ("PUT", "DELETE", "PATCH"):
        assert error_of(server.request(method, signed[0], body=BODY))[0] == 405


def test_a_url_signed_by_another_server_is_worth_nothing(server: LiveServer, clock: FakeClock) -> None:
    with EmbeddedCas.in_memory() as cas:
        upload(cas, SAMPLE)
        with live_server(cas, clock=clock) as other:
            ((url, ranges),) = urls_of(other, other.token(), SAMPLE.file.hash)
            assert get_range(other, url, ranges[0]).status == 206
            assert error_of(get_range(server, url.removeprefix(other.url), ranges[0])) == (403, "forbidden")


def test_a_token_is_no_signature(server: LiveServer, signed: tuple[str, list[tuple[int, int]]]) -> None:
    _, ranges = signed
    answer = get_range(server, PATH, ranges[0], token=server.token("admin"))
    assert error_of(answer) == (403, "forbidden")
    assert "signature is missing" in answer.json()["message"]
    assert error_of(get_range(server, PATH, ranges[0])) == (403, "forbidden")
    assert error_of(get_range(server, f"{PATH}?", ranges[0])) == (403, "forbidden")
    assert error_of(get_range(server, f"{PATH}?x=y", ranges[0])) == (403, "forbidden")


def test_a_refusal_does_not_repeat_the_signature(
    server: LiveServer, signed: tuple[str, list[tuple[int, int]]], caplog: pytest.LogCaptureFixture
) -> None:
    url, ranges = signed
    signature = dict(parse_qsl(url.partition("?")[2]))["X-Xet-Signature"]
    with caplog.at_level("DEBUG"):
        for wanted in (ranges[0], gaps(ranges)[0]):
            answer = get_range(server, url, wanted)
            assert signature.encode() not in answer.body
            assert signature not in str(answer.headers)
        assert get_range(server, url + "x", ranges[0]).status == 403
    # pytest listens in on loggers that are switched off, and uvicorn's is.
    logged = [record.getMessage() for record in caplog.records if record.name != "uvicorn.access"]
    assert logged
    assert not any(signature in line for line in logged)


def test_the_double_slashes_of_some_clients_are_no_other_path(
    server: LiveServer, signed: tuple[str, list[tuple[int, int]]]
) -> None:
    url, ranges = signed
    assert get_range(server, url.replace("/v1/", "//v1//"), ranges[0]).body == BODY[slice(*ranges[0])]


# --- The size, by token ---------------------------------------------------------------------------------


def test_the_size_of_a_xorb_is_told_to_those_who_have_it(server: LiveServer) -> None:
    answer = server.request("HEAD", PATH, token=server.token())
    assert (answer.status, answer.headers["Content-Length"]) == (200, str(SIZE))
    assert server.request("HEAD", f"/xorb/default/{NAME}", token=server.token()).status == 200


def test_the_size_of_a_xorb_is_told_to_nobody_else(server: LiveServer) -> None:
    assert server.request("HEAD", PATH).status == 401
    assert server.request("HEAD", PATH, token="x").status == 401
    assert server.request("HEAD", PATH, token=server.token("admin", "strangers")).status == 404
    assert server.request("HEAD", f"/v1/xorbs/default/{'ab' * 32}", token=server.token()).status == 404


# --- Damage and clients that leave ----------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[tuple[LiveServer, Path]]:
    """A server over a store, and where the object of BIG is, to be damaged before it is read."""
    with EmbeddedCas.open(tmp_path / "store") as cas:
        upload(cas, BIG)
        (stored,) = (tmp_path / "store" / "xorbs").rglob(f"{BIG.xorb.hash}-*")
        stored.chmod(0o600)
        with live_server(cas) as running:
            yield running, stored


def test_an_object_that_is_gone_is_an_error_before_the_first_byte(damaged: tuple[LiveServer, Path]) -> None:
    server, stored = damaged
    ((url, ranges),) = urls_of(server, server.token(), BIG.file.hash)
    stored.unlink()
    answer = get_range(server, url, *ranges)
    assert error_of(answer) == (500, "damaged")
    assert str(stored.parent).encode() not in answer.body


def test_an_object_that_became_shorter_is_an_error_before_the_first_byte(damaged: tuple[LiveServer, Path]) -> None:
    server, stored = damaged
    ((url, ranges),) = urls_of(server, server.token(), BIG.file.hash)
    with stored.open("r+b") as file:
        file.truncate(10_000_000)
    assert error_of(get_range(server, url, *ranges)) == (500, "damaged")


def slow_connection(server: LiveServer) -> socket.socket:
    """A connection that takes little at a time."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(PATIENCE_SECONDS)
    connection.connect(server.address)
    return connection


def request_all(server: LiveServer, connection: socket.socket) -> http.client.HTTPResponse:
    ((url, _),) = urls_of(server, server.token(), BIG.file.hash)
    path = url.removeprefix(server.url)
    return exchange(connection, [f"GET {path} HTTP/1.1", "Host: localhost", f"Range: bytes=0-{len(BIG.body) - 1}"])


def test_an_answer_behind_one_that_is_still_being_sent_comes_after_it(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int | None] = []
    open_ = BodySocket.open

    def noted(self: BodySocket) -> int | None:
        opened.append(open_(self))
        return opened[-1]

    monkeypatch.setattr(BodySocket, "open", noted)
    ((url, _),) = urls_of(server, server.token(), BIG.file.hash)
    path = url.removeprefix(server.url)
    wanted = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-{len(BIG.body) - 1}\r\n\r\n"
    until(lambda: server.connections == 0)
    with slow_connection(server) as connection, connection.makefile("rb") as answers:
        documents = 0
        while not server.unsent_bytes:
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
            documents += 1
            counted = server.site.metrics.registry.get_sample_value
            labels = {"route": "/openapi.json", "method": "GET", "status": "200"}
            until(lambda: counted("xetstore_http_requests_total", labels) == documents)  # noqa: B023  # called here
        connection.sendall(wanted.encode())
        until(lambda: bool(opened))
        for number in range(documents + 1):
            assert answers.readline().startswith(b"HTTP/1.1 20")
            body = answers.read(int(http.client.parse_headers(answers)["content-length"]))
            if number == documents:
                assert body == BIG.body
    assert opened == [None]


def test_damage_behind_the_first_block_breaks_the_answer_off(damaged: tuple[LiveServer, Path]) -> None:
    server, stored = damaged
    with slow_connection(server) as connection:
        answer = request_all(server, connection)
        assert answer.status == 206
        with stored.open("r+b") as file:
            file.truncate(20_000_000)
        with pytest.raises(http.client.IncompleteRead) as cut:
            answer.read()
        assert BIG.body.startswith(cut.value.partial)


def test_a_slow_client_gets_the_right_bytes(server: LiveServer) -> None:
    with slow_connection(server) as connection:
        answer = request_all(server, connection)
        received = bytearray()
        while part := answer.read(300_000):
            received += part
            time.sleep(0.001)
        assert received == BIG.body


def test_a_client_that_takes_nothing_is_cut_off(cas: EmbeddedCas) -> None:
    upload(cas, BIG)
    with live_server(cas, stall_seconds=0.2) as server, slow_connection(server) as connection:
        answer = request_all(server, connection)
        until(lambda: server.site.metrics.in_flight == 0)
        assert server.site.limits.reading.used == 0
        until(lambda: server.connections == 0)  # and what was not taken is not kept for the client either
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            answer.read()


def test_a_client_that_leaves_in_the_middle_costs_nothing_more(server: LiveServer) -> None:
    served = server.site.metrics.registry.get_sample_value
    before = served("xetstore_xorb_served_bytes_total") or 0
    with slow_connection(server) as connection:
        request_all(server, connection)
    until(lambda: server.site.metrics.in_flight == 0 and server.site.limits.reading.used == 0)
    assert (served("xetstore_xorb_served_bytes_total") or 0) - before < len(BIG.body)


def test_open_files_are_closed_whatever_happens(server: LiveServer) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("cannot tell which files are open")

    def open_objects() -> list[str]:
        return [str(path.resolve()) for path in descriptors.iterdir() if str(BIG.xorb.hash) in str(path.resolve())]

    ((url, _),) = urls_of(server, server.token(), BIG.file.hash)
    assert get_range(server, url, (0, 5_000_000)).status == 206
    assert get_range(server, url, (0, 5), (7, 9)).status == 206
    with slow_connection(server) as connection:
        request_all(server, connection)
    until(lambda: server.site.metrics.in_flight == 0)
    until(lambda: open_objects() == [])


@pytest.mark.usefixtures("one_server")
def test_no_socket_is_left_whatever_happens(cas: EmbeddedCas) -> None:
    upload(cas, BIG)
    with live_server(cas, stall_seconds=0.2) as server:
        ((url, _),) = urls_of(server, server.token(), BIG.file.hash)
        until(lambda: server.connections == 0)
        before = open_sockets()
        assert get_range(server, url, (0, 5_000_000)).status == 206
        with slow_connection(server) as connection:
            request_all(server, connection)  # and leave
        with slow_connection(server) as connection:
            request_all(server, connection)
            until(lambda: server.connections == 0)  # cut off
        until(lambda: server.connections == 0)
        until(lambda: open_sockets() == before)


def test_what_is_sent_is_counted(cas: EmbeddedCas) -> None:
    upload(cas, BIG)
    with live_server(cas) as server:
        ((url, _),) = urls_of(server, server.token(), BIG.file.hash)
        assert len(get_range(server, url, (0, 3_000_000)).body) == 3_000_000
        until(lambda: server.site.metrics.in_flight == 0)
        assert server.site.metrics.registry.get_sample_value("xetstore_xorb_served_bytes_total") == 3_000_000


# --- The edge -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, deployment: deployments.Deployment) -> Iterator[LiveServer]:
    with deployment.open(tmp_path_factory.mktemp("edge")) as cas:
        upload(cas, SAMPLE)
        upload(cas.in_namespace("others"), BIG)
        with deployment.serve(cas, xorb_urls="edge") as running:
            yield running


def test_at_the_edge_a_token_gives_what_its_files_are_made_of(edge: LiveServer) -> None:
    ((url, ranges),) = urls_of(edge, edge.token(), SAMPLE.file.hash)
    assert "?" not in url
    for start, end in ranges:
        answer = get_range(edge, url, (start, end), token=edge.token())
        assert (answer.status, answer.body) == (206, BODY[start:end])
    answer = get_range(edge, url, *ranges, token=edge.token())
    assert [data for _, data in parts_of(answer)] == [BODY[start:end] for start, end in ranges]
    headers = get_range(edge, url, ranges[0], token=edge.token()).headers
    assert headers["Cache-Control"] in [f"public, immutable, max-age={seconds}" for seconds in (899, 900)]
    assert headers["ETag"] == f'"{object_of(url)}"'


def test_at_the_edge_every_request_needs_a_token(edge: LiveServer) -> None:
    ((url, ranges),) = urls_of(edge, edge.token(), SAMPLE.file.hash)
    for token in (None, "x", edge.token() + "x"):
        assert error_of(get_range(edge, url, ranges[0], token=token)) == (401, "unauthenticated")


def test_at_the_edge_what_no_file_of_the_token_holds_looks_as_if_it_were_missing(edge: LiveServer) -> None:
    missing = get_range(edge, f"/v1/xorbs/default/{'ab' * 32}", (0, 1), token=edge.token())
    assert error_of(missing) == (404, "not_found")
    ((url, ranges),) = urls_of(edge, edge.token(), SAMPLE.file.hash)
    ((theirs, _),) = urls_of(edge, edge.token("admin", "others"), BIG.file.hash)
    between, *_ = gaps(ranges)
    for name, wanted, namespace in [
        (url, between, "default"),
        (url, (0, SIZE), "default"),
        (url, ranges[0], "strangers"),
        (theirs, (0, 1), "default"),
    ]:
        answer = get_range(edge, name, wanted, token=edge.token("admin", namespace))
        assert error_of(answer) == (404, "not_found")
        assert answer.json()["message"] == missing.json()["message"].replace("ab" * 32, object_of(name)[:64])


def test_at_the_edge_no_range_is_no_reading_either(edge: LiveServer) -> None:
    for value in (None, "bytes=x", "bytes=5-4"):
        headers = {} if value is None else {"Range": value}
        answer = edge.request("GET", PATH, headers=headers, token=edge.token())
        assert error_of(answer) == (403, "forbidden")


def test_at_the_edge_uploading_a_xorb_is_no_grant_to_read_it(edge: LiveServer) -> None:
    writer = edge.token("write", "writers")
    assert edge.request("POST", PATH, body=BODY, token=writer).json() == {"was_inserted": True}
    ((url, _),) = urls_of(edge, edge.token(), SAMPLE.file.hash)
    assert error_of(get_range(edge, url, (0, 10), token=writer)) == (404, "not_found")


def test_at_the_edge_a_file_is_a_grant_for_its_chunks_and_no_others(edge: LiveServer) -> None:
    reader = edge.token("write", "readers")
    assert edge.request("POST", PATH, body=BODY, token=reader).status == 200
    file, content, shard = file_of(SAMPLE, [(2, 4)])
    assert edge.request("POST", "/v1/shards", body=shard.serialize(), token=reader).status == 200
    ((url, (span,)),) = urls_of(edge, reader, file)
    assert len(get_range(edge, url, span, token=reader).body) == len(content) + 8 * 2
    assert error_of(get_range(edge, url, (span[0], span[1] + 1), token=reader)) == (404, "not_found")


# --- For a proxy that asks ------------------------------------------------------------------------------


def ask(
    server: LiveServer, uri: str | None, *, method: str | None = "GET", token: str | None = None, **more: str
) -> int:
    headers = {name.replace("_", "-"): value for name, value in more.items()}
    headers |= {"X-Original-URI": uri} if uri is not None else {}
    headers |= {"X-Original-Method": method} if method is not None else {}
    return server.request("GET", "/v1/auth/xorb", headers=headers, token=token).status


def test_a_proxy_is_told_what_a_signed_url_allows(
    server: LiveServer, clock: FakeClock, signed: tuple[str, list[tuple[int, int]]]
) -> None:
    url, ranges = signed
    uri = url.removeprefix(server.url)
    (start, end), *_ = ranges
    good = f"bytes={start}-{end - 1}"
    assert ask(server, uri, Range=good) == 204
    assert ask(server, uri, Range=good, method="HEAD") == 204
    assert ask(server, uri, Range=f"bytes={','.join(f'{a}-{b - 1}' for a, b in ranges)}") == 204
    refused = [
        {"uri": uri},
        {"uri": uri, "Range": f"bytes={start}-{end}"},
        {"uri": uri, "Range": "bytes=x"},
        {"uri": uri, "Range": f"bytes={SIZE}-"},
        {"uri": uri, "Range": good, "method": "POST"},
        {"uri": uri, "Range": good, "method": "get"},
        {"uri": uri, "Range": good, "method": None},
        {"uri": None, "Range": good},
        {"uri": "", "Range": good},
        {"uri": uri[:-1], "Range": good},
        {"uri": uri + "&x=y", "Range": good},
        {"uri": uri.partition("?")[0], "Range": good},
        {"uri": "http://localhost" + uri, "Range": good},
        {"uri": uri.replace(str(NAME), str(BIG.xorb.hash)), "Range": good},
        {"uri": uri.replace(str(NAME), quote(str(NAME)[0]) + "%" + str(NAME)[1:]), "Range": good},
        {"uri": uri.replace("/v1/xorbs", "/v1/auth/../xorbs"), "Range": good},
        {"uri": uri.replace("/v1/xorbs", "/v1/chunks"), "Range": good},
        {"uri": "/health/live", "Range": good},
        {"uri": "/v1/xorbs/default/x", "Range": good},
        {"uri": "\xff\xfe", "Range": good},
    ]
    for given in refused:
        assert ask(server, **given) == 403, given  # type: ignore[arg-type]
    clock.advance(10**6)
    assert ask(server, uri, Range=good) == 403


def test_a_proxy_may_serve_only_ranges_that_are_written_out_and_end_with_the_data(server: LiveServer) -> None:
    # It has the whole object, with the footer behind the data; it does not know where that starts.
    ((url, _),) = urls_of(server, server.token(), BIG.file.hash)
    uri, size = url.removeprefix(server.url), len(BIG.body)
    assert ask(server, uri, Range=f"bytes=0-{size - 1}") == 204
    for value in ("bytes=0-", "bytes=-1", f"bytes=0-{size}", f"bytes=0-5,{size - 1}-{size}", f"bytes=0-5,{size + 1}-"):
        assert ask(server, uri, Range=value) == 403, value


def test_a_proxy_is_told_what_a_token_allows_at_the_edge(edge: LiveServer) -> None:
    ((url, ranges),) = urls_of(edge, edge.token(), SAMPLE.file.hash)
    uri = url.removeprefix(edge.url)
    (start, end), *_ = ranges
    good = f"bytes={start}-{end - 1}"
    assert ask(edge, uri, Range=good, token=edge.token()) == 204
    assert ask(edge, uri, Range=good) == 401
    assert ask(edge, uri, Range=good, token="x") == 401
    assert ask(edge, uri, Range=good, token=edge.token("read", "strangers")) == 403
    assert ask(edge, uri, Range=f"bytes={start}-{end}", token=edge.token()) == 403
    assert ask(edge, uri, Range=good, method="POST", token=edge.token("write")) == 403
    assert ask(edge, uri.replace(str(NAME), "ab" * 32), Range=good, token=edge.token()) == 403
    assert ask(edge, uri, token=edge.token()) == 403


def test_a_proxy_may_ask_by_any_of_the_names_of_a_xorb(edge: LiveServer) -> None:
    ((url, _),) = urls_of(edge, edge.token(), SAMPLE.file.hash)
    for prefix in ("/xorbs/default", "/xorb/default", "//v1//xorbs/x"):
        assert ask(edge, f"{prefix}/{object_of(url)}", Range="bytes=0-9", token=edge.token()) == 204


def test_the_path_that_leads_to_the_server_is_part_of_the_address(cas: EmbeddedCas) -> None:
    upload(cas, SAMPLE)
    with live_server(cas, public_url="https://xet.example.org/cas") as server:
        ((url, ranges),) = urls_of(server, server.token(), SAMPLE.file.hash)
        parts = urlsplit(url)
        assert parts.path.startswith("/cas/v1/xorbs/default/")
        uri = f"{parts.path}?{parts.query}"
        assert get_range(server, uri, ranges[0]).status == 206
        assert get_range(server, uri.removeprefix("/cas"), ranges[0]).status == 206
        assert ask(server, uri, Range=f"bytes={ranges[0][0]}-{ranges[0][1] - 1}") == 204
