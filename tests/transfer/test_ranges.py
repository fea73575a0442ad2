"""Several ranges: which of them become one, and how they are parted into requests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.around import AroundCas
from xetstore.cas.service import EmbeddedCas
from xetstore.interfaces import MANY_RANGES, FileSpan
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Reconstruction
from xetstore.store import Store
from xetstore.transfer.download import ranges

FILES = [Hash(bytes(31) + bytes([number])) for number in range(1, 4)]
CONTENT = random.Random(1).randbytes(3_000_000)

spans = st.builds(
    lambda file, start, length: (FILES[file], start, start + length),
    st.integers(0, 2),
    st.integers(0, 1 << 25),
    st.integers(0, 1 << 23),
)


@given(st.lists(spans, max_size=12))
def test_every_range_lies_in_one_of_the_joined_ones(asked: list[FileSpan]) -> None:
    joined = ranges._joined(asked)
    assert sorted(number for one in joined for number in one.numbers) == list(range(len(asked)))
    for one in joined:
        for number in one.numbers:
            file, start, end = asked[number]
            assert (file, one.start <= start, end <= one.end) == (one.file, True, True)
    for one, other in pairwise(joined):
        if one.file == other.file:  # none comes twice
            assert one.end <= other.start


class Counting(AroundCas):
    """A Cas far away that answers for several ranges, and notes what it is asked."""

    def __init__(self, cas: EmbeddedCas) -> None:
        super().__init__(cas)
        self.is_remote = True
        self.asked: list[int] = []
        self.alone = 0

    def reconstruct(self, *args: Any, **named: Any) -> Reconstruction:
        self.alone += 1
        return self.cas.reconstruct(*args, **named)

    def reconstruct_ranges(self, spans: Sequence[FileSpan], *, inline: int) -> Sequence[Reconstruction | None] | None:
        self.asked.append(len(spans))
        assert 0 < len(spans) <= MANY_RANGES
        return self.cas.reconstruct_ranges(spans, inline=inline)


def read(cas: Counting, asked: Sequence[FileSpan]) -> list[bytes]:
    parts = Store(cas).read_ranges(asked)
    return [bytes(part) for part in parts if isinstance(part, memoryview)]


@pytest.fixture
def counting(tmp_path: Path) -> tuple[Counting, Hash]:
    cas = EmbeddedCas.in_memory()
    (tmp_path / "file").write_bytes(CONTENT)
    return Counting(cas), Store(cas).put(tmp_path / "file").hash


def test_many_ranges_are_few_questions(counting: tuple[Counting, Hash]) -> None:
    cas, file = counting
    asked = [(file, at, at + 100) for at in range(0, 3_000_000, 100_000)]
    assert read(cas, asked) == [CONTENT[start:end] for _, start, end in asked]
    assert cas.asked == [30]
    assert cas.alone == 0


def test_no_question_is_about_more_than_it_may_be(
    counting: tuple[Counting, Hash], monkeypatch: pytest.MonkeyPatch
) -> None:
    cas, file = counting
    monkeypatch.setattr(ranges, "GAP_BYTES", 0)
    asked = [(file, at, at + 10) for at in range(0, 3_000_000, 20_000)]
    assert read(cas, asked) == [CONTENT[start:end] for _, start, end in asked]
    assert sorted(cas.asked) == [22, 64, 64]


def test_near_ranges_come_once(counting: tuple[Counting, Hash]) -> None:
    cas, file = counting
    asked = [(file, 100, 200), (file, 150, 1000), (file, 0, 50), (file, 60_000, 60_001), (file, 500, 500)]
    assert read(cas, asked) == [CONTENT[start:end] for _, start, end in asked]
    assert cas.asked == []
    assert cas.alone == 1


def test_ranges_behind_the_end_are_cut_off(counting: tuple[Counting, Hash]) -> None:
    cas, file = counting
    first, second = read(cas, [(file, 2_999_990, 10**9), (file, 0, 10)])
    assert (first, second) == (CONTENT[-10:], CONTENT[:10])


def test_no_range_is_nothing() -> None:
    with EmbeddedCas.in_memory() as cas:
        assert Store(cas).read_ranges([]) == []
