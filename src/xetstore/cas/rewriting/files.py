"""Files that get other terms, with a shard that names them so."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from xetstore.batches import sized_batches
from xetstore.cas.claims import ClaimCheck, named_xorbs
from xetstore.cas.index import Writer, XorbRow
from xetstore.cas.index.queries.rewriting import OutdatedError, StoredFile
from xetstore.cas.index.queries.rows import terms_of
from xetstore.cas.registering import register_shard
from xetstore.cas.rewriting.packing import Moves
from xetstore.cas.rewriting.run import Run
from xetstore.errors import IntegrityError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard

FILES_AT_A_TIME: Final = 64
TERMS_AT_A_TIME: Final = 1 << 14
"""The most files, and terms of them, that one transaction changes, unless one file has more."""
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class FileTerms:
    """Files as they were read at one moment: their terms with the names of the xorbs, whose rows are beside."""

    files: tuple[StoredFile, ...]
    terms: Mapping[int, list[Term]]
    rows: Mapping[Hash, XorbRow]


def read_files(run: Run, ids: Collection[int]) -> FileTerms:
    """Those of these files that are there. Raises DamagedError where the index is broken."""
    with run.cas.index.snapshot() as reader:
        files = tuple(reader.stored_files(ids))
        rows = reader.xorbs_with({term[0] for file in files for term in file.terms})
    terms = {file.id: terms_of(file.terms, rows, file.hash) for file in files}
    return FileTerms(files, terms, {row.hash: row for row in rows.values()})


def move_files(run: Run, old: Collection[XorbRow], new: Collection[XorbRow], moves: Moves) -> None:
    """Let all files that are made of ``old`` xorbs be made of their copies in ``new``.

    The old ones are doomed once no file is made of them. A file that changes beside, or of which another xorb is
    damaged, stays as it is.
    """
    old_ids = sorted(row.id for row in old)
    for xorb_id in old_ids:
        behind = 0
        while users := _users(run, xorb_id, behind):
            for ids in by_terms(users):
                move_some(run, ids, old_ids, new, moves)
                run.rest()
            behind = users[-1][0]


def _users(run: Run, xorb_id: int, behind: int) -> list[tuple[int, int]]:
    with run.cas.index.snapshot() as reader:
        return reader.users_after(xorb_id, behind, FILES_AT_A_TIME)


def by_terms(users: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    """Files, given with how many terms each has, in parts of a bounded number of terms."""
    for part in sized_batches(users, itemgetter(1), TERMS_AT_A_TIME):
        yield [file_id for file_id, _ in part]


def move_some(
    run: Run, ids: Sequence[int], old_ids: Collection[int], new: Collection[XorbRow], moves: Moves
) -> list[FileEntry]:
    """Let these files be made of the copies, in one transaction; those that are so now."""
    for _ in range(_ATTEMPTS):
        read = read_files(run, ids)
        rows = {**read.rows, **{row.hash: row for row in new}}
        claims = ClaimCheck(rows, run.cas.footers)
        moved: dict[int, FileEntry] = {}
        for file in read.files:
            terms = moves.moved(read.terms[file.id])
            if terms != read.terms[file.id] and (entry := checked_entry(run, claims, file, terms)) is not None:
                moved[file.id] = entry
        if not moved:
            return []
        try:
            _register(run, [file for file in read.files if file.id in moved], moved, rows, old_ids, new, claims)
        except OutdatedError:
            continue
        run.report.files_rewritten += len(moved)
        return [*moved.values()]
    run.report.left += len(ids)
    return []


def checked_entry(run: Run, claims: ClaimCheck, file: StoredFile, terms: Sequence[Term]) -> FileEntry | None:
    """The entry of a file in a shard, recomputed from the chunks; None where that is not to be had now."""
    try:
        return claims.entry(file.hash, terms, file.sha256)
    except IntegrityError as error:
        run.report.damaged.append(f"file {file.hash}: {error}")
        return None


def _register(
    run: Run,
    files: Sequence[StoredFile],
    entries: Mapping[int, FileEntry],
    rows: Mapping[Hash, XorbRow],
    old_ids: Collection[int],
    new: Collection[XorbRow],
    claims: ClaimCheck,
) -> None:
    now = run.cas.now()
    copies = {row.id for row in new}
    eligible = sorted(pair for pair in claims.eligible if pair[1] in copies)

    def replace(writer: Writer) -> bool:
        run.lease.require(writer)
        counts = writer.xorbs([row.hash for row in new])
        if any(row.hash not in counts or counts[row.hash].is_damaged for row in new):
            raise OutdatedError("a new xorb was deleted, or found damaged")
        writer.replace_terms(files, entries, rows, now=now)
        writer.add_dedup(eligible)
        writer.doom_unused(old_ids, now=now)
        return True

    add_shard(run, [*entries.values()], replace)


def add_shard(run: Run, entries: Sequence[FileEntry], change: Callable[[Writer], bool]) -> None:
    """Store and register a shard of these files, in the transaction of ``change``."""
    shard = Shard(tuple(entries))
    register_shard(
        shard.serialize_with_footer(),
        change,
        files=[entry.hash for entry in entries],
        xorbs=named_xorbs(shard),
        now=run.cas.now(),
        blobs=run.cas.blobs,
        index=run.cas.index,
    )
