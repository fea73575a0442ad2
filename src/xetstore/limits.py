"""Limits: the most that a transfer may take of the machine and of the network."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from xetstore.errors import UsageError, WrongTypeError
from xetstore.sizes import size_text

MIN_MEMORY_BYTES: Final = 128 << 20
"""With less no transfer can work: the interpreter, the blocks being read, and one small xorb."""

ANSWER_SHARE: Final = 64
"""The part of the memory for an answer that is held whole, as a divisor: decoded it takes up to 25 times its size."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps that hold. None leaves it to the transfer.

    ``max_memory`` is bytes of memory of the whole process; ``rate`` bytes per second, up and down counted apart;
    ``jobs`` how many requests that move data run at a time. The last two are for what a server may ask of patience:
    ``min_rate`` bytes per second of a body, as the mean of a minute, or it is given up; ``commit_seconds`` until a
    server that registers files gets further with it. Raises UsageError for what no transfer can keep.
    """

    max_memory: int | None = None
    rate: float | None = None
    jobs: int | None = None
    min_rate: float = 1024
    commit_seconds: float = 600

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not isinstance(value, int | float):
                raise WrongTypeError.of(f"the limit {field.name}", value, "a number")
        if self.max_memory is not None and self.max_memory < MIN_MEMORY_BYTES:
            raise UsageError(
                f"{size_text(max(self.max_memory, 0))} of memory are not enough",
                hint=f"allow {size_text(MIN_MEMORY_BYTES)} or more",
            )
        if self.rate is not None and not self.rate > 0:
            raise UsageError(f"{self.rate:g} bytes per second is no rate", hint="give a positive number")
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"{self.jobs} requests at a time move nothing", hint="give 1 or more")
        if not self.min_rate >= 0:
            raise UsageError(f"{self.min_rate:g} bytes per second is no rate", hint="give 0 to wait for any body")
        if not self.commit_seconds > 0:
            raise UsageError(f"in {self.commit_seconds:g} s no server registers a file", hint="give some minutes")

    @property
    def answer_bytes(self) -> int | None:
        """The most that an answer may have that is held whole."""
        return None if self.max_memory is None else self.max_memory // ANSWER_SHARE


NO_LIMITS: Final = Limits()
