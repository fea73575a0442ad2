"""CasContract: the promises of every Cas to an uploader and a downloader, as tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from xetstore.errors import (
    HashMismatchError,
    IntegrityError,
    MissingXorbError,
    NotFoundError,
    RangeError,
    RejectedShardError,
    UsageError,
)
from xetstore.interfaces import MANY_CHUNKS, MANY_PUT_AGAIN, Cas
from xetstore.protocol import kernel
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard, XorbEntry
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.testing.samples import Sample, entry_of, make_sample, random_bytes, read_back, upload

Claim = Callable[[Sample], Shard]

_OTHER = chunk_hash(b"something else")


def _term(sample: Sample, **changes: Any) -> Shard:
    [term] = sample.file.terms
    return replace(sample.shard, files=(replace(sample.file, terms=(replace(term, **changes),)),))


def _file(sample: Sample, **changes: Any) -> Shard:
    return replace(sample.shard, files=(replace(sample.file, **changes),))


def _xorb(sample: Sample, chunks: ChunkList) -> Shard:
    return replace(sample.shard, xorbs=(XorbEntry(sample.xorb.hash, chunks),))


def _swapped(chunks: ChunkList) -> ChunkList:
    order = [1, 0, *range(2, len(chunks))]
    return ChunkList.concat([chunks.slice(i, i + 1) for i in order])


# Every single claim of a shard, wrong once, all others right.
FALSE_CLAIMS: dict[str, Claim] = {
    "the file hash": lambda sample: _file(sample, hash=_OTHER),
    "a file hash of zeros": lambda sample: _file(sample, hash=Hash.ZERO),
    "a file without terms": lambda sample: _file(sample, terms=(), verification=()),
    "a verification hash": lambda sample: _file(sample, verification=(_OTHER,)),
    "no verification hashes": lambda sample: _file(sample, verification=None),
    "the start of a term": lambda sample: _term(sample, chunk_start=1),
    "the end of a term": lambda sample: _term(sample, chunk_end=sample.xorb.chunk_count - 1),
    "an end past the xorb": lambda sample: _term(sample, chunk_end=sample.xorb.chunk_count + 1),
    "an empty term": lambda sample: _term(sample, chunk_start=1, chunk_end=1),
    "a length too long": lambda sample: _term(sample, unpacked_bytes=len(sample.data) + 1),
    "a length too short": lambda sample: _term(sample, unpacked_bytes=len(sample.data) - 1),
    "a missing chunk": lambda sample: _xorb(sample, sample.xorb.chunks.slice(0, sample.xorb.chunk_count - 1)),
    "chunks in another order": lambda sample: _xorb(sample, _swapped(sample.xorb.chunks)),
    "keyed chunk hashes": lambda sample: replace(sample.shard, xorbs=(), key=bytes(range(32))),
}


class CasContract:
    """Subclass it with a fixture ``cas`` that gives an empty store."""

    @pytest.fixture
    def cas(self) -> Any:
        """The store under test."""
        raise NotImplementedError("a subclass gives the store")

    @pytest.fixture
    def sample(self) -> Sample:
        """A file of about ten chunks, in a xorb behind some chunks of another file."""
        return make_sample(random_bytes(600_000, 1), before=random_bytes(150_000, 2))

    def test_a_stored_file_comes_back(self, cas: Cas, sample: Sample) -> None:
        """The same bytes, under the hash of the file."""
        assert read_back(cas, upload(cas, sample)) == sample.data

    @pytest.mark.parametrize(
        ("start", "end"), [(0, 1), (599_999, 600_000), (200_000, 200_001), (1, 599_999), (100_000, 400_000)]
    )
    def test_any_range_comes_back(self, cas: Cas, sample: Sample, start: int, end: int) -> None:
        """Exactly its bytes, from chunks that hold some of them."""
        file = upload(cas, sample)
        assert read_back(cas, file, start, end) == sample.data[start:end]
        kept = cas.reconstruct(file, start, end)
        assert kept.unpacked_bytes <= end - start + 2 * 131_072

    def test_a_file_that_is_here_is_put_again_by_its_hash(self, cas: Cas, sample: Sample) -> None:
        """And one that is not, is not; a dry run tells the same."""
        file = upload(cas, sample)
        for dry_run in (False, True):
            assert cas.put_again([file, _OTHER, file], dry_run=dry_run) == {file}
            assert cas.put_again([_OTHER], dry_run=dry_run) == set()
            assert cas.put_again([], dry_run=dry_run) == set()
        cas.delete([file])
        assert cas.put_again([file]) == set()
        assert upload(cas, sample) == file
        assert cas.put_again([file]) == {file}

    def test_files_are_put_again_some_thousands_at_once(self, cas: Cas, sample: Sample) -> None:
        """Of more, the caller makes several calls."""
        file = upload(cas, sample)
        others = [Hash(number.to_bytes(32, "big")) for number in range(1, MANY_PUT_AGAIN + 1)]
        assert cas.put_again([file, *others[1:]]) == {file}
        with pytest.raises(UsageError):
            cas.put_again([file, *others])

    def test_bytes_that_come_along_are_those_that_are_fetched(self, cas: Cas, sample: Sample) -> None:
        """Of whole fetches, at most as many bytes as were asked for; none where none were."""
        file = upload(cas, sample)
        assert not cas.reconstruct(file).bodies
        assert not cas.reconstruct(file, hashes=True, inline=10).bodies
        for most in (10**6, 10**9):
            found = cas.reconstruct(file, 100, 300_000, hashes=True, inline=most)
            bodies = found.bodies or {}
            assert sum(map(len, bodies.values())) <= most
            for fetch, body in bodies.items():
                with cas.fetch_xorb(fetch) as stream:
                    data = bytearray(fetch.byte_end - fetch.byte_start)
                    view = memoryview(data)
                    while view and (count := stream.readinto(view)):
                        view = view[count:]
                assert body == data

    def test_several_ranges_are_answered_as_each_of_them_is(self, cas: Cas, sample: Sample) -> None:
        """Null is what is not there, or begins behind the end."""
        file = upload(cas, sample)
        spans = [(file, 0, 10), (_OTHER, 0, 10), (file, 300_000, 10**9), (file, 600_000, 600_001)]
        told = cas.reconstruct_ranges(spans, inline=10**6)
        if told is None:
            return  # it has no such call
        assert [one is None for one in told] == [False, True, False, True]
        for one, span in zip(told, spans, strict=True):
            if one is not None:
                alone = cas.reconstruct(*span, hashes=True)
                assert (one.terms, one.term_hashes, one.offset_into_first_term) == (
                    alone.terms,
                    alone.term_hashes,
                    alone.offset_into_first_term,
                )

    def test_a_range_is_cut_off_at_the_end_of_the_file(self, cas: Cas, sample: Sample) -> None:
        """A client need not know the size."""
        file = upload(cas, sample)
        assert read_back(cas, file, 599_000, 10**12) == sample.data[599_000:]

    @pytest.mark.parametrize("start", [600_000, 600_001, 10**15])
    def test_a_range_past_the_end_is_refused(self, cas: Cas, sample: Sample, start: int) -> None:
        """RangeError is how a client without a size learns where a file ends."""
        file = upload(cas, sample)
        with pytest.raises(RangeError):
            cas.reconstruct(file, start, start + 10)

    def test_a_file_across_xorbs_comes_back(self, cas: Cas) -> None:
        """Terms of several xorbs, one of them used twice, with chunks in between that are not the file's."""
        one = make_sample(random_bytes(300_000, 3), before=random_bytes(200_000, 4))
        two = make_sample(random_bytes(400_000, 5))
        for sample in (one, two):
            cas.put_xorb(sample.xorb.hash, sample.body)
        pieces = [(one, 0, 2), (two, 1, 4), (one, 2, one.xorb.chunk_count), (one, 1, 2)]
        parts = [(sample, sample.xorb.chunks.slice(first, end), first, end) for sample, first, end in pieces]
        entry = entry_of(
            [(Term(sample.xorb.hash, first, end, chunks.total_bytes), chunks) for sample, chunks, first, end in parts]
        )
        assert cas.put_shard(Shard((entry,)))
        raw = {one.xorb.hash: random_bytes(200_000, 4) + one.data, two.xorb.hash: two.data}
        expected = b""
        for sample, chunks, first, _ in parts:
            at = sample.xorb.chunks.slice(0, first).total_bytes
            expected += raw[sample.xorb.hash][at : at + chunks.total_bytes]
        assert read_back(cas, entry.hash) == expected
        middle = len(expected) // 2
        assert read_back(cas, entry.hash, middle, middle + 300_000) == expected[middle : middle + 300_000]

    def test_the_empty_file_is_a_file(self, cas: Cas) -> None:
        """Registered like any other, under 32 zero bytes; unknown before."""
        with pytest.raises(NotFoundError):
            cas.reconstruct(Hash.ZERO)
        assert cas.put_shard(Shard((FileEntry(Hash.ZERO, (), (), hashlib.sha256(b"").digest()),)))
        found = cas.reconstruct(Hash.ZERO)
        assert (found.terms, dict(found.fetches), found.offset_into_first_term) == ((), {}, 0)
        with pytest.raises(RangeError):
            cas.reconstruct(Hash.ZERO, 1)

    def test_an_unknown_file_is_not_found(self, cas: Cas, sample: Sample) -> None:
        """A xorb without a shard is no file."""
        cas.put_xorb(sample.xorb.hash, sample.body)
        for name in (sample.file.hash, sample.xorb.hash, _OTHER):
            with pytest.raises(NotFoundError):
                cas.reconstruct(name)

    def test_the_same_upload_twice_is_new_once(self, cas: Cas, sample: Sample) -> None:
        """Both calls succeed, both times, and the answers stay the same."""
        assert cas.put_xorb(sample.xorb.hash, sample.body)
        assert not cas.put_xorb(sample.xorb.hash, sample.body)
        assert cas.put_shard(sample.shard)
        before = cas.reconstruct(sample.file.hash)
        assert not cas.put_shard(sample.shard)
        assert cas.reconstruct(sample.file.hash) == before

    def test_a_shard_may_hold_the_same_file_twice(self, cas: Cas, sample: Sample) -> None:
        """Real clients send two files of the same content together."""
        cas.put_xorb(sample.xorb.hash, sample.body)
        assert cas.put_shard(replace(sample.shard, files=(sample.file, sample.file)))
        assert read_back(cas, sample.file.hash) == sample.data

    def test_a_file_hash_is_not_rebound(self, cas: Cas, sample: Sample) -> None:
        """Another way to make the same file is accepted and the first one kept."""
        file = upload(cas, sample)
        before = cas.reconstruct(file)
        alone = make_sample(sample.data)
        assert alone.file.hash == file
        assert alone.xorb.hash != sample.xorb.hash
        upload(cas, alone)
        assert cas.reconstruct(file) == before

    def test_a_footer_that_comes_along_is_not_served(self, cas: Cas, sample: Sample) -> None:
        """Reads end where the chunks end, also for clients that send a footer."""
        assert cas.put_xorb(sample.xorb.hash, sample.body + sample.xorb.serialize_footer())
        cas.put_shard(sample.shard)
        assert read_back(cas, sample.file.hash) == sample.data
        fetches = [fetch for found in cas.reconstruct(sample.file.hash).fetches.values() for fetch in found]
        assert max(fetch.byte_end for fetch in fetches) == len(sample.body)

    def test_the_same_chunks_in_another_compression_are_the_same_xorb(self, cas: Cas) -> None:
        """A xorb's hash names its chunks, not its bytes: the first body stays, and readers are told its offsets."""
        data = b"compressible " * 40_000
        packed, plain = make_sample(data), make_sample(data, policy=CompressionPolicy.NONE)
        assert packed.xorb.hash == plain.xorb.hash
        assert len(packed.body) < len(plain.body)
        assert cas.put_xorb(packed.xorb.hash, packed.body)
        assert not cas.put_xorb(plain.xorb.hash, plain.body)
        cas.put_shard(plain.shard)
        assert read_back(cas, plain.file.hash) == data

    def test_a_xorb_under_another_name_is_refused(self, cas: Cas, sample: Sample) -> None:
        """The name is the root over the chunks, computed by the store."""
        with pytest.raises(HashMismatchError):
            cas.put_xorb(_OTHER, sample.body)

    @pytest.mark.parametrize("place", [0, 1, 5, 8, 100_000, -1])
    def test_a_xorb_with_a_flipped_bit_is_refused(self, cas: Cas, sample: Sample, place: int) -> None:
        """Wherever it is, and nothing of the xorb is kept."""
        body = bytearray(sample.body)
        body[place] ^= 1
        with pytest.raises(IntegrityError):
            cas.put_xorb(sample.xorb.hash, body)
        with pytest.raises(MissingXorbError):
            cas.put_shard(sample.shard)

    @pytest.mark.parametrize("size", [0, 7, 8, 100_000])
    def test_a_truncated_xorb_is_refused(self, cas: Cas, sample: Sample, size: int) -> None:
        """Also one of nothing, and one that ends where a chunk does."""
        ends = [*memoryview(sample.xorb.ends).cast("Q")]
        for cut in (size, ends[-2], len(sample.body) - 1):
            with pytest.raises(IntegrityError):
                cas.put_xorb(sample.xorb.hash, sample.body[:cut])

    def test_a_shard_that_names_an_absent_xorb_is_refused(self, cas: Cas, sample: Sample) -> None:
        """In an entry of its own or in a term only, and the error says which xorb it is."""
        for shard in (sample.shard, replace(sample.shard, xorbs=()), replace(sample.shard, files=())):
            with pytest.raises(MissingXorbError) as caught:
                cas.put_shard(shard)
            assert caught.value.xorb == str(sample.xorb.hash)

    @pytest.mark.parametrize("claim", FALSE_CLAIMS)
    def test_a_false_claim_is_refused(self, cas: Cas, sample: Sample, claim: str) -> None:
        """One wrong claim: the shard is refused and none of its files registered, not even an honest one."""
        cas.put_xorb(sample.xorb.hash, sample.body)
        good = make_sample(random_bytes(50_000, 6))
        cas.put_xorb(good.xorb.hash, good.body)
        shard = FALSE_CLAIMS[claim](sample)
        with pytest.raises(RejectedShardError):
            cas.put_shard(replace(shard, files=(good.file, *shard.files)))
        for name in (sample.file.hash, good.file.hash, *(entry.hash for entry in shard.files)):
            with pytest.raises(NotFoundError):
                cas.reconstruct(name)

    def test_the_first_chunk_of_a_file_can_be_found(self, cas: Cas, sample: Sample) -> None:
        """The answer holds the xorb, its chunk hashes keyed, and only who knows a chunk can recognise it."""
        upload(cas, sample)
        first = sample.file.terms[0].chunk_start
        answer = cas.find_chunks(Hash(sample.xorb.chunks.digest(first)))
        assert answer is not None
        assert answer.key is not None
        assert answer.files == ()
        assert answer.expires_at > answer.created_at > 0
        [entry] = answer.xorbs
        assert entry.hash == sample.xorb.hash
        assert entry.chunks.hashes == kernel.keyed_hashes(answer.key, sample.xorb.chunks.hashes)
        assert entry.chunks.lengths == sample.xorb.chunks.lengths

    def test_several_chunks_can_be_asked_for_at_once(self, cas: Cas) -> None:
        """The xorbs that hold them come first, in their order; chunks that are not known change nothing."""
        samples = [make_sample(random_bytes(20_000, seed)) for seed in range(10, 13)]
        for sample in samples:
            upload(cas, sample)
        firsts = [Hash(sample.xorb.chunks.digest(0)) for sample in samples]
        assert cas.find_chunks(firsts[1]) is not None
        assert cas.queries.most_at_once > 1, "a remote one has announced it by now"
        for one, other in ((0, 2), (2, 0)):
            answer = cas.find_chunks(_OTHER, firsts[one], firsts[other], firsts[one])
            assert answer is not None
            assert answer.key is not None
            assert answer.files == ()
            assert [entry.hash for entry in answer.xorbs[:2]] == [samples[one].xorb.hash, samples[other].xorb.hash]
            for entry, asked in zip(answer.xorbs, (firsts[one], firsts[other]), strict=False):
                assert entry.chunks.digest(0) == kernel.keyed_hash(answer.key, asked.digest)
        assert cas.find_chunks(_OTHER, Hash.ZERO) is None

    def test_only_so_many_chunks_can_be_asked_for_at_once(self, cas: Cas) -> None:
        """None, and more than ``MANY_CHUNKS``, are no query."""
        for chunks in ([], [_OTHER] * (MANY_CHUNKS + 1)):
            with pytest.raises(UsageError):
                cas.find_chunks(*chunks)

    def test_an_unknown_chunk_is_not_found(self, cas: Cas, sample: Sample) -> None:
        """Nor is one of a xorb that no shard has named yet."""
        assert cas.find_chunks(_OTHER) is None
        cas.put_xorb(sample.xorb.hash, sample.body)
        first = sample.file.terms[0].chunk_start
        assert cas.find_chunks(Hash(sample.xorb.chunks.digest(first))) is None

    def test_the_files_are_listed(self, cas: Cas) -> None:
        """All of the namespace, and no other; without those that were deleted."""
        samples = [make_sample(random_bytes(20_000, seed)) for seed in range(3)]
        assert list(cas.files()) == []
        for sample in samples:
            upload(cas, sample)
        assert {file.hash: file.size for file in cas.files()} == {each.file.hash: 20_000 for each in samples}
        cas.delete([samples[1].file.hash])
        assert {file.hash for file in cas.files()} == {samples[0].file.hash, samples[2].file.hash}

    def test_a_deleted_file_is_gone_at_once(self, cas: Cas, sample: Sample) -> None:
        """For every verb, as if it had never been there; others stay."""
        file, other = upload(cas, sample), upload(cas, make_sample(random_bytes(50_000, 6)))
        [done] = cas.delete([file])
        assert (done.hash, done.size) == (file, len(sample.data))
        assert done.until > done.deleted_at > 0
        for ask in (cas.reconstruct, cas.stat):
            with pytest.raises(NotFoundError):
                ask(file)
        assert [*cas.deleted()] == [done]
        assert cas.stat(other).size == 50_000

    def test_a_deleted_file_can_be_given_back(self, cas: Cas, sample: Sample) -> None:
        """It is as it was, and no deleted one any more."""
        file = upload(cas, sample)
        cas.delete([file])
        [record] = cas.undelete([file])
        assert (record.hash, record.size) == (file, len(sample.data))
        assert read_back(cas, file) == sample.data
        assert [*cas.deleted()] == []

    def test_deleting_and_giving_back_may_be_repeated(self, cas: Cas, sample: Sample) -> None:
        """A call whose answer was lost is made again: the second time changes nothing, and says the same."""
        file = upload(cas, sample)
        assert cas.delete([file]) == cas.delete([file, file]) == [*cas.deleted()]
        assert cas.undelete([file]) == cas.undelete([file, file])
        assert read_back(cas, file) == sample.data

    def test_a_deleted_file_that_is_put_again_is_there_again(self, cas: Cas, sample: Sample) -> None:
        """It is new then, and can be deleted again."""
        file = upload(cas, sample)
        cas.delete([file])
        assert not cas.put_xorb(sample.xorb.hash, sample.body)
        assert cas.put_shard(sample.shard)
        assert read_back(cas, file) == sample.data
        assert [*cas.deleted()] == []
        assert [done.hash for done in cas.delete([file])] == [file]
        assert [done.hash for done in cas.deleted()] == [file]

    def test_a_file_that_is_not_there_cannot_be_deleted_or_given_back(self, cas: Cas, sample: Sample) -> None:
        """Of several none is then, wherever it stands among them."""
        file = upload(cas, sample)
        for files in ([_OTHER], [file, _OTHER], [_OTHER, file]):
            for verb in (cas.delete, cas.undelete):
                with pytest.raises(NotFoundError, match=str(_OTHER)):
                    verb(files)
        assert (cas.delete([]), cas.undelete([]), [*cas.deleted()]) == ([], [], [])
        assert read_back(cas, file) == sample.data

    def test_a_deletion_can_be_tried(self, cas: Cas, sample: Sample) -> None:
        """Nothing is deleted, and the answer is that of the real one but for the time."""
        file = upload(cas, sample)
        [would] = cas.delete([file], dry_run=True)
        assert (would.hash, would.size) == (file, len(sample.data))
        with pytest.raises(NotFoundError, match=str(_OTHER)):
            cas.delete([_OTHER], dry_run=True)
        assert read_back(cas, file) == sample.data
        assert [*cas.deleted()] == []

    def test_the_last_deleted_file_is_told_first(self, cas: Cas) -> None:
        """All of them are, however many there are and at whatever time they went."""
        samples = [make_sample(b"%d" % number) for number in range(30)]
        for sample in samples:
            cas.put_xorb(sample.xorb.hash, sample.body)
        files = [sample.file.hash for sample in samples]
        assert cas.put_shard(Shard(tuple(sample.file for sample in samples)))
        for part in (files[:10], files[10:11], files[11:]):
            assert [done.hash for done in cas.delete(part)] == part
        told = [*cas.deleted()]
        assert sorted(map(str, files)) == sorted(str(done.hash) for done in told)
        times = [done.deleted_at for done in told]
        assert times == sorted(times, reverse=True)
