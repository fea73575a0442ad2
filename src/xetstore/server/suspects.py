"""Suspects: xorbs of which clients say that bytes came out wrong, looked at by the server itself, one at a time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from xetstore.server.threads import in_thread

if TYPE_CHECKING:
    from xetstore.cas.service import EmbeddedCas
    from xetstore.protocol.hashes import Hash

AGAIN_SECONDS: Final = 60.0
"""A xorb is not looked at again before."""
MOST_REMEMBERED: Final = 1000
"""When so many have been looked at within that time, there are no more looks until it is over."""


class Suspects:
    """A look costs reading and hashing 64 MiB: there is one at a time, and who asks meanwhile asks in vain."""

    def __init__(self) -> None:
        self._seen: dict[Hash, float] = {}
        self._looking = asyncio.Lock()

    async def look(self, cas: EmbeddedCas, xorb: Hash) -> None:
        """Look at a xorb, and mark it if it is damaged; nothing where it was looked at just now."""
        now = time.monotonic()
        self._seen = {name: at for name, at in self._seen.items() if now - at < AGAIN_SECONDS}
        if self._looking.locked() or xorb in self._seen or len(self._seen) >= MOST_REMEMBERED:
            return
        async with self._looking:
            await in_thread(cas.suspect, xorb)
            self._seen[xorb] = now
