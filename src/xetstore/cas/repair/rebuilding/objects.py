"""Xorbs and shards registered anew, from their objects alone: every claim is checked as at an upload."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from xetstore.batches import batches, sized_batches
from xetstore.blobs.ranges import read_all
from xetstore.cas.check import Problem
from xetstore.cas.checksums import END_BYTES, parse_checksums, told_section_bytes
from xetstore.cas.claims import ClaimCheck, named_xorbs
from xetstore.cas.index import Writer, XorbRow
from xetstore.cas.index.queries.rebuilding import DAMAGED, REGISTERED, SPARE, FoundObject, RebuildRows
from xetstore.cas.layout import SHARDS, XORBS, named_by
from xetstore.cas.repair.quarantine import set_aside
from xetstore.cas.repair.rebuilding.run import RebuildRun
from xetstore.cas.stored_xorb import compare_checksums, verify_object
from xetstore.errors import FormatError, IntegrityError, NotFoundError, RangeError, XetError
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.shard import FileEntry, Shard
from xetstore.protocol.xorb import XorbInfo

_LISTED: Final = 500
_XORBS_AT_A_TIME: Final = 64
_SHARDS_AT_A_TIME: Final = 50
_SHARD_BYTES: Final = 8 << 20
_TAIL_BYTES: Final = 64 << 10
"""The end of an object that is read first: it has the footer of a xorb of at most 1,363 chunks."""
_MOST_TAIL_BYTES: Final = 512 << 10


@dataclass(frozen=True, slots=True)
class _Read:
    """An object of a xorb that was read: the xorb if its footer is whole, and the first thing that is wrong with it."""

    found: FoundObject
    info: XorbInfo | None
    why: str | None = None
    all_read: bool = False


def list_objects(run: RebuildRun) -> None:
    """Let all objects of xorbs and shards wait to be registered."""
    for prefix, is_shard in ((XORBS, False), (SHARDS, True)):
        for batch in batches(_found_in(run, prefix), _LISTED):
            run.change(lambda _, rows, batch=batch, is_shard=is_shard: rows.add_objects(batch, is_shard=is_shard))  # type: ignore[misc]


def register_xorbs(run: RebuildRun) -> None:
    """Register every xorb that has a whole object, and one whose footer is whole as damaged if its data are not."""
    while waiting := _waiting(run, _XORBS_AT_A_TIME, is_shard=False):
        with run.cas.index.snapshot() as reader:
            group = RebuildRows(reader.connection).same({one.hash for one in waiting}, is_shard=False)
        by_name: dict[Hash, list[FoundObject]] = {}
        for one in group:
            by_name.setdefault(one.hash, []).append(one)
        read = _read(run, group, {name for name, ones in by_name.items() if len(ones) > 1})
        states: dict[str, tuple[int, str | None]] = {}
        rows: list[dict[str, object]] = []
        now = run.cas.now()
        for ones in by_name.values():
            candidates = [read[one.key] for one in sorted(ones, key=lambda one: one.modified_at, reverse=True)]
            chosen = next((each for each in candidates if each.why is None), None) or next(
                (each for each in candidates if each.info is not None), None
            )
            is_whole = chosen is not None and chosen.why is None
            for each in candidates:  # of a damaged one beside a whole one nothing is lost
                states[each.found.key] = (SPARE, None) if is_whole or each.why is None else (DAMAGED, each.why)
            if chosen is not None and chosen.info is not None:
                states[chosen.found.key] = REGISTERED, chosen.why
                rows.append(_row(chosen, chosen.info, now))
        run.change(lambda _, db, rows=rows, states=states: (db.add_xorbs(rows), db.settle(states)))  # type: ignore[misc]
        run.tally.xorbs += len(rows)
        for one in group:
            why = states[one.key][1]
            if why is not None:
                run.report(Problem(f"xorb {one.hash}", f"{one.key}: {why}"))
        if run.progress is not None:
            run.progress.advance(logical=sum(one.size for one in group))


def register_shards(run: RebuildRun) -> None:
    """Register every whole shard, and of its files those whose claims are right and whose xorbs are there."""
    while waiting := _waiting(run, _SHARDS_AT_A_TIME, is_shard=True):
        for batch in sized_batches(waiting, lambda one: one.size, _SHARD_BYTES):
            for one, data in zip(batch, _bodies(run, batch), strict=True):
                if isinstance(data, str):
                    run.change(lambda _, rows, key=one.key, why=data: rows.settle({key: (DAMAGED, why)}))  # type: ignore[misc]
                    run.report(Problem(f"shard {one.hash}", f"{one.key}: {data}"))
                else:
                    _register_shard(run, one, data)
                if run.progress is not None:
                    run.progress.advance(logical=one.size)


def set_damaged_aside(run: RebuildRun) -> None:
    """Move objects that could not be registered into quarantine, where no whole one counts: no row names them, so a
    collection would remove them, and one of which only the footer is damaged has all chunks. One that cannot be moved
    is told.
    """
    behind = ""
    while True:
        run.cancellation.check()
        with run.cas.index.snapshot() as reader:
            rows = RebuildRows(reader.connection)
            page = rows.damaged(_LISTED, behind)
            xorbs, shards = (
                rows.sound({name for key, name, _ in page if key.startswith(prefix)}, is_shard=prefix == SHARDS)
                for prefix in (XORBS, SHARDS)
            )
        if not page:
            return
        for key, name, _ in page:
            if name in (shards if key.startswith(SHARDS) else xorbs):
                continue
            try:
                set_aside(run.cas.blobs, key)
            except XetError as error:
                run.report(Problem(key, f"it stays where it is, and the next collection may remove it: {error}"))
            run.change(lambda *_: None)  # keeps the lease
        behind = page[-1][0]


def _found_in(run: RebuildRun, prefix: str) -> Iterator[FoundObject]:
    for blob in run.cas.blobs.list(prefix):
        named = named_by(blob.key)
        if named is not None:  # another key is not one of ours
            yield FoundObject(blob.key, *named, blob.size, blob.modified_at)


def _waiting(run: RebuildRun, most: int, *, is_shard: bool) -> list[FoundObject]:
    run.cancellation.check()
    with run.cas.index.snapshot() as reader:
        return RebuildRows(reader.connection).waiting(most, is_shard=is_shard)


def _read(run: RebuildRun, group: Sequence[FoundObject], doubtful: Collection[Hash]) -> dict[str, _Read]:
    """Read the footers of objects by one call, and all of those that must be."""
    blobs = run.cas.blobs
    tails = blobs.get_ranges([(one.key, max(0, one.size - _TAIL_BYTES), one.size) for one in group if one.size])
    answers = iter(tails)
    read: dict[str, _Read] = {}
    whole: list[tuple[FoundObject, XorbInfo, bytes]] = []
    for one in group:
        try:
            answer = next(answers) if one.size else b""
            if not isinstance(answer, bytes):
                raise answer
            info, checksums = _footer(run, one, answer)
        except (IntegrityError, NotFoundError, RangeError) as error:
            read[one.key] = _Read(one, None, str(error))
            continue
        read[one.key] = _Read(one, info)
        if run.read_data or run.checksums or one.hash in doubtful:
            whole.append((one, info, checksums))
    for each in run.threads.map(lambda asked: _read_all(run, *asked), whole):
        read[each.found.key] = each
        run.tally.bytes_read += each.found.size
    return read


def _footer(run: RebuildRun, one: FoundObject, tail: bytes) -> tuple[XorbInfo, bytes]:
    """The footer of an object, and its checksums, if it has any. Raises IntegrityError."""
    section = told_section_bytes(tail[-END_BYTES:])
    end = len(tail) - section
    footer_bytes = int.from_bytes(tail[max(0, end - 4) : max(0, end)], "little") + 4
    needed = footer_bytes + section
    if needed > one.size or needed > _MOST_TAIL_BYTES:
        raise FormatError("footer.length", one.size, "the object does not end with a footer")
    if needed > len(tail):
        tail = read_all(run.cas.blobs.get_range(one.key, one.size - needed, one.size), needed)
    tail = tail[len(tail) - needed :]
    region_bytes = one.size - needed
    info = XorbInfo.parse_footer(tail[:footer_bytes], offset=region_bytes)
    if (info.hash, info.region_bytes) != (one.hash, region_bytes):
        raise IntegrityError(f"its footer is that of xorb {info.hash}, of {info.region_bytes} bytes")
    return info, parse_checksums(tail, footer_bytes, region_bytes) if section else b""


def _read_all(run: RebuildRun, one: FoundObject, info: XorbInfo, checksums: bytes) -> _Read:
    run.cancellation.check()
    try:
        if run.read_data or not checksums:
            verify_object(run.cas.blobs, one.key, one.hash)
        else:
            row = XorbRow(0, one.hash, info.region_bytes, info.raw_bytes, info.chunk_count, one.generation)
            compare_checksums(row, info, checksums, run.cas.blobs)
    except (IntegrityError, NotFoundError, RangeError) as error:
        return _Read(one, info, str(error), all_read=True)
    return _Read(one, info, all_read=True)


def _row(chosen: _Read, info: XorbInfo, now: float) -> dict[str, object]:
    return {
        "hash": info.hash.digest,
        "region_bytes": info.region_bytes,
        "raw_bytes": info.raw_bytes,
        "chunk_count": info.chunk_count,
        "created_at": chosen.found.modified_at,
        "generation": chosen.found.generation,
        "damaged_at": None if chosen.why is None else now,
        # Clients may have been told of it until now: its grace begins anew.
        "offered_at": now,
        "checked_at": now if chosen.all_read and chosen.why is None else 0.0,
        # Which of its chunks files use, a collection is to find out.
        "garbage_at": now,
    }


def _bodies(run: RebuildRun, batch: Sequence[FoundObject]) -> list[bytes | str]:
    """The bytes of shards, or what is wrong with each."""
    bodies: list[bytes | str] = []
    for one, answer in zip(batch, run.cas.blobs.get_ranges([(one.key, 0, one.size) for one in batch]), strict=True):
        run.tally.bytes_read += one.size
        if not isinstance(answer, bytes):
            bodies.append(str(answer))
        elif (actual := chunk_hash(answer)) != one.hash:
            bodies.append(f"the object hashes to {actual}")
        else:
            bodies.append(answer)
    return bodies


def _register_shard(run: RebuildRun, one: FoundObject, data: bytes) -> None:
    try:
        shard = Shard.parse(data)
    except FormatError as error:
        why = str(error)
        run.change(lambda _, rows: rows.settle({one.key: (DAMAGED, why)}))
        run.report(Problem(f"shard {one.hash}", f"{one.key}: {why}"))
        return
    names = named_xorbs(shard)
    with run.cas.index.snapshot() as reader:
        rows = reader.xorbs(names)
        users = reader.xorbs_of_files({entry.hash for entry in shard.files})
    hurt = {name for name, used in users.items() if any(row.is_damaged for row in used)}
    claims = ClaimCheck(rows, run.cas.footers)
    for xorb in shard.xorbs:
        if xorb.hash in rows and (fault := _fault(claims, Shard(xorbs=(xorb,)))) is not None:
            run.report(Problem(f"shard {one.hash}", fault))
    files: list[FileEntry] = []
    lost: list[tuple[Hash, Hash]] = []
    for entry in {entry.hash: entry for entry in shard.files}.values():
        lacking = {term.xorb for term in entry.terms} - rows.keys()
        if lacking:
            lost.extend((xorb, entry.hash) for xorb in lacking)
        elif (fault := _fault(claims, Shard((entry,)))) is not None:
            run.report(Problem(f"file {entry.hash}", f"in shard {one.hash}: {fault}", (entry.hash,)))
        else:
            files.append(entry)
    # A file that is made of a damaged xorb gets other terms, if these are of whole ones.
    healed = {
        entry.hash
        for entry in files
        if entry.hash in hurt and not any(rows[term.xorb].is_damaged for term in entry.terms)
    }

    def register(writer: Writer, rebuild: RebuildRows) -> int:
        before = len(writer.file_records([entry.hash for entry in files]))
        writer.add_files(files, rows, namespace=None, now=one.modified_at, rebound=healed)
        writer.add_dedup(sorted(claims.eligible))
        writer.add_shard(
            one.hash,
            one.size,
            files=[entry.hash for entry in files],
            xorbs=rows,
            now=one.modified_at,
            generation=one.generation,
        )
        if lost:
            rebuild.keep_shard(one.hash)
            rebuild.note_lost(lost)
        rebuild.note_claims((entry.hash, entry.sha256) for entry in files if entry.sha256 is not None)
        counts = writer.shards([one.hash])[one.hash].generation == one.generation
        rebuild.settle({one.key: (REGISTERED if counts else SPARE, None)})
        return len(files) - before

    run.tally.files += run.change(register)
    run.tally.shards += 1


def _fault(claims: ClaimCheck, shard: Shard) -> str | None:
    """The first claim of a shard that is not so, or None."""
    try:
        claims.check(shard)
    except IntegrityError as error:
        return str(error)
    return None


def lost_xorbs(pairs: Iterable[tuple[Hash, Hash]]) -> dict[Hash, list[Hash]]:
    """Files by the lost xorbs that they need."""
    found: dict[Hash, list[Hash]] = {}
    for xorb, file in pairs:
        found.setdefault(xorb, []).append(file)
    return found
