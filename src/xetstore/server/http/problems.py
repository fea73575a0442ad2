"""Errors on the wire: every one is a JSON object of code, message and request_id, with the headers it calls for."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import Response

from xetstore.errors import (
    EntryNotFoundError,
    ForbiddenError,
    GatedError,
    MissingTokenError,
    NotFoundError,
    QuotaExceededError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UsageError,
    XetError,
    kind_of,
)
from xetstore.protocol.headers import QUERIES_HEADER
from xetstore.server.http.ranges import UnsatisfiableRangeError

if TYPE_CHECKING:
    from starlette.types import Scope

RETRY_LATER: Final = frozenset({429, 503})
"""Statuses that always say when to try again."""

_QUERIES: Final = QUERIES_HEADER.lower().encode()

# A path of ours in a message, or the URL of a bucket or a database; `/v1/…` and the like are the client's own words.
_PLACE = re.compile(r"(?<![\w.:/-])/(?!v[0-9]/)[^\s'\",;:]+|\b(?:s3|gs|az|postgres(?:ql)?)://[^\s'\",;]+[^\s'\",;:.]")


HUB_CODES: Final[Mapping[type[XetError], str]] = {
    RepositoryNotFoundError: "RepoNotFound",
    RevisionNotFoundError: "RevisionNotFound",
    EntryNotFoundError: "EntryNotFound",
    GatedError: "GatedRepo",
}
"""The X-Error-Code by which clients of the Hub tell one 404 from another."""
_MAX_HEADER: Final = 500


class NoSuchPathError(NotFoundError):
    """The path is none of this server's."""

    def __init__(self) -> None:
        super().__init__(
            "there is nothing at this path", hint="/openapi.json lists what there is beside the API of the Hub"
        )


class MethodNotAllowedError(UsageError):
    """The path takes other methods; ``allow`` lists them."""

    code = "method_not_allowed"
    http_status = 405

    def __init__(self, allowed: Collection[str]) -> None:
        self.allow = ", ".join(sorted(allowed))
        super().__init__(f"this path takes {self.allow}")


class UnknownChunkError(NotFoundError):
    """No such chunk can be found. ``rule`` tells which ones can."""

    def __init__(self, chunk: str, rule: str) -> None:
        self.rule = rule
        super().__init__(f"chunk {chunk} is not known here")


class InternalError(XetError):
    """A defect: an error that was not foreseen. What it was is for the log only."""

    code = "internal"

    def __init__(self) -> None:
        super().__init__("internal error")


def as_xet_error(error: Exception) -> XetError:
    """The error that a client is told for an exception: for one that was not foreseen, no more than that."""
    if isinstance(error, XetError):
        return InternalError() if type(error) is XetError else error
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "start new thread" in str(error)):
        return UnavailableError("the server's system has no memory or no thread left for this request")
    if isinstance(error, OSError):
        kind = kind_of(error)
        # A file that is missing here is not the one that was asked for: only what the system lacks is passed on.
        if kind.http_status >= 500 and kind is not XetError:
            return kind(f"the server's system refused what was needed: {error.strerror or 'unknown'}")
    return InternalError()


def message_of(error: XetError) -> str:
    """The message of an error for a client."""
    message = str(error)
    if error.http_status >= 500 and not isinstance(error, QuotaExceededError):
        # These speak of this machine, and their hints to its operator: the log has all of it.
        return _PLACE.sub("…", message)
    return f"{message}; {error.hint}" if error.hint else message


@dataclass(frozen=True, slots=True)
class HubCaller:
    """The caller of a route of the Hub, as far as an error depends on it.

    ``is_anonymous``: it sent no token. ``is_git``: it is git or git-lfs, which send credentials once they are told to.
    """

    is_anonymous: bool = False
    is_git: bool = False


def problem(error: XetError, scope: Scope, request_id: str, hub: HubCaller | None = None) -> Response:
    """The answer to a request that failed. One to HEAD has the headers only. ``hub`` is None but for its routes."""
    status, headers, body = problem_message(error, request_id, hub)
    response = Response(b"" if scope["method"] == "HEAD" else body, status)
    response.raw_headers = headers
    return response


def problem_message(
    error: XetError, request_id: str, hub: HubCaller | None = None
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of that answer."""
    message = message_of(error)
    told = {"code": error.code, "message": message, "request_id": request_id}
    body = msgspec.json.encode(told if hub is None else {"error": message, **told})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    status = error.http_status
    if isinstance(error, QuotaExceededError) and hub is None:
        # The reference client of the CAS tries again for two minutes after any 5xx, and gives up at once after this.
        status = TooLargeError.http_status
    if hub is not None:
        # git sends credentials only after a 401, and a stranger learns no more from it than that.
        if hub.is_anonymous and isinstance(error, RepositoryNotFoundError | ForbiddenError):
            status = UnauthenticatedError.http_status
        headers += _hub_headers(error, message)
    if isinstance(error, UnknownChunkError):
        headers.append((_QUERIES, error.rule.encode()))
    elif isinstance(error, MethodNotAllowedError):
        headers.append((b"allow", error.allow.encode()))
    elif isinstance(error, UnsatisfiableRangeError):
        headers.append((b"content-range", error.content_range.encode()))
    if status == UnauthenticatedError.http_status:
        headers += _challenge(error, hub)
    if error.retry_after is not None or error.http_status in RETRY_LATER:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after or 0))))
    return status, headers, body


def _hub_headers(error: XetError, message: str) -> list[tuple[bytes, bytes]]:
    """The headers that say it again, for an answer to HEAD has no body."""
    headers = [(b"x-error-message", header_text(message).encode())]
    headers += [(b"x-error-code", code.encode()) for kind, code in HUB_CODES.items() if isinstance(error, kind)]
    if isinstance(error, EntryNotFoundError) and error.commit is not None:
        headers.append((b"x-repo-commit", error.commit.encode()))
    return headers


def header_text(text: str) -> str:
    """Text as the value of a header: one line of printable ASCII, of at most some hundred characters.

    >>> header_text("no file naïve.txt")
    'no file na?ve.txt'
    """
    shown = "".join(char if " " <= char <= "~" else "?" for char in " ".join(text[:_MAX_HEADER].split()))
    return shown + "..." * (len(text) > _MAX_HEADER)


def _challenge(error: XetError, hub: HubCaller | None) -> list[tuple[bytes, bytes]]:
    """The way to be let in. Of a token that came and is not valid it says so, and why (RFC 6750, section 3)."""
    if hub is not None:
        return _CHALLENGE_TO_GIT if hub.is_git else _CHALLENGE_OF_HUB
    challenge = 'Bearer realm="xetstore"'
    if not isinstance(error, MissingTokenError):
        reason = header_text(str(error)).replace("\\", "/").replace('"', "'")
        challenge += f', error="invalid_token", error_description="{reason}"'
    return [(b"www-authenticate", challenge.encode())]


_CHALLENGE_OF_HUB: Final = [(b"www-authenticate", b"Bearer")]
_CHALLENGE_TO_GIT: Final = [
    (b"www-authenticate", b'Basic realm="xetstore", charset="UTF-8"'),
    (b"lfs-authenticate", b"Basic"),
]
