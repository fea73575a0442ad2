"""Every answer that is no success becomes an error of the right kind, which says what to do and shows no secret."""

from __future__ import annotations

import json

import pytest

from tests.support.scripted import head, raw, reply, scripted
from xetstore.cancellation import Cancellation
from xetstore.errors import (
    AccessDeniedError,
    DamagedError,
    ForbiddenError,
    FormatError,
    HashMismatchError,
    IntegrityError,
    MissingXorbError,
    NotFoundError,
    RangeError,
    RejectedShardError,
    StorageFullError,
    TimedOutError,
    TooLargeError,
    TooManyRequestsError,
    UnauthenticatedError,
    UnavailableError,
    UsageError,
    XetError,
)
from xetstore.remote.problems import problem_of
from xetstore.remote.transport import Transport

HASH = "ab" * 32
OTHER = "cd" * 32


def problem(
    status: int, body: bytes = b"", headers: dict[str, str] | None = None, **more: type[XetError] | tuple[str, ...]
) -> XetError:
    with scripted(reply(status, body, headers)) as server, Transport() as transport:
        answer = transport.request("GET", f"{server.url}/x?signature=s3cret", cancellation=Cancellation())
        return problem_of(answer, "file x at host", **more)  # type: ignore[arg-type]


def ours(code: str, message: str) -> bytes:
    return json.dumps({"code": code, "message": message, "request_id": "r1"}).encode()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UsageError),
        (401, UnauthenticatedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (405, UsageError),
        (407, AccessDeniedError),
        (408, TimedOutError),
        (410, NotFoundError),
        (413, TooLargeError),
        (416, RangeError),
        (418, UsageError),
        (429, TooManyRequestsError),
        (500, UnavailableError),
        (501, UsageError),
        (502, UnavailableError),
        (503, UnavailableError),
        (504, UnavailableError),
        (507, StorageFullError),
        (599, UnavailableError),
    ],
)
def test_a_status_has_its_error(status: int, kind: type[XetError]) -> None:
    error = problem(status, b"the words of the server", {"X-Request-Id": "abc"})
    assert type(error) is kind
    assert str(error) == f"file x at host: the words of the server (HTTP {status}, request abc)"
    assert error.hint


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("hash_mismatch", f"the xorb does not match its hash: expected {HASH}, got {OTHER}", HashMismatchError),
        ("hash_mismatch", "in other words", IntegrityError),
        ("format", "a chunk of 0 bytes (rule chunk.length, at byte 17)", FormatError),
        ("format", "in other words", IntegrityError),
        ("integrity", "wrong", IntegrityError),
        ("rejected_shard", "wrong", RejectedShardError),
        ("missing_xorb", f"the shard names xorb {HASH}, which is not stored", MissingXorbError),
        ("range", "past the end", RangeError),
        ("usage", "wrong", UsageError),
    ],
)
def test_a_refusal_is_told_apart_by_its_code(code: str, message: str, kind: type[XetError]) -> None:
    error = problem(400, ours(code, message))
    assert type(error) is kind
    assert error.hint or isinstance(error, FormatError | HashMismatchError)


def test_what_is_in_the_words_is_kept() -> None:
    mismatch = problem(400, ours("hash_mismatch", f"the xorb does not match its hash: expected {HASH}, got {OTHER}"))
    assert isinstance(mismatch, HashMismatchError)
    assert (mismatch.what, mismatch.expected, mismatch.actual) == ("the xorb", HASH, OTHER)
    broken = problem(400, ours("format", "a chunk of 0 bytes (rule chunk.length, at byte 17)"))
    assert isinstance(broken, FormatError)
    assert (broken.rule, broken.offset, broken.detail) == ("chunk.length", 17, "a chunk of 0 bytes")


@pytest.mark.parametrize(
    "message",
    [
        f"the shard names xorb {HASH}, which is not stored; upload every xorb before its shard",
        f"Xorb {HASH} not found",
        f"missing xorb: {HASH.upper()}",
        f"unknown xorb '{HASH}'",
    ],
)
def test_a_missing_xorb_is_named_whatever_the_words(message: str) -> None:
    error = problem(400, message.encode(), bad_request=RejectedShardError)
    assert isinstance(error, MissingXorbError)
    assert error.xorb == HASH


def test_a_refused_shard_is_a_refused_shard_whatever_its_code() -> None:
    for code in ("format", "usage", "hash_mismatch", "integrity", "something"):
        error = problem(400, ours(code, "wrong"), bad_request=RejectedShardError)
        assert type(error) is RejectedShardError
        assert error.hint


def test_damage_in_the_store_of_the_server_is_damage() -> None:
    assert type(problem(500, ours("damaged", "a xorb is damaged"))) is DamagedError


def test_a_redirect_tells_where_it_leads() -> None:
    error = problem(302, b"", {"Location": "https://elsewhere.example/x?token=s3cret"})
    assert type(error) is UsageError
    assert "https://elsewhere.example/x" in str(error)
    assert "s3cret" not in str(error)


def test_when_to_come_back_is_kept() -> None:
    assert problem(503, b"", {"Retry-After": "7"}).retry_after == 7
    assert problem(429).retry_after is None


def test_no_secret_is_in_a_message() -> None:
    body = b"bad token t0ps3cret for https://host/x?sig=abc123 and /y?z=abc123"
    error = problem(401, body, {"X-Request-Id": "id?q=abc123"}, secrets=("t0ps3cret",))
    assert str(error).startswith("file x at host: bad token *** for https://host/x?… and /y?…")
    assert "abc123" not in str(error)


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"<html><body>502 Bad Gateway</body></html>", {"Content-Type": "text/html"}, "bad gateway"),
        (b"<Error><Code>X</Code><Message>Request has expired</Message></Error>", {}, "Request has expired"),
        (b'{"error": "of another server"}', {}, "of another server"),
        (b'{"error": {"deep": 1}}', {}, '{"error": {"deep": 1}}'),
        (b"two\nlines\x1b[31m\x00", {}, "two lines·[31m·"),
        (b"", {}, "bad gateway"),
        (b"x" * 5000, {}, "x" * 399 + "…"),
        (bytes(1 << 20), {}, "bad gateway"),
        (b"\xff\xfe", {}, "\ufffd\ufffd"),
    ],
)
def test_the_words_are_made_fit_for_a_line(body: bytes, headers: dict[str, str], said: str) -> None:
    assert str(problem(502, body, headers)) == f"file x at host: {said} (HTTP 502)"


def test_an_answer_that_breaks_off_still_has_its_status() -> None:
    with scripted(raw(head(404, {"Content-Length": "100"}), b"short")) as server, Transport() as transport:
        answer = transport.request("GET", server.url, cancellation=Cancellation())
        assert type(problem_of(answer, "file x")) is NotFoundError
