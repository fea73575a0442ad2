"""FileRange: bytes of a stored file, as a caller asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xetstore.errors import UsageError, WrongTypeError

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash


def check_range(start: int, end: int | None) -> None:
    """Raise UsageError for a negative or reversed range, and for what is no number."""
    for number in (start, 0 if end is None else end):
        if not hasattr(number, "__index__"):
            raise WrongTypeError(f"a byte range is given by numbers of bytes, not by {type(number).__name__}")
    if start < 0 or (end is not None and end < start):
        text = f"{start}:{'' if end is None else end}"
        raise UsageError(f"{text} is not a byte range", hint="give START:END with 0 <= START <= END")


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes ``[start, end)`` of a file; to its end for None, and what is behind it is left out.

    ``size`` is how long the whole file is, where that was told by another than the Cas: it cannot be longer. Raises
    UsageError for a negative or reversed range.
    """

    file: Hash
    start: int = 0
    end: int | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        check_range(self.start, self.end)

    @property
    def is_whole(self) -> bool:
        """True if it is all of the file, whose hash is known then."""
        return self.start == 0 and self.end is None
