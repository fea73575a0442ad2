"""Cancellation: the one way to end calls early. It is handed to all that waits, and nothing else stops a call.

A store has one, each call in it a child of that, and each transfer a child of its call's: what ends one ends all below
it, and nothing beside it. A transfer that fails cancels its own, so that nothing of it goes on behind its back.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final
from weakref import WeakSet

from xetstore.errors import InterruptedCallError
from xetstore.platform import forks

_guard: Final = forks.rlock()
"""Held while something is added, taken away or woken: of any of them, since all of that is quick."""


class Cancellation:
    """A word that is given once, to all that waits or works. Thread-safe.

    It belongs to the process that made it: in a child that was forked later :meth:`check` raises, because the call goes
    on in the parent; and to cancel it there wakes nothing of the parent's.

    >>> call = Cancellation()
    >>> transfer, other = call.child(), call.child()
    >>> transfer.cancel()
    >>> call.is_cancelled, transfer.is_cancelled, other.is_cancelled
    (False, True, False)
    """

    __slots__ = ("__weakref__", "_children", "_generation", "_wakers", "is_cancelled")

    def __init__(self) -> None:
        self.is_cancelled = False
        self._generation = forks.generation()
        self._wakers: list[Callable[[], object]] = []
        self._children: WeakSet[Cancellation] = WeakSet()

    def child(self) -> Cancellation:
        """One that is cancelled with this, and can be alone. Raises as :meth:`check`."""
        child = Cancellation()
        with _guard:
            self.check()
            self._children.add(child)
        return child

    def cancel(self) -> None:
        """End all that was handed this, or a child of it: soon, with InterruptedCallError. Waits for nothing."""
        with _guard:
            self.is_cancelled = True
            if self._generation == forks.generation():
                for wake in list(self._wakers):
                    wake()
                for child in list(self._children):
                    child.cancel()

    def check(self) -> None:
        """Raise InterruptedCallError once it is cancelled, and in a child of the process that made it."""
        if self.is_cancelled:
            raise InterruptedCallError(
                "the call was interrupted, or its store closed", hint="nothing is wrong with it: make it again"
            )
        if self._generation != forks.generation():
            raise forks.left_behind()

    def on_cancel(self, wake: Callable[[], object]) -> Callable[[], None]:
        """Have ``wake`` called when it is cancelled; what is returned undoes that. Raises as :meth:`check`.

        Once that has returned, ``wake`` is not called any more, nor being called. It is quick, and takes no lock that a
        caller of this holds.
        """
        with _guard:
            self.check()
            self._wakers.append(wake)

        def forget() -> None:
            with _guard, suppress(ValueError):
                self._wakers.remove(wake)

        return forget

    def wait(self, seconds: float) -> None:
        """Wait. Raises as :meth:`check`, as soon as it is cancelled."""
        # A queue and no event: a signal handler may cancel while its own thread waits.
        woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        forget = self.on_cancel(partial(woken.put, None))
        try:
            with suppress(queue.Empty):
                woken.get(timeout=max(seconds, 0))
        finally:
            forget()
        self.check()
