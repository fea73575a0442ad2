"""Events of a transfer, beside its bytes, as typed values: for programs that watch, logs, and tests.

A store is opened with ``on_event``, which is called from worker threads: it must be quick and thread-safe. How many
bytes have been moved is told by a ``Progress`` instead. No event holds a token or the query of a URL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from xetstore.protocol.hashes import Hash
from xetstore.silence import ignore as ignore


@dataclass(frozen=True, slots=True)
class Retrying:
    """A call failed for a reason that may pass. It is made again after ``delay_seconds``; ``attempt`` counts from 1."""

    call: str
    reason: str
    attempt: int
    delay_seconds: float


@dataclass(frozen=True, slots=True)
class Hedged:
    """Bytes of a range stopped coming: it was asked for a second time, and whichever answer goes on first is taken."""

    call: str
    silent_seconds: float


@dataclass(frozen=True, slots=True)
class FellBack:
    """A server does not have a call: ``used`` is made instead from now on."""

    call: str
    used: str


@dataclass(frozen=True, slots=True)
class TokenRenewed:
    """A token of this scope, ``read`` or ``write``, was obtained, because one was about to expire or was refused."""

    scope: str


@dataclass(frozen=True, slots=True)
class XorbStored:
    """A xorb was acknowledged. ``body_bytes`` were sent; ``is_new`` is False if the store had it already."""

    xorb: Hash
    raw_bytes: int
    body_bytes: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class FilesRegistered:
    """A shard was acknowledged: ``files`` files can be read from now on."""

    files: int


@dataclass(frozen=True, slots=True)
class RangeFetched:
    """Bytes ``[byte_start, byte_end)`` of a xorb arrived and were decoded; from the chunk cache if ``cached``."""

    xorb: Hash
    byte_start: int
    byte_end: int
    cached: bool


@dataclass(frozen=True, slots=True)
class Damaged:
    """Bytes came that do not match their hash. ``what`` names it as finely as is known; it is fetched once more if
    ``refetching``.
    """

    what: str
    refetching: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """An earlier attempt at ``path`` had left ``kept_bytes`` that are right, and are not moved again."""

    path: Path
    kept_bytes: int


@dataclass(frozen=True, slots=True)
class CacheDisabled:
    """The cache cannot be used (any more): everything works without it, slower."""

    reason: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Known xorbs of a server are not there any more: they are forgotten, and the files are uploaded without them."""

    reason: str


@dataclass(frozen=True, slots=True)
class ConcurrencyChanged:
    """Another number of requests runs at a time from now on; with the one before it were ``bytes_per_second``."""

    requests: int
    bytes_per_second: float


Event: TypeAlias = (
    Retrying
    | Hedged
    | FellBack
    | TokenRenewed
    | XorbStored
    | FilesRegistered
    | RangeFetched
    | Damaged
    | Resumed
    | CacheDisabled
    | Forgotten
    | ConcurrencyChanged
)
Emit: TypeAlias = Callable[[Event], None]
