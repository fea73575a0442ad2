"""Crew: what one worker knows of the server that it is a part of: its number, what all share, a line to the parent.

A worker obeys its parent alone. Signals do not reach it: Ctrl-C at a terminal, or the end of a service, signal every
process, and the second signal would cut off what the first lets end. It is told over the line, and where the line
ends, the parent has ended.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from xetstore.cas.parts import StoreParts
from xetstore.errors import UnavailableError
from xetstore.platform.threads import start_thread
from xetstore.server.ops.shared import Shared
from xetstore.server.settings import ServerSettings

SCRAPE_SECONDS: Final = 10.0
ORPHAN_SECONDS: Final = 10.0
"""The time that a worker without parent has, beyond ``drain_seconds``, before it is cut off."""
ORPHANED: Final = 1

# What is said on a line: a word, and perhaps a value.
STOP: Final = "stop"
REPORT: Final = "report"
SCRAPE: Final = "scrape"
MERGED: Final = "merged"
READY: Final = "ready"
FAILED: Final = "failed"


Place = tuple[tuple[int, int], ...]
"""Device and inode of each part of a store that is on this machine."""


@dataclass(frozen=True)
class Orders:
    """The first that a parent says to a worker: all that it needs. A password of the store's parts is among it.

    ``place`` is that of the store that the other workers serve already; None for the first.
    """

    store: StoreParts
    settings: ServerSettings
    number: int
    workers: int
    listening: int
    memory: int
    place: Place | None


class Crew:
    """The line of a worker. Thread-safe."""

    def __init__(self, line: Connection, orders: Orders) -> None:
        self.orders = orders
        self.shared = Shared(orders.memory, orders.workers, orders.number)
        self._line = line
        self._turn = threading.Lock()
        self._scraping = threading.Lock()
        self._merged: bytes | None = None
        self._has_merged = threading.Event()

    def say(self, word: str, value: Any = None) -> None:
        """Tell the parent. It may have ended: then nothing is told."""
        with self._turn, suppress(OSError):
            self._line.send((word, value))

    def obey(self, *, stop: Callable[[], None], abandon: Callable[[], None], report: Callable[[], bytes]) -> None:
        """Do what the parent says from now on, in a thread."""
        start_thread(self._obey, stop, abandon, report, name="line to the parent")

    def scrape(self, own: bytes) -> bytes:
        """The metrics of all workers, of which this one's are ``own``. Raises UnavailableError if they do not come."""
        with self._scraping:
            self._has_merged.clear()
            self.say(SCRAPE, own)
            if not self._has_merged.wait(SCRAPE_SECONDS) or self._merged is None:
                raise UnavailableError("the other workers do not tell their metrics")
            return self._merged

    def _obey(self, stop: Callable[[], None], abandon: Callable[[], None], report: Callable[[], bytes]) -> None:
        try:
            while True:
                word, value = self._line.recv()
                if word == STOP:
                    stop()
                elif word == REPORT:
                    self.say(REPORT, report())
                elif word == MERGED:
                    self._merged = value
                    self._has_merged.set()
        except (EOFError, OSError):
            pass
        finally:
            abandon()
        time.sleep(self.orders.settings.drain_seconds + ORPHAN_SECONDS)
        os._exit(ORPHANED)
