"""Quarantine: objects that are in the way, set aside for a person to look at, until they are told to go."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from xetstore.cas.audit import audit
from xetstore.cas.layout import new_generation
from xetstore.errors import DamagedError, NotFoundError
from xetstore.interfaces import BlobInfo, BlobStore

QUARANTINE: Final = "quarantine/"
_BLOCK_BYTES: Final = 2 << 20


def set_aside(blobs: BlobStore, key: str) -> str | None:
    """Move an object into quarantine: the key that it has there; None if it is not there.

    It is copied, the copy is read back and compared, and only then is the object removed. So a process that dies on the
    way leaves both, and the next one goes on. Raises as the store of objects does: then the object is where it was.
    """
    found = blobs.stat(key)
    if found is None:
        return None
    digest = _digest(blobs, key, found.size)
    aside = f"{QUARANTINE}{key}"
    there = blobs.stat(aside)
    if there is not None and (there.size != found.size or _digest(blobs, aside, there.size) != digest):
        aside = f"{aside}-{new_generation()}"  # no key is written twice
        there = None
    if there is None:
        with blobs.create(aside) as copy:
            for block in _blocks(blobs, key, found.size):
                copy.write(block)
            copy.commit()
        if _digest(blobs, aside, found.size) != digest:
            raise DamagedError(f"object {key} could not be copied: its copy has other bytes")
    blobs.delete_many([key])
    return aside


def quarantined(blobs: BlobStore) -> Iterator[BlobInfo]:
    """The objects in quarantine, by key."""
    return blobs.list(QUARANTINE)


def empty_quarantine(blobs: BlobStore) -> tuple[int, int]:
    """Remove all that is in quarantine; the number of objects, and their bytes."""
    count = size = 0
    for blob in list(quarantined(blobs)):
        if blobs.delete_many([blob.key]):
            audit("object", blob.key, blob.size)
            count += 1
            size += blob.size
    return count, size


def _digest(blobs: BlobStore, key: str, size: int) -> bytes:
    digest = hashlib.blake2b()
    for block in _blocks(blobs, key, size):
        digest.update(block)
    return digest.digest()


def _blocks(blobs: BlobStore, key: str, size: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(min(_BLOCK_BYTES, size)))
    total = 0
    with blobs.get_range(key, 0, size) as stream:
        while total < size:
            count = stream.readinto(buffer)
            if not count:
                raise NotFoundError(f"object {key} became shorter while it was read")
            total += count
            yield buffer[:count]
