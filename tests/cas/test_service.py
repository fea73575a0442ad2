"""EmbeddedCas: what it answers, and what it never tells or takes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cas.objects import in_format_2
from tests.support.objects import xorb_object, xorb_path
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas, FileRecord, Totals
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.fetches import object_url
from xetstore.cas.footers import FooterCache
from xetstore.cas.index import Index
from xetstore.cas.layout import named_by
from xetstore.errors import (
    ForbiddenError,
    HashMismatchError,
    IntegrityError,
    MissingXorbError,
    NotFoundError,
    RangeError,
    UsageError,
)
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.reconstruction import FetchRange, Term
from xetstore.protocol.shard import FileEntry, Shard
from xetstore.protocol.xorb import XorbInfo
from xetstore.testing import FakeClock, FaultPlan, FaultyBlobStore, Sample, make_sample, random_bytes, read_back, upload
from xetstore.testing.embedded import data_in
from xetstore.testing.samples import entry_of

if TYPE_CHECKING:
    from typing_extensions import Buffer


def test_what_is_known_of_a_file_and_of_the_store(cas: EmbeddedCas, sample: Sample, clock: FakeClock) -> None:
    first_time = clock()
    file = upload(cas, sample)
    clock.advance(60)
    cas.put_shard(Shard((FileEntry(Hash.ZERO, (), (), hashlib.sha256(b"").digest()),)))
    record = FileRecord(file, len(sample.data), hashlib.sha256(sample.data).hexdigest(), first_time, terms=1, xorbs=1)
    assert cas.stat(file) == record
    assert cas.stat(Hash.ZERO).created_at == first_time + 60
    assert cas.stat(Hash.ZERO).sha256 == hashlib.sha256(b"").hexdigest()
    assert [found.hash for found in cas.files()] == [file, Hash.ZERO]
    chunks = sample.xorb.chunk_count
    stored = len(sample.body) + 96 + 40 * chunks
    assert cas.totals() == Totals(2, len(sample.data), sample.xorb.raw_bytes, stored, 1, chunks)


def test_an_empty_store_has_nothing(cas: EmbeddedCas) -> None:
    assert cas.totals() == Totals(0, 0, 0, 0, 0, 0)
    assert list(cas.files()) == []
    with pytest.raises(NotFoundError):
        cas.stat(Hash.ZERO)


def test_all_files_are_listed_however_many(cas: EmbeddedCas) -> None:
    """More than one page of them: files that are runs of one xorb's chunks."""
    sample = make_sample(b"".join(random_bytes(9000, number) for number in range(300)))
    cas.put_xorb(sample.xorb.hash, sample.body)
    chunks = sample.xorb.chunks
    runs = {(first, first + length) for first in range(40) for length in range(1, 31) if first + length <= len(chunks)}

    entries = [
        entry_of([(Term(sample.xorb.hash, *run, chunks.slice(*run).total_bytes), chunks.slice(*run))])
        for run in sorted(runs)
    ]
    assert len(entries) > 1000
    cas.put_shard(Shard(tuple(entries)))
    assert [record.hash for record in cas.files()] == [entry.hash for entry in entries]
    assert check(cas).files == len(entries)
    verify_invariants(cas)


def test_a_stored_xorb_has_our_footer_whatever_came_with_it(cas: EmbeddedCas, sample: Sample) -> None:
    footer = bytearray(sample.xorb.serialize_footer())
    footer[-20:-16] = b"once"  # the nonce, which is legal and means nothing
    cas.put_xorb(sample.xorb.hash, sample.body + footer)
    stored = cas.blobs.get(xorb_object(cas, sample.xorb.hash))
    assert stored == in_format_2(sample)


def test_a_footer_of_other_chunks_is_refused(cas: EmbeddedCas, sample: Sample) -> None:
    other = make_sample(random_bytes(550_000, 9))
    with pytest.raises(IntegrityError):
        cas.put_xorb(sample.xorb.hash, sample.body + other.xorb.serialize_footer())
    with pytest.raises(IntegrityError):
        cas.put_xorb(sample.xorb.hash, sample.body + sample.xorb.serialize_footer()[:-1])
    assert cas.totals().xorbs == 0
    assert data_in(cas.blobs) == []


def test_a_refused_upload_leaves_no_object(cas: EmbeddedCas, sample: Sample) -> None:
    with pytest.raises(HashMismatchError) as caught:
        cas.put_xorb(chunk_hash(b"another name"), sample.body)
    assert caught.value.actual == str(sample.xorb.hash)
    cas.put_xorb(sample.xorb.hash, sample.body)
    with pytest.raises(IntegrityError):
        cas.put_shard(replace(sample.shard, files=(replace(sample.file, verification=None),)))
    assert [blob.key for blob in data_in(cas.blobs)] == [xorb_object(cas, sample.xorb.hash)]


def test_a_shard_is_stored_in_one_form_however_it_came(cas: EmbeddedCas, sample: Sample) -> None:
    upload(cas, sample)
    [blob] = cas.blobs.list("shards/")
    stored = cas.blobs.get(blob.key)
    named = named_by(blob.key)
    assert named is not None
    assert named[0] == chunk_hash(stored)
    again = Shard.parse(stored)
    assert again.files == (sample.file,)
    assert again.xorbs[0].chunks == sample.xorb.chunks
    assert again.xorbs[0].stored_bytes == len(sample.body)
    for variant in (
        replace(sample.shard, created_at=5, expires_at=7),
        replace(sample.shard, files=sample.shard.files * 2, xorbs=sample.shard.xorbs * 2),
        replace(sample.shard, xorbs=(replace(sample.shard.xorbs[0], stored_bytes=99),)),
    ):
        cas.put_shard(variant)
    assert len(list(cas.blobs.list("shards/"))) == 1


def test_of_two_ways_to_make_a_file_in_one_shard_the_first_is_kept(cas: EmbeddedCas, sample: Sample) -> None:
    alone = make_sample(sample.data)
    for one in (sample, alone):
        cas.put_xorb(one.xorb.hash, one.body)
    assert cas.put_shard(Shard((alone.file, sample.file)))
    assert cas.reconstruct(sample.file.hash).terms == alone.file.terms
    assert cas.stat(sample.file.hash).terms == 1


def test_a_shard_behind_its_xorb_reads_nothing_back(sample: Sample) -> None:
    plan = FaultPlan()
    with EmbeddedCas(FaultyBlobStore(MemoryBlobStore(), plan), Index.in_memory()) as cas:
        upload(cas, sample)
    operations = [operation.split()[0] for operation in plan.operations]
    assert operations == ["create", "commit", "stat", "put_new"], "one look, before the shard leans on the xorb"


def test_a_xorb_that_is_collected_while_its_shard_is_checked_is_missing(sample: Sample) -> None:
    """The rows are asked for again in the transaction that comes to depend on them."""

    class CollectingStore(MemoryBlobStore):
        def put_new(self, key: str, parts: Sequence[Buffer]) -> None:
            if key.startswith("shards/"):
                with index.transaction() as writer:
                    writer.connection.change("DELETE FROM xorb")
            super().put_new(key, parts)

    index = Index.in_memory()
    with EmbeddedCas(CollectingStore(), index) as cas:
        cas.put_xorb(sample.xorb.hash, sample.body)
        with pytest.raises(MissingXorbError):
            cas.put_shard(sample.shard)
        assert list(cas.files()) == []


def test_a_shard_of_nothing_is_nothing(cas: EmbeddedCas) -> None:
    assert not cas.put_shard(Shard())
    assert data_in(cas.blobs) == []


def test_a_whole_file_needs_no_footer_and_a_part_of_one_does(root: Path, sample: Sample) -> None:
    """Planning a download of whole xorbs reads nothing from them."""
    alone = make_sample(sample.data)
    with EmbeddedCas.open(root) as cas:
        file = upload(cas, alone)
    path = xorb_path(root, alone.xorb.hash)
    path.write_bytes(alone.body + bytes(len(alone.xorb.serialize_footer())))
    with EmbeddedCas.open(root) as cas:
        assert read_back(cas, file) == alone.data
        with pytest.raises(IntegrityError, match="damaged"):
            cas.reconstruct(file, 1000, 2000)


def test_asked_for_hashes_an_answer_has_those_of_the_chunks_it_kept(cas: EmbeddedCas, sample: Sample) -> None:
    file = upload(cas, sample)
    found = cas.reconstruct(file, 100_000, 300_000, hashes=True)
    [term] = found.terms
    assert term.chunk_end - term.chunk_start < sample.xorb.chunk_count
    assert found.term_hashes == (sample.xorb.chunks.slice(term.chunk_start, term.chunk_end).hashes,)
    assert cas.reconstruct(file).term_hashes is None
    cas.put_shard(Shard((FileEntry(Hash.ZERO, (), ()),)))
    assert cas.reconstruct(Hash.ZERO, hashes=True).term_hashes == ()


def test_ranges_of_one_xorb_are_offered_once(cas: EmbeddedCas, sample: Sample) -> None:

    cas.put_xorb(sample.xorb.hash, sample.body)
    chunks = sample.xorb.chunks
    runs = [(4, 6), (0, 2), (1, 3), (5, 7), (0, 2)]
    entry = entry_of(
        [(Term(sample.xorb.hash, *run, chunks.slice(*run).total_bytes), chunks.slice(*run)) for run in runs]
    )
    cas.put_shard(Shard((entry,)))
    found = cas.reconstruct(entry.hash)
    assert [(term.chunk_start, term.chunk_end) for term in found.terms] == runs
    [offered] = found.fetches.values()
    assert [(fetch.chunk_start, fetch.chunk_end) for fetch in offered] == [(0, 3), (4, 7)]
    assert [(fetch.byte_start, fetch.byte_end) for fetch in offered] == [
        sample.xorb.byte_range(0, 3),
        sample.xorb.byte_range(4, 7),
    ]
    assert {fetch.url for fetch in offered} == {
        object_url(sample.xorb.hash, cas.stored_xorb(sample.xorb.hash).generation)
    }


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (0, -1)])
def test_a_negative_range_is_a_mistake_of_the_caller(cas: EmbeddedCas, sample: Sample, start: int, end: int) -> None:
    file = upload(cas, sample)
    with pytest.raises(UsageError):
        cas.reconstruct(file, start, end)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (10, 10), (10, 5)])
def test_an_empty_range_of_a_file_with_bytes_is_refused(cas: EmbeddedCas, sample: Sample, start: int, end: int) -> None:
    file = upload(cas, sample)
    with pytest.raises(RangeError):
        cas.reconstruct(file, start, end)


def test_only_chunks_can_be_fetched_from_a_xorb(cas: EmbeddedCas, sample: Sample) -> None:
    """Not the footer, nor anything outside; and a xorb that is not registered is not there. One that a reconstruction
    offered, and that is gone, is to be asked for anew.
    """
    size = len(sample.body)

    def fetch(start: int, end: int) -> bytes:
        name = sample.xorb.hash
        url = object_url(name, cas.stored_xorb(name).generation)
        block = bytearray(size + 1)
        with cas.fetch_xorb(FetchRange(name, url, 0, 1, start, end)) as stream:
            return bytes(block[: stream.readinto(memoryview(block))])

    with pytest.raises(NotFoundError):
        fetch(0, 10)
    with pytest.raises(ForbiddenError):
        cas.fetch_xorb(FetchRange(sample.xorb.hash, f"xorb:{sample.xorb.hash}", 0, 1, 0, 10))
    cas.put_xorb(sample.xorb.hash, sample.body)
    assert fetch(0, size) == sample.body
    assert fetch(5, 9) == sample.body[5:9]
    for start, end in [(0, size + 1), (size, size + 1), (-1, 5), (5, 5), (6, 5)]:
        with pytest.raises(RangeError):
            fetch(start, end)


@pytest.mark.parametrize("damage", ["truncated", "gone"])
def test_a_stored_xorb_that_is_not_whole_is_an_integrity_error(
    cas: EmbeddedCas, root: Path, sample: Sample, damage: str
) -> None:
    file = upload(cas, sample)
    path = xorb_path(root, sample.xorb.hash)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(sample.body[:-1])
    [[fetch]] = cas.reconstruct(file).fetches.values()
    with pytest.raises(IntegrityError, match="damaged"):
        cas.fetch_xorb(fetch)


def test_the_footer_cache_is_bounded_and_forgets_the_oldest(cas: EmbeddedCas) -> None:
    samples = [make_sample(random_bytes(20_000, number)) for number in range(6)]
    for sample in samples:
        upload(cas, sample)
    with cas.index.snapshot() as reader:
        rows = reader.xorbs([sample.xorb.hash for sample in samples])
    one = 800 + 56 * max(sample.xorb.chunk_count for sample in samples)
    footers = FooterCache(cas.blobs, 3 * one)
    for sample in samples:
        assert footers.get(rows[sample.xorb.hash]) == sample.xorb
    cas.blobs.delete_many(blob.key for blob in [*cas.blobs.list("xorbs/")])
    for sample in samples[-3:]:
        assert footers.get(rows[sample.xorb.hash]) == sample.xorb
    for sample in samples[:2]:
        with pytest.raises(IntegrityError, match="damaged"):
            footers.get(rows[sample.xorb.hash])


def test_a_footer_of_another_xorb_is_not_believed(cas: EmbeddedCas, root: Path) -> None:
    one, two = make_sample(random_bytes(9000, 1)), make_sample(random_bytes(9000, 2))
    upload(cas, one)
    xorb_path(root, one.xorb.hash).write_bytes(two.body + two.xorb.serialize_footer())
    with cas.index.snapshot() as reader:
        row = reader.xorb(one.xorb.hash)
    assert row is not None
    assert row.stored_bytes == len(two.body) + XorbInfo.footer_bytes(1)
    with pytest.raises(IntegrityError, match="is that of xorb"):
        FooterCache(cas.blobs).get(row)
