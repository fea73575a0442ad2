"""Waiting for another thread, in ticks: a signal that comes just before a wait does not end it."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future, wait
from typing import Any, Final, TypeVar

T = TypeVar("T")

TICK_SECONDS: Final = 0.25
"""The longest wait at a time: Ctrl-C is noticed between two."""


def wait_all(futures: Collection[Future[Any]]) -> None:
    """Return when all are done; their errors are theirs."""
    while wait(futures, TICK_SECONDS).not_done:
        pass


def result_of(future: Future[T]) -> T:
    """Wait for a future: its result, or what it raises."""
    wait_all((future,))
    return future.result()
