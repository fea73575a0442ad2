"""Byte ranges of objects: checked, and read whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from xetstore.errors import DamagedError, NotFoundError, RangeError, UsageError

if TYPE_CHECKING:
    from xetstore.interfaces import ByteStream, RangeAnswer, RangeRequest


def check_range(key: str, size: int, start: int, end: int) -> None:
    """Raises UsageError unless ``0 <= start <= end``, and RangeError if the object of ``size`` bytes ends before."""
    if not 0 <= start <= end:
        raise UsageError(f"bytes {start} to {end} are not a range")
    if end > size:
        raise RangeError(f"object {key} has {size} bytes, bytes {start} to {end} are not in it")


def fill(stream: ByteStream, buffer: memoryview) -> None:
    """Read until ``buffer`` is full. Raises DamagedError if the stream ends before."""
    while buffer:
        count = stream.readinto(buffer)
        if not count:
            raise DamagedError(f"an object ended {len(buffer)} bytes too early")
        buffer = buffer[count:]


def read_all(stream: ByteStream, size: int) -> bytes:
    """Exactly ``size`` bytes of a stream, which is closed then. Raises DamagedError if it ends before."""
    buffer = bytearray(size)
    with stream:
        fill(stream, memoryview(buffer))
    return bytes(buffer)


def one_by_one(get_range: Callable[[str, int, int], ByteStream], requests: Iterable[RangeRequest]) -> list[RangeAnswer]:
    """``get_ranges`` of a store in which a read waits for no network."""
    answers: list[RangeAnswer] = []
    for key, start, end in requests:
        try:
            answers.append(read_all(get_range(key, start, end), end - start))
        except (NotFoundError, RangeError, DamagedError) as error:
            answers.append(error)
    return answers
