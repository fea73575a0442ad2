"""Secrets of one store into another: keys, revocations and the admin's token, all of them or none."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Final

from xetstore.access.secrets import DOCUMENTS, Secrets
from xetstore.cas.copying.kept import read_kept, write_kept
from xetstore.errors import UsageError
from xetstore.interfaces import BlobStore

_KIND: Final = "secrets"


def copy_secrets(source: Secrets, target: Secrets, blobs: BlobStore, source_id: str | None, *, now: float) -> None:
    """Copy all secret documents. ``blobs`` are the target's, in which the SHA-256 of those that were copied are kept.

    Keys that were made in the target are not replaced, because tokens that they have signed would be good for nothing:
    a document is written where there is none, or one that was copied from this source. Raises UsageError before any is
    written.
    """
    copied = read_kept(blobs, source_id, _KIND) if source_id is not None else None
    found = {name: document[0] for name in DOCUMENTS if (document := source.read(name)) is not None}
    record: dict[str, list[str]] = {}
    for name, data in found.items():
        there = target.read(name)
        digests = {_digest(data)} | ({_digest(there[0])} if there is not None else set())
        if not digests <= {_digest(data), *(copied or {}).get(name, ())}:
            raise UsageError(
                f"{target.label(name)} of the target is its own, and not a copy of the source's",
                hint="copy without --secrets; or remove the secrets of the target first, and all its tokens with them",
            )
        record[name] = sorted(digests)
    # Before they are written: killed behind it, the next copy still knows them for copies.
    if source_id is not None and record != copied:
        write_kept(blobs, source_id, _KIND, record, now=now)
    for name, data in found.items():
        target.change(name, partial(_replaced, data))


def _replaced(data: bytes, old: bytes | None) -> bytes | None:
    return None if old == data else data


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
