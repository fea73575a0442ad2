"""The threads of a download: as many fetches at a time as the processor or the network is worth, and a way to stop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

from xetstore.events import ConcurrencyChanged, Emit
from xetstore.platform.threads import Threads, usable_cores
from xetstore.transfer.goodput import Goodput
from xetstore.transfer.waiting import TICK_SECONDS

if TYPE_CHECKING:
    from xetstore.cancellation import Cancellation
    from xetstore.limits import Limits

FIRST_REQUESTS: Final = 4
MOST_REQUESTS: Final = 32
WORKER_BYTES: Final = 4 << 20
OTHER_BYTES: Final = 64 << 20
"""Memory: of one fetch under way (two buffers and its connection), and of everything else."""

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """Runs the fetches of one transfer. A context manager: when it is left, ``cancellation`` is cancelled, so that
    whatever still runs ends soon; it is not waited for.

    In this process a fetch waits for the processor: there is one a core. Over a network it waits for the other side:
    their number follows the goodput.
    """

    def __init__(
        self, cancellation: Cancellation, limits: Limits, emit: Emit, *, is_remote: bool, fixed: int | None = None
    ) -> None:
        self.cancellation = cancellation
        self._emit = emit
        most = min(MOST_REQUESTS, limits.jobs or MOST_REQUESTS)
        if limits.max_memory is not None:
            most = max(1, min(most, (limits.max_memory - OTHER_BYTES) // WORKER_BYTES))
        self.cores = usable_cores()
        self._goodput: Goodput | None = None
        if fixed is None and is_remote:
            self._goodput = Goodput(FIRST_REQUESTS, most)
        self._threads = most if self._goodput else min(most, fixed or self.cores)
        self._executor = Threads(self._threads, "fetch")
        self._running = 0
        self._changed = threading.Condition()

    @property
    def at_a_time(self) -> int:
        """The number of fetches that there can be."""
        return self._threads

    def arrived(self, nbytes: int) -> None:
        """Bytes came; raises InterruptedCallError where no more are wanted."""
        self.check()
        if self._goodput is not None:
            self._goodput.arrived(nbytes)

    def check(self) -> None:
        """Raises InterruptedCallError where no more are wanted."""
        self.cancellation.check()

    def map(self, work: Callable[[T, int], R], items: Sequence[T]) -> list[R]:
        """The results of ``work(item, threads)`` for all items, in any order; ``threads`` are for the kernel.

        A bounded number of items is under way at any time. The first error is raised at once.
        """
        threads = max(1, self.cores // max(1, len(items)))
        if len(items) == 1:
            return [self._run(work, items[0], threads)]
        results: list[R] = []
        done: queue.SimpleQueue[Future[R]] = queue.SimpleQueue()
        running = 0
        left = iter(items)
        more = True
        while more or running:
            room = self._goodput.requests if self._goodput else 2 * self._threads
            while more and running < room:
                item = next(left, None)
                if item is None:
                    more = False
                    break
                self._executor.submit(self._run, work, item, threads).add_done_callback(done.put)
                running += 1
            if not running:
                break
            try:
                results.append(done.get(timeout=TICK_SECONDS).result())
                running -= 1
                if self._goodput is not None:
                    self._goodput.finished()
            except queue.Empty:
                self.check()
            self._follow(busy=more)
        return results

    def start(self, work: Callable[[], None]) -> None:
        """Run something that handles its own errors, as soon as a thread is free. InterruptedCallError as ``check``."""

        def run(_item: None, _threads: int) -> None:
            work()

        try:
            self._executor.submit(self._run, run, None, 1)
        except RuntimeError:  # it was shut down
            self.check()
            raise

    def _run(self, work: Callable[[T, int], R], item: T, threads: int) -> R:
        with self._changed:
            self._running += 1
        try:
            return work(item, threads)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _follow(self, *, busy: bool) -> None:
        if self._goodput is not None:
            rate = self._goodput.step(busy=busy)
            if rate is not None:
                self._emit(ConcurrencyChanged(self._goodput.requests, rate))

    def stop(self) -> None:
        """End what runs, and begin nothing any more. It is not waited for."""
        self.cancellation.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Stop, and wait until nothing runs."""
        self.stop()
        self._executor.shutdown()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if not isinstance(error, Exception | GeneratorExit | None):
            with self._changed:  # Ctrl-C: a moment, in which calls end that are interrupted
                self._changed.wait_for(lambda: not self._running, TICK_SECONDS)
