"""Partly dead xorbs: chunks that files are made of are copied into new xorbs, several old ones into one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from xetstore.cas.footers import sound
from xetstore.cas.index import XorbRow
from xetstore.cas.rewriting.files import move_files
from xetstore.cas.rewriting.packing import Moves, Packing
from xetstore.cas.rewriting.run import Run
from xetstore.cas.rewriting.usage import Usage, usage_of
from xetstore.errors import IntegrityError, NotFoundError

_MOST_OLD: Final = 64
"""The most xorbs that become one: the footers of all of them are in memory."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A xorb that is worth rewriting, and the namespaces that may know of it: its holders, and its readers.

    Only xorbs of the same namespaces become one: each would let those of the other know of its chunks.
    """

    usage: Usage
    holders: frozenset[str]
    readers: frozenset[str]

    @property
    def audience(self) -> tuple[list[str], list[str]]:
        """Namespaces, in an order."""
        return sorted(self.holders), sorted(self.readers)


def rewrite_xorbs(run: Run, page: Iterable[tuple[float | None, XorbRow]], threshold: float) -> None:
    """Rewrite those of these xorbs of which more than ``threshold`` is garbage, as a part of their stored chunks.

    A xorb comes with the time since when a file less is made of it, if it is known that there is one.
    """
    candidates = [candidate for seen, row in page if (candidate := _look(run, row, seen, threshold)) is not None]
    for group in _groups(run, candidates):
        _rewrite(run, group)


def _look(run: Run, row: XorbRow, seen: float | None, threshold: float) -> _Candidate | None:
    """A xorb, if it is worth rewriting."""
    run.report.xorbs_looked_at += 1
    run.rest()
    if row.is_damaged:
        return None  # it stays noted, until it is healed
    try:
        info = run.cas.footers.get(row)
    except IntegrityError as error:
        run.report.damaged.append(f"xorb {row.hash}: {error}")
        return None
    with run.cas.index.snapshot() as reader:
        usage = usage_of(row, info, reader, more_than=threshold * row.region_bytes)
        holders, readers = reader.audience(row.id) if usage is not None else (frozenset(), frozenset())
    if usage is not None and holders:
        return _Candidate(usage, holders, readers)
    if seen is not None and not run.is_dry:
        run.lease.change(lambda writer: writer.note_looked_at(row.id, seen=seen))
    return None


def _groups(run: Run, candidates: Sequence[_Candidate]) -> Iterator[list[_Candidate]]:
    """Xorbs that become one, those of the same files together."""
    ordered = sorted(candidates, key=lambda one: (one.audience, one.usage.first_user, one.usage.row.id))
    for _, same in groupby(ordered, key=lambda one: one.audience):
        group: list[_Candidate] = []
        packing = Packing()
        for candidate in same:
            row = candidate.usage.row
            info = sound(next(run.cas.footers.get_many([row])))
            parts = [info.chunks.slice(start, end) for start, end in candidate.usage.runs]
            if len(group) == _MOST_OLD or not packing.has_room_for(parts):
                yield group
                group, packing = [], Packing()
            for start, end in candidate.usage.runs:
                packing.take(row, info, start, end)
            group.append(candidate)
        if group:
            yield group


def _rewrite(run: Run, group: Sequence[_Candidate]) -> None:
    """Make one xorb of what is used of these, and the files of these of that."""
    packing = Packing()
    try:
        for candidate in group:
            info = run.cas.footers.get(candidate.usage.row)
            for start, end in candidate.usage.runs:
                packing.take(candidate.usage.row, info, start, end)
        garbage = sum(candidate.usage.garbage_bytes for candidate in group)
        if not run.is_dry:
            new = packing.write(run, group[0].holders)
            move_files(run, [candidate.usage.row for candidate in group], [new], Moves([packing]))
    except (IntegrityError, NotFoundError) as error:
        names = ", ".join(str(candidate.usage.row.hash) for candidate in group)
        run.report.damaged.append(f"xorb {names}: {error}")
        return
    run.report.xorbs_rewritten += len(group)
    run.report.xorbs_written += 1
    run.report.copied_bytes += packing.stored_bytes
    run.report.freed_bytes += garbage
