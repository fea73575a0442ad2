"""Problems: an answer that is no success, as one of our errors with the server's own words in it."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec

from xetstore.errors import (
    AccessDeniedError,
    DamagedError,
    ForbiddenError,
    FormatError,
    HashMismatchError,
    IntegrityError,
    InterruptedCallError,
    MissingXorbError,
    NotFoundError,
    QuotaExceededError,
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
from xetstore.remote.retry import retry_after_seconds

if TYPE_CHECKING:
    from xetstore.remote.transport import Answer

MAX_PROBLEM_BYTES: Final = 64 << 10
MAX_MESSAGE: Final = 400

_BY_STATUS: Final[dict[int, type[XetError]]] = {
    401: UnauthenticatedError,
    403: ForbiddenError,
    404: NotFoundError,
    407: AccessDeniedError,
    408: TimedOutError,
    410: NotFoundError,
    413: TooLargeError,
    416: RangeError,
    429: TooManyRequestsError,
    507: StorageFullError,
}
HINTS: Final[dict[type[XetError], str]] = {
    UsageError: "check the address of the server, and whether it speaks the Xet protocol",
    RangeError: "ask for a range that starts before the end of the file",
    TooLargeError: "the server takes less than this: ask who runs it what its limits are",
    NotFoundError: "check the hash and the address; where a token is needed, it may be one that cannot see this",
    IntegrityError: "what arrived there is not what was sent, or was never right: send it again",
    DamagedError: "put the file again, or ask the server's operator to check its store",
    AccessDeniedError: "the proxy wants a login: put it into its URL",
    UnauthenticatedError: "give a token of this server in XET_TOKEN, or in the file that XET_TOKEN_FILE or --token-file"
    " names; who runs the server makes one with `xet token issue`",
    ForbiddenError: "a token with more rights is needed, or the URL has expired",
    UnavailableError: "try again later",
    QuotaExceededError: "delete files there, or ask the operator of the server for more",
    StorageFullError: "the server has no room left: its operator has to make some",
    TimedOutError: "try again later, or over a better connection",
    TooManyRequestsError: "wait, then try again, with fewer requests at a time",
}
_REJECTED: Final = "the server found the shard wrong: upload the files again"

_CODES: Final[dict[str, type[XetError]]] = {
    "integrity": IntegrityError,
    "rejected_shard": RejectedShardError,
    "range": RangeError,
    "too_large": TooLargeError,
}
_MISMATCH: Final = re.compile(r"(.{1,200}?) does not match its hash: expected ([0-9a-f]{64}), got ([0-9a-f]{64})")
_RULE: Final = re.compile(r"(.*) \(rule ([\w.]{1,80}), at byte ([0-9]{1,19})\)", re.DOTALL)
_MISSING: Final = re.compile(
    r"\bxorbs?\b.{0,40}?\b([0-9a-f]{64})\b.{0,40}?"
    r"\b(?:not stored|not found|missing|unknown|does not exist|no such)\b"
    r"|\b(?:missing|unknown|no such)\b.{0,20}?\bxorbs?\b.{0,20}?\b([0-9a-f]{64})\b",
    re.IGNORECASE | re.DOTALL,
)
_QUERY: Final = re.compile(r"\?[^\s\"'<>]{2,}")
_DESCRIPTION: Final = re.compile(r'\berror_description="([^"\\]{1,400})"')
_XML_MESSAGE: Final = re.compile(r"<Message>([^<]{1,1000})</Message>")


class _Problem(msgspec.Struct):
    code: str = ""
    message: str = ""
    error: str = ""


def problem_of(
    answer: Answer, what: str, *, bad_request: type[XetError] = UsageError, secrets: tuple[str, ...] = ()
) -> XetError:
    """The error that an answer stands for; its body is read, up to 64 KiB, and it is closed.

    ``what`` names the thing that was asked for; the message goes on with what the server says of it, its status and
    request id. ``bad_request`` is what a 400 means that does not explain itself. None of the ``secrets`` is ever in
    the message, nor is the query of a URL.
    """
    with answer:
        try:
            body = answer.read(MAX_PROBLEM_BYTES)
        except InterruptedCallError:
            raise
        except XetError:
            body = b""  # the status says enough
    status = answer.status
    code, said = _parsed(body, answer.headers.get("content-type") or "")
    if not said and status == HTTPStatus.UNAUTHORIZED:  # to HEAD, for example
        said = _described(answer.headers.get("www-authenticate") or "", is_token_sent=bool(secrets))
    for secret in secrets:
        said = said.replace(secret, "***")
    said = tidy(said)
    reference = tidy(answer.headers.get("x-request-id") or "")[:64]
    told = f"HTTP {status}, request {reference}" if reference else f"HTTP {status}"
    if 300 <= status < 400:
        target = tidy((answer.headers.get("location") or "elsewhere").partition("?")[0])
        return UsageError(
            f"{what}: the server redirects to {target} ({told})", hint="use the address that it redirects to"
        )
    message = f"{what}: {said or _phrase(status)} ({told})"
    if status in (400, 422):
        return refusal(code, said, message, otherwise=bad_request)
    for kind in (DamagedError, QuotaExceededError):
        if code == kind.code:
            return _made(kind, message)
    by_status = _BY_STATUS.get(status)
    if by_status is None:
        by_status = UnavailableError if status >= 500 and status != HTTPStatus.NOT_IMPLEMENTED else UsageError
    error = _made(by_status, message)
    error.retry_after = retry_after_seconds(answer.headers.get("retry-after"))
    return error


def refusal(code: str, said: str, message: str, *, otherwise: type[XetError]) -> XetError:
    """The error of a body that a server refused: by its code, and by what ``said`` says in words."""
    if code in ("", MissingXorbError.code, RejectedShardError.code):
        missing = _MISSING.search(said)
        if missing:
            return MissingXorbError((missing[1] or missing[2]).lower())
    if issubclass(otherwise, RejectedShardError):
        return RejectedShardError(message, hint=_REJECTED)
    if code == HashMismatchError.code and (mismatch := _MISMATCH.search(said)):
        return HashMismatchError(mismatch[1], expected=mismatch[2], actual=mismatch[3])
    if code == FormatError.code and (broken := _RULE.search(said)):
        return FormatError(broken[2], int(broken[3]), broken[1])
    if code in (HashMismatchError.code, FormatError.code):
        return _made(IntegrityError, message)
    return _made(_CODES.get(code, otherwise), message)


def tidy(text: str) -> str:
    """A server's words, fit for a message: one line, not too long, without the query of any URL."""
    text = " ".join(_QUERY.sub("?…", text).split())
    text = "".join(letter if letter.isprintable() else "·" for letter in text)
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE - 1]}…"


def _made(kind: type[XetError], message: str) -> XetError:
    hint = next((HINTS[base] for base in kind.__mro__ if base in HINTS), None)
    return kind(message, hint=_REJECTED if issubclass(kind, RejectedShardError) else hint)


def _parsed(body: bytes, content_type: str) -> tuple[str, str]:
    """Code and message of a problem in JSON; else no code, and what there is of words."""
    try:
        found = msgspec.json.decode(body, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode("utf-8", "replace")
        if match := _XML_MESSAGE.search(text):
            return "", match[1]
        return "", "" if "<" in text or "html" in content_type else text
    return found.code, found.message or found.error


def _described(challenge: str, *, is_token_sent: bool) -> str:
    """The reason of a 401 without a body, as far as its challenge has one (RFC 6750, section 3)."""
    if (found := _DESCRIPTION.search(challenge)) is not None:
        return found[1]
    return "" if is_token_sent else "a token is needed"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.lower()
    except ValueError:
        return "no explanation"
