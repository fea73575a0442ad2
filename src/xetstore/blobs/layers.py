"""Stores around others: a cache, a guard. Each has the next one below as ``inner``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from xetstore.interfaces import BlobStore


@runtime_checkable
class Forgetful(Protocol):
    """A store that keeps parts of objects of another one."""

    inner: BlobStore

    def forget(self, key: str) -> None:
        """Keep nothing of an object any more."""


def innermost(blobs: object) -> object:
    """The store that keeps the objects, below all those around it."""
    while hasattr(blobs, "inner"):
        blobs = blobs.inner
    return blobs


def upload_bytes(blobs: object) -> int:
    """Memory that an object which is being written takes at most; 0 where it goes to a disk."""
    return int(getattr(innermost(blobs), "upload_bytes", 0))


def past_caches(blobs: BlobStore) -> BlobStore:
    """The store below all caches, for a look for damage: a part in a cache says nothing of its object."""
    while isinstance(blobs, Forgetful):
        blobs = blobs.inner
    return blobs


def forget(blobs: object, key: str) -> None:
    """Let caches have nothing of an object: the next read is one of the object itself."""
    while blobs is not None:
        if isinstance(blobs, Forgetful):
            blobs.forget(key)
        blobs = getattr(blobs, "inner", None)
