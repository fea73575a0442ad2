"""Suspects: xorbs of which clients say that bytes came out wrong, looked at by the server itself, one at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from xetstore.server.threads import in_thread

if TYPE_CHECKING:
    from xetstore.cas.service import EmbeddedCas
    from xetstore.protocol.hashes import Hash

REST: Final = 9
"""The pause after a look, in times of what it took: all looks take a tenth of a core."""
WAIT_SECONDS: Final = 5.0
"""The longest wait of a client for its turn. Without one nothing is lost: a check finds it, too."""


class Suspects:
    """A look costs reading and hashing up to 64 MiB, and anybody with a token can ask for one. One event loop's."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._rested_at = 0.0

    async def look(self, cas: EmbeddedCas, xorb: Hash) -> None:
        """Look at a xorb, and mark it if it is damaged; nothing where too many others are to be looked at."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(WAIT_SECONDS), self._turn:
                await asyncio.sleep(self._rested_at - loop.time())
                begun = loop.time()
                try:
                    await in_thread(cas.suspect, xorb)
                finally:
                    self._rested_at = loop.time() + REST * (loop.time() - begun)
        except TimeoutError:
            return
