"""Errors of an object store, each as one sentence of ours: neither keys nor signed URLs are in it."""

from __future__ import annotations

import re
from typing import Final

from xetstore.errors import (
    AccessDeniedError,
    NotFoundError,
    RangeError,
    StorageFullError,
    UnavailableError,
    UnreachableError,
    UsageError,
    XetError,
)

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>")
_KIND: Final = re.compile(r"HttpError \{\s*kind: (\w{1,32})")
_METADATA: Final = re.compile(r"169\.254\.169\.254|169\.254\.170\.2|metadata\.google\.internal|fd00:ec2::254")

_MISSING: Final = ("NoSuchKey", "BlobNotFound")
_GET: Final = re.compile(r"performing GET ")

_RETRY_SECONDS: Final = 5.0

_HINTS: Final = {
    "SignatureDoesNotMatch": "the secret key is not the one of the access key",
    "InvalidAccessKeyId": "the store has no such access key: see AWS_ACCESS_KEY_ID, or access_key_id of [s3]",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "ExpiredToken": "the session of the credentials is over: renew them",
    "InvalidToken": "the session token does not belong to the access key",
}
_DENIED_HINT: Final = "docs/server.md lists the permissions that a store needs on its bucket"
_NO_CREDENTIALS_HINT: Final = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or access_key_id and secret_access_key"
_REGION_HINT: Final = "set AWS_REGION, or region of [s3], to the region of the bucket"


def translate(error: Exception, place: str, task: str, *, of_object: bool) -> XetError:
    """The error of ours for one of obstore. ``place`` names the bucket, ``task`` the call that failed: "object a/b
    could not be read".

    Where the call is one ``of_object`` that may be missing, that is NotFoundError. A missing bucket is not: its objects
    are not known to be lost.
    """
    text = str(error)
    status = int(found[1]) if (found := _STATUS.search(text)) else 0
    code = found[1] if (found := _CODE.search(text)) else ""
    if _METADATA.search(text):
        return AccessDeniedError(f"{task}: there are no credentials for {place}", hint=_NO_CREDENTIALS_HINT)
    if code in ("NoSuchBucket", "InvalidBucketName"):
        return _later(UnavailableError(f"{task}: there is no bucket {place}", hint="make it, or name another one"))
    is_absent = isinstance(error, FileNotFoundError) or status == 404
    if of_object and is_absent and (code in _MISSING or (not code and not _is_another(text, place))):
        return NotFoundError(f"{task}: there is no such object")
    if of_object and status == 416:
        return RangeError(f"{task}: the object is shorter")
    if status == 507 or code in ("QuotaExceeded", "InsufficientCapacity", "XMinioStorageFull"):
        return StorageFullError(f"{task}: {place} is full")
    if status in (401, 403) or code in _HINTS:
        reason = f" ({code})" if code else ""
        return AccessDeniedError(f"{task}: {place} refuses access{reason}", hint=_HINTS.get(code, _DENIED_HINT))
    if status in (301, 307) or code in ("AuthorizationHeaderMalformed", "PermanentRedirect"):
        return AccessDeniedError(f"{task}: {place} is in another region", hint=_REGION_HINT)
    if status:
        reason = f"{status} {code}".strip()
        return _later(UnavailableError(f"{task}: {place} answers {reason}"))
    return _unreachable(text, place, task)


def _is_another(text: str, place: str) -> bool:
    """True if a 404 without a code is none of an S3 store, which has one in its answer to GET: it is of a proxy, or of
    another server at this address, and says nothing of objects.
    """
    return place.startswith("s3:") and _GET.search(text) is not None


def _unreachable(text: str, place: str, task: str) -> XetError:
    kind = found[1] if (found := _KIND.search(text)) else ""
    reason = {
        "Connect": "cannot be reached",
        "Timeout": "does not answer",
        "Interrupted": "broke off",
        "Request": "broke off",
    }.get(kind)
    if reason is None:
        reason = "broke off" if "body" in text else "cannot be asked"
    hint = "see that the store runs, and that the endpoint is right"
    return _later(UnreachableError(f"{task}: {place} {reason}", hint=hint))


def _later(error: XetError) -> XetError:
    error.retry_after = _RETRY_SECONDS
    return error


def left_by_fork() -> UsageError:
    """The error of a process that inherited an object store which its parent had used."""
    return UsageError(
        "an object store that was used before a fork cannot be used after it",
        hint="open it in the child only, or start children by spawn or forkserver",
    )
