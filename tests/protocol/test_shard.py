"""What Shard promises: every rule of the format is held, both written forms are read back, big ones are split."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.strategies import chunk_list, chunk_lists, hashes, mutations
from xetstore import _kernel
from xetstore.errors import FormatError, UsageError
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard, XorbEntry, split_for_upload
from xetstore.protocol.suite import SHARD_BOOKEND, SHARD_TAG


def named(byte: int) -> Hash:
    return Hash(bytes([byte]) * 32)


# One file of two terms with everything, one xorb of three chunks, at known places:
SAMPLE = Shard(
    files=(
        FileEntry(
            named(1),
            (Term(named(2), 0, 2, 300), Term(named(2), 1, 3, 500)),
            (named(3), named(4)),
            hashlib.sha256(b"sample").digest(),
        ),
    ),
    xorbs=(XorbEntry(named(2), chunk_list([(b"a" * 32, 100), (b"b" * 32, 200), (b"c" * 32, 300)]), 77),),
)
FILE, TERMS, VERIFICATION, METADATA = 48, 96, 192, 288
FILE_BOOKEND, XORB, CHUNKS, XORB_BOOKEND, FOOTER = 336, 384, 432, 576, 624
UPLOAD = SAMPLE.serialize()
STORED = replace(SAMPLE, key=b"k" * 32, created_at=11, expires_at=22).serialize_with_footer()


def with_u32(data: bytes, offset: int, number: int) -> bytes:
    return data[:offset] + struct.pack("<I", number) + data[offset + 4 :]


def with_u64(data: bytes, offset: int, number: int) -> bytes:
    return data[:offset] + struct.pack("<Q", number) + data[offset + 8 :]


# --- The bytes ------------------------------------------------------------------------------------------


def test_the_upload_form_is_laid_out_as_the_draft_says() -> None:
    assert UPLOAD[:48] == SHARD_TAG + struct.pack("<QQ", 2, 0)
    assert UPLOAD[FILE:TERMS] == named(1).digest + struct.pack("<IIQ", 0xC000_0000, 2, 0)
    assert UPLOAD[TERMS:VERIFICATION] == (
        named(2).digest + struct.pack("<4I", 0, 300, 0, 2) + named(2).digest + struct.pack("<4I", 0, 500, 1, 3)
    )
    assert UPLOAD[VERIFICATION:METADATA] == named(3).digest + bytes(16) + named(4).digest + bytes(16)
    assert UPLOAD[FILE_BOOKEND:XORB] == SHARD_BOOKEND
    assert UPLOAD[XORB:CHUNKS] == named(2).digest + struct.pack("<4I", 0, 3, 600, 0)
    assert UPLOAD[CHUNKS : CHUNKS + 96] == (
        b"a" * 32 + struct.pack("<4I", 0, 100, 0, 0) + b"b" * 32 + struct.pack("<4I", 100, 200, 0, 0)
    )
    assert UPLOAD[XORB_BOOKEND:] == SHARD_BOOKEND


def test_a_sha256_travels_with_each_eight_bytes_turned_round() -> None:
    digest = hashlib.sha256(b"sample").digest()
    assert UPLOAD[METADATA : METADATA + 48] == Hash.parse(digest.hex()).digest + bytes(16)
    assert Shard.parse(UPLOAD).files[0].sha256 == digest


def test_the_footer_is_laid_out_as_the_hub_writes_it() -> None:
    assert STORED[40:48] == struct.pack("<Q", 200)
    assert STORED[FOOTER:] == (
        struct.pack("<9Q", 1, 48, XORB, FOOTER, 0, FOOTER, 0, FOOTER, 0)
        + b"k" * 32
        + struct.pack("<QQ", 11, 22)
        + bytes(48)
        + struct.pack("<4Q", 77, 800, 600, FOOTER)
    )


def test_an_empty_file_travels_with_zeros_for_its_sha256() -> None:
    empty = FileEntry(Hash.ZERO, (), (), hashlib.sha256(b"").digest())
    data = Shard((empty,)).serialize()
    assert data[48:144] == bytes(32) + struct.pack("<IIQ", 0xC000_0000, 0, 0) + bytes(48)
    assert Shard.parse(data).files == (empty,)
    assert Shard.parse(data[:96] + Hash.parse(hashlib.sha256(b"").hexdigest()).digest + data[128:]).files == (empty,)


def test_files_and_xorbs_are_written_in_the_order_of_their_hash_strings() -> None:
    # As strings these ascend; as bytes they do not: the string's words are little-endian.
    names = sorted((Hash(bytes([a, *[0] * 6, b]) * 4) for a in range(3) for b in range(3)), key=str)
    shard = Shard(
        tuple(FileEntry(name, (), ()) for name in reversed(names)),
        tuple(XorbEntry(name, chunk_list([(b"a" * 32, 1)])) for name in reversed(names)),
    )
    for data in (shard.serialize(), shard.serialize_with_footer()):
        assert [file.hash for file in Shard.parse(data).files] == names
        assert [xorb.hash for xorb in Shard.parse(data).xorbs] == names
    # Nobody has to write them so.
    swapped = Shard.parse(shard.serialize()).serialize()
    assert Shard.parse(swapped[:48] + swapped[96:144] + swapped[48:96] + swapped[144:]).files[0].hash == names[1]


@st.composite
def shards(draw: st.DrawFn, *, upload: bool) -> Shard:
    """Any shard, in the normal form that parsing an upload or a stored one gives."""
    runs = st.tuples(hashes(), st.integers(0, 8191), st.integers(1, 100), st.integers(1, 131072))
    files = []
    for name in draw(st.lists(hashes(), max_size=4, unique=True)):
        terms = tuple(
            Term(xorb, start, min(start + count, 8192), (min(start + count, 8192) - start) * size)
            for xorb, start, count, size in draw(st.lists(runs, max_size=5))
        )
        verification = None
        if upload or draw(st.booleans()):
            verification = tuple(draw(hashes()) for _ in terms)
        of_nothing = st.just(hashlib.sha256(b"").digest())
        sha256 = draw(st.none() | of_nothing | st.binary(min_size=32, max_size=32).filter(any))
        files.append(FileEntry(name, terms, verification, sha256))
    xorbs = [
        XorbEntry(name, draw(chunk_lists(min_size=1)), 0 if upload else draw(st.integers(0, 2**32 - 1)))
        for name in draw(st.lists(hashes(), max_size=4, unique=True))
    ]
    files.sort(key=lambda file: file.hash)
    xorbs.sort(key=lambda xorb: xorb.hash)
    if upload:
        return Shard(tuple(files), tuple(xorbs))
    key = draw(st.none() | st.binary(min_size=32, max_size=32).filter(any))
    created_at, expires_at = draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 2**64 - 1))
    return Shard(tuple(files), tuple(xorbs), key, created_at, expires_at)


@given(shards(upload=True))
def test_what_is_written_for_upload_is_read_back(shard: Shard) -> None:
    assert Shard.parse(shard.serialize()) == shard


@given(shards(upload=False))
def test_what_is_written_with_a_footer_is_read_back(shard: Shard) -> None:
    assert Shard.parse(shard.serialize_with_footer()) == shard


def test_a_footer_that_is_announced_and_not_there_is_not_missed() -> None:
    """As hf_xet 1.1.10 and 1.2 upload."""
    assert Shard.parse(with_u64(UPLOAD, 40, 200)) == Shard.parse(UPLOAD)


# --- What is refused ------------------------------------------------------------------------------------

BROKEN = {
    "nothing": (b"", "shard.truncated", 0),
    "half a header": (UPLOAD[:47], "shard.truncated", 47),
    "wrong magic": (with_u32(UPLOAD, 28, 7), "shard.tag", 15),
    "another application": (b"another\0\0\0\0\0\0\0" + UPLOAD[14:], "shard.tag", 0),
    "magic before version": (with_u32(with_u32(UPLOAD, 15, 7), 32, 9), "shard.tag", 15),
    "version 1": (with_u64(UPLOAD, 32, 1), "shard.version", 32),
    "footer size 199": (with_u64(UPLOAD, 40, 199), "shard.footer_size", 40),
    "footer size 2^64-1": (with_u64(UPLOAD, 40, 2**64 - 1), "shard.footer_size", 40),
    "no room for the footer": (with_u64(UPLOAD, 40, 200) + bytes(199), "shard.truncated", len(UPLOAD) + 199),
    "no file bookend": (UPLOAD[:FILE_BOOKEND], "shard.bookend", FILE_BOOKEND),
    "no xorb bookend": (UPLOAD[:XORB_BOOKEND], "shard.bookend", XORB_BOOKEND),
    "half a bookend": (UPLOAD[:-1], "shard.bookend", XORB_BOOKEND),
    "file bookend not ending in zeros": (with_u32(UPLOAD, XORB - 4, 1), "shard.bookend", FILE_BOOKEND + 32),
    "xorb bookend not ending in zeros": (with_u32(UPLOAD, FOOTER - 16, 1), "shard.bookend", XORB_BOOKEND + 32),
    "a byte after the end": (UPLOAD + b"\0", "shard.trailing", FOOTER),
    "a footer nobody spoke of": (UPLOAD + STORED[FOOTER:], "shard.trailing", FOOTER),
    "unknown file flag": (with_u32(UPLOAD, FILE + 32, 0xE000_0000), "file.flags", FILE + 32),
    "low file flag": (with_u32(UPLOAD, FILE + 32, 0xC000_0001), "file.flags", FILE + 32),
    "more terms than bytes": (with_u32(UPLOAD, FILE + 36, 6), "file.count", FILE + 36),
    "4 billion terms": (with_u32(UPLOAD, FILE + 36, 2**32 - 1), "file.count", FILE + 36),
    "term flags": (with_u32(UPLOAD, TERMS + 48 + 32, 1), "term.flags", TERMS + 48 + 32),
    "term without chunks": (with_u32(UPLOAD, TERMS + 44, 0), "term.range", TERMS + 40),
    "term that runs backwards": (with_u32(UPLOAD, TERMS + 40, 5), "term.range", TERMS + 40),
    "term past any xorb": (with_u32(UPLOAD, TERMS + 44, 8193), "term.range", TERMS + 40),
    "term of fewer bytes than chunks": (with_u32(UPLOAD, TERMS + 36, 1), "term.length", TERMS + 36),
    "term of more bytes than its chunks hold": (with_u32(UPLOAD, TERMS + 36, 262145), "term.length", TERMS + 36),
    "xorb flags": (with_u32(UPLOAD, XORB + 32, 1 << 31), "xorb.flags", XORB + 32),
    "xorb without chunks": (with_u32(UPLOAD, XORB + 36, 0), "xorb.count", XORB + 36),
    "xorb of more chunks than bytes": (with_u32(UPLOAD, XORB + 36, 5), "xorb.count", XORB + 36),
    "xorb of 4 billion chunks": (with_u32(UPLOAD, XORB + 36, 2**32 - 1), "xorb.count", XORB + 36),
    "xorb whose sum is wrong": (with_u32(UPLOAD, XORB + 40, 601), "xorb.raw_bytes", XORB + 40),
    "chunk of no bytes": (with_u32(UPLOAD, CHUNKS + 48 + 36, 0), "chunk.length", CHUNKS + 48 + 36),
    "chunk too long": (with_u32(UPLOAD, CHUNKS + 96 + 36, 131073), "chunk.length", CHUNKS + 96 + 36),
    "chunk that starts elsewhere": (with_u32(UPLOAD, CHUNKS + 96 + 32, 299), "chunk.start", CHUNKS + 96 + 32),
    "first chunk not at 0": (with_u32(UPLOAD, CHUNKS + 32, 1), "chunk.start", CHUNKS + 32),
    "chunk flag 0": (with_u32(UPLOAD, CHUNKS + 48 + 40, 1), "chunk.flags", CHUNKS + 48 + 40),
    "chunk flag 30": (with_u32(UPLOAD, CHUNKS + 40, 3 << 30), "chunk.flags", CHUNKS + 40),
    "footer version": (with_u64(STORED, FOOTER, 2), "footer.version", FOOTER),
    "file section elsewhere": (with_u64(STORED, FOOTER + 8, 96), "footer.offset", FOOTER + 8),
    "xorb section elsewhere": (with_u64(STORED, FOOTER + 16, 2**64 - 1), "footer.offset", FOOTER + 8),
    "footer elsewhere": (with_u64(STORED, FOOTER + 192, FOOTER - 48), "footer.offset", FOOTER + 8),
    "file lookup outside": (with_u64(STORED, FOOTER + 32, 1), "footer.lookup", FOOTER + 24),
    "xorb lookup outside": (with_u64(STORED, FOOTER + 48, 2**64 - 1), "footer.lookup", FOOTER + 40),
    "chunk lookup outside": (with_u64(STORED, FOOTER + 64, 1), "footer.lookup", FOOTER + 56),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_shard_that_breaks_a_rule_is_refused_with_rule_and_place(case: str) -> None:
    data, rule, offset = BROKEN[case]
    with pytest.raises(FormatError) as caught:
        Shard.parse(data)
    assert (caught.value.rule, caught.value.offset) == (rule, offset)


def test_more_than_8192_chunks_are_no_xorb() -> None:
    most = chunk_list([(b"a" * 32, 8192)] * 8192)
    assert Shard.parse(Shard((), (XorbEntry(named(1), most),)).serialize()).xorbs[0].chunks == most
    more = ChunkList.concat([most, chunk_list([(b"a" * 32, 1)])])
    with pytest.raises(FormatError, match=r"xorb\.count"):
        Shard.parse(Shard((), (XorbEntry(named(1), more),)).serialize())


# --- What is tolerated ----------------------------------------------------------------------------------


def test_reserved_fields_are_ignored() -> None:
    data = bytearray(UPLOAD)
    for offset, size in [(FILE + 40, 8), (VERIFICATION + 32, 16), (METADATA + 32, 16), (CHUNKS + 44, 4)]:
        data[offset : offset + size] = b"\x55" * size
    assert Shard.parse(data) == Shard.parse(UPLOAD)


def test_the_eligibility_flag_of_a_chunk_is_tolerated() -> None:
    assert Shard.parse(with_u32(UPLOAD, CHUNKS + 88, 1 << 31)) == Shard.parse(UPLOAD)


def test_a_shard_is_read_from_any_kind_of_buffer() -> None:
    assert Shard.parse(bytearray(UPLOAD)) == Shard.parse(memoryview(UPLOAD)) == Shard.parse(UPLOAD)


def test_the_xorbs_alone_are_a_shard_and_so_is_nothing_at_all() -> None:
    assert Shard.parse(replace(SAMPLE, files=()).serialize()).files == ()
    assert Shard.parse(Shard().serialize()) == Shard()
    assert len(Shard().serialize()) == 48 * 3


def test_lookup_tables_are_skipped() -> None:
    tables = b"\xee" * (12 + 12 + 3 * 16)
    footer_at = FOOTER + len(tables)
    footer = (
        struct.pack("<9Q", 1, 48, XORB, FOOTER, 1, FOOTER + 12, 1, FOOTER + 24, 3)
        + STORED[FOOTER + 72 : -8]
        + struct.pack("<Q", footer_at)
    )
    assert Shard.parse(STORED[:FOOTER] + tables + footer) == Shard.parse(STORED)


def test_repeated_terms_of_a_parsed_file_share_their_memory() -> None:
    zeros = FileEntry(named(1), (Term(named(2), 0, 1, 131072),) * 1000, (named(3),) * 1000)
    (file,) = Shard.parse(Shard((zeros,)).serialize()).files
    assert file == zeros
    assert len({id(term) for term in file.terms}) == 1


@given(st.one_of(st.binary(max_size=400), st.binary(max_size=400).map(lambda tail: UPLOAD[:48] + tail)))
def test_any_bytes_give_a_shard_or_a_format_error(data: bytes) -> None:
    try:
        Shard.parse(data)
    except FormatError:
        return
    assert data[:15] == b"HFRepoMetaData\0"


@given(st.sampled_from([UPLOAD, STORED]).flatmap(mutations))
def test_any_bytes_near_a_shard_give_a_shard_or_a_format_error(data: bytes) -> None:
    try:
        shard = Shard.parse(data)
    except FormatError as error:
        offset = error.offset
    else:
        stored = shard.serialize_with_footer()
        assert Shard.parse(stored).serialize_with_footer() == stored
        return
    assert 0 <= offset <= len(data)


# --- Values ---------------------------------------------------------------------------------------------


def test_a_file_needs_a_verification_hash_for_each_term() -> None:
    with pytest.raises(ValueError, match="1 verification hashes for 2 terms"):
        FileEntry(named(1), SAMPLE.files[0].terms, (named(3),))


def test_the_size_of_a_file_is_the_sum_of_its_terms() -> None:
    assert (SAMPLE.files[0].size, FileEntry(Hash.ZERO, ()).size) == (800, 0)


@pytest.mark.parametrize("key", [b"", b"k" * 31, bytes(32)])
def test_a_key_that_protects_nothing_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="32"):
        SAMPLE.keyed(key, 0, 0)


def test_a_shard_that_a_server_would_refuse_is_not_written_for_upload() -> None:
    with pytest.raises(ValueError, match="keyed"):
        SAMPLE.keyed(b"k" * 32, 0, 0).serialize()
    with pytest.raises(ValueError, match="verification"):
        Shard((FileEntry(named(1), SAMPLE.files[0].terms),)).serialize()


def test_an_empty_file_is_written_for_upload_with_the_verification_flag() -> None:
    assert Shard.parse(Shard((FileEntry(Hash.ZERO, ()),)).serialize()).files[0].verification == ()


def test_a_dedup_answer_has_keyed_hashes_and_no_files() -> None:
    answer = SAMPLE.keyed(b"k" * 32, 1000, 2000)
    assert (answer.files, answer.key, answer.created_at, answer.expires_at) == ((), b"k" * 32, 1000, 2000)
    (raw,), (xorb,) = SAMPLE.xorbs, answer.xorbs
    assert (xorb.hash, xorb.chunks.lengths) == (raw.hash, raw.chunks.lengths)
    for index in range(3):
        assert xorb.chunks.digest(index) == _kernel.keyed_hash(b"k" * 32, raw.chunks.digest(index))
    assert Shard.parse(answer.serialize_with_footer()) == answer
    with pytest.raises(ValueError, match="already"):
        answer.keyed(b"j" * 32, 0, 0)


def test_an_answer_can_keep_the_order_in_which_it_tells() -> None:
    entries = tuple(replace(SAMPLE.xorbs[0], hash=named(number)) for number in (3, 1, 2))
    answer = Shard((), entries).keyed(b"k" * 32, 1000, 2000)
    assert Shard.parse(answer.serialize_with_footer(ascending=False)).xorbs == answer.xorbs
    assert [xorb.hash for xorb in Shard.parse(answer.serialize_with_footer()).xorbs] == [*map(named, (1, 2, 3))]


# --- Splitting ------------------------------------------------------------------------------------------


@given(shards(upload=True), st.integers(0, 4000))
def test_no_part_of_a_split_shard_is_too_long_and_nothing_is_lost(shard: Shard, spare: int) -> None:
    blocks = [Shard(files=(file,)) for file in shard.files] + [Shard(xorbs=(xorb,)) for xorb in shard.xorbs]
    limit = max((len(block.serialize()) for block in blocks), default=144) + spare
    parts = split_for_upload(shard, limit)
    assert all(len(part.serialize()) <= limit for part in parts)
    assert tuple(file for part in parts for file in part.files) == shard.files
    assert tuple(xorb for part in parts for xorb in part.xorbs) == shard.xorbs
    # No two neighbours would have fitted into one.
    for left, right in pairwise(parts):
        first = Shard(files=right.files[:1]) if right.files else Shard(xorbs=right.xorbs[:1])
        assert len(left.serialize()) + len(first.serialize()) - 144 > limit


def test_a_shard_that_fits_is_not_split() -> None:
    assert split_for_upload(SAMPLE) == [SAMPLE]
    assert split_for_upload(SAMPLE, len(UPLOAD)) == [SAMPLE]
    assert len(split_for_upload(SAMPLE, len(UPLOAD) - 1)) == 2


def test_a_shard_above_64_mib_is_split() -> None:
    chunks = chunk_list([(b"a" * 32, 1)] * 8192)
    shard = Shard((), tuple(XorbEntry(Hash(struct.pack("<4Q", i, 0, 0, 0)), chunks) for i in range(172)))
    parts = split_for_upload(shard)
    assert [len(part.xorbs) for part in parts] == [170, 2]
    assert len(parts[0].serialize()) <= 64 * 1024 * 1024


def test_a_file_too_scattered_for_any_shard_is_refused_with_a_hint() -> None:
    with pytest.raises(UsageError, match=str(named(1))) as caught:
        split_for_upload(SAMPLE, 48 * 8)
    assert caught.value.hint
