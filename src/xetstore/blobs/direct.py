"""RangeUrls: presigned URLs by which clients read byte ranges of objects from the object store itself."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

from xetstore.blobs.bucket import BucketBlobStore
from xetstore.blobs.bucket_requests import ask
from xetstore.blobs.layers import innermost
from xetstore.errors import UnreachableError, UsageError, XetError

if TYPE_CHECKING:
    from xetstore.blobs.presigned import Bucket

PROBE_FOLDER: Final = "probes"

_PROBE: Final = b"0123456789abcdef"
_PROBE_SECONDS: Final = 60
_RANGE: Final = "bytes=4-7"

_HINT: Final = "serve with xorb_urls signed: bytes go through the server then"

_log = logging.getLogger("xetstore.blobs")


class RangeUrls:
    """Signs URLs of the objects of one place. Each binds the method, the object, its expiry and one byte range: the
    store answers no other request by it. Thread-safe; holds nothing open.
    """

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    @classmethod
    def of(cls, blobs: object) -> Self:
        """The URLs of a store, once it has shown that it keeps to what is signed. Some ten small requests.

        Raises UsageError where it does not, or where there are no keys to sign with; else as the store does.
        """
        bucket = innermost(blobs)
        if not isinstance(bucket, BucketBlobStore):
            raise UsageError("direct URLs are for objects in S3, and these are not", hint=_HINT)
        place = bucket.place
        own, public = place.signing(), place.signing(place.public_endpoint)
        if place.scheme != "s3":
            raise UsageError(f"direct URLs are signed for S3 only, not for {place.url}", hint=_HINT)
        if own is None or public is None:
            raise UsageError(
                f"direct URLs of {place.url} need keys to sign with, and a role of the machine has none",
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or access_key_id and secret_access_key of [s3]",
            )
        with _probe_object(bucket) as key:
            fault = cls(own, place.prefix).fault(key, place.certificates)
            if fault is not None:
                raise UsageError(f"{place.url} cannot have direct URLs: {fault}", hint=_HINT)
            if place.public_endpoint is not None:
                _check_public(cls(public, place.prefix), key, place.public_endpoint)
        return cls(public, place.prefix)

    def sign(self, key: str, start: int, end: int, *, seconds: int, now: float | None = None) -> str:
        """The URL of bytes ``[start, end)`` of an object, good for ``seconds`` from ``now`` (unix seconds) on.

        A request by it has the header ``Range: bytes=START-LAST`` in just these numbers.
        """
        headers = {"range": f"bytes={start}-{end - 1}"}
        return self._bucket.sign("GET", self._prefix + key, seconds=seconds, headers=headers, now=now)

    @property
    def url_bytes(self) -> int:
        """The length of a URL, of a key of 100 bytes."""
        return len(self.sign("x" * 100, 0, 1 << 26, seconds=_PROBE_SECONDS))

    def fault(self, key: str, certificates: str | None = None) -> str | None:
        """The reason why a store is not to be trusted with such URLs, or None. Asks for the object of a probe.

        Raises UnreachableError where it does not answer.
        """
        url = self.sign(key, 4, 8, seconds=_PROBE_SECONDS)
        signed = ask(url, "GET", None, {"Range": _RANGE}, certificates)
        if signed.status != 206 or signed.body != _PROBE[4:8]:
            return f"it does not take a URL that was signed for a byte range (status {signed.status})"
        old = self.sign(key, 4, 8, seconds=1, now=time.time() - 600)
        number = url[-1]
        other = url[:-1] + ("1" if number == "0" else "0")
        longer = url.replace(f"X-Amz-Expires={_PROBE_SECONDS}", f"X-Amz-Expires={10 * _PROBE_SECONDS}")
        for what, asked, headers in (
            ("another byte range than was signed", url, {"Range": "bytes=4-8"}),
            ("two byte ranges where one was signed", url, {"Range": f"{_RANGE},9-10"}),
            ("a whole object where a byte range was signed", url, {}),
            ("bytes by a URL that has expired", old, {"Range": _RANGE}),
            ("bytes by a URL whose expiry was changed", longer, {"Range": _RANGE}),
            ("bytes by a URL whose signature was changed", other, {"Range": _RANGE}),
        ):
            if ask(asked, "GET", None, headers, certificates).status < 400:
                return f"it gives {what}"
        return None


@contextmanager
def _probe_object(blobs: BucketBlobStore) -> Iterator[str]:
    """A small object, for a moment."""
    key = f"{PROBE_FOLDER}/{secrets.token_hex(8)}"
    blobs.put_new(key, [_PROBE])
    try:
        yield key
    finally:
        with suppress(XetError):
            blobs.delete_many([key])


def _check_public(urls: RangeUrls, key: str, endpoint: str) -> None:
    """Raises UsageError if the name that clients have for a store leads to it, and something on the way is wrong."""
    try:
        fault = urls.fault(key)
    except UnreachableError:
        _log.warning("%s cannot be reached from here, so its URLs were not tried", endpoint)
        return
    if fault is not None:
        raise UsageError(
            f"public_endpoint {endpoint} cannot have direct URLs: {fault}",
            hint="it has to lead to the same store, and a proxy there passes on the Host and Range headers",
        )
