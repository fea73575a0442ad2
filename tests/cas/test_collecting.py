"""Room for collecting: which shards name a file or xorb, and which xorbs a client may be told of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cas.test_answers import first_chunk, one_chunk_samples, put_file_of
from tests.support.objects import xorb_path
from xetstore.cas import EmbeddedCas
from xetstore.cas.index.queries.xorbs import OFFER_SECONDS
from xetstore.protocol.hashes import Hash
from xetstore.testing import FakeClock, Sample, make_sample, random_bytes, upload


def noted(cas: EmbeddedCas, sample: Sample) -> float | None:
    """When it was last noted that a client knows of a xorb."""
    with cas.index.snapshot() as reader:
        values = {"hash": sample.xorb.hash.digest}
        found: float | None = reader.connection.value("SELECT offered_at FROM xorb WHERE hash = :hash", values)
    return found


def offered(cas: EmbeddedCas, *samples: Sample) -> set[Hash]:
    """The xorbs of an answer to a query for the first chunks of these."""
    answer = cas.find_chunks(*map(first_chunk, samples))
    return set() if answer is None else {entry.hash for entry in answer.xorbs}


def offered_last(cas: EmbeddedCas) -> set[Hash]:
    """The xorbs of an answer to no query."""
    answer = cas.find_recent(100_000)
    return set() if answer is None else {entry.hash for entry in answer.xorbs}


@pytest.fixture
def sample() -> Sample:
    """One whose chunk can be found."""
    return one_chunk_samples(1)[0]


def loosen(cas: EmbeddedCas) -> None:
    """Take all files away."""
    with cas.index.transaction() as writer:
        writer.connection.change("DELETE FROM file")


def test_a_shard_is_linked_to_all_that_it_names(cas: EmbeddedCas) -> None:
    samples = one_chunk_samples(3)
    put_file_of(cas, samples)
    [record] = cas.files()
    upload(cas, samples[0])
    with cas.index.snapshot() as reader:
        [shard] = reader.shards_of(record.hash)
        assert reader.named_by(shard) == ({record.hash}, {sample.xorb.hash for sample in samples})
        [other] = reader.shards_of(samples[0].file.hash)
        assert reader.named_by(other) == ({samples[0].file.hash}, {samples[0].xorb.hash})
        assert {row.hash for row in reader.shards_after(None)} == {shard, other}


def test_a_shard_of_an_older_release_is_linked_when_it_is_put_again(cas: EmbeddedCas, sample: Sample) -> None:
    upload(cas, sample)
    with cas.index.transaction() as writer:
        for statement in ("DELETE FROM shard_file", "DELETE FROM shard_xorb", "UPDATE shard SET is_linked = 0"):
            writer.connection.change(statement)
        [row] = writer.shards_after(None)
        shard = row.hash
        assert writer.named_by(shard) is None, "its object tells"
    cas.put_shard(sample.shard)
    with cas.index.snapshot() as reader:
        assert reader.named_by(shard) == ({sample.file.hash}, {sample.xorb.hash})
        assert reader.shards_of(sample.file.hash) == [shard]


def test_the_offer_of_what_a_file_is_made_of_writes_nothing(cas: EmbeddedCas, sample: Sample, clock: FakeClock) -> None:
    upload(cas, sample)
    begin = clock()
    clock.advance(2 * OFFER_SECONDS)
    assert offered(cas, sample) == offered_last(cas) == {sample.xorb.hash}
    assert noted(cas, sample) == begin


def test_the_offer_of_what_no_file_is_made_of_is_noted_once_a_day(
    cas: EmbeddedCas, sample: Sample, clock: FakeClock
) -> None:
    upload(cas, sample)
    loosen(cas)
    begin = clock()
    clock.advance(OFFER_SECONDS - 1)
    assert offered(cas, sample) == offered_last(cas) == {sample.xorb.hash}
    assert noted(cas, sample) == begin
    clock.advance(2)
    assert offered(cas, sample) == {sample.xorb.hash}
    assert noted(cas, sample) == clock()
    clock.advance(OFFER_SECONDS + 1)
    assert offered_last(cas) == {sample.xorb.hash}
    assert noted(cas, sample) == clock()


def test_an_offer_that_cannot_be_noted_is_not_made(cas: EmbeddedCas, clock: FakeClock) -> None:
    """That of a xorb that a file is made of is made all the same."""
    loose, used = one_chunk_samples(2)
    upload(cas, loose)
    loosen(cas)
    upload(cas, used)
    assert cas.find_recent(1) is not None, "the key of the answers is made"
    clock.advance(2 * OFFER_SECONDS)
    with cas.index.transaction():
        assert offered(cas, loose, used) == offered_last(cas) == {used.xorb.hash}
        assert loose.xorb.hash not in offered(cas, loose)
    assert loose.xorb.hash in offered(cas, loose, used)


def test_a_xorb_that_an_older_release_stored_is_noted_when_it_is_offered(
    cas: EmbeddedCas, sample: Sample, clock: FakeClock
) -> None:
    upload(cas, sample)
    loosen(cas)
    with cas.index.transaction() as writer:
        writer.connection.change("UPDATE xorb SET offered_at = NULL")
    assert offered(cas, sample) == {sample.xorb.hash}
    assert noted(cas, sample) == clock()


def test_a_xorb_that_is_put_again_is_kept_as_if_it_were_new(cas: EmbeddedCas, sample: Sample, clock: FakeClock) -> None:
    for namespace in ("default", "default", "other"):
        clock.advance(2 * OFFER_SECONDS)
        cas.in_namespace(namespace).put_xorb(sample.xorb.hash, sample.body)
        assert noted(cas, sample) == clock()


def test_a_xorb_that_loses_its_last_file_is_kept_from_then_on(cas: EmbeddedCas, root: Path, clock: FakeClock) -> None:
    """A healed file gets other terms: clients may have been told of what it was made of, and nothing was noted then."""
    sample = make_sample(random_bytes(100_000, 1), before=random_bytes(50_000, 2))
    alone = make_sample(sample.data)
    upload(cas, sample)
    xorb_path(root, sample.xorb.hash).unlink()
    clock.advance(50 * OFFER_SECONDS)
    upload(cas, alone)
    assert alone.xorb.hash != sample.xorb.hash
    assert noted(cas, sample) == clock()
