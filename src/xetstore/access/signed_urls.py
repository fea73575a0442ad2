"""UrlSigner: URLs that work without a token, each for one path and some time: to read byte ranges (14.7.1), or for one
call by any method, whose path says all of it.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from operator import itemgetter
from typing import Final
from urllib.parse import parse_qsl

from xetstore.access.keys import Key, KeyKind, KeyRing
from xetstore.errors import ForbiddenError, UsageError
from xetstore.protocol.reconstruction import coalesce

RANGE_PARAMETER: Final = "X-Xet-Signed-Range"
EXPIRES_PARAMETER: Final = "X-Xet-Expires"
KEY_PARAMETER: Final = "X-Xet-Key-Id"
SIGNATURE_PARAMETER: Final = "X-Xet-Signature"

_CALL_PARAMETERS: Final = frozenset({EXPIRES_PARAMETER, KEY_PARAMETER, SIGNATURE_PARAMETER})
_PARAMETERS: Final = _CALL_PARAMETERS | {RANGE_PARAMETER}
_END_OF_NUMBERS: Final = 10**15

# Each field in one spelling, and none with a line break: so two different claims are never signed as one text.
_PATH: Final = re.compile(r"/[A-Za-z0-9._~/-]*")
_NUMBER: Final = "(?:0|[1-9][0-9]{0,14})"
_RANGES: Final = re.compile(f"bytes={_NUMBER}-{_NUMBER}(?:,{_NUMBER}-{_NUMBER})*")
_EXPIRES: Final = re.compile(_NUMBER)


@dataclass(frozen=True, slots=True)
class SignedGrant:
    """The grant of a URL: ``ranges`` ``[start, end)`` in bytes, ascending and apart, before ``expires_at``."""

    ranges: tuple[tuple[int, int], ...]
    expires_at: int

    def covers(self, start: int, end: int) -> bool:
        """True if bytes ``[start, end)``, at least one of them, all lie in one of the ranges."""
        before = bisect_right(self.ranges, start, key=itemgetter(0))  # ranges that do not start behind it
        return before > 0 and start < end <= self.ranges[before - 1][1]


class UrlSigner:
    """Signs and verifies URLs with a key of the store (HMAC-SHA256). Thread-safe; ``clock`` gives unix seconds.

    Both methods raise what :class:`KeyRing` raises.

    >>> import pathlib, tempfile
    >>> signer = UrlSigner(KeyRing.open(pathlib.Path(tempfile.mkdtemp(), "access")), clock=lambda: 1000.0)
    >>> query = signer.sign("/v1/xorbs/default/ab", [(0, 100), (200, 300)], expires_at=1900)
    >>> signer.verify("GET", "/v1/xorbs/default/ab", query)
    SignedGrant(ranges=((0, 100), (200, 300)), expires_at=1900)
    """

    def __init__(self, keys: KeyRing, clock: Callable[[], float] | None = None) -> None:
        self._keys = keys
        self._clock = clock or keys.clock

    def sign(self, path: str, ranges: Sequence[tuple[int, int]], *, expires_at: int) -> str:
        """The query string that allows GET and HEAD of ``path``, bytes ``[start, end)`` of each range.

        Touching ranges become one. The grant ends at ``expires_at``, or with its key, if that is retired before.
        Raises UsageError if the path needs percent-encoding, or a range is empty or there is none.
        """
        key = self._key_for(path, expires_at)
        if not ranges:
            raise UsageError("a signed URL needs a range")
        for start, end in ranges:
            if not 0 <= start < end <= _END_OF_NUMBERS:
                raise UsageError(f"bytes {start} to {end} are not a range that can be signed")
        spans = [f"{start}-{end - 1}" for start, end in coalesce(ranges)]
        signature = _signature(key, path, str(expires_at), f"bytes={','.join(spans)}")
        return (
            f"{RANGE_PARAMETER}=bytes%3D{'%2C'.join(spans)}&{EXPIRES_PARAMETER}={expires_at}"
            f"&{KEY_PARAMETER}={key.kid}&{SIGNATURE_PARAMETER}={signature}"
        )

    def verify(self, method: str, path: str, query: str) -> SignedGrant:
        """The grant of a request with this raw query string (as sent, without ``?``).

        ForbiddenError if any of it is not as signed, if a parameter is missing, unknown or there twice, if the
        method is neither GET nor HEAD, and if the URL has expired.
        """
        if method not in ("GET", "HEAD"):
            raise ForbiddenError("a signed URL is for GET and HEAD only")
        fields = _fields(query, _PARAMETERS)
        ranges = fields[RANGE_PARAMETER]
        if not _RANGES.fullmatch(ranges):
            raise _invalid()
        expires_at = self._check(fields, path, lambda key, expires: _signature(key, path, expires, ranges))
        spans = (span.split("-") for span in ranges.removeprefix("bytes=").split(","))
        return SignedGrant(tuple((int(first), int(last) + 1) for first, last in spans), expires_at)

    def sign_call(self, method: str, path: str, *, expires_at: int) -> str:
        """The query string that allows one method at ``path``, until ``expires_at`` or its key is retired.

        Raises UsageError if the path needs percent-encoding.
        """
        key = self._key_for(path, expires_at)
        signature = _call_signature(key, method, path, str(expires_at))
        return f"{EXPIRES_PARAMETER}={expires_at}&{KEY_PARAMETER}={key.kid}&{SIGNATURE_PARAMETER}={signature}"

    def verify_call(self, method: str, path: str, query: str) -> None:
        """Raise ForbiddenError unless this raw query string allows the method at this path, and has not expired."""
        fields = _fields(query, _CALL_PARAMETERS)
        self._check(fields, path, lambda key, expires: _call_signature(key, method, path, expires))

    def _key_for(self, path: str, expires_at: int) -> Key:
        if _PATH.fullmatch(path) is None:
            raise UsageError(f"the path {path[:80]!r} cannot be signed")
        if not 0 <= expires_at < _END_OF_NUMBERS:
            raise UsageError(f"a URL cannot expire at {expires_at}")
        return self._keys.signing_key(KeyKind.URL)

    def _check(self, fields: dict[str, str], path: str, signature: Callable[[Key, str], str]) -> int:
        """When a URL expires, which is signed as it should be and has not."""
        expires = fields[EXPIRES_PARAMETER]
        key = self._keys.verifying_key(KeyKind.URL, fields[KEY_PARAMETER])
        if not key or not (_PATH.fullmatch(path) and _EXPIRES.fullmatch(expires)):
            raise _invalid()
        given = fields[SIGNATURE_PARAMETER].encode("utf-8", "replace")
        if not hmac.compare_digest(given, signature(key, expires).encode()):
            raise _invalid()
        if self._clock() >= int(expires):
            raise ForbiddenError("the URL has expired", hint="ask for a new URL")
        return int(expires)


def _fields(query: str, names: Set[str]) -> dict[str, str]:
    """The parameters of a query: these, each once. Raises ForbiddenError."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=len(names))
    except ValueError:
        raise _invalid() from None
    fields = dict(pairs)
    if len(pairs) != len(names) or fields.keys() != names:
        raise _invalid()
    return fields


def _invalid() -> ForbiddenError:
    return ForbiddenError("the URL is not signed, or not as it was signed", hint="ask for a new URL")


def _signature(key: Key, path: str, expires: str, ranges: str) -> str:
    return _signed(key, f"xet-url-1\nGET\n{path}\n{expires}\n{ranges}\n{key.kid}")


def _call_signature(key: Key, method: str, path: str, expires: str) -> str:
    return _signed(key, f"xet-call-1\n{method}\n{path}\n{expires}\n{key.kid}")


def _signed(key: Key, text: str) -> str:
    return urlsafe_b64encode(hmac.digest(key.secret, text.encode(), "sha256"))[:-1].decode()
