"""The checklist of docs/conformance.md is whole and names real tests; and the rules that no other test holds."""

from __future__ import annotations

import ast
import re
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.around import AroundCas
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas
from xetstore.errors import IntegrityError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Reconstruction, Term
from xetstore.protocol.shard import FileEntry, Shard
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.session import put_files
from xetstore.transfer.upload.sizing import UploadSizes

if TYPE_CHECKING:
    from typing_extensions import Buffer

ROOT = Path(__file__).parents[1]
ROWS = re.findall(r"^\| (M\d+) \|(.*)\|$", (ROOT / "docs" / "conformance.md").read_text(), flags=re.MULTILINE)

# The checklist


@cache
def functions_of(path: str) -> frozenset[str]:
    """Every test of a file: `function`, or `Class::function`."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{method.name}" for method in node.body if isinstance(method, ast.FunctionDef)}
    return frozenset(name for name in found if name.rpartition("::")[2].startswith("test_"))


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.split(" | ")]


def test_every_rule_is_listed_once_and_in_order() -> None:
    assert [name for name, _ in ROWS] == [f"M{number}" for number in range(1, 68)]


@pytest.mark.parametrize(("name", "row"), ROWS, ids=[name for name, _ in ROWS])
def test_a_rule_is_stated_and_held_by_tests_that_exist(name: str, row: str) -> None:
    who, rule, held_by = cells(row)
    assert who in {"B", "C", "S"}, "both, a client, a server"
    assert rule
    named = re.findall(r"`([^`]+)`", held_by)
    assert named
    assert ", ".join(f"`{test}`" for test in named) == held_by, "nothing but names of tests"
    for test in named:
        path, _, function = test.partition("::")
        assert function in functions_of(path), test


# Rules that no other test holds


@pytest.fixture
def cas() -> Iterator[EmbeddedCas]:
    with EmbeddedCas.in_memory() as cas:
        yield cas


class Liar(AroundCas):
    """A Cas whose reconstructions are not so. With ``hashes`` it tells chunk hashes too, all of them right."""

    def __init__(self, cas: EmbeddedCas, lie: Callable[[Reconstruction], Reconstruction], *, hashes: bool) -> None:
        super().__init__(cas)
        self.lie, self.hashes = lie, hashes

    def reconstruct(
        self, file: Hash, start: int = 0, end: int | None = None, *, hashes: bool = False, inline: int = 0
    ) -> Reconstruction:
        told = self.lie(self.cas.reconstruct(file, start, end, hashes=hashes))
        return told if self.hashes else replace(told, term_hashes=None)


def lengths_moved(by: int) -> Callable[[Reconstruction], Reconstruction]:
    """The first term is said to be longer, the second shorter by as much: the file has its size."""

    def lie(told: Reconstruction) -> Reconstruction:
        first, second, *others = told.terms
        first = replace(first, unpacked_bytes=first.unpacked_bytes + by)
        second = replace(second, unpacked_bytes=second.unpacked_bytes - by)
        return replace(told, terms=(first, second, *others))

    return lie


def last_length_grown(told: Reconstruction) -> Reconstruction:
    *others, last = told.terms
    return replace(told, terms=(*others, replace(last, unpacked_bytes=last.unpacked_bytes + 5)))


@pytest.fixture
def two_terms(cas: EmbeddedCas, tmp_path: Path) -> tuple[Hash, int]:
    """A file made of a new beginning and of a part of another file; its hash and its size."""
    old = splitmix64(1, 1_500_000)
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(splitmix64(2, 400_000) + old[700_000:])
    _, report = put_files(cas, [tmp_path / "old", tmp_path / "new"])
    assert len(cas.reconstruct(report.info.hash).terms) == 2
    return report.info.hash, report.info.size


LIES = {"longer": lengths_moved(10), "shorter": lengths_moved(-10), "grown": last_length_grown}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("hashes", [True, False])
@pytest.mark.parametrize("lie", LIES)
def test_a_term_of_another_length_than_it_says_is_refused(
    cas: EmbeddedCas, two_terms: tuple[Hash, int], lie: str, hashes: bool, whole: bool
) -> None:
    file, size = two_terms
    downloader = Downloader(Liar(cas, LIES[lie], hashes=hashes))
    end = None if whole else size
    with pytest.raises(IntegrityError):
        downloader.download(file, lambda _offset, _data: None, 0, end)
    with pytest.raises(IntegrityError):
        list(downloader.stream(file, 0, end))


@pytest.mark.parametrize("hashes", [True, False])
def test_a_file_that_is_said_to_start_inside_a_chunk_is_refused(
    cas: EmbeddedCas, two_terms: tuple[Hash, int], hashes: bool
) -> None:
    liar = Liar(cas, lambda told: replace(told, offset_into_first_term=7), hashes=hashes)
    with pytest.raises(IntegrityError):
        Downloader(liar).download(two_terms[0], lambda _offset, _data: None)


class SlowCas(Liar):
    """Writes down what was acknowledged, and when; xorbs take their time."""

    def __init__(self, cas: EmbeddedCas) -> None:
        super().__init__(cas, lambda told: told, hashes=True)
        self.stored: list[Hash] = []
        self.missed: set[Hash] = set()
        self.shards = 0

    def put_xorb(self, xorb: Hash, body: Buffer) -> bool:
        time.sleep(0.02)
        is_new = super().put_xorb(xorb, body)
        self.stored.append(xorb)
        return is_new

    def put_shard(self, shard: Shard) -> bool:
        self.shards += 1
        self.missed |= {xorb.hash for xorb in shard.xorbs} - set(self.stored)
        self.missed |= {term.xorb for file in shard.files for term in file.terms} - set(self.stored)
        return super().put_shard(shard)


def test_every_xorb_is_acknowledged_before_the_shard_that_names_it(cas: EmbeddedCas, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(splitmix64(3, 2_000_000))
    slow = SlowCas(cas)
    list(put_files(slow, [tmp_path / "file"], UploadOptions(sizes=UploadSizes(400_000))))
    assert len(slow.stored) > 4
    assert slow.shards == 1
    assert not slow.missed


def test_without_a_sha256_its_flag_and_its_record_are_not_there() -> None:
    name = Hash(b"f" * 32)
    term = Term(Hash(b"x" * 32), 0, 1, 10)
    with_it = Shard((FileEntry(name, (term,), (name,), b"s" * 32),)).serialize()
    without = Shard((FileEntry(name, (term,), (name,)),)).serialize()
    flags = [struct.unpack_from("<I", data, 48 + 32)[0] for data in (without, with_it)]
    assert flags == [1 << 31, 1 << 31 | 1 << 30]
    assert len(with_it) - len(without) == 48
    assert Shard.parse(without).files[0].sha256 is None
