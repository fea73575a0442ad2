"""ShardCopier: shards of one store into another, and the files that they name.

Shards are the objects of which an index can be made anew. Each takes its files along, and is registered behind them, as
in ``put_shard``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from xetstore.batches import sized_batches
from xetstore.cas.check import Problem
from xetstore.cas.claims import ClaimCheck, named_xorbs
from xetstore.cas.copying.files import FileCopier
from xetstore.cas.copying.run import Run
from xetstore.cas.copying.xorbs import XorbCopier
from xetstore.cas.index import Reader, ShardRow, XorbRow
from xetstore.cas.index.queries.copying import NewRows
from xetstore.cas.registering import register_shard
from xetstore.errors import HashMismatchError, IntegrityError, NotFoundError
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.shard import Shard

_SHARDS: Final = 200
_SHARD_BYTES: Final = 4 << 20
"""The most shards, and bytes of them, that are held at a time, unless one is longer."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A shard of the source, whole, and the files and xorbs that it names and that are there."""

    name: Hash
    data: bytes
    shard: Shard
    files: frozenset[Hash]
    xorbs: frozenset[Hash]


class ShardCopier:
    """Copies shards. To be called by one thread."""

    def __init__(self, run: Run, xorbs: XorbCopier, files: FileCopier) -> None:
        self._run = run
        self._xorbs = xorbs
        self._files = files

    def copy_new(self, new: NewRows) -> None:
        """Copy the shards that are new in the source, and the files that they name."""
        for page in self._run.source.index.pages(
            lambda reader, behind: reader.new_shards(new, behind), itemgetter(0), 0
        ):
            self._run.compared += len(page)
            self._copy_missing([row for _, row in page])

    def copy_marked(self) -> None:
        """Copy the shards that were found damaged in the target, as far as the source has them."""
        for marked in self._run.target.index.pages(Reader.marked_shards, itemgetter(0), 0):
            with self._run.source.index.snapshot() as reader:
                rows = reader.shards([row.hash for _, row in marked])
            self._copy_missing([*rows.values()])

    def _copy_missing(self, rows: Sequence[ShardRow]) -> None:
        """Copy those of these shards that the target has not got, or has damaged."""
        with self._run.target.index.snapshot() as reader:
            known = reader.shards([row.hash for row in rows])
        missing = [row for row in rows if row.hash not in known or known[row.hash].is_damaged]
        if self._run.is_dry:
            self._run.tally.shards += len(missing)
            return
        for group in sized_batches(missing, lambda row: row.size, _SHARD_BYTES, most=_SHARDS):
            self._copy_shards(group)

    def _copy_shards(self, group: Sequence[ShardRow]) -> None:
        run = self._run
        loaded = [shard for row in group if (shard := self._load(row)) is not None]
        files = {name for shard in loaded for name in shard.files}
        with run.source.index.snapshot() as reader:
            records = reader.file_records(files)
        present = self._files.copy([*records.values()])
        rows = self._xorbs.whole({name for shard in loaded for name in shard.xorbs})
        claims = ClaimCheck(rows, run.target.footers)
        # One that names a file or a xorb which could not be copied comes later, when it can be linked to all of them.
        complete = [
            shard
            for shard in loaded
            if self._lists_right(shard, rows, claims) and shard.files <= present and shard.xorbs <= rows.keys()
        ]
        if claims.eligible:
            run.target.index.change(lambda writer: writer.add_dedup(claims.eligible_in(writer.xorbs(rows))))
        run.map(self._register_shard, complete)
        run.tally.shards += len(complete)

    def _register_shard(self, shard: _Loaded) -> None:
        target = self._run.target
        register_shard(
            shard.data,
            lambda _: True,  # its files are registered
            files=shard.files,
            xorbs=shard.xorbs,
            now=target.now(),
            blobs=target.blobs,
            index=target.index,
        )

    def _load(self, row: ShardRow) -> _Loaded | None:
        """Read a shard of the source; None if it is damaged, which is reported."""
        name = row.hash
        try:
            data = self._run.source.blobs.get(row.key)
            actual = chunk_hash(data)
            if actual != name:
                raise HashMismatchError("the object", expected=str(name), actual=str(actual))
            shard = Shard.parse(data)
        except (NotFoundError, IntegrityError) as error:
            self._run.source.healing.mark(row)
            self._run.report(Problem(f"shard {name}", str(error)))
            return None
        files, xorbs = {entry.hash for entry in shard.files}, set(named_xorbs(shard))
        with self._run.source.index.snapshot() as reader:
            # Of one that was linked, what is not there any more was deleted, and stays so.
            named = reader.named_by(name) or (reader.file_records(files).keys(), reader.xorbs(xorbs).keys())
        return _Loaded(name, data, shard, frozenset(named[0]), frozenset(named[1]))

    def _lists_right(self, shard: _Loaded, rows: dict[Hash, XorbRow], claims: ClaimCheck) -> bool:
        """True if the chunks that a shard lists for its xorbs are those that the target has."""
        listed = tuple(entry for entry in shard.shard.xorbs if entry.hash in rows)
        try:
            claims.check(Shard(xorbs=listed))
        except IntegrityError as error:
            self._run.report(Problem(f"shard {shard.name}", str(error)))
            return False
        return True
