"""UrlSigner: URLs that may be read without a token, each for one path, some byte ranges, and some minutes (14.7.1)."""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Callable, Sequence
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

_PARAMETERS: Final = {RANGE_PARAMETER, EXPIRES_PARAMETER, KEY_PARAMETER, SIGNATURE_PARAMETER}
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
        if _PATH.fullmatch(path) is None:
            raise UsageError(f"the path {path[:80]!r} cannot be signed")
        if not 0 <= expires_at < _END_OF_NUMBERS:
            raise UsageError(f"a URL cannot expire at {expires_at}")
        key = self._keys.signing_key(KeyKind.URL)
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
        invalid = ForbiddenError("the URL is not signed, or not as it was signed", hint="ask for a new URL")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=len(_PARAMETERS))
        except ValueError:
            raise invalid from None
        fields = dict(pairs)
        if len(pairs) != len(_PARAMETERS) or fields.keys() != _PARAMETERS:
            raise invalid
        ranges, expires = fields[RANGE_PARAMETER], fields[EXPIRES_PARAMETER]
        key = self._keys.verifying_key(KeyKind.URL, fields[KEY_PARAMETER])
        if not key or not (_PATH.fullmatch(path) and _RANGES.fullmatch(ranges) and _EXPIRES.fullmatch(expires)):
            raise invalid
        given = fields[SIGNATURE_PARAMETER].encode("utf-8", "replace")
        if not hmac.compare_digest(given, _signature(key, path, expires, ranges).encode()):
            raise invalid
        if self._clock() >= int(expires):
            raise ForbiddenError("the URL has expired", hint="ask for a new URL")
        spans = (span.split("-") for span in ranges.removeprefix("bytes=").split(","))
        return SignedGrant(tuple((int(first), int(last) + 1) for first, last in spans), int(expires))


def _signature(key: Key, path: str, expires: str, ranges: str) -> str:
    text = f"xet-url-1\nGET\n{path}\n{expires}\n{ranges}\n{key.kid}"
    return urlsafe_b64encode(hmac.digest(key.secret, text.encode(), "sha256"))[:-1].decode()
