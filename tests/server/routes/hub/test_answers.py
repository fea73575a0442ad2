"""Parts of answers: dates, links and file names."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from starlette.requests import Request

from xetstore.errors import UsageError
from xetstore.server.routes.hub.answers import content_disposition, cursor_of, date_of, next_link, place_of


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1700000000.123, "2023-11-14T22:13:20.123Z"),
        (1700000000.9996, "2023-11-14T22:13:21.000Z"),
    ],
)
def test_dates_have_milliseconds_exactly(seconds: float, text: str) -> None:
    assert date_of(seconds) == text


@pytest.mark.parametrize("name", ["a/b.bin", 'x"y\r\nSet-Cookie: a', "\u202egnp.exe", "grün 100%.txt", "a\\b"])
def test_a_name_cannot_break_out_of_its_header(name: str) -> None:
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2
    assert "\\" not in header


def test_the_next_page_is_the_same_request_with_another_cursor() -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/models/a/b/tree/refs/pr/1",
        "raw_path": b"/api/models/a/b/tree/refs%2Fpr%2F1",
        "query_string": b"recursive=true&cursor=old&expand[]=x%26y",
        "headers": [],
    }
    assert next_link(Request(scope), "http://h", cursor="n w") == (
        '<http://h/api/models/a/b/tree/refs%2Fpr%2F1?recursive=true&expand%5B%5D=x%26y&cursor=n+w>; rel="next"'
    )


def test_a_cursor_is_a_place_that_a_database_has() -> None:
    assert place_of(cursor_of(1700000000.123, (1 << 63) - 1)) == (1700000000.123, (1 << 63) - 1)
    assert place_of("") is None
    forged = ["x", *(urlsafe_b64encode(text).decode() for text in (b"[1, %d]" % (1 << 63), b"[1]", b'["a", 1]', b"{}"))]
    for cursor in forged:
        with pytest.raises(UsageError):
            place_of(cursor)
