"""Batches: many values a part at a time, by their number or by their size, so that each part fits into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batches(values: Iterable[T], most: int) -> Iterator[list[T]]:
    """Values in parts of at most ``most``.

    >>> list(batches("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    rest = iter(values)
    while batch := list(islice(rest, most)):
        yield batch


def sized_batches(
    values: Iterable[T], size: Callable[[T], int], most_size: int, *, most: int | None = None
) -> Iterator[list[T]]:
    """Values in parts that have at most ``most_size`` together, unless one alone has more; of at most ``most``.

    >>> list(sized_batches([3, 4, 2, 9, 1], lambda value: value, 7))
    [[3, 4], [2], [9], [1]]
    """
    batch: list[T] = []
    total = 0
    for value in values:
        its = size(value)
        if batch and (total + its > most_size or len(batch) == most):
            yield batch
            batch, total = [], 0
        batch.append(value)
        total += its
    if batch:
        yield batch
