"""Fragmented files: the short runs of chunks of which they are made get xorbs of their own, in file order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from xetstore.cas.fetches import as_damage, fetches_of
from xetstore.cas.index import XorbRow
from xetstore.cas.index.queries.rewriting import StoredFile
from xetstore.cas.rewriting.files import FileTerms, move_some, read_files
from xetstore.cas.rewriting.packing import Moves, Packing
from xetstore.cas.rewriting.run import GIB, Run
from xetstore.errors import IntegrityError, NotFoundError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import FetchRange, Reconstruction, Term, plan_fetches

LEAST_FETCHES: Final = 16
"""The fewest fetches of a file that is worth repacking."""


@dataclass(frozen=True, slots=True)
class Locality:
    """The bounds of repacking.

    A file of which a whole download takes more than ``fetches_per_gib`` is repacked, if that takes copies of at most
    ``space`` of its stored bytes. So all copies together take at most that part of what the files take.
    """

    fetches_per_gib: float = 256.0
    space: float = 0.125

    def allows(self, fetches: int, size: int) -> bool:
        """True if a file of ``size`` bytes may have that many fetches."""
        return fetches <= max(LEAST_FETCHES, self.fetches_per_gib * size / GIB)


def repack(run: Run, file_id: int, locality: Locality) -> None:
    """Repack a file, if it is fragmented and the bounds allow it."""
    try:
        read = read_files(run, [file_id])
        for file in read.files:
            _repack(run, file, read, locality)
    except (IntegrityError, NotFoundError) as error:
        run.report.damaged.append(f"a file that is repacked: {error}")


def _repack(run: Run, file: StoredFile, read: FileTerms, locality: Locality) -> None:
    terms = read.terms[file.id]
    with as_damage(file.hash):
        fetches = fetches_of(run.cas.footers, read.rows, terms)
    before = count_fetches(terms, fetches, file.size)
    if locality.allows(before, file.size):
        return
    chosen = _short_ranges(fetches, locality.space)
    packings = _pack(run, terms, chosen, read.rows)
    after = before - sum(map(len, chosen.values())) + len(packings)
    with run.cas.index.snapshot() as reader:
        namespaces = reader.granted_to(file.id)
    if not locality.allows(after, file.size) or not namespaces:
        return
    if not run.is_dry:
        new = [packing.write(run, namespaces) for packing in packings]
        entries = move_some(run, [file.id], [], new, Moves(packings))
        if not entries:
            return
        rows = {**read.rows, **{row.hash: row for row in new}}
        moved = entries[0].terms
        after = count_fetches(moved, fetches_of(run.cas.footers, rows, moved), file.size)
    report = run.report
    report.files_repacked += 1
    report.repacked_file_bytes += file.size
    report.fetches_before += before
    report.fetches_after += after
    report.xorbs_written += len(packings)
    report.copied_bytes += sum(packing.stored_bytes for packing in packings)


def count_fetches(terms: Sequence[Term], fetches: Mapping[Hash, tuple[FetchRange, ...]], size: int) -> int:
    """The fetches of a download of a whole file."""
    return len(plan_fetches(Reconstruction(0, tuple(terms), fetches), size)) if size else 0


def _short_ranges(fetches: Mapping[Hash, tuple[FetchRange, ...]], space: float) -> dict[Hash, set[FetchRange]]:
    """The shortest ranges, as many as have ``space`` of all bytes."""
    every = sorted(
        (fetch for ranges in fetches.values() for fetch in ranges),
        key=lambda fetch: fetch.byte_end - fetch.byte_start,
    )
    left = space * sum(fetch.byte_end - fetch.byte_start for fetch in every)
    chosen: dict[Hash, set[FetchRange]] = {}
    for fetch in every:
        left -= fetch.byte_end - fetch.byte_start
        if left < 0:
            break
        chosen.setdefault(fetch.xorb, set()).add(fetch)
    return chosen


def _pack(
    run: Run, terms: Sequence[Term], chosen: Mapping[Hash, set[FetchRange]], rows: Mapping[Hash, XorbRow]
) -> list[Packing]:
    """The chunks of these ranges in the order in which the file has them first, each once."""
    packings = [Packing()]
    taken: dict[Hash, bytearray] = {}
    for term in terms:
        ranges = chosen.get(term.xorb)
        if not ranges or not any(one.chunk_start <= term.chunk_start < one.chunk_end for one in ranges):
            continue
        row = rows[term.xorb]
        info = run.cas.footers.get(row)
        flags = taken.setdefault(term.xorb, bytearray(info.chunk_count))
        at = flags.find(0, term.chunk_start, term.chunk_end)
        while at >= 0:
            stop = flags.find(1, at, term.chunk_end)
            stop = term.chunk_end if stop < 0 else stop
            if not packings[-1].has_room_for([info.chunks.slice(at, stop)]):
                packings.append(Packing())
            packings[-1].take(row, info, at, stop)
            flags[at:stop] = b"\1" * (stop - at)
            at = flags.find(0, stop, term.chunk_end)
    return packings
