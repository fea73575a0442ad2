"""The store in memory."""

from __future__ import annotations

import pytest

from xetstore.blobs.memory import MemoryBlobStore
from xetstore.errors import UsageError


def test_an_object_is_never_replaced() -> None:
    blobs = MemoryBlobStore()
    with blobs.create("xorbs/ab/cd") as late:
        late.write(b"late")
        blobs.put_new("xorbs/ab/cd", [b"first"])
        with pytest.raises(UsageError, match="xorbs/ab/cd"):
            late.commit()
    with pytest.raises(UsageError, match="xorbs/ab/cd"):
        blobs.put_new("xorbs/ab/cd", [b"second"])
    assert blobs.get("xorbs/ab/cd") == b"first"
