"""Shared: the memory that the workers of a server have in common, so that a limit is one of the server.

It is a file without a name that each worker maps. No lock protects it, because a worker that is killed would keep one.
Instead each number is one word of memory, and either

- it has one writer: a worker writes its own counts and reads those of the others, and once it has ended its parent
  clears them; or
- a lost change matters little: of a rate, what another worker admitted between a read and a write of some microseconds.

A :class:`Turn`, for what one worker at a time may do, is a lock of the system's on a byte of that file (fcntl), which
ends with the process.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import sys
import tempfile
import time
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Self

RATE_SLOTS: Final = 1 << 16
"""Slots of a row of rates. A key has one in each of two rows: it shares both with another once in four billion."""
ADDRESS_SLOTS: Final = 1 << 14
"""Slots for the connections of addresses. Two of them share one, which is then counted as one, once in 16,384."""

_HEADER: Final = 4096
_SEED: Final = slice(0, 16)
_STARTED, _RESTED = 2, 3  # in words of eight bytes
_RATE_BYTES: Final = 2 * RATE_SLOTS * 8
_WORKER_WORDS: Final = 2 + ADDRESS_SLOTS
_KEYS_KEPT: Final = 8192

AWAY: Final = -1
"""The load of a worker that accepts no connections."""


class Shared:
    """Numbers that the workers of one server share; with one worker, its own. ``descriptor`` is passed to children.

    ``number``, from 0 on, is the worker that this process is. One event loop's.
    """

    def __init__(self, descriptor: int | None, workers: int, number: int = 0) -> None:
        self.descriptor = descriptor
        self.workers = workers
        self.number = number
        size = _HEADER + 2 * _RATE_BYTES + workers * _WORKER_WORDS * 4
        if descriptor is not None and os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
        self._map = mmap.mmap(-1 if descriptor is None else descriptor, size)
        whole = memoryview(self._map)
        self._header = whole[:_HEADER].cast("d")
        self.rates = tuple(whole[start : start + _RATE_BYTES].cast("d") for start in (_HEADER, _HEADER + _RATE_BYTES))
        """Two tables, for tokens and for addresses, of two rows each: when the bucket of a key is full again."""
        self._counts = [
            whole[start : start + _WORKER_WORDS * 4].cast("i")
            for start in range(_HEADER + 2 * _RATE_BYTES, size, _WORKER_WORDS * 4)
        ]
        self._seed = bytes(self._map[_SEED])
        self.places = lru_cache(_KEYS_KEPT)(self._places)

    @classmethod
    def alone(cls) -> Self:
        """Memory of this process."""
        shared = cls(None, 1)
        shared._begin()
        return shared

    @classmethod
    def create(cls, workers: int) -> Self:
        """Memory for this many workers, none of which accepts connections yet."""
        if sys.platform == "linux":
            descriptor = os.memfd_create("xetstore-workers", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        shared = cls(descriptor, workers)
        shared._begin()
        for number in range(workers):
            shared.clear(number)
        return shared

    def close(self) -> None:
        """Close the descriptor. The memory stays as long as this object."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def _begin(self) -> None:
        self._map[_SEED] = self._seed = secrets.token_bytes(16)
        self._header[_STARTED] = time.monotonic()

    def _places(self, key: str) -> tuple[int, int, int]:
        # With a secret: no client can choose a key that shares its slots with another's.
        digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=6, key=self._seed).digest()
        first, second, third = (int.from_bytes(digest[at : at + 2], "little") for at in (0, 2, 4))
        return first, RATE_SLOTS + second, 2 + third % ADDRESS_SLOTS

    # The server as a whole

    @property
    def started_at(self) -> float:
        """When the server was started, by the monotonic clock, which all processes share."""
        return self._header[_STARTED]

    @property
    def rested_at(self) -> float:
        """When the next look at a suspect may begin, by the monotonic clock."""
        return self._header[_RESTED]

    @rested_at.setter
    def rested_at(self, when: float) -> None:
        self._header[_RESTED] = when

    def part(self, total: int) -> int:
        """The part of a total that this worker has; the parts of all are the total."""
        return total // self.workers + (self.number < total % self.workers)

    # The counts of each worker

    def clear(self, number: int) -> None:
        """Forget what a worker had: it has ended."""
        counts = self._counts[number]
        counts[:] = memoryview(bytes(counts.nbytes)).cast("i")
        counts[0] = AWAY

    @property
    def load(self) -> int:
        """The connections that this worker has accepted, and not closed; AWAY if it accepts none."""
        return self._counts[self.number][0]

    @load.setter
    def load(self, count: int) -> None:
        self._counts[self.number][0] = count

    def least_load(self) -> int:
        """The load of the worker that has least, of those that accept connections."""
        return min((counts[0] for counts in self._counts if counts[0] != AWAY), default=0)

    def load_of_others(self) -> int:
        """The loads of the other workers together."""
        return sum(counts[0] for number, counts in enumerate(self._counts) if number != self.number)

    def count(self, address: str | None, change: int) -> None:
        """Count a connection that has a place here, or has it no more, and that of its address, if there is one."""
        mine = self._counts[self.number]
        mine[1] += change
        if address is not None:
            mine[self.places(address)[2]] += change

    def connections_of_others(self) -> int:
        """The connections that the other workers have."""
        return sum(counts[1] for number, counts in enumerate(self._counts) if number != self.number)

    def connections_of_others_from(self, address: str) -> int:
        """Those of one address."""
        if self.workers == 1:
            return 0
        place = self.places(address)[2]
        return sum(counts[place] for number, counts in enumerate(self._counts) if number != self.number)

    def turn(self, name: str) -> Turn:
        """The turn of this name."""
        return Turn(self.descriptor, int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "little"))


class Turn:
    """One worker at a time has it, until it gives it back or ends. One event loop's."""

    def __init__(self, descriptor: int | None, place: int) -> None:
        self._descriptor = descriptor
        self._place = place
        self._is_ours = False

    def try_take(self) -> bool:
        """Take it, if no worker has it. Never waits."""
        if self._is_ours:
            return False
        if self._descriptor is not None:
            if sys.platform == "win32":  # where no server starts
                raise NotImplementedError
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._place)
            except (BlockingIOError, PermissionError):
                return False
        self._is_ours = True
        return True

    def give_back(self) -> None:
        """Let another have it."""
        self._is_ours = False
        if self._descriptor is not None:
            if sys.platform == "win32":  # where no server starts
                raise NotImplementedError
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, self._place)
