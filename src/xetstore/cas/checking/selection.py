"""Selection: the part of a store whose bytes a check reads, and for how long."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from xetstore.cas.index import NOWHERE
from xetstore.errors import UsageError

if TYPE_CHECKING:
    from xetstore.cas.index import XorbRow
    from xetstore.cas.service import EmbeddedCas

_SUBSET: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})|([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
_PAGE_ROWS: Final = 100


@dataclass(frozen=True, slots=True)
class Selection:
    """The xorbs that are read, those that were checked least recently first.

    ``part`` ``(n, t)`` is the n-th of t parts, in which each xorb is in one; ``share`` are the least recently checked
    ones, 0 to 1 of all. After ``seconds`` no more is read, but one xorb always is.
    """

    part: tuple[int, int] = (1, 1)
    share: float = 1.0
    seconds: float = math.inf

    @classmethod
    def parse(cls, subset: str | None, seconds: float | None = None) -> Self | None:
        """A selection from ``n/t`` or ``x%``, and a time; None where neither is given. Raises UsageError.

        >>> Selection.parse("2/7")
        Selection(part=(2, 7), share=1.0, seconds=inf)
        >>> Selection.parse("2.5%", 60).share
        0.025
        """
        if subset is None and seconds is None:
            return None
        limit = math.inf if seconds is None else seconds
        if subset is None:
            return cls(seconds=limit)
        match = _SUBSET.fullmatch(subset)
        if match is not None and match[3] is not None and 0 < float(match[3]) <= 100:
            return cls(share=float(match[3]) / 100, seconds=limit)
        if match is not None and match[3] is None and 1 <= int(match[1]) <= int(match[2]):
            return cls(part=(int(match[1]), int(match[2])), seconds=limit)
        raise UsageError(f"{subset[:80]!r} is not a subset", hint="a subset is n/t, such as 2/7, or x%, such as 2.5%")

    def pages(self, cas: EmbeddedCas, count: int) -> Iterator[list[XorbRow]]:
        """The xorbs to read, of ``count`` in all; those that are there now."""
        until, behind = cas.now(), NOWHERE
        left = math.ceil(count * self.share)
        number, parts = self.part
        while left > 0:
            with cas.index.snapshot() as reader:
                page = reader.xorbs_due(behind, until=until, most=min(_PAGE_ROWS, left))
            if not page:
                return
            behind = page[-1][0]
            left -= len(page)
            yield [row for _, row in page if int.from_bytes(row.hash.digest[:8], "little") % parts == number - 1]

    def deadline(self) -> float:
        """The end of the time, by the monotonic clock."""
        return time.monotonic() + self.seconds
