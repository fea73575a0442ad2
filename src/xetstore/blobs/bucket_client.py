"""obstore, set up for a place: its waits and retries, its keys, and the processes in which it works."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from xetstore.blobs.bucket_errors import left_by_fork
from xetstore.errors import UsageError
from xetstore.extras import install_hint

if TYPE_CHECKING:
    from obstore.store import ObjectStore

    from xetstore.blobs.bucket_options import BucketPlace

CONNECT_SECONDS: Final = 3
ANSWER_SECONDS: Final = 10
"""The longest wait for the next bytes of an answer, and for a part of an upload to be taken."""
RETRY_SECONDS: Final = 8
"""A request that failed is made again at most this long after the first time. So none takes more than 18 s."""
MOST_RETRIES: Final = 4
PAUSE_SECONDS: Final = 0.1
"""The wait before a request that failed is made again; the next one is up to twice as long, and so on."""

_used_by: int | None = None
"""The process whose threads of obstore run: those of a parent do not in its children."""


def connect(place: BucketPlace, pause_seconds: float = PAUSE_SECONDS) -> tuple[Any, ObjectStore]:
    """obstore, and its store for a place. ``pause_seconds`` are waited before a request is made again."""
    try:
        import obstore.exceptions
        from obstore import store as stores
    except ModuleNotFoundError:
        raise UsageError("an object store needs obstore, which is not installed", hint=install_hint("s3")) from None
    client: dict[str, Any] = {
        "allow_http": place.allow_http,
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=ANSWER_SECONDS),
        "timeout": timedelta(days=1),  # a reader may be slow
        "user_agent": "xetstore",
    }
    if place.certificates is not None:
        client["root_certificate"] = place.certificates
    common: dict[str, Any] = {
        "prefix": place.prefix or None,
        "client_options": client,
        "retry_config": {
            "max_retries": MOST_RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_SECONDS),
            "backoff": {
                "init_backoff": timedelta(seconds=pause_seconds),
                "max_backoff": timedelta(seconds=RETRY_SECONDS),
                "base": 2,
            },
        },
    }
    if place.scheme == "gs":
        return obstore, stores.GCSStore(place.bucket, **common)
    if place.scheme == "az":
        return obstore, stores.AzureStore(place.bucket, **common)
    config: dict[str, Any] = {"region": place.region, "virtual_hosted_style_request": place.virtual_host}
    if place.endpoint is not None:
        config |= {"endpoint": place.endpoint, "aws_endpoint_url_s3": place.endpoint}
    if place.credentials is not None:
        keys = place.credentials
        # Not as options: variables that are not of these keys would be taken beside them.
        common["credential_provider"] = lambda: {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": None,
        }
    return obstore, stores.S3Store(place.bucket, config=config, **common)  # type: ignore[arg-type]


def require_own_process() -> None:
    """Raises UsageError in a child of a process that had used obstore: its threads are not there, and it would hang."""
    global _used_by
    here = os.getpid()
    if _used_by is None:
        _used_by = here
    elif _used_by != here:
        raise left_by_fork()
