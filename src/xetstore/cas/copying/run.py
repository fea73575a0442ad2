"""Run: the two stores of a copy, its threads, and the tally of what it has done; shared by all parts of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, wait
from dataclasses import dataclass, field
from typing import Final, TypeVar

from xetstore.cancellation import Cancellation
from xetstore.cas.check import Problem
from xetstore.cas.progress import StoreProgress
from xetstore.cas.service import EmbeddedCas
from xetstore.platform.threads import Threads

T = TypeVar("T")
R = TypeVar("R")

TICK_SECONDS: Final = 0.1
"""The longest wait at a time: Ctrl-C is noticed between two."""

ENDING_SECONDS: Final = 0.7
"""The longest wait for other calls, once one has failed or the copy is given up."""


@dataclass(slots=True)
class CopyTally:
    """The rows and objects that a copy has added to the target, or would add; ``bytes`` are those of xorbs."""

    xorbs: int = 0
    bytes: int = 0
    files: int = 0
    shards: int = 0
    grants: int = 0
    holders: int = 0


@dataclass(slots=True)
class Run:
    """One copy. Threads of the pool work on objects; the tally and the problems are the calling thread's."""

    source: EmbeddedCas
    target: EmbeddedCas
    threads: Threads
    cancellation: Cancellation
    is_dry: bool = False
    progress: StoreProgress | None = None
    tally: CopyTally = field(default_factory=CopyTally)
    problems: dict[str, Problem] = field(default_factory=dict)
    compared: int = 0

    def report(self, problem: Problem) -> None:
        """Note something that cannot be copied, once for each name."""
        self.problems.setdefault(problem.name, problem)

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """The results of calls in the threads of the pool, in order. The first error ends the others, and is raised."""
        futures = [self.threads.submit(work, item) for item in items]
        try:
            left = set(futures)
            while left:
                self.cancellation.check()
                done, left = wait(left, TICK_SECONDS, FIRST_EXCEPTION)
                for future in done:
                    future.result()
        except BaseException:
            self.cancellation.cancel()
            for future in futures:
                future.cancel()
            # Those under way end at their next block, and remove their temporary objects; unless a network hangs.
            wait(futures, ENDING_SECONDS)
            raise
        return [future.result() for future in futures]
