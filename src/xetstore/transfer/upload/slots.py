"""XorbSlots: the memory of an upload's xorbs, and so how many of them are on their way at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from xetstore.events import ConcurrencyChanged, Emit, ignore
from xetstore.transfer.goodput import Climb

if TYPE_CHECKING:
    from xetstore.protocol.xorb import XorbBuilder

FREE_BUILDERS: Final = 2
FIRST_BUILDERS: Final = 3
"""Two from the start, to fill one while the other is on its way; a third where that is too few."""

WAITING_SECONDS: Final = 0.1
WAITING_SHARE: Final = 1 / 3
"""A filler that waits for 0.1 s, and for a third of the time, is held up by the senders."""

FAST_CONNECTION: Final = 100_000_000
"""Bytes per second. What is sent so fast is not what an upload waits for: no more are sent beside it."""

_TICK_SECONDS: Final = 0.05


class XorbSlots:
    """Builders that one thread takes to fill them, and others give back when they are stored. Thread-safe.

    One is filled while another is on its way. There is a third where sending is slower than filling, and as many more
    as bring more bytes per second, so that up to ``most`` are on their way. What was used last is used next, and memory
    is touched only where it is needed.
    """

    def __init__(
        self,
        make: Callable[[], XorbBuilder],
        most: int,
        *,
        emit: Emit = ignore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._emit = emit
        self._clock = clock
        self._changed = threading.Condition()
        self._free: list[XorbBuilder] = []
        self._made = 0
        # Since the last change of how many there may be: when that was, and how much was spent waiting for one.
        self._since = clock()
        self._waited = 0.0
        self._waiting_since: float | None = None
        # How fast each of those was sent that were begun since then.
        self._rates: list[float] = []
        self._climb = Climb(FIRST_BUILDERS, most + 1, costly=True)

    @property
    def made(self) -> int:
        """The number of builders."""
        return self._made

    def take(self) -> XorbBuilder:
        """An empty builder, as soon as there may be one."""
        with self._changed:
            since = self._clock()
            while (builder := self.take_now(since)) is None:
                self._changed.wait(_TICK_SECONDS)
            return builder

    def take_now(self, waiting_since: float) -> XorbBuilder | None:
        """An empty builder; None if a caller that has waited since then has to go on waiting."""
        with self._changed:
            self._waiting_since = waiting_since
            may_make = self._made < FREE_BUILDERS or (self._made < self._climb.requests and self._is_held_up())
            if not self._free and not may_make:
                return None
            self._waited += self._clock() - waiting_since
            self._waiting_since = None
            if self._free:
                return self._free.pop()
            self._made += 1
            self._begin_anew()
            return self._make()

    def give_back(self, builder: XorbBuilder, sent_bytes: int = 0, seconds: float = 0.0) -> None:
        """Take a builder back and reset it; ``sent_bytes`` of it were acknowledged after ``seconds``, if any were."""
        builder.reset()
        with self._changed:
            rate = self._step(sent_bytes, seconds)
            if self._made > self._climb.requests:
                self._made -= 1
            else:
                self._free.append(builder)
            self._changed.notify_all()
        if rate is not None:
            self._emit(ConcurrencyChanged(self._climb.requests - 1, rate))

    def _step(self, sent_bytes: int, seconds: float) -> float | None:
        """Decide how many there may be, if enough has been seen; the rate before, if the number changed."""
        if not sent_bytes or self._clock() - seconds < self._since:
            return None
        before = self._climb.requests
        self._rates.append(sent_bytes / max(seconds, 1e-6))
        if len(self._rates) < before or self._made < before:
            return None
        # Xorbs are acknowledged one at a time: how many were in a second says less than how fast each one was. A
        # filler that is held up has filled all of them: all are on their way.
        rate = before * sum(self._rates) / len(self._rates)
        self._rates.clear()
        if rate >= before * FAST_CONNECTION or not self._is_held_up() or self._climb.after(rate) == before:
            return None
        self._begin_anew()
        return rate

    def _is_held_up(self) -> bool:
        """True if the filler waits too much."""
        now = self._clock()
        waited = self._waited + (0.0 if self._waiting_since is None else now - self._waiting_since)
        return waited >= max(WAITING_SECONDS, WAITING_SHARE * (now - self._since))

    def _begin_anew(self) -> None:
        self._since, self._waited = self._clock(), 0.0
        self._rates.clear()
        if self._waiting_since is not None:
            self._waiting_since = self._since
