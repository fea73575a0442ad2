"""Checksums behind the footer of a xorb's object: the format, damage that they show, and objects without them."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cas.objects import in_format_1, in_format_2
from tests.support.objects import xorb_path
from xetstore import _kernel
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import CheckReport, check, verify_invariants
from xetstore.cas.checksums import END_BYTES, section_bytes, told_section_bytes, with_checksums
from xetstore.cas.stored_xorb import read_object
from xetstore.errors import FormatError, IntegrityError
from xetstore.protocol import reference
from xetstore.protocol.xorb import CompressionPolicy, XorbInfo
from xetstore.testing import Sample, make_sample, random_bytes, read_back, upload
from xetstore.testing.embedded import data_in


@pytest.fixture
def small() -> Sample:
    """Two chunks of some bytes, so that every byte of the object can be flipped."""
    return make_sample(b"Hello World!" * 3, before=random_bytes(20, 3))


def object_of(root: Path, sample: Sample) -> Path:
    return xorb_path(root, sample.xorb.hash)


def store_in_format_1(cas: EmbeddedCas, root: Path, sample: Sample) -> None:
    """As an earlier version has left it."""
    upload(cas, sample)
    object_of(root, sample).write_bytes(in_format_1(sample))


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
def test_the_kernel_and_its_twin_make_one_checksum_a_chunk(chunks: list[bytes]) -> None:
    lengths = struct.pack(f"={len(chunks)}Q", *map(len, chunks))
    expected = [reference.crc64_nvme(chunk) for chunk in chunks]
    assert memoryview(_kernel.chunk_checksums(b"".join(chunks), lengths)).cast("Q").tolist() == expected


def test_lengths_have_to_be_those_of_the_data() -> None:
    for lengths in ([3], [5], [4, 0], []):
        with pytest.raises(ValueError, match=r"lengths|byte"):
            _kernel.chunk_checksums(b"data", struct.pack(f"={len(lengths)}Q", *lengths))


def test_the_format_does_not_change() -> None:
    """A golden object: stores that exist have to be read for ever."""
    sample = make_sample(b"Hello World!", policy=CompressionPolicy.NONE)
    section = in_format_2(sample)[len(in_format_1(sample)) :]
    assert section.hex() == "6dd865646e6bd735309cb65b7687896f0100000058455453554d5301"
    assert len(section) == section_bytes(1) == 28


@pytest.mark.parametrize("piece", [1, 100, 1 << 20])
def test_an_object_is_written_with_its_checksums_however_it_arrives(
    cas: EmbeddedCas, root: Path, small: Sample, piece: int
) -> None:
    with cas.receive_xorb(small.xorb.hash) as receiver:
        for at in range(0, len(small.body), piece):
            receiver.write(small.body[at : at + piece])
        receiver.commit()
    assert object_of(root, small).read_bytes() == in_format_2(small)


def test_a_flipped_bit_anywhere_is_found_by_its_checksum(cas: EmbeddedCas, root: Path, small: Sample) -> None:
    upload(cas, small)
    whole = object_of(root, small).read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        object_of(root, small).write_bytes(damaged)
        in_data = place < small.xorb.region_bytes
        assert [problem.name for problem in check(cas).problems] == ([] if in_data else [f"xorb {small.xorb.hash}"])
        for report in (check(cas, checksums=True), check(cas, read_data=True)):
            [problem] = report.problems
            assert (problem.name, problem.files) == (f"xorb {small.xorb.hash}", (small.file.hash,)), place
        with pytest.raises(IntegrityError):
            read_object(bytes(damaged))
        object_of(root, small).write_bytes(whole)
        assert check(cas, checksums=True).problems == ()  # which takes the mark back


def test_every_stored_byte_is_read_and_nothing_is_changed(cas: EmbeddedCas, sample: Sample) -> None:
    upload(cas, sample)
    stored = sum(blob.size for blob in data_in(cas.blobs))
    assert check(cas, checksums=True) == CheckReport((), (), xorbs=1, files=1, bytes_read=stored)


def test_bytes_are_compared_across_all_blocks_of_a_xorb(cas: EmbeddedCas, root: Path) -> None:
    large = make_sample(random_bytes(5_000_000, 4), policy=CompressionPolicy.NONE)
    upload(cas, large)
    assert check(cas, checksums=True).problems == ()
    path = object_of(root, large)
    whole = path.read_bytes()
    for place in (8, 1_048_576, 2_500_000, large.xorb.region_bytes - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert len(check(cas, checksums=True).problems) == 1, place
        path.write_bytes(whole)


def test_objects_without_checksums_are_read_and_verified(cas: EmbeddedCas, root: Path, sample: Sample) -> None:
    store_in_format_1(cas, root, sample)
    with EmbeddedCas.open(root) as again:
        assert read_back(again, sample.file.hash) == sample.data
        assert not again.put_xorb(sample.xorb.hash, sample.body)
        assert not again.put_shard(sample.shard)
        verify_invariants(again)
        stored = sum(blob.size for blob in data_in(again.blobs))
        report = check(again, checksums=True, dry_run=True)
        assert report == CheckReport((), (), xorbs=1, files=1, bytes_read=stored, renewed=1)
    assert object_of(root, sample).read_bytes() == in_format_1(sample), "nothing of that has changed it"
    damaged = bytearray(in_format_1(sample))
    damaged[1000] ^= 1
    object_of(root, sample).write_bytes(damaged)
    assert len(check(cas, checksums=True).problems) == 1
    assert upload(cas, sample) == sample.file.hash  # healed, with checksums
    assert object_of(root, sample).read_bytes() == in_format_2(sample)


def test_an_object_of_any_other_length_is_seen_to_be_damaged(cas: EmbeddedCas, root: Path, small: Sample) -> None:
    upload(cas, small)
    whole = in_format_2(small)
    for size in range(len(in_format_1(small)) - 3, len(whole) + 3):
        object_of(root, small).write_bytes((whole + b"xx")[:size])
        is_whole = size in (len(in_format_1(small)), len(whole))
        assert (check(cas, read_data=True).problems == ()) == is_whole, size
        object_of(root, small).write_bytes(whole)


def test_checksums_of_another_xorb_are_not_believed(cas: EmbeddedCas, root: Path, small: Sample) -> None:
    """Each section is whole in itself; one has the other's footer under it, one is made anew over ours."""
    other = make_sample(b"Hello There!" * 3, before=random_bytes(20, 5))
    assert other.xorb.chunk_count == small.xorb.chunk_count
    upload(cas, small)
    foreign = in_format_2(other)[len(in_format_1(other)) :]
    object_of(root, small).write_bytes(in_format_1(small) + foreign)
    assert len(check(cas).problems) == 1
    numbers = struct.pack("=2Q", *struct.unpack_from("<2Q", foreign))
    object_of(root, small).write_bytes(small.body + with_checksums(small.xorb.serialize_footer(), numbers))
    for report in (check(cas, checksums=True), check(cas, read_data=True)):
        [problem] = report.problems
        assert problem.files == (small.file.hash,)


def test_what_a_client_sends_is_never_taken_for_ours(cas: EmbeddedCas, small: Sample) -> None:
    for chunk_count in (1, small.xorb.chunk_count, 8192):
        section = in_format_2(small)[len(in_format_1(small)) :]
        with pytest.raises(FormatError) as caught:
            cas.put_xorb(small.xorb.hash, in_format_1(small) + section[-END_BYTES:].rjust(section_bytes(chunk_count)))
        assert caught.value.rule == "footer.length"
    with pytest.raises(FormatError):
        cas.put_xorb(small.xorb.hash, in_format_2(small))
    assert data_in(cas.blobs) == []


def test_the_end_of_an_object_tells_whether_it_has_checksums(small: Sample) -> None:
    assert told_section_bytes(in_format_2(small)[-END_BYTES:]) == section_bytes(2) == 36
    assert told_section_bytes(in_format_1(small)[-END_BYTES:]) == 0
    for end in (b"", b"x", struct.pack("<I8s", 0, b"XETSUMS\x01"), struct.pack("<I8s", 8193, b"XETSUMS\x01")):
        assert told_section_bytes(end) == 0


@given(st.binary(max_size=300))
def test_any_bytes_make_a_value_or_an_error_of_ours(data: bytes) -> None:
    sample = make_sample(b"Hello World!")
    for object_ in (data, sample.body + data, in_format_1(sample) + data, data + in_format_2(sample)[-40:]):
        with contextlib.suppress(IntegrityError):
            assert isinstance(read_object(object_), XorbInfo)
