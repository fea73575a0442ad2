"""Threads that the system may refuse: by a limit on processes, or because the interpreter ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from xetstore.errors import UnavailableError

P = ParamSpec("P")
T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """A ThreadPoolExecutor whose refusals are errors of ours, and that does with fewer threads where it has one."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As always. Raises UnavailableError where there is no thread for it; RuntimeError after a shutdown."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError as error:
            refused = refusal(error)
            if refused is None:
                raise
            raise refused from error

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            # The work is in the queue: threads that are there do it.
            if not self._threads:
                raise


def start_thread(target: Callable[..., Any], *args: Any, name: str, daemon: bool = True) -> threading.Thread:
    """Run a function in a thread of its own. Raises UnavailableError where the system has none."""
    thread = threading.Thread(target=target, args=args, name=name, daemon=daemon)
    try:
        thread.start()
    except RuntimeError as error:
        raise refusal(error) or error from error
    return thread


def refusal(error: RuntimeError) -> UnavailableError | None:
    """The error of ours for a RuntimeError about threads: None for any other, and for a pool that was shut down."""
    text = str(error)
    if "interpreter shutdown" in text:
        return UnavailableError(
            "the program is ending, and nothing can be begun any more",
            hint="finish with the store before the main thread ends, or close it there",
        )
    if "start new thread" in text or "create new thread" in text:
        return UnavailableError(
            "the system refuses to start another thread",
            hint="raise the limit on processes (ulimit -u), or of the container, and run the same command again",
        )
    return None
