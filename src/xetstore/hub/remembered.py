"""Remembered: values by a key that says all of them, within a weight. The ones that were not asked for go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from xetstore.platform import forks

V = TypeVar("V")


class Remembered(Generic[V]):
    """At most ``most`` in weight of what ``weigh`` says of each value. Thread-safe.

    >>> squares = Remembered(2, lambda _: 1)
    >>> squares.get(3, lambda: 9), squares.get(3, lambda: 0)
    (9, 9)
    """

    def __init__(self, most: int, weigh: Callable[[V], int]) -> None:
        self._most = most
        self._weigh = weigh
        self._lock = forks.lock()
        self._values: OrderedDict[Hashable, tuple[int, V]] = OrderedDict()
        self._weight = 0

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value of a key, made if it is not remembered. Two callers may make it at once."""
        with self._lock:
            found = self._values.get(key)
            if found is not None:
                self._values.move_to_end(key)
                return found[1]
        value = make()
        weight = self._weigh(value)
        if weight <= self._most:
            with self._lock:
                if key not in self._values:
                    self._values[key] = weight, value
                    self._weight += weight
                while self._weight > self._most:
                    _, (gone, _) = self._values.popitem(last=False)
                    self._weight -= gone
        return value
