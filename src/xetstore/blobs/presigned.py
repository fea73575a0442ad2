"""Presigned URLs: a request that another program may make to an S3 store (AWS Signature Version 4 in the query)."""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlsplit

_SERVICE: Final = "s3"
_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True)
class Credentials:
    """The key of an S3 store; ``token`` belongs to keys that were lent for a while."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Bucket:
    """A bucket, and the URL of it: ``https://host/bucket``, or ``https://bucket.host`` for a store that wants it so."""

    url: str
    region: str
    credentials: Credentials

    def sign(
        self,
        method: str,
        key: str = "",
        *,
        seconds: int,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        now: float | None = None,
    ) -> str:
        """The URL of one request that is good from ``now`` (unix seconds) on, for ``seconds``.

        It binds the method, the key, the query and the values of ``headers``, whose names are in lower case: a store
        that keeps to the signature refuses any other request by it, and one that lacks such a header.
        """
        parts = urlsplit(self.url)
        signed_headers = {"host": parts.netloc, **(headers or {})}
        names = ";".join(sorted(signed_headers))
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        scope = f"{stamp[:8]}/{self.region}/{_SERVICE}/aws4_request"
        parameters = {
            **(query or {}),
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self.credentials.access_key}/{scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(seconds),
            "X-Amz-SignedHeaders": names,
        }
        if self.credentials.token is not None:
            parameters["X-Amz-Security-Token"] = self.credentials.token
        path = f"{parts.path}/{quote(key, safe='/~')}"
        canonical_query = "&".join(
            f"{quote(name, safe='~')}={quote(parameters[name], safe='~')}" for name in sorted(parameters)
        )
        lines = [method, path, canonical_query]
        lines += [f"{name}:{signed_headers[name].strip()}" for name in sorted(signed_headers)]
        request = "\n".join([*lines, "", names, "UNSIGNED-PAYLOAD"])
        text = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
        signing_key = _signing_key(self.credentials.secret_key, stamp[:8], self.region)
        signature = hmac.digest(signing_key, text.encode(), "sha256").hex()
        return f"{parts.scheme}://{parts.netloc}{path}?{canonical_query}&X-Amz-Signature={signature}"


@lru_cache(maxsize=8)
def _signing_key(secret_key: str, day: str, region: str) -> bytes:
    """The key of a day, which is the same for all URLs of it."""
    key = f"AWS4{secret_key}".encode()
    for part in (day, region, _SERVICE, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
