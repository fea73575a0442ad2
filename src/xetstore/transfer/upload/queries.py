"""Global dedup queries of an upload: made at once where that is quick, else by threads that nobody waits for for long.

Between machines an answer takes as long as some MiB of an upload. So the upload goes on, and an answer helps from the
block on that is planned when it has arrived. One exception: a file larger than a xorb holds its first block back until
its first answer is there, because that one mostly decides whether anything of the file is new; the xorbs on their way
meanwhile keep the network busy. What a session waits in vain, for answers that do not come, or say that nothing is
known, is :data:`HOLD_SECONDS` in all. That is what a slow or broken endpoint costs an upload.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from xetstore.errors import UnavailableError, XetError
from xetstore.interfaces import Cas
from xetstore.platform.threads import start_thread
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import Shard

HOLD_SECONDS: Final = 0.25
THREADS: Final = 2
MAX_WAITING: Final = 8
"""Queries that are asked while so many wait already are dropped: their answers would come too late."""

MAX_FAILURES: Final = 3
"""After so many failures, one after the other, nothing is asked any more."""


class BackgroundQueries:
    """Asks in threads of its own, which end with the process however long an answer takes.

    ``on_answer`` is called in these threads. Used by one caller; to be closed.
    """

    def __init__(self, cas: Cas, on_answer: Callable[[Shard], None]) -> None:
        self._cas = cas
        self._on_answer = on_answer
        self._changed = threading.Condition()
        # All of it is touched under the condition.
        self._waiting: deque[Hash] = deque()
        self._asking: set[Hash] = set()
        self._answers: list[Shard] = []
        self._threads: list[threading.Thread] = []
        self._failures = 0
        self._is_closed = False
        self._hold_seconds = HOLD_SECONDS

    def ask(self, chunk: Hash) -> None:
        """Ask, unless there is too much to ask already."""
        with self._changed:
            if self._is_closed or self._failures >= MAX_FAILURES or len(self._waiting) >= MAX_WAITING:
                return
            self._waiting.append(chunk)
            if len(self._threads) < min(THREADS, len(self._waiting) + len(self._asking)):
                try:
                    self._threads.append(start_thread(self._work, name="find_chunks"))
                except UnavailableError:  # without a thread there are no queries
                    if not self._threads:
                        self._waiting.clear()
                        return
            self._changed.notify_all()

    def arrived(self) -> list[Shard]:
        """The answers that have come since the last call."""
        if not self._answers:
            return []
        with self._changed:
            found, self._answers = self._answers, []
            return found

    def hold_for(self, chunk: Hash) -> None:
        """Wait for the answer to a query just asked, as long as what is left of :data:`HOLD_SECONDS`."""
        start = time.monotonic()
        with self._changed:
            while not self._failures and (chunk in self._waiting or chunk in self._asking):
                left = self._hold_seconds - (time.monotonic() - start)
                if left <= 0:
                    break
                self._changed.wait(left)
            if self._failures:
                self._hold_seconds = 0.0
            elif not self._answers:
                self._hold_seconds -= time.monotonic() - start

    def close(self) -> None:
        """Ask no more. What is being asked is left alone: nobody waits for it."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while (chunk := self._next()) is not None:
            answer: Shard | None = None
            try:
                answer = self._cas.find_chunks(chunk)
                failed = False
            except Exception as error:
                # After the end of the upload the Cas may be gone, in whatever way: nobody wants the answer.
                if not (self._is_closed or isinstance(error, XetError)):
                    raise
                failed = True
            with self._changed:
                self._failures = self._failures + 1 if failed else 0
                self._asking.discard(chunk)
                if answer is not None:
                    self._answers.append(answer)
                self._changed.notify_all()
            if answer is not None:
                self._on_answer(answer)

    def _next(self) -> Hash | None:
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            if self._is_closed or self._failures >= MAX_FAILURES:
                self._waiting.clear()
                return None
            chunk = self._waiting.popleft()
            self._asking.add(chunk)
            return chunk
