"""Global dedup queries of an upload: threads ask while it goes on, and it waits for their answers where they decide.

Files are read, cut and packed while answers are on their way; what they tell of is dropped from the xorb that is being
filled. Before that xorb is complete the upload waits for them (:meth:`BackgroundQueries.answers`): for as long as
sending it would take where answers come within that time, else as :class:`QueryPatience` says. The time that is waited
beyond that and in vain, because no answer comes or none tells of anything, is bounded in a row; after a failure there
is no waiting. So a dedup service that is slow or broken costs a bounded time once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.errors import AccessDeniedError, InterruptedCallError, UnavailableError, XetError
from xetstore.platform.threads import start_thread

if TYPE_CHECKING:
    from xetstore.interfaces import Cas
    from xetstore.protocol.dedup import QueryRule
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.shard import Shard

THREADS: Final = 8
"""Queries on their way at a time, where one names one chunk. Two are enough where it names many."""

MAX_WAITING: Final = 16_384
"""The most chunks that wait to be asked for, those of two xorbs; more are dropped."""

RECENT_FROM_BYTES: Final = 4 << 20
"""From which size on a file is worth a look at what was stored last, where a query finds nothing."""

MAX_RECENT_CHUNKS: Final = 32_768

MAX_FAILURES: Final = 3
"""After three failures, one after the other, nothing is asked any more."""


@dataclass(frozen=True, slots=True)
class QueryPatience:
    """Seconds of one wait for answers, and of all waits in a row that were in vain."""

    seconds: float = 2.0
    vain_seconds: float = 5.0


QUERY_PATIENCE: Final = QueryPatience()


class BackgroundQueries:
    """Asks in threads of its own, which end with the process however long an answer takes.

    ``on_answer`` is called in these threads. Used by one caller; to be closed.
    """

    def __init__(
        self,
        cas: Cas,
        on_answer: Callable[[Shard], None],
        patience: QueryPatience = QUERY_PATIENCE,
    ) -> None:
        self._cas = cas
        self._on_answer = on_answer
        self._patience = patience
        self._changed = threading.Condition()
        # All of it is touched under the condition.
        self._waiting: deque[Hash] = deque()
        self._asking = 0
        self._answers: list[Shard] = []
        self._threads: list[threading.Thread] = []
        self._failures = 0
        self._is_closed = False
        self._vain_seconds = patience.vain_seconds
        self._seconds = 0.0

    @property
    def rule(self) -> QueryRule:
        """The chunks that are worth a question, as far as that is known now."""
        return self._cas.queries

    @property
    def seconds(self) -> float:
        """The time that the last answer took; 0 before the first one."""
        return self._seconds

    def ask(self, chunks: Iterable[Hash]) -> None:
        """Ask for chunks, unless there is too much to ask already."""
        with self._changed:
            if self._is_closed or self._failures >= MAX_FAILURES:
                return
            self._waiting.extend(chunk for chunk in chunks if len(self._waiting) < MAX_WAITING)
            while self._waiting and len(self._threads) < self._threads_needed():
                try:
                    self._threads.append(start_thread(self._work, name="find_chunks"))
                except UnavailableError:  # without a thread there are no queries
                    if not self._threads:
                        self._waiting.clear()
                    break
            self._changed.notify_all()

    def arrived(self) -> list[Shard]:
        """The answers that have come since the last call."""
        if not self._answers:
            return []
        with self._changed:
            return self._take_answers()

    def answers(self, sending_seconds: float = 0.0) -> list[Shard]:
        """The answers to all that was asked, waited for as long as it is worth it; those that have come.

        ``sending_seconds`` is how long it would take to send what they may make needless.
        """
        start = time.monotonic()
        with self._changed:
            worth = sending_seconds if 0 < self._seconds <= sending_seconds else 0.0
            deadline = start + max(worth, min(self._patience.seconds, self._vain_seconds))
            while not self._failures and (self._waiting or self._asking):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            if self._answers:
                self._vain_seconds = self._patience.vain_seconds
            else:
                self._vain_seconds -= max(0.0, time.monotonic() - start - sending_seconds)
            return self._take_answers()

    def close(self) -> None:
        """Ask no more. A query that is under way is left alone: its thread ends with it."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _threads_needed(self) -> int:
        most = self._cas.queries.most_at_once
        return min(THREADS if most == 1 else 2, self._asking + -(-len(self._waiting) // most))

    def _take_answers(self) -> list[Shard]:
        answers, self._answers = self._answers, []
        return answers

    def _work(self) -> None:
        while chunks := self._next():
            start = time.monotonic()
            answer: Shard | None = None
            try:
                answer = self._cas.find_chunks(*chunks)
                failed = False
            except Exception as error:
                # After the end of the upload the Cas may be gone, in any way: the answer has no reader any more.
                if not (self._is_closed or isinstance(error, XetError)):
                    raise
                failed = True
            with self._changed:
                self._failures = self._failures + 1 if failed else 0
                self._asking -= 1
                self._seconds = time.monotonic() - start
                if answer is not None:
                    self._answers.append(answer)
                self._changed.notify_all()
            if answer is not None:
                self._on_answer(answer)

    def _next(self) -> list[Hash]:
        """The chunks of the next query; none at the end."""
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            if self._is_closed or self._failures >= MAX_FAILURES:
                self._waiting.clear()
                return []
            chunks = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._cas.queries.most_at_once))]
            self._asking += 1
            return chunks


class Recent:
    """The part of what was stored last that a session has been told: as much as some versions of its files would be."""

    def __init__(self) -> None:
        self._told = 0

    def wanted(self, file_bytes: int) -> int:
        """The number of chunks that are worth a look for a file, 8 times its own; 0 if half of them have been told."""
        wanted = min(file_bytes >> 13, MAX_RECENT_CHUNKS)
        if file_bytes < RECENT_FROM_BYTES or wanted < 2 * self._told:
            return 0
        self._told = wanted
        return wanted


class DirectQueries:
    """Asks at once, and waits for each answer. Used by one caller."""

    def __init__(self, cas: Cas) -> None:
        self._cas = cas
        self._recent = Recent()
        self._is_given_up = False
        self.count = 0

    @property
    def rule(self) -> QueryRule:
        """The chunks that are worth a question, as far as that is known now."""
        return self._cas.queries

    def answers(self, chunks: Sequence[Hash], file_bytes: int) -> list[Shard]:
        """The answer to a question about chunks of a file of this size; where there is none, what was stored last.

        Raises what a Cas in this process raises. A server that fails is asked no more: an upload goes on, too.
        """
        if self._is_given_up:
            return []
        self.count += 1
        try:
            answer = self._cas.find_chunks(*chunks)
            if answer is None and (most := self._recent.wanted(file_bytes)):
                # What it begins with is new, or changed: it may be a version of what was stored before.
                answer = self._cas.find_recent(most)
        except (AccessDeniedError, InterruptedCallError):
            raise
        except XetError:
            if not self._cas.is_remote:
                raise
            self._is_given_up = True
            return []
        return [] if answer is None else [answer]
