"""Threads that the system may refuse: by a limit on processes or memory, or because the program ends.

`threading.Thread.start` waits until its thread has begun: without end, where that dies before for want of memory, and
so would the pools of `concurrent.futures`. Here the wait is at most :data:`BEGIN_SECONDS`, and then a refusal.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

from xetstore.errors import UnavailableError
from xetstore.platform import forks

P = ParamSpec("P")
T = TypeVar("T")

BEGIN_SECONDS: Final = 2.0
"""The longest wait for a thread to begin: an event loop may be what waits."""

PAUSE_SECONDS: Final = 5.0
"""A pool that was refused a thread, and has others, asks for the next one after this time."""


def usable_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Begun(threading.Event):
    """The event that a thread sets when it begins."""

    def wait(self, timeout: float | None = None) -> bool:
        if not super().wait(BEGIN_SECONDS if timeout is None else timeout):
            raise RuntimeError("can't start new thread: it has not begun")
        return True


class _Thread(threading.Thread):
    """A thread whose ``start`` ends. One that begins after it was given up does nothing."""

    def __init__(self, target: Callable[..., Any], args: tuple[Any, ...], name: str, *, daemon: bool) -> None:
        super().__init__(target=target, args=args, name=name, daemon=daemon)
        self._started = _Begun()
        self._is_given_up = False

    def start(self) -> None:
        """As always. Raises UnavailableError where the system has no thread."""
        try:
            super().start()
        except RuntimeError as error:
            self._is_given_up = True
            raise refusal(error) or error from error

    def run(self) -> None:
        """As always."""
        if not self._is_given_up:
            super().run()


def start_thread(target: Callable[..., Any], *args: Any, name: str, daemon: bool = True) -> threading.Thread:
    """Run a function in a thread of its own. Raises UnavailableError where the system has none."""
    thread = _Thread(target, args, name, daemon=daemon)
    thread.start()
    return thread


class _Work:
    """Calls that wait for a thread of a pool. Its numbers, of calls not done and of threads, change under ``turn``."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.calls: SimpleQueue[_Call | None] = SimpleQueue()
        self.unfinished = self.threads = 0

    def run(self) -> None:
        """Do calls until the end of the pool."""
        while (call := self._next()) is not None:
            call()
            del call
        self.calls.put(None)

    def _next(self) -> _Call | None:
        while True:
            try:
                return self.calls.get()
            except MemoryError:  # the pool counts on this thread
                time.sleep(0.01)

    def drain(self) -> Iterator[_Call]:
        """The calls that have not begun, which are taken out."""
        with suppress(Empty):
            while True:
                if (call := self.calls.get_nowait()) is not None:
                    yield call

    def finished(self) -> None:
        """Count a call that is done, or was not taken."""
        with self.turn:
            self.unfinished -= 1


class _Call:
    """A call and its future."""

    __slots__ = ("_call", "_work", "future")

    def __init__(self, work: _Work, call: Callable[[], Any]) -> None:
        self._work, self._call = work, call
        self.future: Future[Any] = Future()

    def __call__(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            self._work.finished()
            return
        # It is counted before it is told: who is told finds the thread idle.
        try:
            result = self._call()
        except BaseException as error:
            self._work.finished()
            self.future.set_exception(error)
            del self  # the error has a frame that has this call, which has the future, which has the error
        else:
            self._work.finished()
            self.future.set_result(result)


class Threads(Executor):
    """At most ``most`` threads, started as they are needed. Thread-safe; in a child that was forked it has none yet.

    As `concurrent.futures.ThreadPoolExecutor`, but a refusal of the system is an error of ours, and a pool that has a
    thread does with those it has. A program that ends waits for calls under way, and begins no other.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._is_shut = False
        self._begin()
        forks.renew(self, Threads._begin)

    def _begin(self) -> None:
        self._work = _Work()
        self._threads: list[threading.Thread] = []
        self._paused_until = 0.0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As always. Raises UnavailableError where there is no thread for it; RuntimeError after a shutdown."""
        work = self._work
        call = _Call(work, lambda: fn(*args, **kwargs))
        with work.turn:
            self._require_open()
            work.unfinished += 1
            is_short = work.unfinished > work.threads < self._most
            work.threads += is_short
        try:
            if is_short:
                self._add_thread(work)
            with work.turn:
                self._require_open()
                work.calls.put(call)
        except BaseException:
            work.finished()
            raise
        return call.future

    def _require_open(self) -> None:
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if _is_ending:
            raise _ending()

    def _add_thread(self, work: _Work) -> None:
        """Start a thread, unless one was refused just now and there are others. Raises where there is none at all."""
        try:
            if self._threads and time.monotonic() < self._paused_until:
                raise _refused()
            if not self._threads:  # most pools of short calls never have one
                weakref.finalize(self, work.calls.put, None).atexit = False
                _pools.add(self)
            thread = start_thread(work.run, name=f"{self._name}_{len(self._threads)}")
        except BaseException as error:
            is_refused = isinstance(error, UnavailableError)
            if is_refused and time.monotonic() >= self._paused_until:
                self._paused_until = time.monotonic() + PAUSE_SECONDS
            with work.turn:
                work.threads -= 1
            if is_refused and self._threads:
                return
            raise
        self._threads.append(thread)
        _workers.add(thread)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. With ``cancel_futures`` those that have not begun are cancelled; wait for the others."""
        work = self._work
        with work.turn:
            self._is_shut = True
            waiting = list(work.drain()) if cancel_futures else []
            work.calls.put(None)
        for call in waiting:
            call.future.cancel()
        if wait:
            for thread in self._threads:
                thread.join()


_pools: Final[weakref.WeakSet[Threads]] = weakref.WeakSet()
_workers: Final[weakref.WeakSet[threading.Thread]] = weakref.WeakSet()
_is_ending = False


@atexit.register
def _end() -> None:
    """Let the calls under way end: a thread that the interpreter cuts off in the kernel ends the process."""
    global _is_ending
    _is_ending = True
    for pool in list(_pools):
        pool.shutdown(wait=False)
    for thread in list(_workers):
        thread.join()


def refusal(error: RuntimeError) -> UnavailableError | None:
    """The error of ours for a RuntimeError about threads: None for any other, and for a pool that was shut down."""
    text = str(error)
    if "interpreter shutdown" in text:
        return _ending()
    if "start new thread" in text or "create new thread" in text:
        return _refused()
    return None


def _ending() -> UnavailableError:
    return UnavailableError(
        "the program is ending, and nothing can be begun any more",
        hint="finish with the store before the main thread ends, or close it there",
    )


def _refused() -> UnavailableError:
    return UnavailableError(
        "the system refuses to start another thread",
        hint="raise the limit on processes (ulimit -u) or memory (ulimit -v), or of the container, and run the same"
        " command again",
    )
