"""Suspects: xorbs of which clients say that bytes came out wrong, looked at by the server itself, one at a time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from xetstore.server.ops.budgets import TURN_SECONDS
from xetstore.server.ops.shared import Shared
from xetstore.server.threads import in_thread

if TYPE_CHECKING:
    from xetstore.cas.service import EmbeddedCas
    from xetstore.protocol.hashes import Hash

REST: Final = 9
"""The pause after a look, in times of what it took: all looks take a tenth of a core."""
WAIT_SECONDS: Final = 5.0
"""The longest wait of a client for its turn. Without one nothing is lost: a check finds it, too."""


class Suspects:
    """A look costs reading and hashing up to 64 MiB, and anybody with a token can ask for one. One event loop's.

    One worker of a server looks at a time, by ``shared``.
    """

    def __init__(self, shared: Shared | None = None) -> None:
        self._shared = shared or Shared.alone()
        self._turn = asyncio.Lock()
        self._turn_of_workers = self._shared.turn("suspects")

    async def look(self, cas: EmbeddedCas, xorb: Hash) -> None:
        """Look at a xorb, and mark it if it is damaged; nothing where too many others are to be looked at."""
        try:
            async with asyncio.timeout(WAIT_SECONDS), self._turn:
                while not self._turn_of_workers.try_take():
                    await asyncio.sleep(TURN_SECONDS)
                try:
                    await self._look_in_turn(cas, xorb)
                finally:
                    self._turn_of_workers.give_back()
        except TimeoutError:
            return

    async def _look_in_turn(self, cas: EmbeddedCas, xorb: Hash) -> None:
        await asyncio.sleep(self._shared.rested_at - time.monotonic())
        begun = time.monotonic()
        try:
            await in_thread(cas.suspect, xorb)
        finally:
            self._shared.rested_at = time.monotonic() + REST * (time.monotonic() - begun)
