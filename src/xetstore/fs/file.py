"""XetFile: a stored file as fsspec's readers open it."""

from __future__ import annotations

import threading
from typing import Any

from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from xetstore.protocol.hashes import Hash


class XetFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A stored file as fsspec's buffered reader. Its content stays the same, even where its name moves on."""

    def __init__(
        self,
        fs: AbstractFileSystem,
        path: str,
        mode: str = "rb",
        *,
        xet_hash: str | None = None,
        data: bytes | None = None,
        **more: Any,
    ) -> None:
        # The cache of `all` reads before super's constructor is done. A small file is here, whole.
        self.xet_hash = None if xet_hash is None else Hash.parse(xet_hash)
        self._data = data
        super().__init__(fs, path, mode, **more)
        # What it is opened with again after it was pickled.
        self.kwargs |= {"xet_hash": xet_hash, "data": data}

    def _fetch_range(self, start: int, end: int) -> bytes:
        if self._data is not None:
            return self._data[start:end]
        return self.fs.read_range(self.path, self.xet_hash, start, end)  # type: ignore[no-any-return]


class Told:
    """A fsspec callback as our progress; ours is told by several threads."""

    def __init__(self, callback: Any) -> None:
        self._callback = callback
        self._guard = threading.Lock()
        self._total = 0

    def total(self, nbytes: int) -> None:
        """Announce bytes that are to come."""
        with self._guard:
            self._total += nbytes
            self._callback.set_size(self._total)

    def advance(self, *, logical: int = 0, new: int = 0, deduped: int = 0) -> None:  # noqa: ARG002  # not asked for
        """Count bytes that have come."""
        with self._guard:
            self._callback.relative_update(logical)
