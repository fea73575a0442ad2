"""Stores around others: a cache, a guard. Each has the next one below as ``inner``."""

from __future__ import annotations


def innermost(blobs: object) -> object:
    """The store that keeps the objects, below all those around it."""
    while hasattr(blobs, "inner"):
        blobs = blobs.inner
    return blobs


def upload_bytes(blobs: object) -> int:
    """Memory that an object which is being written takes at most; 0 where it goes to a disk."""
    return int(getattr(innermost(blobs), "upload_bytes", 0))
