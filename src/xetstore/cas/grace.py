"""Grace: how long what is deleted, or used by no file, is kept; the same for all who share a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DAY_SECONDS: Final = 24 * 3600.0
GRACE_SECONDS: Final = 22 * DAY_SECONDS
"""Real clients use an answer again for 21 days."""
UNDELETE_SECONDS: Final = 7 * DAY_SECONDS
ABANDONED_SECONDS: Final = 7 * DAY_SECONDS
"""No upload takes as long from its object to the row."""


@dataclass(frozen=True, slots=True)
class Grace:
    """The times of a collection, in seconds.

    ``undelete``: a deleted file can be given back. ``unused``: a xorb is kept that no file is made of, since it was
    doomed and since an answer last offered it. A shorter one than 22 days is for stores whose clients are known.
    """

    unused: float = GRACE_SECONDS
    undelete: float = UNDELETE_SECONDS

    @property
    def offer(self) -> float:
        """The time for which the note of an offer serves: a collection adds it to ``unused``."""
        return min(DAY_SECONDS, self.unused)

    @property
    def replaced(self) -> float:
        """The time for which an object is kept in whose place another one counts: readers that have begun get done."""
        return min(DAY_SECONDS, self.unused)
