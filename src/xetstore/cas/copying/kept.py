"""Small documents of copies that are kept in the target, as objects: each comes in place of those before."""

from __future__ import annotations

import contextlib
import json
import secrets
from typing import Any, Final

from xetstore.errors import XetError
from xetstore.interfaces import BlobStore

COPIES: Final = "copies/"

_VERSION: Final = 1


def read_kept(blobs: BlobStore, source_id: str, kind: str) -> dict[str, Any] | None:
    """The last document of a kind about one source; None if there is none, or it makes no sense."""
    for key in reversed([blob.key for blob in blobs.list(_start(source_id, kind))]):
        with contextlib.suppress(XetError, ValueError):
            values = json.loads(blobs.get(key))
            if isinstance(values, dict) and values.pop("version", None) == _VERSION:
                return values
    return None


def write_kept(blobs: BlobStore, source_id: str, kind: str, values: dict[str, Any], *, now: float) -> None:
    """Keep a document in place of those before."""
    # No key is written twice. Where a copy beside this one, or one that was killed here, leaves another document, both
    # are true, and either will do.
    earlier = [blob.key for blob in blobs.list(_start(source_id, kind))]
    key = f"{_start(source_id, kind)}{int(now):012}-{secrets.token_hex(8)}"
    blobs.put_new(key, [json.dumps({"version": _VERSION, **values}).encode()])
    blobs.delete_many(earlier)


def _start(source_id: str, kind: str) -> str:
    return f"{COPIES}{source_id}/{kind}-"
