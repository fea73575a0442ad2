"""Strays: objects that no row names, but whose row can be found; and those that are in the way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from xetstore.batches import batches
from xetstore.cas.index import ShardRow, Writer, XorbRow
from xetstore.cas.layout import SHARDS, XORBS, named_by
from xetstore.cas.object_rows import object_rows
from xetstore.cas.repair.run import Run
from xetstore.cas.stored_xorb import verify_object
from xetstore.errors import IntegrityError, NotFoundError
from xetstore.protocol.hashes import Hash, chunk_hash

_BATCH: Final = 500


class Strays:
    """Looks through all objects of a store."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def name_anew(self, lost: Iterable[XorbRow | ShardRow]) -> None:
        """Find the objects of rows whose hash is wrong, by their generation, which no other object has."""
        run = self._run
        rows = {row.generation: row for row in lost if row.generation and run.cas.blobs.stat(row.key) is None}
        for prefix, kind in ((XORBS, XorbRow), (SHARDS, ShardRow)):
            wanted = {generation: row for generation, row in rows.items() if isinstance(row, kind)}
            for blob in run.cas.blobs.list(prefix) if wanted else ():
                found = named_by(blob.key)
                if found is not None and found[1] in wanted and self._is_right(blob.key, found[0]):
                    self._name(wanted[found[1]], found[0])

    def set_aside(self, *, read_data: bool) -> None:
        """Set aside objects under keys that are none; with ``read_data`` also those that no row names, and whose
        content is not their name.
        """
        run = self._run
        for prefix in (XORBS, SHARDS):
            for batch in batches(run.cas.blobs.list(prefix), _BATCH):
                keys = [blob.key for blob in batch]
                with run.cas.index.snapshot() as reader:
                    rows, leaving = object_rows(reader, keys), reader.superseded_of(keys)
                for key in keys:
                    found = named_by(key)
                    if found is None:
                        self._set_aside(key, "it is not the name of an object")
                        continue
                    row = rows[key]
                    if (row is not None and row.key == key) or key in leaving or not read_data:
                        continue
                    if not self._is_right(key, found[0]):
                        self._set_aside(key, "it does not hold what its name says, and no row names it")
                run.keep()

    def _is_right(self, key: str, name: Hash) -> bool:
        blobs = self._run.cas.blobs
        try:
            if key.startswith(XORBS):
                verify_object(blobs, key, name)
                return True
            return chunk_hash(blobs.get(key)) == name
        except (NotFoundError, IntegrityError):
            return False

    def _name(self, row: XorbRow | ShardRow, name: Hash) -> None:
        run = self._run
        what = "xorb" if isinstance(row, XorbRow) else "shard"

        def rename(writer: Writer) -> bool:
            if isinstance(row, XorbRow):
                if name in writer.xorbs([name]):
                    return False
                writer.rename_xorb(row, name)
            else:
                if name in writer.shards([name]):
                    return False
                writer.rename_shard(row, name)
            return True

        if run.is_dry or run.change(rename):
            run.mended(f"{what} {name}", f"its row, which said {row.hash}, has the name of its object again")

    def _set_aside(self, key: str, why: str) -> None:
        run = self._run
        if run.is_dry:
            run.mended(key, f"to be set aside: {why}")
            return
        run.set_aside(key)
