"""Dedup answers: which xorbs, how many, under which key, and for how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from xetstore.cas import EmbeddedCas, answers
from xetstore.cas.access import DedupDomain
from xetstore.cas.answers import ANSWER_SECONDS
from xetstore.cas.index.database import BUSY_TIMEOUT_SECONDS
from xetstore.cas.layout import xorb_key
from xetstore.errors import IntegrityError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import Shard
from xetstore.testing import FakeClock, Sample, make_sample, random_bytes, upload
from xetstore.testing.samples import entry_of


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


def offered(cas: EmbeddedCas, sample: Sample) -> list[Hash]:
    answer = cas.find_chunks(first_chunk(sample))
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


def test_an_answer_is_bounded_in_xorbs(cas: EmbeddedCas, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = one_chunk_samples(12)
    put_file_of(cas, samples)
    monkeypatch.setattr(answers, "MAX_ANSWER_XORBS", 5)
    assert offered(cas, samples[0]) == names(samples[:5])


def test_an_answer_is_bounded_in_chunks(cas: EmbeddedCas, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = one_chunk_samples(12)
    put_file_of(cas, samples)
    monkeypatch.setattr(answers, "MAX_ANSWER_CHUNKS", 3)
    assert offered(cas, samples[0]) == names(samples[:3])


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


def test_what_the_newest_version_of_a_file_was_put_with_is_offered_and_not_what_the_oldest_was(
    cas: EmbeddedCas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MAX_ANSWER_NEIGHBOURS", 0)
    monkeypatch.setattr(answers, "_MAX_USES", 3)
    first, *others = one_chunk_samples(8)
    for files in ([others[0]], [first], [others[1]], [others[2]], [others[3]], [first, others[4]], [others[5]]):
        put_file_of(cas, files)
    assert offered(cas, first) == names([first, others[4], others[3], others[5]])


def test_what_a_file_was_put_with_is_bounded_in_chunks(cas: EmbeddedCas, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = one_chunk_samples(9)
    for sample in samples:
        put_file_of(cas, [sample])
    monkeypatch.setattr(answers, "MAX_ANSWER_NEIGHBOURS", 0)
    monkeypatch.setattr(answers, "MAX_SIBLING_CHUNKS", 3)
    assert offered(cas, samples[4]) == names([samples[4], samples[3], samples[5]])


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


def test_a_damaged_xorb_is_not_offered(cas: EmbeddedCas, root: Path, clock: FakeClock) -> None:
    samples = one_chunk_samples(3)
    put_file_of(cas, samples)
    (root / xorb_key(samples[1].xorb.hash)).unlink()
    with EmbeddedCas.open(root, clock=clock) as other:  # which remembers no footers
        assert offered(other, samples[0]) == names([samples[0], samples[2]])
        (root / xorb_key(samples[0].xorb.hash)).write_bytes(b"")
    with EmbeddedCas.open(root, clock=clock) as other:
        assert other.find_chunks(first_chunk(samples[0])) is None


def test_a_key_serves_a_week_and_an_answer_lasts_one(
    cas: EmbeddedCas, root: Path, sample: Sample, clock: FakeClock
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
    with EmbeddedCas.open(root, clock=clock) as other:
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
        with cas.index.transaction():  # without the lock it would fail, after the patience of a writer
            for _ in range(2):
                answer = cas.find_chunks(chunk)
                assert answer is not None
                keys.append(answer.key)
        clock.advance(ANSWER_SECONDS)
    assert len(set(keys)) == 4, "each is good for its answer"
    answers_now = [cas.find_chunks(chunk) for _ in range(2)]
    assert len({answer.key for answer in answers_now if answer is not None}) == 1
    with cas.index.transaction() as writer:
        assert writer.connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == BUSY_TIMEOUT_SECONDS * 1000


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
