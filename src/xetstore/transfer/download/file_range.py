"""FileRange: bytes of a stored file, as a caller asks for them."""

from __future__ import annotations

from dataclasses import dataclass

from xetstore.errors import UsageError
from xetstore.protocol.hashes import Hash


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
        if self.start < 0 or (self.end is not None and self.end < self.start):
            raise UsageError(
                f"{self.start}:{self.end} is not a byte range", hint="give START:END with 0 <= START <= END"
            )

    @property
    def is_whole(self) -> bool:
        """True if it is all of the file, whose hash is known then."""
        return self.start == 0 and self.end is None
