"""FooterCache: the footers of many xorbs in one call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.footers import FooterCache, sound
from xetstore.cas.index import Index, XorbRow
from xetstore.errors import DamagedError
from xetstore.interfaces import RangeAnswer, RangeRequest
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import Shard
from xetstore.testing import make_sample, upload
from xetstore.testing.samples import entry_of


class CountingBlobs(MemoryBlobStore):
    """Counts calls for ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def get_ranges(self, requests: Sequence[RangeRequest]) -> list[RangeAnswer]:
        self.calls.append(len(requests))
        return super().get_ranges(requests)


@pytest.fixture
def counted() -> Iterator[tuple[CountingBlobs, EmbeddedCas, list[XorbRow]]]:
    """A store of 70 small xorbs, and their rows."""
    blobs = CountingBlobs()
    with EmbeddedCas(blobs, Index.in_memory()) as cas:
        for number in range(70):
            upload(cas, make_sample(b"file %d" % number))
        with cas.index.snapshot() as reader:
            rows = reader.xorbs_after(0)
        yield blobs, cas, rows


def test_footers_of_many_xorbs_are_read_by_one_call(counted: tuple[CountingBlobs, EmbeddedCas, list[XorbRow]]) -> None:
    blobs, _, rows = counted
    footers = FooterCache(blobs)
    blobs.calls.clear()
    asked = [*rows[::-1], rows[0], rows[69]]
    infos = [sound(footer) for footer in footers.get_many(asked)]
    assert [info.hash for info in infos] == [row.hash for row in asked]
    assert blobs.calls == [64, 6]
    assert [*footers.get_many(rows)] == infos[69::-1]
    assert blobs.calls == [64, 6], "all of them are remembered"
    assert [*footers.get_many([])] == []


def test_damage_of_one_of_many_xorbs_is_told_of_that_one(
    counted: tuple[CountingBlobs, EmbeddedCas, list[XorbRow]],
) -> None:
    blobs, _, rows = counted
    marked: list[XorbRow] = []
    blobs.delete_many([rows[5].key, rows[9].key])
    blobs.put_new(rows[9].key, [blobs.get(rows[8].key)])
    footers = FooterCache(blobs, on_damage=lambda row, _: marked.append(row))
    found = [*footers.get_many(rows)]
    assert [number for number, footer in enumerate(found) if isinstance(footer, DamagedError)] == [5, 9]
    assert marked == [rows[5], rows[9]]


def test_a_dedup_answer_reads_its_footers_by_one_call(
    counted: tuple[CountingBlobs, EmbeddedCas, list[XorbRow]],
) -> None:
    blobs, cas, rows = counted
    cas.footers = FooterCache(blobs)
    blobs.calls.clear()
    assert cas.find_recent(1000) is not None
    assert blobs.calls == [64]
    cas.footers = FooterCache(blobs)
    blobs.calls.clear()
    assert cas.find_chunks(*(Hash(cas.footers.get(row).chunks.digest(0)) for row in rows[:10])) is not None
    assert blobs.calls[10:] == [54], "the other xorbs of the answer; its own were read one by one just now"


@pytest.mark.parametrize("read", ["reconstruct", "reconstruct_many", "with hashes", "file_chunks"])
def test_a_file_of_parts_of_many_xorbs_reads_their_footers_by_one_call(read: str) -> None:
    blobs = CountingBlobs()
    with EmbeddedCas(blobs, Index.in_memory()) as cas:
        samples = [make_sample(b"part %d" % number, before=b"before %d" % number) for number in range(20)]
        for sample in samples:
            cas.put_xorb(sample.xorb.hash, sample.body)
        terms = [(Term(sample.xorb.hash, 1, 2, len(sample.data)), sample.xorb.chunks.slice(1, 2)) for sample in samples]
        file = entry_of(terms)
        cas.put_shard(Shard((file,)))
        cas.footers = FooterCache(blobs)
        blobs.calls.clear()
        match read:
            case "reconstruct":
                fetches = cas.reconstruct(file.hash).fetches
            case "reconstruct_many":
                fetches = cas.reconstruct_many([file.hash]).fetches
            case "with hashes":
                assert cas.reconstruct(file.hash, hashes=True).term_hashes == tuple(
                    chunks.hashes for _, chunks in terms
                )
            case _:
                assert [*cas.file_chunks(file.hash)] == [chunk for _, chunks in terms for chunk in chunks]
        assert blobs.calls == [20]
        if read.startswith("reconstruct"):
            for sample in samples:
                [fetch] = fetches[sample.xorb.hash]
                assert (fetch.byte_start, fetch.byte_end) == sample.xorb.byte_range(1, 2)
