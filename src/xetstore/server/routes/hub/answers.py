"""Answers of the Hub's API: JSON as clients read it, links, dates, and the names that browsers save files under.

A key that has no value is absent, unless clients ask for it: they tell the two apart.
"""

from __future__ import annotations

import re
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
from starlette.responses import Response

from xetstore.errors import UsageError

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_FIELDS: Final = 1000
"""Fields of a query that the next page is asked for by."""

_ODD: Final = re.compile(r'[^ -~]|["\\%]')
_LARGEST: Final = (1 << 63) - 1
_TRUE: Final = frozenset({"true", "1", "yes", "on"})


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value as JSON. Answers depend on the caller and on the moment, so no cache keeps them."""
    return Response(
        msgspec.json.encode(value),
        status,
        {"Cache-Control": "private, no-store", **(headers or {})},
        media_type="application/json",
    )


def date_of(seconds: float) -> str:
    """Unix seconds as clients read dates.

    >>> date_of(1795294265.0009)
    '2026-11-21T20:51:05.001Z'
    """
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def link(*links: tuple[str, str]) -> str:
    """A Link header of ``(URL, rel)``. One client wants the quotes, and the blank.

    >>> link(("http://a/b", "next"))
    '<http://a/b>; rel="next"'
    """
    return ", ".join(f'<{url}>; rel="{rel}"' for url, rel in links)


def next_link(request: Request, base: str, **query: str | int) -> str:
    """The Link header to the next page: the same request, with ``query`` in place of what it had of these names.

    Raises UsageError.
    """
    text = request.scope["query_string"].decode("latin-1")
    try:
        sent = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise UsageError(f"the query has more than {MAX_FIELDS} fields") from None
    pairs = [pair for pair in sent if pair[0] not in query] + [(name, str(value)) for name, value in query.items()]
    path = quote(request.scope["raw_path"].decode("latin-1"), safe="/%!$&'()*+,;=:@~")
    return link((f"{base}{path}?{urlencode(pairs)}", "next"))


class _Place(msgspec.Struct, frozen=True, array_like=True):
    value: float
    number: Annotated[int, msgspec.Meta(ge=0, le=_LARGEST)]


def cursor_of(value: float, number: int) -> str:
    """The cursor of a page that begins behind a row: by the value that rows are ordered by, and the row's number.

    >>> place_of(cursor_of(1.5, 7))
    (1.5, 7)
    """
    return urlsafe_b64encode(msgspec.json.encode((value, number))).decode()


def place_of(cursor: str | None) -> tuple[float, int] | None:
    """The row behind which a page begins; None for the first page. Raises UsageError for what is no cursor."""
    if not cursor:
        return None
    try:
        place = msgspec.json.decode(urlsafe_b64decode(cursor), type=_Place)
    except (msgspec.MsgspecError, ValueError):
        raise UsageError("the cursor is none that this server has given") from None
    return place.value, place.number


def cursor_of_text(text: str) -> str:
    """The cursor of a page that begins at, or behind, a path.

    >>> text_of_cursor(cursor_of_text("a/b c"))
    'a/b c'
    """
    return urlsafe_b64encode(text.encode()).decode()


def text_of_cursor(cursor: str | None) -> str:
    """The path of a cursor; an empty one for the first page. Raises UsageError for what is no cursor."""
    try:
        return b64decode(cursor or "", altchars=b"-_", validate=True).decode()
    except ValueError:
        raise UsageError("the cursor is none that this server has given") from None


def id_of(number: int) -> str:
    """The id of a row as clients read ids: 24 hexadecimal digits.

    >>> id_of(255)
    '0000000000000000000000ff'
    """
    return f"{number:024x}"


def content_disposition(path: str) -> str:
    """The header by which a browser saves a file under the last part of its path.

    >>> content_disposition("a/b c.bin")
    'inline; filename*=UTF-8\\'\\'b%20c.bin; filename="b c.bin";'
    """
    name = path.rpartition("/")[2]
    return f"inline; filename*=UTF-8''{quote(name, safe='')}; filename=\"{_ODD.sub('_', name)}\";"


def is_true(text: str | None) -> bool:
    """True for ``true``, ``True`` and ``1``, as clients of all ages write it."""
    return text is not None and text.lower() in _TRUE


def asked_for(request: Request, name: str) -> list[str]:
    """The values of a query that may be repeated, and may have brackets behind its name."""
    query = request.query_params
    return [*query.getlist(name), *query.getlist(f"{name}[]")]


def without_none(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object without the keys that have no value."""
    return {key: inner for key, inner in value.items() if inner is not None}


def only(value: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Those keys of an object that were asked for, and its id."""
    return {key: value[key] for key in dict.fromkeys(("_id", "id", *keys)) if key in value}
