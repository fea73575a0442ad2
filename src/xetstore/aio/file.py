"""AsyncFile: a stored file, or one of a repository, to read from in asyncio."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Self

from xetstore.aio.calls import Call
from xetstore.platform import forks

if TYPE_CHECKING:
    from xetstore.store import Store


class AsyncFile:
    """A stored file, read-only: read, seek, tell and close. One call at a time. An asynchronous context manager.

    A read that is cancelled leaves the position where it was; the file can be read on.
    """

    def __init__(self, store: Store, opener: Callable[[Store], BinaryIO | io.BufferedReader], size: int) -> None:
        self._store = store
        self._opener = opener
        self._position = 0
        self._closed = False
        self._view = store.for_one_call()
        self._reader: BinaryIO | io.BufferedReader | None = None
        self.size = size
        self._begin()
        forks.renew(self, AsyncFile._begin)

    def _begin(self) -> None:
        self._lock = asyncio.Lock()

    async def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes from the position on, fewer only at the end; all that is left if it is negative."""
        async with self._lock:
            self._check_open()
            try:
                with Call(self._view.interrupt) as call:
                    data = await call.run(lambda: self._read(size))
            except BaseException:
                self._renew()
                raise
            self._position += len(data)
            return data

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, as file objects do; returns it. Past the end is allowed, and nothing is read there."""
        async with self._lock:
            self._check_open()
            base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}.get(whence)
            if base is None or base + offset < 0:
                raise ValueError(f"no position {offset} from {whence}")
            self._position = base + offset
            return self._position

    def tell(self) -> int:
        """The position: the offset of the next byte to be read."""
        return self._position

    async def close(self) -> None:
        """Let go of the file. May be called again."""
        async with self._lock:
            self._closed = True
            self._drop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _read(self, size: int) -> bytes:
        if self._reader is None:
            self._reader = self._opener(self._view)
        self._reader.seek(self._position)
        return self._reader.read(size)

    def _renew(self) -> None:
        """Start over with a view of the store that was not given up."""
        self._view = self._store.for_one_call()
        self._drop()

    def _drop(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("I/O operation on closed file")
