"""Requests to an S3 store that obstore does not make, each by a presigned URL; and the sweep that needs them."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

from xetstore.errors import AccessDeniedError, UnavailableError, UnreachableError

if TYPE_CHECKING:
    from xetstore.blobs.presigned import Bucket

ANSWER_SECONDS: Final = 10.0
MOST_ANSWER_BYTES: Final = 4 << 20
MOST_PAGES: Final = 10
"""Of at most 1000 uploads each: the next sweep takes the others."""
_SIGNED_SECONDS: Final = 60


@dataclass(frozen=True)
class Answer:
    """The status of an answer, and its body as far as it is read."""

    status: int
    body: bytes = field(repr=False)


def request(
    bucket: Bucket,
    method: str,
    key: str = "",
    *,
    query: Mapping[str, str] | None = None,
    body: bytes | None = None,
    certificates: str | None = None,
) -> Answer:
    """One signed request. Raises UnreachableError where there is no answer within some 10 s."""
    return ask(
        bucket.sign(method, key, seconds=_SIGNED_SECONDS, query=dict(query or {})), method, body, {}, certificates
    )


def ask(
    url: str, method: str, body: bytes | None, headers: Mapping[str, str], certificates: str | None = None
) -> Answer:
    """One request by a URL as it stands. Raises UnreachableError, in which the URL is not."""
    made = urllib.request.Request(url, body, dict(headers), method=method)
    handlers = []
    if url.startswith("https:"):
        context = ssl.create_default_context()
        if certificates is not None:  # beside those of the system, as obstore takes them
            context.load_verify_locations(cadata=certificates)
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        try:
            answer = urllib.request.build_opener(*handlers).open(made, timeout=ANSWER_SECONDS)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return Answer(answer.status, answer.read(MOST_ANSWER_BYTES))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise UnreachableError(f"the object store does not answer: {reason}") from None


@dataclass(frozen=True)
class Unfinished:
    """A multipart upload that was neither completed nor aborted; ``begun_at`` is unix seconds."""

    key: str
    number: str
    begun_at: float


def unfinished_uploads(bucket: Bucket, prefix: str, certificates: str | None = None) -> Iterator[Unfinished]:
    """The multipart uploads under way, or left behind, of keys that start with ``prefix``.

    Raises AccessDeniedError, UnavailableError or UnreachableError.
    """
    query = {"uploads": "", "prefix": prefix}
    for _ in range(MOST_PAGES):
        answer = request(bucket, "GET", query=query, certificates=certificates)
        if answer.status != 200:
            kind = AccessDeniedError if answer.status in (401, 403) else UnavailableError
            raise kind(f"uploads could not be listed: the object store answers {answer.status}")
        try:
            page = ElementTree.fromstring(answer.body)
            uploads = [_unfinished(found) for found in page.iterfind("{*}Upload")]
        except (ElementTree.ParseError, ValueError):
            raise UnavailableError("uploads could not be listed: the answer is no list of uploads") from None
        yield from uploads
        if page.findtext("{*}IsTruncated") != "true":
            return
        query["key-marker"] = page.findtext("{*}NextKeyMarker", "")
        query["upload-id-marker"] = page.findtext("{*}NextUploadIdMarker", "")


def _unfinished(found: ElementTree.Element) -> Unfinished:
    key, number, begun = (found.findtext(f"{{*}}{name}", "") for name in ("Key", "UploadId", "Initiated"))
    return Unfinished(key, number, datetime.fromisoformat(begun).timestamp())


def sweep(bucket: Bucket, prefix: str, older_than: float, certificates: str | None = None) -> int:
    """Abort uploads that began before ``older_than`` (unix seconds); the number of these. Raises as listing does."""
    swept = 0
    for upload in unfinished_uploads(bucket, prefix, certificates):
        # Not every store keeps to the prefix that is asked for, and those of others are none of ours.
        if upload.begun_at < older_than and upload.key.startswith(prefix):
            query = {"uploadId": upload.number}
            swept += request(bucket, "DELETE", upload.key, query=query, certificates=certificates).status == 204
    return swept
