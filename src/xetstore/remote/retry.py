"""Retrying: which errors may pass, how long to wait before the next attempt, and when to give up.

An error may pass if it is one of UnavailableError: no connection, a broken one, a timeout, 408, 429, and 5xx except
501. The wait is drawn at random below a bound that doubles with each attempt (full jitter), so that many clients do
not come back together; it is as long as Retry-After asks for at least.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from xetstore.cancellation import Cancellation
from xetstore.errors import StorageFullError, UnavailableError, XetError
from xetstore.events import Emit, Retrying

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """The length of each wait, in seconds, and the number of attempts.

    ``connect`` for a connection, and as long for TLS and a proxy; ``answer`` for the head of an answer after a
    request was sent; ``idle`` for the next byte while a body is moved; ``hedge`` until a silent range is asked for a
    second time; ``trickle`` before a range that comes slowly is asked for anew; ``query`` for the answer to a dedup
    query, and three times that for its body; ``shard`` for the next sign of life while a server commits a shard,
    ``commit`` until it gets further with it, and ten times that for all of it. A body that moves less than ``floor``
    bytes per second, as the mean of ``floor_seconds`` of waiting for it, is given up. A call is made ``attempts``
    times at most, with waits as described above, between ``base_delay`` and ``max_delay``; a server that says to come
    back after more than ``max_retry_after`` is not waited for.
    """

    connect: float = 10
    answer: float = 60
    idle: float = 20
    hedge: float = 4
    trickle: float = 10
    query: float = 5
    shard: float = 300
    commit: float = 600
    floor: float = 1024
    floor_seconds: float = 60
    attempts: int = 6
    base_delay: float = 0.5
    max_delay: float = 30
    max_retry_after: float = 120


def may_pass(error: XetError) -> bool:
    """True if the same call may succeed later."""
    return isinstance(error, UnavailableError)


def retry_after_seconds(text: str | None, *, now: float | None = None) -> float | None:
    """The wait that a Retry-After header asks for: seconds, or a date, of which ``now`` (unix seconds) is taken off.

    >>> retry_after_seconds("7"), retry_after_seconds("soon")
    (7.0, None)
    """
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
        return max(date.timestamp() - (time.time() if now is None else now), 0.0)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


class Backoff:
    """The attempts at one call, which ``name`` names in events. Not thread-safe.

    ``chance`` gives numbers in [0, 1).
    """

    def __init__(
        self,
        name: str,
        *,
        patience: Patience,
        cancellation: Cancellation,
        emit: Emit,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._patience = patience
        self._cancellation = cancellation
        self._emit = emit
        self._chance = chance
        self._failures = 0
        self._made = 0

    def failed(self, error: XetError) -> None:
        """Wait for the next attempt; or raise ``error``, which then says how many there were, if there is to be none.

        Raises InterruptedCallError if the call is interrupted meanwhile.
        """
        self._cancellation.check()
        self._failures += 1
        self._made += 1
        if not may_pass(error):
            raise error
        # A disk that is full stays so for a while: once more, for what a client beside this one may have freed.
        most = min(self._patience.attempts, 2) if isinstance(error, StorageFullError) else self._patience.attempts
        if self._failures >= most:
            raise self._final(error)
        asked = error.retry_after or 0.0
        if asked > self._patience.max_retry_after:
            error.hint = f"the server asks to try again in {asked:.0f} seconds: do so then"
            raise self._final(error)
        bound = min(self._patience.max_delay, self._patience.base_delay * 2 ** (self._failures - 1))
        # What was asked for is the least, and jitter on top of it keeps those who were told the same apart.
        delay = max(self._chance() * bound, asked + self._chance() * bound * 0.1 if asked else 0.0)
        self._emit(Retrying(self._name, str(error), self._made, delay))
        self._cancellation.wait(delay)

    def progressed(self) -> None:
        """Count anew: what was tried before did get somewhere."""
        self._failures = 0

    def _final(self, error: XetError) -> XetError:
        if self._made > 1:
            error.args = (f"{error}; {self._made} attempts were made", *error.args[1:])
        return error


def retrying(
    name: str,
    work: Callable[[], T],
    *,
    patience: Patience,
    cancellation: Cancellation,
    emit: Emit,
    chance: Callable[[], float] = random.random,
) -> T:
    """Do ``work``, again as long as it fails with an error that may pass; return its result.

    Raises the last error, of the same kind, with the number of attempts in its message.
    """
    backoff = Backoff(name, patience=patience, cancellation=cancellation, emit=emit, chance=chance)
    while True:
        try:
            return work()
        except XetError as error:
            backoff.failed(error)
