"""Pages of other sites: what a browser is told of an answer before it lets a script have it (CORS, Fetch standard).

A server that asks for tokens knows nothing else of a browser: no cookie, no certificate. So a page of any site can do
no more with it than the token allows that the page was given, or what every caller may without one: its answers may be
read. A server without tokens takes each caller for its owner: it lets no page read, and refuses what pages send
(`site.refuse_pages`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Scope

    from xetstore.server.http.router import Handler

ALLOW_ALL: Final = (b"access-control-allow-origin", b"*")
EXPOSE: Final = (
    b"access-control-expose-headers",
    b"Accept-Ranges, Content-Length, Content-Range, ETag, Link, Location, Retry-After, X-Error-Code, X-Error-Message,"
    b" X-Linked-Etag, X-Linked-Size, X-Repo-Commit, X-Request-Id, X-Total-Count, X-Xet-Access-Token,"
    b" X-Xet-Cas-Url, X-Xet-Chunk-Queries, X-Xet-Hash, X-Xet-Refresh-Route, X-Xet-Token-Expiration",
)
"""The headers that a script may read beside a few that any may."""
MAX_AGE_SECONDS: Final = 7200
"""Browsers remember the answer for no longer."""


def is_preflight(scope: Scope) -> bool:
    """True if a browser asks whether its page may send a request: any other OPTIONS is a method like all others."""
    if scope["method"] != "OPTIONS":
        return False
    sent = {name for name, _ in scope["headers"]}
    return b"origin" in sent and b"access-control-request-method" in sent


def preflight(methods: Collection[str]) -> Handler:
    """The handler of OPTIONS for a path that takes ``methods``: a browser asks whether its page may."""
    headers = {
        "Allow": ", ".join(sorted({*methods, "OPTIONS"})),
        "Access-Control-Allow-Methods": ", ".join(sorted(methods)),
        "Access-Control-Allow-Headers": "Authorization, *",  # the first is in no asterisk
        "Access-Control-Max-Age": str(MAX_AGE_SECONDS),
    }

    async def answer(request: Request) -> Response:  # noqa: ARG001  # a handler's signature
        return Response(status_code=204, headers=headers)

    return answer
