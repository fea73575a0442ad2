"""Namespaces: who may read what, who is offered what, and that possession is proved, never assumed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cas.objects import in_format_2
from tests.cas.test_answers import first_chunk, one_chunk_samples, put_file_of
from tests.cas.test_migrations import age
from tests.support import engines
from tests.support.stored import file_of, scattered
from xetstore.access.tenant import DedupDomain
from xetstore.cas import EmbeddedCas
from xetstore.errors import MissingXorbError, NotFoundError, RejectedShardError
from xetstore.protocol.hashes import Hash, verification_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard
from xetstore.testing import Sample, make_sample, random_bytes, read_back, upload
from xetstore.testing.embedded import data_in
from xetstore.testing.samples import entry_of

ENGINES = engines.BOTH


@pytest.fixture
def sample() -> Sample:
    return make_sample(random_bytes(400_000, 1))


@pytest.fixture
def anna(cas: EmbeddedCas) -> EmbeddedCas:
    return cas.in_namespace("anna")


@pytest.fixture
def bert(cas: EmbeddedCas) -> EmbeddedCas:
    return cas.in_namespace("bert")


def offered(cas: EmbeddedCas, sample: Sample) -> list[Hash]:
    answer = cas.find_chunks(first_chunk(sample))
    return [] if answer is None else [entry.hash for entry in answer.xorbs]


def message(call: object) -> str:
    with pytest.raises(NotFoundError) as caught:
        call()  # type: ignore[operator]
    return str(caught.value)


def test_a_file_is_readable_where_it_was_registered_and_nowhere_else(
    anna: EmbeddedCas, bert: EmbeddedCas, sample: Sample
) -> None:
    file = upload(anna, sample)
    assert read_back(anna, file) == sample.data
    for call in (bert.reconstruct, bert.stat, bert.file_chunks, lambda name: bert.reconstruct_many([name])):
        with pytest.raises(NotFoundError):
            call(file)
    assert not list(bert.files())


def test_no_grant_reads_exactly_as_no_file(anna: EmbeddedCas, bert: EmbeddedCas, sample: Sample) -> None:
    file = upload(anna, sample)
    absent = make_sample(b"never stored").file.hash
    there = message(lambda: bert.reconstruct(file))
    assert there.replace(str(file), "?") == message(lambda: bert.reconstruct(absent)).replace(str(absent), "?")
    xorb, none = sample.xorb.hash, Hash(bytes(range(32)))
    there = message(lambda: bert.stored_xorb(xorb).size)
    assert there.replace(str(xorb), "?") == message(lambda: bert.stored_xorb(none).size).replace(str(none), "?")


def test_whoever_uploads_the_same_bytes_may_read_them_too(anna: EmbeddedCas, bert: EmbeddedCas, sample: Sample) -> None:
    upload(anna, sample)
    assert bert.put_xorb(sample.xorb.hash, sample.body)
    assert not bert.put_xorb(sample.xorb.hash, sample.body)
    assert bert.put_shard(sample.shard)
    assert read_back(bert, sample.file.hash) == sample.data
    assert len(list(anna.blobs.list("xorbs/"))) == 1


def test_a_xorb_that_others_have_is_verified_all_the_same(anna: EmbeddedCas, bert: EmbeddedCas, sample: Sample) -> None:
    upload(anna, sample)
    other = make_sample(random_bytes(1000, 9))
    with pytest.raises(Exception, match="does not match its hash"):
        bert.put_xorb(sample.xorb.hash, other.body)


def test_chunks_of_others_can_be_used_by_whoever_has_them(anna: EmbeddedCas, bert: EmbeddedCas, sample: Sample) -> None:
    upload(anna, sample)
    assert offered(bert, sample) == [sample.xorb.hash]
    assert bert.put_shard(Shard((sample.file,)))
    assert read_back(bert, sample.file.hash) == sample.data


def test_a_file_cannot_be_claimed_by_what_is_public_about_it(
    anna: EmbeddedCas, bert: EmbeddedCas, sample: Sample
) -> None:
    upload(anna, sample)
    [term] = sample.file.terms
    for guess in (sample.file.hash, sample.xorb.hash, Hash.ZERO, verification_hash(sample.xorb.hash.digest)):
        with pytest.raises(RejectedShardError):
            bert.put_shard(Shard((FileEntry(sample.file.hash, (term,), (guess,)),)))
    with pytest.raises(NotFoundError):
        bert.stat(sample.file.hash)


def test_an_answer_names_no_xorb_of_others_but_the_one_that_was_found(anna: EmbeddedCas, bert: EmbeddedCas) -> None:
    """The name of a xorb of one chunk is the hash of that chunk: whoever is told it could claim the chunk."""
    samples = one_chunk_samples(5)
    put_file_of(anna, samples)
    assert len(offered(anna, samples[0])) == 5
    assert offered(bert, samples[0]) == [samples[0].xorb.hash]


def test_each_tenant_has_a_key_of_its_own(anna: EmbeddedCas, bert: EmbeddedCas, sample: Sample) -> None:
    upload(anna, sample)
    one, two, again = (cas.find_chunks(first_chunk(sample)) for cas in (anna, bert, anna))
    assert one is not None
    assert two is not None
    assert again is not None
    assert one.key == again.key != two.key


def test_in_a_domain_of_its_own_a_namespace_is_offered_only_its_own(cas: EmbeddedCas, sample: Sample) -> None:
    anna, bert = (cas.in_namespace(name, dedup=DedupDomain.NAMESPACE) for name in ("anna", "bert"))
    upload(anna, sample)
    assert offered(anna, sample) == [sample.xorb.hash]
    assert offered(bert, sample) == []
    with pytest.raises(MissingXorbError):
        bert.put_shard(Shard((sample.file,)))
    upload(bert, sample)
    assert offered(bert, sample) == [sample.xorb.hash]


def test_with_dedup_off_nothing_is_offered_and_uploads_work(cas: EmbeddedCas, sample: Sample) -> None:
    anna = cas.in_namespace("anna", dedup=DedupDomain.OFF)
    upload(anna, sample)
    assert offered(anna, sample) == []
    assert read_back(anna, sample.file.hash) == sample.data


def test_a_private_namespace_neither_offers_nor_is_offered(cas: EmbeddedCas) -> None:
    anna, bert, carl = (cas.in_namespace(name, private=frozenset({"anna"})) for name in ("anna", "bert", "carl"))
    secret, common = one_chunk_samples(2)
    upload(anna, secret)
    upload(bert, common)
    assert offered(anna, secret) == [secret.xorb.hash]
    assert offered(bert, secret) == []
    assert offered(carl, common) == [common.xorb.hash]
    assert offered(anna, common) == []
    for cas_, sample in ((bert, secret), (anna, common)):
        with pytest.raises(MissingXorbError):
            cas_.put_shard(Shard((sample.file,)))
    upload(bert, secret)  # who has it, too, shares it
    assert offered(carl, secret) == [secret.xorb.hash]


def test_a_namespace_reads_those_bytes_of_a_xorb_that_its_files_are_made_of(
    anna: EmbeddedCas, bert: EmbeddedCas
) -> None:
    sample = make_sample(random_bytes(1_000_000, 1))
    upload(anna, sample)
    xorb, count = sample.xorb, sample.xorb.chunk_count
    parts = []
    for start, end in ((0, 2), (2, 4), (6, count)):
        taken = xorb.chunks.slice(start, end)
        parts.append((Term(xorb.hash, start, end, taken.total_bytes), taken))
    bert.put_shard(Shard((entry_of(parts[:1]),)))
    bert.put_shard(Shard((entry_of(parts[2:]), entry_of(parts[1:2]))))
    region = xorb.region_bytes
    assert anna.may_read(xorb.hash, [(0, region)])
    assert bert.may_read(xorb.hash, [xorb.byte_range(0, 4), xorb.byte_range(7, 8), (5, 6)])
    assert not bert.may_read(xorb.hash, [(0, region)])
    assert not bert.may_read(xorb.hash, [xorb.byte_range(0, 4), xorb.byte_range(5, 7)])
    assert not bert.may_read(Hash.ZERO, [(0, 1)])
    assert not anna.in_namespace("carl").may_read(xorb.hash, [(0, 1)])


def test_what_a_namespace_may_read_costs_as_much_as_its_files_are_long_and_not_their_square(
    anna: EmbeddedCas, bert: EmbeddedCas
) -> None:
    sample = scattered(4000, chunk_bytes=100)
    anna.put_xorb(sample.xorb.hash, sample.body)
    calls = []
    for number in range(16):
        spans = [(at, at + 1) for at in range(500 * number, 500 * (number + 1), 2)]
        bert.put_shard(file_of(sample, spans)[2])
        if number in (3, 15):
            calls.append(calls_of(lambda: bert.may_read(sample.xorb.hash, [(0, sample.xorb.region_bytes)])))
    assert calls[1] < 6 * calls[0]


def calls_of(question: Callable[[], bool]) -> int:
    """How many functions are called to answer no."""
    seen = 0

    def count(_frame: object, _event: str, _argument: object) -> None:
        nonlocal seen
        seen += 1

    sys.setprofile(count)
    try:
        answer = question()
    finally:
        sys.setprofile(None)
    assert not answer
    return seen


def test_a_xorb_is_visible_to_those_who_uploaded_it_or_have_a_file_of_it(
    anna: EmbeddedCas, bert: EmbeddedCas, sample: Sample
) -> None:
    anna.put_xorb(sample.xorb.hash, sample.body)
    assert anna.stored_xorb(sample.xorb.hash).size == sample.xorb.region_bytes
    with pytest.raises(NotFoundError):
        bert.stored_xorb(sample.xorb.hash)
    assert bert.stored_xorb(sample.xorb.hash, visible=False).size == sample.xorb.region_bytes
    bert.put_shard(Shard((sample.file,)))
    assert bert.stored_xorb(sample.xorb.hash).size == sample.xorb.region_bytes


def test_several_files_come_with_one_plan_of_fetches(cas: EmbeddedCas) -> None:
    sample = make_sample(random_bytes(1_000_000, 1))
    upload(cas, sample)
    xorb = sample.xorb
    parts = []
    for start, end in ((0, 3), (3, 6), (8, 9)):
        taken = xorb.chunks.slice(start, end)
        parts.append(entry_of([(Term(xorb.hash, start, end, taken.total_bytes), taken)]))
    cas.put_shard(Shard(tuple(parts)))
    names = [entry.hash for entry in parts]
    cas.put_shard(Shard((FileEntry(Hash.ZERO, (), ()),)))
    found = cas.reconstruct_many([*names, names[0], Hash.ZERO])
    assert found.files == {Hash.ZERO: ()} | {entry.hash: entry.terms for entry in parts}
    assert [(fetch.chunk_start, fetch.chunk_end) for fetch in found.fetches[xorb.hash]] == [(0, 6), (8, 9)]
    with pytest.raises(NotFoundError):
        cas.reconstruct_many([*names, Hash(bytes(range(32)))])


def test_all_chunks_of_a_file_come_in_order(cas: EmbeddedCas, sample: Sample) -> None:
    upload(cas, sample)
    [term] = sample.file.terms
    assert cas.file_chunks(sample.file.hash) == sample.xorb.chunks.slice(term.chunk_start, term.chunk_end)


def test_progress_counts_up_to_all_claims(cas: EmbeddedCas, sample: Sample) -> None:
    cas.put_xorb(sample.xorb.hash, sample.body)
    told: list[tuple[int, int]] = []
    cas.put_shard(sample.shard, progress=lambda verified, total: told.append((verified, total)))
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize("piece", [1000, 65_536, 1 << 20])
@pytest.mark.parametrize("with_footer", [False, True])
def test_a_xorb_in_pieces_is_stored_as_one(cas: EmbeddedCas, sample: Sample, piece: int, with_footer: bool) -> None:
    body = sample.body + (sample.xorb.serialize_footer() if with_footer else b"")
    with cas.receive_xorb(sample.xorb.hash) as receiver:
        for at in range(0, len(body), piece):
            receiver.write(body[at : at + piece // 2], body[at + piece // 2 : at + piece])
        assert receiver.commit()
    cas.put_shard(sample.shard)
    assert read_back(cas, sample.file.hash) == sample.data
    [stored] = cas.blobs.list("xorbs/")
    assert cas.blobs.get(stored.key) == in_format_2(sample)


def test_what_is_not_committed_leaves_nothing(cas: EmbeddedCas, root: Path, sample: Sample) -> None:
    with cas.receive_xorb(sample.xorb.hash) as receiver:
        receiver.write(sample.body[:200_000])
        receiver.write(sample.body[200_000:-1])
        assert list((root / "tmp").iterdir())
    assert not list((root / "tmp").iterdir())
    assert not data_in(cas.blobs)
    with pytest.raises(Exception, match="left"), cas.receive_xorb(sample.xorb.hash) as receiver:
        receiver.write(sample.body[:-1])
        receiver.commit()
    assert not list((root / "tmp").iterdir())
    assert not data_in(cas.blobs)


def test_a_store_from_before_there_were_namespaces_opens_with_all_of_it(root: Path, sample: Sample) -> None:
    with EmbeddedCas.open(root) as cas:
        upload(cas, sample)
    age(root, 1)
    with EmbeddedCas.open(root) as cas:
        assert read_back(cas, sample.file.hash) == sample.data
        assert not cas.put_xorb(sample.xorb.hash, sample.body)
        alone = cas.in_namespace(dedup=DedupDomain.NAMESPACE)
        assert not alone.put_shard(replace(sample.shard, xorbs=()))


def test_files_are_found_by_the_first_digits_of_their_hashes(anna: EmbeddedCas, bert: EmbeddedCas) -> None:
    sample = make_sample(random_bytes(1_500_000, 3))
    anna.put_xorb(sample.xorb.hash, sample.body)
    chunks = sample.xorb.chunks
    places = [(start, end) for end in range(len(chunks) + 1) for start in range(end)]
    entries = [
        entry_of([(Term(sample.xorb.hash, *at, chunks.slice(*at).total_bytes), chunks.slice(*at))]) for at in places
    ]
    anna.put_shard(Shard(tuple(entries)))
    names = {str(entry.hash) for entry in entries}
    for name in sorted(names)[:30]:
        for digits in (2, 3, 6, 15, 16, 17, 33, 64):
            expected = {each for each in names if each.startswith(name[:digits])}
            assert {str(each) for each in anna.files_beginning(name[:digits], 100)} == expected
    several = next(name for name in names if sum(each.startswith(name[:2]) for each in names) > 1)
    assert len(anna.files_beginning(several[:2], 1)) == 1
    assert bert.files_beginning(several[:2], 100) == []
