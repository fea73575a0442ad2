"""Shards that tell what the index does: those of before are linked, stale ones written anew, unneeded ones dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from xetstore.cas.claims import ClaimCheck, named_xorbs
from xetstore.cas.index import Writer
from xetstore.cas.index.queries.rewriting import OutdatedError, StaleShard
from xetstore.cas.rewriting.files import add_shard, checked_entry, read_files
from xetstore.cas.rewriting.run import Run
from xetstore.errors import HashMismatchError, IntegrityError, NotFoundError
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.shard import FileEntry, Shard

_PAGE: Final = 100


def link_shards(run: Run) -> None:
    """Note what shards of older releases name, as their objects tell."""
    behind = 0
    while page := _unlinked(run, behind):
        for shard in page:
            found = _read(run, shard)
            if found is not None and not run.is_dry:
                _link(run, shard, found)
            run.rest()
        behind = page[-1].id


def rewrite_shards(run: Run) -> None:
    """Write anew the shards whose objects name what is gone, or are damaged; drop those that no file needs.

    Files and xorbs are named as the index has them then: entries of files keep their verification hashes and SHA-256.
    """
    behind = 0
    while page := _stale(run, behind):
        unneeded: list[StaleShard] = []
        for shard in page:
            with run.cas.index.snapshot() as reader:
                linked = reader.linked_files(shard.id)
            if linked:
                _rewrite(run, shard, linked)
            elif shard.created_at <= run.cas.now() - run.grace.offer:
                unneeded.append(shard)
            run.rest()
        if unneeded:
            _drop(run, unneeded)
        behind = page[-1].id


def name_files(run: Run, ids: list[int]) -> None:
    """Write a shard of files that none is known to name."""
    read = read_files(run, ids)
    claims = ClaimCheck(read.rows, run.cas.footers)
    entries = {file.id: checked_entry(run, claims, file, read.terms[file.id]) for file in read.files}
    named = [entry for entry in entries.values() if entry is not None]
    if not named or run.is_dry:
        return

    def keep(writer: Writer) -> bool:
        run.lease.require(writer)
        writer.keep_files([file for file in read.files if entries[file.id] is not None])
        return True

    try:
        add_shard(run, named, keep)
        run.report.shards_rewritten += 1
    except OutdatedError:
        run.report.left += len(named)


def _link(run: Run, shard: StaleShard, found: Shard) -> None:
    files, xorbs = [entry.hash for entry in found.files], named_xorbs(found)

    def link(writer: Writer) -> None:
        if shard.row.hash in writer.shards([shard.row.hash]):
            writer.link_shard(shard, files=files, xorbs=xorbs, now=run.cas.now())

    run.lease.change(link)
    run.report.shards_linked += 1


def _rewrite(run: Run, shard: StaleShard, linked: Mapping[Hash, int]) -> None:
    """Write a shard of the files that one is known to name, in place of it; unless its object names just these."""
    old = None if shard.row.is_damaged else _read(run, shard)
    kept = {} if old is None else {entry.hash: entry for entry in old.files}
    read = read_files(run, linked.values())
    claims = ClaimCheck(read.rows, run.cas.footers)
    entries: list[FileEntry] = []
    for file in read.files:
        terms = read.terms[file.id]
        entry = kept.get(file.hash)
        if entry is None or [*entry.terms] != terms:
            entry = checked_entry(run, claims, file, terms)
        if entry is None:
            return  # it is tried again when the damage is healed
        entries.append(entry)
    if old is not None and _names_just(run, old, entries):
        if not run.is_dry:
            run.lease.change(lambda writer: writer.note_fresh(shard))
        return
    if run.is_dry:
        run.report.shards_rewritten += 1
        return
    name = chunk_hash(Shard(tuple(entries)).serialize_with_footer())

    def replace(writer: Writer) -> bool:
        run.lease.require(writer)
        if not writer.keep_stale(shard) or writer.linked_files(shard.id) != linked:
            raise OutdatedError(f"shard {shard.row.hash} changed")
        writer.keep_files(read.files)
        if name != shard.row.hash:
            writer.drop_shard(shard, now=run.cas.now())
        return True

    try:
        add_shard(run, entries, replace)
    except OutdatedError:
        run.report.left += 1
        return
    if name == shard.row.hash:
        run.lease.change(lambda writer: writer.note_fresh(shard))
    run.report.shards_rewritten += 1


def _names_just(run: Run, old: Shard, entries: list[FileEntry]) -> bool:
    """True if a shard names these files, with these terms, and no xorb that is gone."""
    if {(entry.hash, entry.terms) for entry in old.files} != {(entry.hash, entry.terms) for entry in entries}:
        return False
    names = named_xorbs(old)
    with run.cas.index.snapshot() as reader:
        return len(reader.xorbs(names)) == len(names)


def _drop(run: Run, shards: Sequence[StaleShard]) -> None:
    """Forget shards that no file needs."""

    def drop(writer: Writer) -> int:
        now = run.cas.now()
        unneeded = [shard for shard in shards if writer.keep_stale(shard) and not writer.linked_files(shard.id)]
        for shard in unneeded:
            writer.drop_shard(shard, now=now)
        return len(unneeded)

    run.report.shards_dropped += len(shards) if run.is_dry else run.lease.change(drop)


def _read(run: Run, shard: StaleShard) -> Shard | None:
    """The content of a shard's object; None if it is damaged, which is marked."""
    try:
        data = run.cas.blobs.get(shard.row.key)
        if (actual := chunk_hash(data)) != shard.row.hash:
            raise HashMismatchError("the object", expected=str(shard.row.hash), actual=str(actual))
        return Shard.parse(data)
    except (NotFoundError, IntegrityError) as error:
        run.report.damaged.append(f"shard {shard.row.hash}: {error}")
        run.cas.healing.mark(shard.row)
        return None


def _unlinked(run: Run, behind: int) -> list[StaleShard]:
    with run.cas.index.snapshot() as reader:
        return reader.unlinked_shards(behind, _PAGE)


def _stale(run: Run, behind: int) -> list[StaleShard]:
    with run.cas.index.snapshot() as reader:
        return reader.stale_shards(behind, _PAGE)
