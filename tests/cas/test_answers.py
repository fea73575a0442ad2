"""Dedup answers: which xorbs, how many, under which key, and for how long."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.objects import xorb_object
from xetstore.access.tenant import DedupDomain
from xetstore.cas import EmbeddedCas
from xetstore.cas.answers import ANSWER_SECONDS, OfferBounds, find_offer
from xetstore.cas.index.queries.rows import chunk_key
from xetstore.database.sqlite import BUSY_TIMEOUT_SECONDS
from xetstore.errors import IntegrityError, UsageError
from xetstore.interfaces import MANY_CHUNKS
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import Shard
from xetstore.protocol.xorb import CompressionPolicy, XorbBuilder
from xetstore.testing import FakeClock, Sample, make_sample, random_bytes, upload
from xetstore.testing.samples import entry_of

ENGINES = engines.BOTH


def one_chunk_samples(count: int, seed: int = 0) -> list[Sample]:
    return [make_sample(random_bytes(5000, 1000 * seed + number)) for number in range(count)]


def last_word(chunk: Hash) -> int:
    """The last u64 of a hash, read from its string form, of which it is the last 16 digits (6.5)."""
    return int(str(chunk)[48:], 16)


def put_file_of(cas: EmbeddedCas, samples: list[Sample]) -> None:
    """Register a file that is these samples one after the other, each in its xorb."""
    for sample in samples:
        cas.put_xorb(sample.xorb.hash, sample.body)
    parts = [
        (Term(sample.xorb.hash, 0, sample.xorb.chunk_count, len(sample.data)), sample.xorb.chunks) for sample in samples
    ]
    cas.put_shard(Shard((entry_of(parts),)))


def first_chunk(sample: Sample) -> Hash:
    return Hash(sample.xorb.chunks.digest(0))


def offered(cas: EmbeddedCas, *samples: Sample, bounds: OfferBounds | None = None) -> list[Hash]:
    if bounds is not None:
        chunks = [first_chunk(sample) for sample in samples]
        offer = find_offer(cas.index, cas.blobs, cas.footers, chunks, cas.tenant, bounds)
        assert offer is not None
        return [row.hash for row in offer.rows]
    answer = cas.find_chunks(*map(first_chunk, samples))
    assert answer is not None
    return [entry.hash for entry in answer.xorbs]


def names(samples: list[Sample]) -> list[Hash]:
    return [sample.xorb.hash for sample in samples]


def test_an_answer_goes_on_with_the_file_from_where_the_chunk_is(cas: EmbeddedCas) -> None:
    samples = one_chunk_samples(6)
    put_file_of(cas, samples)
    upload(cas, samples[2])  # so that its chunk is the first of a file, too
    assert offered(cas, samples[0]) == names(samples)
    assert offered(cas, samples[2]) == names(samples[2:] + samples[:2]), "first what follows"


def test_the_newest_files_come_first(cas: EmbeddedCas) -> None:
    shared, *others = one_chunk_samples(7)
    old, middle, new = others[:2], others[2:4], others[4:]
    for rest in (old, middle, new):
        put_file_of(cas, [shared, *rest])
    assert offered(cas, shared) == names([shared, *new, *middle, *old])


def test_an_answer_is_bounded_in_xorbs(cas: EmbeddedCas) -> None:
    samples = one_chunk_samples(12)
    put_file_of(cas, samples)
    assert offered(cas, samples[0], bounds=OfferBounds(xorbs=5)) == names(samples[:5])


def test_an_answer_is_bounded_in_chunks(cas: EmbeddedCas) -> None:
    samples = one_chunk_samples(12)
    put_file_of(cas, samples)
    assert offered(cas, samples[0], bounds=OfferBounds(chunks=3)) == names(samples[:3])


def test_a_chunk_inside_a_file_is_found_if_its_hash_is_eligible_and_else_not(cas: EmbeddedCas) -> None:
    candidates = (make_sample(random_bytes(8_000_000, seed)) for seed in range(100))
    by_chunks = ((sample, [chunk for chunk, _ in sample.xorb.chunks]) for sample in candidates)
    # One with a chunk that the protocol calls eligible (10.3.1).
    sample, chunks = next(found for found in by_chunks if any(last_word(chunk) % 1024 == 0 for chunk in found[1][1:]))
    upload(cas, sample)
    found = {i for i, chunk in enumerate(chunks) if cas.find_chunks(chunk) is not None}
    assert found == {i for i, chunk in enumerate(chunks) if i == 0 or last_word(chunk) % cas.queries.modulus == 0}
    assert found > {i for i, chunk in enumerate(chunks) if last_word(chunk) % 1024 == 0}


def test_what_a_file_was_put_with_is_offered_behind_what_it_is_made_of(cas: EmbeddedCas) -> None:
    """What comes with a file that is put again is likely to come again."""
    first, *others = one_chunk_samples(6)
    put_file_of(cas, others[:2])
    put_file_of(cas, [first, others[2]])
    put_file_of(cas, others[3:4])
    put_file_of(cas, [others[0], others[4]])
    assert offered(cas, first) == names([first, others[2], *others[:2], *others[3:]])


def test_what_the_newest_version_of_a_file_was_put_with_is_offered_not_what_the_oldest_was(
    cas: EmbeddedCas,
) -> None:
    first, *others = one_chunk_samples(8)
    for files in ([others[0]], [first], [others[1]], [others[2]], [others[3]], [first, others[4]], [others[5]]):
        put_file_of(cas, files)
    bounds = OfferBounds(neighbours=0, uses=3)
    assert offered(cas, first, bounds=bounds) == names([first, others[4], others[3], others[5]])


def test_what_a_file_was_put_with_is_bounded_in_chunks(cas: EmbeddedCas) -> None:
    samples = one_chunk_samples(9)
    for sample in samples:
        put_file_of(cas, [sample])
    bounds = OfferBounds(neighbours=0, sibling_chunks=3)
    assert offered(cas, samples[4], bounds=bounds) == names([samples[4], samples[3], samples[5]])


def test_what_others_put_is_no_sibling(cas: EmbeddedCas) -> None:
    shared, *others = one_chunk_samples(4)
    anna, bert = cas.in_namespace("anna"), cas.in_namespace("bert")
    put_file_of(anna, others[:1])
    put_file_of(anna, [shared, others[1]])
    put_file_of(anna, others[2:])
    assert offered(anna, shared) == names([shared, others[1], others[0], others[2]])
    assert offered(bert, shared) == names([shared])
    put_file_of(bert, [shared])
    assert offered(bert, shared) == names([shared])


def test_a_chunk_that_only_shares_its_first_bytes_with_one_is_not_found(cas: EmbeddedCas, sample: Sample) -> None:
    upload(cas, sample)
    first = sample.xorb.chunks.digest(sample.file.terms[0].chunk_start)
    assert cas.find_chunks(Hash(first)) is not None
    assert cas.find_chunks(Hash(first[:8] + bytes(24))) is None


def test_a_damaged_xorb_is_not_offered(
    cas: EmbeddedCas, root: Path, clock: FakeClock, open_store: engines.OpenStore
) -> None:
    samples = one_chunk_samples(3)
    put_file_of(cas, samples)
    (root / xorb_object(cas, samples[1].xorb.hash)).unlink()
    with open_store(clock=clock) as other:  # which remembers no footers
        assert offered(other, samples[0]) == names([samples[0], samples[2]])
        (root / xorb_object(cas, samples[0].xorb.hash)).write_bytes(b"")
    with open_store(clock=clock) as other:
        assert other.find_chunks(first_chunk(samples[0])) is None


# Several chunks


def put_xorb_of(cas: EmbeddedCas, *samples: Sample) -> Hash:
    """Store the content of one-chunk samples in one xorb, each of them as a file; the name of the xorb."""
    data = [sample.data for sample in samples]
    chunks = ChunkList.concat([sample.xorb.chunks for sample in samples])
    builder = XorbBuilder()
    builder.append(data, chunks, policy=CompressionPolicy.LZ4.kernel)
    xorb, body = builder.finish()
    cas.put_xorb(xorb.hash, bytes(body))
    files = [
        entry_of([(Term(xorb.hash, i, i + 1, len(sample.data)), sample.xorb.chunks)])
        for i, sample in enumerate(samples)
    ]
    cas.put_shard(Shard(tuple(files)))
    return xorb.hash


def test_what_holds_the_chunks_comes_first_in_the_order_in_which_they_were_asked_for(cas: EmbeddedCas) -> None:
    samples = one_chunk_samples(8)
    put_file_of(cas, samples[:4])
    put_file_of(cas, samples[4:])
    unknown = one_chunk_samples(2, seed=1)
    for sample in (samples[5], samples[3], samples[0]):
        upload(cas, sample)  # so that its chunk is the first of a file, too
    asked = [unknown[0], samples[5], samples[3], unknown[1], samples[0], samples[5]]
    found = offered(cas, *asked)
    assert found[:3] == names([samples[5], samples[3], samples[0]])
    # Then what follows them in their files: 6 and 7 the last one, 1 and 2 between 0 and 3; and 4, put at the same time.
    assert set(found[3:-1]) == set(names([samples[6], samples[7], samples[1], samples[2]]))
    assert found[-1:] == names([samples[4]])
    assert len(set(found)) == len(found)


def test_one_xorb_that_holds_them_all_is_better_than_one_for_each(cas: EmbeddedCas) -> None:
    samples = one_chunk_samples(5)
    together = put_xorb_of(cas, *samples)
    for sample in samples:
        upload(cas, sample)
    other = cas.in_namespace("other")  # of which nothing follows
    assert offered(other, *samples) == [together]
    assert offered(other, samples[2]) == [samples[2].xorb.hash], "of equals the newest"
    offer = other.find_offer(*map(first_chunk, samples))
    assert offer is not None
    assert offer.known == 5


def test_of_xorbs_that_hold_as_much_the_newest_is_told(cas: EmbeddedCas) -> None:
    one, two, three = one_chunk_samples(3)
    put_xorb_of(cas, one, two)
    newest = put_xorb_of(cas, two, one)
    assert offered(cas.in_namespace("other"), one, two) == [newest]
    put_xorb_of(cas, three)
    assert offered(cas.in_namespace("other"), one, two) == [newest]


def test_in_place_of_a_damaged_xorb_others_that_hold_the_chunks_are_told(
    cas: EmbeddedCas, root: Path, clock: FakeClock, open_store: engines.OpenStore
) -> None:
    samples = one_chunk_samples(3)
    for sample in samples:
        upload(cas, sample)
    together = put_xorb_of(cas, *samples)
    (root / xorb_object(cas, together)).unlink()
    (root / xorb_object(cas, samples[1].xorb.hash)).write_bytes(b"")
    with open_store(clock=clock) as fresh:  # which remembers no footers
        other = fresh.in_namespace("other")
        assert offered(other, *samples) == names([samples[0], samples[2]])
        offer = other.find_offer(*map(first_chunk, samples))
        assert offer is not None
        assert offer.known == 2


def test_where_not_all_fit_the_chunks_that_were_asked_for_first_count_most(cas: EmbeddedCas) -> None:
    samples = one_chunk_samples(8)
    for sample in samples[:4]:
        upload(cas, sample)
    put_xorb_of(cas, *samples[4:])
    assert offered(cas, *samples, bounds=OfferBounds(xorbs=3)) == names(samples[:3])
    # The xorb of four chunks has no room behind the first one; those of one chunk have.
    asked = samples[3], samples[7], samples[2], samples[1]
    assert offered(cas, *asked, bounds=OfferBounds(chunks=4)) == names([samples[3], samples[2], samples[1]])


def test_a_chunk_that_many_xorbs_hold_is_a_few_rows(cas: EmbeddedCas) -> None:
    common, *others = one_chunk_samples(10)
    xorbs = [put_xorb_of(cas, common, other) for other in others]
    keys = [chunk_key(first_chunk(sample).digest) for sample in (others[0], common)]
    with cas.index.snapshot() as reader:
        ids = [row.id for name in xorbs if (row := reader.xorb(name)) is not None]
        found = reader.holders([*keys, 7], cas.tenant, most=3)
    assert {key: set(holding) for key, holding in found.items()} == {keys[0]: {ids[0]}, keys[1]: {*ids[-3:]}}


def test_of_several_chunks_of_others_only_the_xorbs_that_hold_them_are_told(cas: EmbeddedCas) -> None:
    samples = one_chunk_samples(6)
    put_file_of(cas.in_namespace("anna"), samples)
    upload(cas.in_namespace("anna"), samples[3])
    bert = cas.in_namespace("bert")
    assert offered(bert, samples[3], samples[0]) == names([samples[3], samples[0]])


def test_a_key_that_stands_for_two_chunks_is_that_of_one(cas: EmbeddedCas) -> None:
    one, two = one_chunk_samples(2)
    for sample in (one, two):
        upload(cas, sample)
    like_one = Hash(first_chunk(one).digest[:8] + bytes(24))
    offer = cas.find_offer(first_chunk(two), first_chunk(one), like_one)
    assert offer is not None
    assert offer.known == 2
    assert [row.hash for row in offer.rows] == names([two, one])


@pytest.mark.parametrize("count", [0, MANY_CHUNKS + 1])
def test_no_chunk_or_too_many_are_no_query(cas: EmbeddedCas, count: int) -> None:
    with pytest.raises(UsageError, match=f"between 1 and 1024 .* not {count}"):
        cas.find_chunks(*[Hash.ZERO] * count)


def test_as_many_as_may_be_asked_for_are_answered(cas: EmbeddedCas) -> None:
    sample = one_chunk_samples(1)[0]
    upload(cas, sample)
    unknown = [chunk_hash(b"%d" % number) for number in range(MANY_CHUNKS - 1)]
    assert cas.find_chunks(*unknown) is None
    answer = cas.find_chunks(*unknown, first_chunk(sample))
    assert answer is not None
    assert [entry.hash for entry in answer.xorbs] == [sample.xorb.hash]


# Keys


def test_a_key_serves_a_week_and_an_answer_lasts_one(
    cas: EmbeddedCas, sample: Sample, clock: FakeClock, open_store: engines.OpenStore
) -> None:
    upload(cas, sample)
    chunk = Hash(sample.xorb.chunks.digest(sample.file.terms[0].chunk_start))

    def ask(store: EmbeddedCas) -> Shard:
        answer = store.find_chunks(chunk)
        assert answer is not None
        return answer

    first = ask(cas)
    assert (first.created_at, first.expires_at) == (int(clock()), int(clock()) + ANSWER_SECONDS)
    assert ANSWER_SECONDS == 7 * 86_400
    clock.advance(ANSWER_SECONDS - 1)
    later = ask(cas)
    assert later.key == first.key
    assert later.expires_at == first.expires_at + ANSWER_SECONDS - 1
    with open_store(clock=clock) as other:
        assert ask(other).key == first.key
    clock.advance(1)
    assert ask(cas).key != first.key
    assert ask(cas).key == ask(cas).key


def test_a_query_does_not_wait_for_a_writer_to_replace_the_key(
    cas: EmbeddedCas, sample: Sample, clock: FakeClock
) -> None:
    upload(cas, sample)
    chunk = Hash(sample.xorb.chunks.digest(sample.file.terms[0].chunk_start))
    keys = []
    for _ in range(2):
        # Without the lock it would fail, after the patience of a writer. Nothing stays of what this one writes.
        with suppress(ZeroDivisionError), cas.index.transaction() as writer:
            writer.renew_dedup_key(bytes(32), now=clock(), old=clock() - ANSWER_SECONDS)
            for _ in range(2):
                answer = cas.find_chunks(chunk)
                assert answer is not None
                keys.append(answer.key)
            raise ZeroDivisionError
        clock.advance(ANSWER_SECONDS)
    assert len(set(keys)) == 4, "each is good for its answer"
    answers_now = [cas.find_chunks(chunk) for _ in range(2)]
    assert len({answer.key for answer in answers_now if answer is not None}) == 1


def test_a_writer_is_as_patient_as_ever_after_a_query(
    cas: EmbeddedCas, sample: Sample, clock: FakeClock, on_sqlite: None
) -> None:
    upload(cas, sample)
    for _ in range(2):
        assert cas.find_chunks(Hash(sample.xorb.chunks.digest(sample.file.terms[0].chunk_start))) is not None
        clock.advance(ANSWER_SECONDS)
    with cas.index.transaction() as writer:
        assert writer.connection.value("PRAGMA busy_timeout") == BUSY_TIMEOUT_SECONDS * 1000


def test_every_store_has_a_key_of_its_own(tmp_path: Path, sample: Sample) -> None:
    chunk = Hash(sample.xorb.chunks.digest(sample.file.terms[0].chunk_start))
    keys = set()
    for number in range(3):
        with EmbeddedCas.open(tmp_path / str(number)) as cas:
            upload(cas, sample)
            answer = cas.find_chunks(chunk)
            assert answer is not None
            keys.add(answer.key)
    assert len(keys - {None}) == 3


def test_an_answer_survives_its_way_to_a_client(cas: EmbeddedCas, sample: Sample) -> None:
    upload(cas, sample)
    answer = cas.find_chunks(Hash(sample.xorb.chunks.digest(sample.file.terms[0].chunk_start)))
    assert answer is not None
    assert Shard.parse(answer.serialize_with_footer()) == answer
    with pytest.raises(IntegrityError):
        cas.put_shard(answer)  # an answer is not an upload


def test_what_was_uploaded_last_is_told_newest_first_keyed_and_within_bounds(cas: EmbeddedCas) -> None:
    assert cas.find_recent(1000) is None
    samples = one_chunk_samples(70)
    put_file_of(cas, samples)
    recent = cas.find_recent(1000)
    assert recent is not None
    assert [entry.hash for entry in recent.xorbs] == [sample.xorb.hash for sample in samples[:-65:-1]]
    assert recent.key is not None
    assert recent.xorbs[0].chunks.digest(0) != samples[-1].xorb.chunks.digest(0)
    for most, count in ((0, 1), (3, 3)):
        assert len(told.xorbs if (told := cas.find_recent(most)) else ()) == count


def test_what_others_uploaded_last_is_not_told(cas: EmbeddedCas) -> None:
    put_file_of(cas, one_chunk_samples(3))
    assert cas.in_namespace("other").find_recent(1000) is None
    assert cas.in_namespace(dedup=DedupDomain.OFF).find_recent(1000) is None
