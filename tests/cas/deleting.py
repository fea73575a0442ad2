"""Files that are gone, as a collection takes them away when their graces have passed; and rewrites without a grace."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final

from tests.support.stored import file_of, scattered
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.grace import Grace
from xetstore.cas.index import Writer
from xetstore.cas.index.queries.collecting import Due
from xetstore.cas.layout import named_by
from xetstore.cas.lease import Lease
from xetstore.cas.rewriting import RewriteReport, rewrite
from xetstore.protocol import kernel
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.testing import Sample, read_back
from xetstore.testing.samples import entry_of

NO_GRACE: Final = Grace(0.0, 0.0)
ALL_DUE: Final = Due(1e18, 1e18, 1e18)


def drop(cas: EmbeddedCas, *files: Hash) -> None:
    """Take files away from all namespaces, and collect them."""
    now = cas.now()

    def work(writer: Writer) -> None:
        found = writer.connection.rows_in(
            "SELECT id FROM file WHERE hash IN (:values)", [file.digest for file in files]
        )
        ids = [file_id for (file_id,) in found]
        writer.connection.change_in("DELETE FROM file_grant WHERE file_id IN (:values)", ids)
        writer.drop_files(ids, ALL_DUE, now=now)

    cas.index.change(work)


def sweep(cas: EmbeddedCas) -> None:
    """Collect doomed xorbs, and the objects that do not count any more."""

    def work(writer: Writer) -> None:
        writer.drop_xorbs(writer.due_xorbs(ALL_DUE, 10_000), ALL_DUE, now=cas.now())

    cas.index.change(work)
    with cas.index.snapshot() as reader:
        keys = reader.superseded_before(cas.now() + 1)
    cas.blobs.delete_many(keys)
    cas.index.change(lambda writer: writer.forget_superseded(keys))


def rewritten(cas: EmbeddedCas, **options: Any) -> RewriteReport:
    """Rewrite a store, all that is older than now."""
    lease = Lease.take(cas.index, "collect")
    assert lease is not None
    with lease:
        return rewrite(cas, lease, **{"grace": NO_GRACE, **options})


def xorb_of(cas: EmbeddedCas, seed: int, *, chunks: int = 40, chunk_bytes: int = 1000) -> Sample:
    """A xorb of chunks of equal size in the store, of which no file is made yet."""
    sample = scattered(chunks // 2, chunk_bytes=chunk_bytes, seed=seed)
    cas.put_xorb(sample.xorb.hash, sample.body)
    return sample


def file_in(cas: EmbeddedCas, xorb: Sample, *ranges: tuple[int, int]) -> tuple[Hash, bytes]:
    """A file of these chunks of a xorb: its hash, and its bytes."""
    name, data, shard = file_of(xorb, ranges)
    cas.put_shard(shard)
    return name, data


def expect_sound(cas: EmbeddedCas) -> None:
    """The invariants hold, and shards name every file."""
    verify_invariants(cas)
    assert not [note for note in check(cas).notes if "named by no shard" in note]


def expect_contents(cas: EmbeddedCas, files: dict[Hash, bytes]) -> None:
    """These are all files, and their bytes."""
    assert {record.hash for record in cas.files()} == files.keys()
    for name, data in files.items():
        assert read_back(cas, name) == data


def shard_entries(cas: EmbeddedCas) -> Iterator[FileEntry]:
    """The entries of all files, in all shards that are registered."""
    with cas.index.snapshot() as reader:
        keys = {row.key for row in reader.shards_after(None)}
    for key in keys:
        yield from Shard.parse(cas.blobs.get(key)).files


def objects(cas: EmbeddedCas, prefix: str) -> set[Hash]:
    """The names of all objects below a prefix."""
    return {found[0] for blob in cas.blobs.list(prefix) if (found := named_by(blob.key)) is not None}


def file_across(cas: EmbeddedCas, *parts: tuple[Sample, int, int]) -> tuple[Hash, bytes]:
    """A file of these chunks of several xorbs: its hash, and its bytes."""
    name, data, entry = made_of(*parts)
    cas.put_shard(Shard((entry,)))
    return name, data


def made_of(*parts: tuple[Sample, int, int]) -> tuple[Hash, bytes, FileEntry]:
    """The same, not stored: with its entry in a shard."""
    taken, data = [], b""
    for xorb, start, end in parts:
        bounds = [0, *accumulate(xorb.xorb.chunks.sizes)]
        raw = bytearray(bounds[-1])
        kernel.decode_chunks(XET_GEARHASH_BLAKE3.kernel, xorb.body, raw, final=True)
        data += raw[bounds[start] : bounds[end]]
        term = Term(xorb.xorb.hash, start, end, bounds[end] - bounds[start])
        taken.append((term, xorb.xorb.chunks.slice(start, end)))
    entry = entry_of(taken)
    return entry.hash, data, entry
