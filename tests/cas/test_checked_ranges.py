"""CheckedRanges: no reader gets a byte that is not as it was stored, whichever ranges it reads and however."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cas.objects import in_format_1, in_format_2
from tests.support.objects import put_in_place, xorb_row
from tests.support.strategies import splitmix64
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.index import Index
from xetstore.cas.stored_xorb import StoredXorb
from xetstore.errors import DamagedError
from xetstore.interfaces import ByteStream
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.testing import make_sample, upload

SAMPLE = make_sample(splitmix64(1, 600_000), policy=CompressionPolicy.NONE)
SIZE = len(SAMPLE.body)
ENDS = [0, *memoryview(SAMPLE.xorb.ends).cast("Q")]
FORMATS = {"format 1": in_format_1(SAMPLE), "format 2": in_format_2(SAMPLE)}


class Blobs(MemoryBlobStore):
    """One that counts what is opened, and gives wrong bytes as often as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[tuple[int, int]] = []
        self.wrong = 0

    def get_range(self, key: str, start: int, end: int) -> ByteStream:  # type: ignore[override]  # less is told
        self.opened.append((start, end))
        stream = super().get_range(key, start, end)
        return _Wrong(stream, self) if self.wrong else stream


class _Wrong:
    def __init__(self, inner: ByteStream, blobs: Blobs) -> None:
        self._inner, self._blobs = inner, blobs
        self.close = inner.close

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._inner.readinto(buffer)
        if count and self._blobs.wrong:
            self._blobs.wrong -= 1
            buffer[count // 2] ^= 1
        return count

    def __enter__(self) -> _Wrong:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@pytest.fixture(scope="module", params=FORMATS)
def stored(request: pytest.FixtureRequest) -> Iterator[tuple[EmbeddedCas, Blobs]]:
    blobs = Blobs()
    with EmbeddedCas(blobs, Index.in_memory()) as cas:
        upload(cas, SAMPLE)
        put_in_place(blobs, xorb_row(cas, SAMPLE.xorb.hash).key, FORMATS[request.param])
        cas.footers = type(cas.footers)(blobs, on_damage=cas.healing.report)
        yield cas, blobs


def xorb(cas: EmbeddedCas) -> StoredXorb:
    return cas.stored_xorb(SAMPLE.xorb.hash)


def drained(stream: ByteStream, block: int) -> bytes:
    buffer = memoryview(bytearray(block))
    pieces = []
    with stream:
        while count := stream.readinto(buffer):
            pieces.append(bytes(buffer[:count]))
        assert stream.readinto(buffer) == 0
    return b"".join(pieces)


places = st.one_of(st.integers(0, SIZE), st.sampled_from([*ENDS, *(end - 1 for end in ENDS[1:])]))


@given(st.lists(st.tuples(places, places).map(sorted).filter(lambda span: span[0] < span[1]), max_size=4), st.data())
def test_ranges_of_any_bounds_are_read_by_buffers_of_any_size(
    stored: tuple[EmbeddedCas, Blobs], spans: list[list[int]], data: st.DataObject
) -> None:
    read = xorb(stored[0]).checked()
    for start, end in spans:
        block = data.draw(st.sampled_from([7919, 131_080, 200_000, SIZE + 1]))
        assert drained(read(start, end), block) == SAMPLE.body[start:end]


def test_a_range_of_whole_chunks_reads_nothing_beside_them(stored: tuple[EmbeddedCas, Blobs]) -> None:
    cas, blobs = stored
    read = xorb(cas).checked()
    blobs.opened.clear()
    assert drained(read(ENDS[2], ENDS[5]), 1 << 20) == SAMPLE.body[ENDS[2] : ENDS[5]]
    assert blobs.opened == [(ENDS[2], ENDS[5])]
    for at in range(ENDS[3], ENDS[4], 1000):  # many small ranges of one chunk: it is read once
        assert drained(read(at, at + 1), 1 << 20) == SAMPLE.body[at : at + 1]
    assert blobs.opened[1:] == [(ENDS[3], ENDS[4])]


def test_bytes_that_came_wrong_once_are_read_again(
    stored: tuple[EmbeddedCas, Blobs], caplog: pytest.LogCaptureFixture
) -> None:
    cas, blobs = stored
    stream = xorb(cas).checked()(0, SIZE)
    blobs.wrong = 1
    stream.close()
    assert drained(xorb(cas).checked()(0, SIZE), 200_000) == SAMPLE.body
    assert not blobs.wrong
    assert not xorb_row(cas, SAMPLE.xorb.hash).is_damaged
    assert "came wrong once" in caplog.text


def test_a_flipped_bit_ends_the_read_before_its_chunk(
    stored: tuple[EmbeddedCas, Blobs], caplog: pytest.LogCaptureFixture
) -> None:
    """Chunks before and behind it can be read; each reader sees it, and one line tells of it."""
    cas, blobs = stored
    row = xorb_row(cas, SAMPLE.xorb.hash)
    whole = blobs.get(row.key)
    told: list[int] = []
    cas.healing.told = lambda: told.append(1)
    for number, place in enumerate((0, 5, 8, ENDS[3] - 1, ENDS[3], SIZE - 1)):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        put_in_place(blobs, row.key, bytes(damaged))
        caplog.clear()
        hurt = next(start for start, end in pairwise(ENDS) if start <= place < end)
        for block in (100, 131_080, SIZE):
            stream, got = xorb(cas).checked()(0, SIZE), bytearray()
            buffer = memoryview(bytearray(block))
            with pytest.raises(DamagedError, match="not those that were stored"):
                while True:
                    got += buffer[: stream.readinto(buffer)]
            assert got == SAMPLE.body[: len(got)]
            assert len(got) <= hurt
            if block == 100:
                assert len(got) == hurt, "what is before it is given"
        assert xorb_row(cas, SAMPLE.xorb.hash).is_damaged
        assert len(caplog.records) == 1
        assert len(told) == 3 * (number + 1)
        with pytest.raises(DamagedError):
            drained(xorb(cas).checked()(place, place + 1), 100)
        told.pop()
        for start, end in pairwise(ENDS):
            if start != hurt:
                assert drained(xorb(cas).checked()(start, end), SIZE) == SAMPLE.body[start:end]
        put_in_place(blobs, row.key, whole)
        cas.healing.mark(xorb_row(cas, SAMPLE.xorb.hash), whole=True)


def test_an_object_in_whose_place_another_one_counts_is_not_taken_for_damaged(
    stored: tuple[EmbeddedCas, Blobs], caplog: pytest.LogCaptureFixture
) -> None:
    cas, blobs = stored
    old, key = xorb(cas), xorb_row(cas, SAMPLE.xorb.hash).key
    data = blobs.get(key)
    read = old.checked()
    blobs.delete_many([key])
    upload(cas, SAMPLE)
    assert xorb_row(cas, SAMPLE.xorb.hash).key != key
    with pytest.raises(DamagedError):
        drained(read(0, SIZE), SIZE)
    assert not xorb_row(cas, SAMPLE.xorb.hash).is_damaged
    assert caplog.text == ""
    put_in_place(blobs, xorb_row(cas, SAMPLE.xorb.hash).key, data)
