"""Spooled bodies: kept until they are whole, short ones in memory, longer ones in a file without a name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Final

from xetstore.server.http.bodies import declared_bytes, too_large
from xetstore.server.http.receiving import memory_of_body, receive_body
from xetstore.server.site import holders_of, site_of
from xetstore.server.threads import in_thread

if TYPE_CHECKING:
    from starlette.requests import Request

MEMORY_BYTES: Final = 256 << 10
"""A body that is no longer has no file."""


@asynccontextmanager
async def spool_body(request: Request, max_bytes: int) -> AsyncIterator[IO[bytes]]:
    """The whole body as a file at its start, which is gone at the end. It is read in threads, for it may be on a disk.

    As long as it is there it is counted in the budget ``spooling``. Raises what `receive_body` does, UnavailableError
    if there is no room for it in time, and StorageFullError.
    """
    site = site_of(request)
    limits, holders = site.limits, holders_of(request)
    declared = declared_bytes(request)
    if (declared or 0) > max_bytes:
        raise too_large(max_bytes)
    async with limits.spooling.reserve(max_bytes if declared is None else declared, holders):
        folder = site.cas.scratch_folder
        # It has no name, so it is gone however this process ends.
        with SpooledTemporaryFile(MEMORY_BYTES, dir=None if folder is None else str(folder)) as file:

            def write(*parts: bytes) -> None:
                file.writelines(parts)

            async with limits.receiving.reserve(memory_of_body(request), holders):
                await receive_body(request, write, limits, max_bytes)
            await in_thread(file.seek, 0)
            yield file
