"""SoundnessLook: how many stored objects are marked as damaged, looked up once for all who ask within some seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from xetstore.cas.index import Index, Soundness
from xetstore.errors import XetError
from xetstore.platform import forks

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_AGE_SECONDS: Final = 10.0


class SoundnessLook:
    """Asks the index, or tells what it said last: also while it does not answer. Thread-safe."""

    def __init__(self, index: Index, max_age_seconds: float = MAX_AGE_SECONDS) -> None:
        self._index = index
        self._max_age = max_age_seconds
        self._lock = forks.lock()
        self._latest = Soundness()
        self._asked_at: float | None = None

    def get(self) -> Soundness:
        """The numbers, at most some seconds old."""
        with self._lock:
            now = time.monotonic()
            if self._asked_at is None or now - self._asked_at >= self._max_age:
                self._asked_at = now
                try:
                    with self._index.snapshot() as reader:
                        self._latest = reader.soundness()
                except XetError:
                    pass  # others complain of the index
            return self._latest

    def gauges(self) -> tuple[tuple[str, str, Callable[[], float]], ...]:
        """The metrics that show it: name, text, number."""
        return (
            ("damaged_xorbs", "Xorbs whose object is marked as damaged.", lambda: self.get().damaged_xorbs),
            ("damaged_shards", "Shards whose object is marked as damaged.", lambda: self.get().damaged_shards),
            (
                "scrub_oldest_check_seconds",
                "When the object was checked whose check is the least recent, in unix seconds; 0 if never.",
                lambda: self.get().oldest_check or 0.0,
            ),
        )
