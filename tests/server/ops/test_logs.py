"""Logs: lines that a machine can trust to be lines, and no secret in any of them."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetstore.access.keys import KeyRing
from xetstore.access.signed_urls import UrlSigner
from xetstore.access.tokens import Scope, TokenAuthority
from xetstore.server.ops.logs import REPEATS, CountingHandler, JsonFormatter, TextFormatter, logging_to, redact

HOSTILE = 'a\nb\rc\x1b[2J\x00\u2028"d\\'
FORMATTERS = [TextFormatter(), JsonFormatter()]

log = logging.getLogger("xetstore.test")


@contextmanager
def captured(log_format: Literal["text", "json"] = "text", level: str = "info") -> Iterator[io.StringIO]:
    stream = io.StringIO()
    with logging_to(stream, log_format=log_format, level=level):
        yield stream


def record(message: str, *args: object, error: BaseException | None = None, **extra: Any) -> logging.LogRecord:
    made = log.makeRecord(log.name, logging.WARNING, __file__, 1, message, args, None, extra=extra)
    if error is not None:
        made.exc_info = (type(error), error, error.__traceback__)
    return made


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A token, a token without its end, the token of a user, and what a signature is worth."""
    keys = KeyRing.open(Path(tmp_path_factory.mktemp("keys"), "access"))
    token = TokenAuthority(keys).issue(scope=Scope.READ, namespace="default")
    query = UrlSigner(keys).sign("/v1/xorbs/default/ab", [(0, 9)], expires_at=2**31)
    signature = query.rpartition("=")[2]
    return [token, token[: len(token) // 2], "hf_" + "aBcD" * 8 + "aB", signature]


# The forms


def test_a_line_for_people_says_when_how_bad_who_and_what() -> None:
    line = TextFormatter().format(record("%d files", 3, request_id="r1", path="/a b", ms=1.23456789))
    stamp, level, logger, rest = line.split(maxsplit=3)
    assert (stamp[10], stamp[-1], level, logger) == ("T", "Z", "warning", "xetstore.test:")
    assert rest == '3 files request_id=r1 path="/a b" ms=1.23457'


def test_an_entry_for_programs_is_one_object() -> None:
    entry = json.loads(JsonFormatter().format(record("%d files", 3, path="/a", request_id="r1", ms=1.5, ok=True)))
    assert list(entry) == ["time", "level", "logger", "message", "request_id", "path", "ms", "ok"]
    assert (entry["message"], entry["request_id"], entry["ms"], entry["ok"]) == ("3 files", "r1", 1.5, True)


def test_fields_that_the_message_says_already_are_for_programs_only() -> None:
    made = record("GET / 200", fields={"method": "GET", "status": 200, "request_id": "r1"})
    assert TextFormatter().format(made).endswith("GET / 200")
    entry = json.loads(JsonFormatter().format(made))
    assert (entry["method"], entry["status"], entry["request_id"]) == ("GET", 200, "r1")
    assert "fields" not in entry


def test_no_extra_field_can_pose_as_what_the_entry_is() -> None:
    entry = json.loads(JsonFormatter().format(record("said", level="debug", time="never", fields={"logger": "other"})))
    assert (entry["level"], entry["logger"], entry["message"]) == ("warning", "xetstore.test", "said")
    assert entry["time"] != "never"


def test_a_traceback_is_in_the_entry() -> None:
    try:
        raise ValueError("what\nwas it")
    except ValueError as error:
        made = record("failed", error=error)
    first, *rest = TextFormatter().format(made).split("\n")
    assert first.endswith("failed")
    assert all(line.startswith("    ") for line in rest), "so none of it can look like an entry"
    assert "ValueError" in rest[-2]
    assert "ValueError: what\nwas it" in json.loads(JsonFormatter().format(made))["traceback"]


# Injection


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_nothing_in_a_field_can_start_a_new_line_or_steer_a_terminal(formatter: logging.Formatter) -> None:
    line = formatter.format(record("said %s", HOSTILE, request_id=HOSTILE, path=HOSTILE, fields={"agent": HOSTILE}))
    assert line.isprintable()
    assert "a\\nb" in line


@given(st.text(), st.text())
def test_any_text_gives_one_printable_line(message: str, field: str) -> None:
    made = record("%s", message, path=field)
    assert TextFormatter().format(made).isprintable()
    text = JsonFormatter().format(made)
    assert text.isprintable()
    assert text.isascii()


# Secrets


@pytest.mark.parametrize("formatter", FORMATTERS)
@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "Authorization: Bearer {}",
        "authorization=bearer%20{}",
        "{{'authorization': 'Bearer {}'}}",
        "(b'authorization', b'Bearer {}')",
        "POST /v1/shards?token={}&a=b",
        "X-Xet-Signature={}",
        "GET http://127.0.0.1/v1/xorbs/default/ab?X-Xet-Expires=9&X-Xet-Signature={} HTTP/1.1",
        "GET /v1/xorbs/default/ab?x-xet-signature={}&x=secret-too HTTP/1.1",
        "https://s3/b/xorbs/aa?X-Amz-Credential=secret-too&X-Amz-SignedHeaders=host%3Brange&X-Amz-Signature={}",
        "b'X-Xet-Signed-Range=bytes%3D0-8&X-Xet-Signature={}'",
    ],
)
def test_no_secret_is_in_any_part_of_an_entry(formatter: logging.Formatter, form: str, secrets: list[str]) -> None:
    for secret in secrets[:3] if "ignature" not in form else secrets:
        text = form.format(secret)
        try:
            raise ValueError(text)
        except ValueError as error:
            made = record("said %s", text, error=error, request_id=text, path=text, fields={"agent": text})
        line = formatter.format(made)
        assert secret not in line
        assert "secret-too" not in line
        assert "[redacted]" in line


def test_a_token_that_is_no_jwt_is_redacted_behind_bearer() -> None:
    assert redact("Bearer hunter2, and more") == "Bearer [redacted], and more"
    assert redact("basic aHVudGVyMg==") == "basic [redacted]"


def test_a_users_token_is_redacted_wherever_it_stands() -> None:
    token = "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"
    for text in ("{}", "GET /{} 404", 'agent="{}"', "x{}y", "token={}&a=b", "https://{}:@example.org"):
        assert "djwNN" not in redact(text.format(token)), text
    assert redact("hf_hub/2.4.0; hf_xet/1.8.0") == "hf_hub/2.4.0; hf_xet/1.8.0"


def test_a_password_in_a_url_is_redacted() -> None:
    said = "at postgresql://xet:hunter2@db.example/xet and https://:hunter2@s3"
    assert redact(said) == "at postgresql://xet:[redacted]@db.example/xet and https://:[redacted]@s3"


@pytest.mark.parametrize(
    "text",
    [
        "GET /v1/reconstructions?file_id=48a3213a086cad27&file_id=1 200",
        "48a3213a086cad271381aafe47232eb5df291a963cebbfec071972eff45eb422",
        "a bearer",
        "hf_xet/1.8.0; hf_hub/2.4.0; hf_hub_download",
        "X-Xet-Expires=9",
        "postgresql://xet@db.example:5432/xet, told to me@example.org",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_redacting_twice_is_redacting_once(secrets: list[str]) -> None:
    once = redact(
        f"Bearer {secrets[0]} /a?X-Xet-Signature={secrets[3]} {secrets[1]} {secrets[2]} s3://a:{secrets[0]}@b"
    )
    assert redact(once) == once


# Where it goes


def test_everything_goes_one_way_while_a_server_runs_and_nothing_after() -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    with captured("json") as stream:
        log.info("ours")
        logging.getLogger("uvicorn.error").warning("theirs\n")
        logging.getLogger("asyncio").error("the loop's")
    log.warning("later")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["ours", "theirs", "the loop's"]
    assert (root.handlers, root.level) == before


def test_others_are_heard_from_warnings_on_unless_everything_is() -> None:
    heard = {}
    for level in ("debug", "info", "error"):
        with captured(level=level) as stream:
            for logger in (log, logging.getLogger("uvicorn.error")):
                for each in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
                    logger.log(each, "said")
        heard[level] = len(stream.getvalue().splitlines())
    assert heard == {"debug": 8, "info": 5, "error": 2}


def test_logs_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to():
        log.info("said")
    assert capsys.readouterr().out == ""
    with logging_to(sys.stdout):
        log.info("said")
    assert "said" in capsys.readouterr().out


# What is said again and again


class Seconds:
    """A clock that stands still."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def counting(stream: io.StringIO, clock: Seconds, **options: int) -> CountingHandler:
    handler = CountingHandler(stream, most=2, seconds=10, clock=clock, **options)
    handler.setFormatter(TextFormatter())
    return handler


def test_warnings_of_one_kind_are_written_twice_and_then_counted() -> None:
    stream, clock = io.StringIO(), Seconds()
    handler = counting(stream, clock)
    for number in range(1000):
        handler.handle(record("request %d failed", number))
    assert [line.partition(": ")[2] for line in stream.getvalue().splitlines()] == [
        "request 0 failed",
        "request 1 failed",
    ]
    handler.handle(record("another"))
    clock.now += 10
    handler.handle(record("request %d failed", 1000))
    assert [line.partition(": ")[2] for line in stream.getvalue().splitlines()[2:]] == [
        "another",
        "998 more like this within 10 seconds: request %d failed",
        "request 1000 failed",
    ]


def test_the_count_comes_with_whatever_is_logged_next_and_at_the_end() -> None:
    stream, clock = io.StringIO(), Seconds()
    handler = counting(stream, clock)
    info = logging.LogRecord("xetstore.access", logging.INFO, __file__, 1, "a request", None, None)
    for _ in range(5):
        handler.handle(record("one"))
        handler.handle(info)
    assert stream.getvalue().count("a request") == 5, "only warnings and errors are counted"
    clock.now += 10
    handler.handle(info)
    assert stream.getvalue().count("3 more like this within 10 seconds: one") == 1
    for _ in range(3):
        handler.handle(record("one"))
    handler.close()
    assert stream.getvalue().splitlines()[-1].endswith("1 more like this within 10 seconds: one")


def test_no_more_kinds_are_remembered_than_the_bound() -> None:
    stream = io.StringIO()
    handler = counting(stream, Seconds(), max_kinds=3)
    for number in range(100):
        handler.handle(record(f"kind {number}"))
    assert len(handler._kinds) == 3
    assert len(stream.getvalue().splitlines()) == 100


def test_what_a_server_logs_goes_through_it() -> None:
    with captured() as stream:
        for _ in range(1000):
            log.warning("again\nand again")
    assert len(stream.getvalue().splitlines()) == REPEATS + 1
