"""Position: how far a source has been copied into a target, kept in the target as an object, for ``--since-last``."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import Final

from xetstore.cas.copying.kept import read_kept, write_kept
from xetstore.cas.index.queries.copying import LastIds, NewRows
from xetstore.interfaces import BlobStore

MARGIN_SECONDS: Final = 24 * 3600.0
"""Rows that are older than the last copy by less than this are read again. See :meth:`Position.rows_behind`."""

_KIND: Final = "position"


@dataclass(frozen=True, slots=True)
class Position:
    """The state at the beginning of a copy that came to its end, and nothing was left out.

    ``started_at`` is the source's time, ``source`` the largest ids there, ``target`` those of the target at the end.
    """

    started_at: float
    source: LastIds
    target: LastIds

    def rows_behind(self, last: LastIds, *, target: LastIds, now: float) -> NewRows:
        """The rows of the source, up to ``last``, that a copy from here on must read: all of them where this position
        is not one of these two stores as they are.

        Ids alone are not enough. Where writers run side by side, a row may be committed with a smaller id than one that
        was read before; and a grant, or an upload by another namespace, changes an old row. So rows count that are
        behind the largest id *or* not older than the copy's beginning, less a margin. A row has the time that its
        writer took before it committed; a writer that took longer than the margin, a day, would have to hold its
        transaction for as long. Times alone would not be enough either: a clock may be wrong for a while, and then ids
        tell. Whatever is read again costs a question about a page of rows, and no object.

        A source or target that was put back to an earlier state has smaller ids, or an earlier time, than this says:
        then everything is compared.
        """
        is_behind = (
            self.started_at <= now
            and all(mine <= theirs for mine, theirs in zip(_ids(self.source), _ids(last), strict=True))
            and all(mine <= theirs for mine, theirs in zip(_ids(self.target), _ids(target), strict=True))
        )
        return NewRows(last, self.source, self.started_at - MARGIN_SECONDS) if is_behind else NewRows(last)


def read_position(blobs: BlobStore, source_id: str) -> Position | None:
    """The last position of copies from one source; None if there is none, or it makes no sense."""
    values = read_kept(blobs, source_id, _KIND) or {}
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        source, target = (
            LastIds(**{kind: int(last) for kind, last in values[name].items()}) for name in ("source", "target")
        )
        return Position(float(values["started_at"]), source, target)
    return None


def write_position(blobs: BlobStore, source_id: str, position: Position) -> None:
    """Keep a position, in place of those before."""
    write_kept(blobs, source_id, _KIND, asdict(position), now=position.started_at)


def _ids(last: LastIds) -> tuple[int, int, int]:
    return last.xorb, last.file, last.shard
