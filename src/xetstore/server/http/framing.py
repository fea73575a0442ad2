"""Framing: where the message of a request head ends, as every server on the way must see it (RFC 9112, section 6).

A proxy in front shares one connection among its clients. Where the two disagree about the end of a message, the rest
of one client's body is answered as another client's request. So what can be read in two ways is refused, and the
connection closed. The parser refuses most of it (bare LF, folded lines, NUL, two lengths, a space before a colon);
here is what it leaves to its caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

VERSIONS: Final = ("1.1", "1.0")
_LOOKED_AT: Final = frozenset({b"content-length", b"transfer-encoding", b"host", b"expect"})


class RefusedHeadError(Exception):
    """A request head that gets ``status`` for an answer, after which the connection closes."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def body_bytes(method: str, version: str, headers: Sequence[tuple[bytes, bytes]]) -> int | None:
    """The length of a request's body; None if it is chunked. Names are in lower case, values without blanks around.

    Raises RefusedHeadError for a head whose message may end elsewhere for another reader.

    >>> body_bytes("POST", "1.1", [(b"host", b"a"), (b"content-length", b"5")])
    5
    >>> body_bytes("GET", "1.1", [(b"host", b"a")])
    0
    """
    if version not in VERSIONS:
        raise RefusedHeadError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "this server speaks HTTP, versions 1.0 and 1.1")
    if method == "CONNECT":
        raise _bad("this server is no proxy: CONNECT is not answered")
    lengths: list[bytes] = []
    codings: list[bytes] = []
    hosts = 0
    for name, value in headers:
        if name not in _LOOKED_AT:
            continue
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value.lower())
        elif name == b"host":
            hosts += 1
        elif name == b"expect" and version == "1.1" and value.lower() != b"100-continue":
            raise RefusedHeadError(HTTPStatus.EXPECTATION_FAILED, "the only expectation that is met is 100-continue")
    # RFC 9112, 3.2: 400 "to any HTTP/1.1 request message that lacks a Host header field and to any request message
    # that contains more than one".
    if hosts > 1 or (not hosts and version == "1.1"):
        raise _bad("a request has one Host header")
    if codings:
        _require_chunked(codings, version, has_length=bool(lengths))
        return None
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0].isdigit():
        raise _bad("the Content-Length is not one number")
    return int(lengths[0])


def _require_chunked(codings: list[bytes], version: str, *, has_length: bool) -> None:
    # RFC 9112, 6.1: of HTTP/1.0 a server "MUST treat the message as if the framing is faulty".
    if version != "1.1" or has_length:
        raise _bad("a request has a Content-Length or, in HTTP/1.1, a Transfer-Encoding")
    listed = b",".join(codings)
    if listed == b"chunked":
        return
    # RFC 9112, 6.1: 501 for "a transfer coding it does not understand"; 6.3: 400 where chunked is not the last one.
    is_last = listed.rpartition(b",")[2].strip(b" \t") == b"chunked" and listed.count(b"chunked") == 1
    status = HTTPStatus.NOT_IMPLEMENTED if is_last else HTTPStatus.BAD_REQUEST
    raise RefusedHeadError(status, "the only Transfer-Encoding of a body is chunked")


def _bad(message: str) -> RefusedHeadError:
    return RefusedHeadError(HTTPStatus.BAD_REQUEST, message)
