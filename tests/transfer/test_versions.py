"""Versions of files, put in turn: what is stored is not stored again, and what the guard costs is told."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import pytest

from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.cas.claims import INDEXED_CHUNKS
from xetstore.cas.layout import xorb_key
from xetstore.protocol.chunking import chunk_bytes
from xetstore.protocol.hashes import Hash
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.scan import hash_report
from xetstore.transfer.upload import session as upload
from xetstore.transfer.upload.pending import PutReport
from xetstore.transfer.upload.session import put_files
from xetstore.transfer.upload.sizing import UploadSizes

MIB = 1 << 20
Version = dict[str, bytes]


@pytest.fixture
def cas(tmp_path: Path) -> Iterator[EmbeddedCas]:
    with EmbeddedCas.open(tmp_path / "store") as opened:
        yield opened
        assert check(opened, read_data=True).problems == ()


class Content:
    """Random bytes and changes to them, from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def fresh(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def found_late(self, size: int) -> bytes:
        """Random bytes of which the index of a store finds nothing in the first 5 MiB, whatever is before them."""
        while True:
            data = self.fresh(size)
            if min(INDEXED_CHUNKS.selected(chunk_bytes(data))) > 90:
                return data

    def edited(self, data: bytes, times: int) -> bytes:
        changed = bytearray(data)
        for _ in range(times):
            at = self.random.randrange(len(data) - 100)
            changed[at : at + 100] = self.fresh(100)
        return bytes(changed)

    def inserted(self, data: bytes, size: int) -> bytes:
        at = self.random.randrange(len(data))
        return data[:at] + self.fresh(size) + data[at:]


def edits(content: Content) -> list[Version]:
    data = content.fresh(16 * MIB)
    return [{"file": data}, {"file": content.edited(data, 3)}, {"file": content.edited(data, 20)}]


def edits_of_the_first_chunk(content: Content) -> list[Version]:
    data = content.found_late(20 * MIB)
    return [{"file": content.fresh(10) + data[10:]} for _ in range(3)]


def insertions(content: Content) -> list[Version]:
    versions = [content.fresh(16 * MIB)]
    for size in (1, 1000, 300_000):
        versions.append(content.inserted(versions[-1], size))
    return [{"file": data} for data in versions]


def prepends(content: Content) -> list[Version]:
    data = content.found_late(20 * MIB)
    return [{"file": head + data} for head in (b"", content.fresh(1000), content.fresh(2 * MIB))]


def deletions(content: Content) -> list[Version]:
    data = content.fresh(3 * MIB) + content.found_late(17 * MIB)
    return [{"file": data}, {"file": data[3 * MIB + 123 :]}, {"file": data[: 7 * MIB] + data[8 * MIB :]}]


def moved_members(content: Content) -> list[Version]:
    members = [bytes(512) + content.fresh(content.random.randrange(MIB, 4 * MIB)) for _ in range(8)]
    members += [bytes(512) + content.found_late(8 * MIB) for _ in range(2)]
    versions = []
    for _ in range(4):
        versions.append({"archive": b"".join(members)})
        content.random.shuffle(members)
    return versions


def a_growing_table(content: Content) -> list[Version]:
    rows = [b"%d,user%d,%d\n" % (i, *content.random.choices(range(10**6), k=2)) for i in range(300_000)]
    versions = []
    for _ in range(3):
        versions.append({"table": b"".join(rows)})
        for _ in range(10):
            rows.insert(content.random.randrange(len(rows)), b"new,%d\n" % content.random.randrange(10**9))
        rows += [b"more,%d\n" % content.random.randrange(10**9) for _ in range(20_000)]
    return versions


def two_files_interleaved(content: Content) -> list[Version]:
    a, b = content.fresh(8 * MIB), content.fresh(8 * MIB)
    parts = [part for at in range(0, len(a), MIB) for part in (a[at : at + MIB], b[at : at + MIB])]
    return [{"a": a, "b": b}, {"c": b"".join(parts)}, {"a": a, "b": b, "c": b"".join(parts)}]


def zeros(content: Content) -> list[Version]:
    data = bytes(20 * MIB) + content.fresh(MIB) + bytes(20 * MIB)
    return [{"file": data}, {"file": data + content.fresh(MIB)}]


def repeats(content: Content) -> list[Version]:
    data = content.fresh(300_000) * 60
    return [{"file": data}, {"file": data + content.fresh(1000) + data}]


def a_sparse_file(content: Content) -> list[Version]:
    data = bytearray(40 * MIB)
    for _ in range(20):
        at = content.random.randrange(len(data) - 9000)
        data[at : at + 9000] = content.fresh(9000)
    before = bytes(data)
    data[MIB : MIB + 5] = b"hello"
    return [{"file": before}, {"file": bytes(data)}]


def small_files(content: Content) -> list[Version]:
    files = {f"file{i}": content.fresh(content.random.randrange(200, 200_000)) for i in range(60)}
    changed = {name: content.edited(data, 1) if content.random.random() < 0.1 else data for name, data in files.items()}
    return [files, changed]


def a_mix_of_short_pieces(content: Content) -> list[Version]:
    pieces = [content.fresh(150_000) for _ in range(200)]
    mixed = [b"".join(content.random.choices(pieces, k=250)) for _ in range(2)]
    return [{"pieces": b"".join(pieces)}, *({"mixed": data} for data in mixed), {"mixed": content.edited(mixed[1], 40)}]


CORPORA: Sequence[Callable[[Content], list[Version]]] = (
    edits,
    edits_of_the_first_chunk,
    insertions,
    prepends,
    deletions,
    moved_members,
    a_growing_table,
    two_files_interleaved,
    zeros,
    repeats,
    a_sparse_file,
    small_files,
    a_mix_of_short_pieces,
)


def write(folder: Path, version: Version) -> list[Path]:
    paths = [folder / name for name in version]
    for path, data in zip(paths, version.values(), strict=True):
        path.write_bytes(data)
    return paths


def put(cas: EmbeddedCas, paths: list[Path]) -> list[PutReport]:
    reports = list(put_files(cas, paths))
    for report in reports:
        assert report.new_bytes + report.deduped_bytes == report.info.size
        assert read(cas, report.info.hash) == report.path.read_bytes()
    return reports


def read(cas: EmbeddedCas, file: Hash) -> bytes:
    return b"".join(map(bytes, Downloader(cas).stream(file)))


class Ideal:
    """A store that knows every chunk it has."""

    def __init__(self) -> None:
        self._chunks: set[Hash] = set()

    def new_bytes(self, paths: list[Path]) -> int:
        new = 0
        for path in paths:
            for chunk, size in hash_report(path, keep_chunks=True).chunks or ():
                new += size if chunk not in self._chunks else 0
                self._chunks.add(chunk)
        return new


@pytest.mark.parametrize("versions", CORPORA, ids=lambda corpus: corpus.__name__)
def test_versions_store_what_is_new_of_them_and_nothing_the_second_time(
    cas: EmbeddedCas, tmp_path: Path, versions: Callable[[Content], list[Version]]
) -> None:
    ideal = Ideal()
    made = versions(Content(1))
    for version in made:
        paths = write(tmp_path, version)
        least, before = ideal.new_bytes(paths), cas.totals()
        reports = put(cas, paths)
        new = sum(report.new_bytes for report in reports)
        again = sum(report.again_bytes for report in reports)
        assert new == least + again, "what is stored again is reported"
        assert sum(report.stored_bytes for report in reports) <= 1.02 * (least + 1000)
        assert cas.totals().unique_bytes - before.unique_bytes == new
        if versions is not zeros and versions is not a_sparse_file:
            assert new <= 1.02 * least
    for version in reversed(made):
        before = cas.totals()
        assert [report.new_bytes for report in put(cas, write(tmp_path, version))] == [0] * len(version)
        assert cas.totals() == before


@pytest.mark.parametrize("seed", range(20))
def test_files_put_again_in_any_order_add_nothing(cas: EmbeddedCas, tmp_path: Path, seed: int) -> None:
    content = Content(seed)
    base = content.fresh(3 * MIB)
    made = [{"one": content.edited(base, 3), "two": base[: content.random.randrange(MIB)]} for _ in range(3)]
    made += [{"three": content.inserted(base, 70_000), "four": content.fresh(content.random.randrange(200_000))}]
    for version in made:
        put(cas, write(tmp_path, version))
    totals = cas.totals()
    content.random.shuffle(made)
    for version in made:
        terms = [cas.reconstruct(report.info.hash).terms for report in put(cas, write(tmp_path, version))]
        assert cas.totals() == totals
        again = [cas.reconstruct(report.info.hash).terms for report in put(cas, write(tmp_path, version))]
        assert again == terms


@pytest.mark.parametrize("seed", range(3))
def test_a_file_of_more_chunks_than_are_remembered_is_found_all_the_same(
    cas: EmbeddedCas, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "upload_sizes", lambda *_, **__: UploadSizes(24 * MIB, 1, known_chunks=900))
    content = Content(seed)
    large = content.fresh(96 * MIB)
    put(cas, write(tmp_path, {"large": large}))
    for other in (b"", content.fresh(6 * MIB)):
        reports = put(cas, write(tmp_path, {"other": other, "large": large, "inserted": content.inserted(large, 1000)}))
        assert [report.new_bytes for report in reports[:2]] == [len(other), 0]
        assert reports[2].new_bytes < 300_000


def test_a_version_of_which_the_index_can_find_nothing_is_found_among_what_was_stored_last(
    cas: EmbeddedCas, tmp_path: Path
) -> None:
    data = bytearray(Content(1).fresh(8 * MIB))
    put(cas, write(tmp_path, {"file": bytes(data)}))
    chunks = chunk_bytes(data)
    ends = list(accumulate(chunks.sizes))
    for i in {0, *INDEXED_CHUNKS.selected(chunks)}:
        data[ends[i] - 5000] ^= 1
    paths = write(tmp_path, {"file": bytes(data), "short": Content(2).fresh(3 * MIB)})
    ideal = Ideal()
    (tmp_path / "old").write_bytes(read(cas, next(cas.files()).hash))
    ideal.new_bytes([tmp_path / "old"])
    assert INDEXED_CHUNKS.selected(chunks)
    assert sum(report.new_bytes for report in put(cas, paths)) == ideal.new_bytes(paths)


@pytest.mark.parametrize("damage", ["seen", "marked"])
def test_of_a_file_that_is_damaged_what_is_lost_is_stored_again(
    cas: EmbeddedCas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(upload, "upload_sizes", lambda *_, **__: UploadSizes(8 * MIB, 1))
    paths = write(tmp_path, {"file": Content(1).fresh(30 * MIB)})
    [report] = put(cas, paths)
    _, lost, *_ = cas.reconstruct(report.info.hash).terms
    with cas.index.snapshot() as reader:
        row = reader.xorb(lost.xorb)
    assert row is not None
    if damage == "marked":
        cas.healing.mark(row)
    else:
        (tmp_path / "store" / xorb_key(row.hash, row.generation)).unlink()
    [again] = put(cas, paths)
    assert again.new_bytes <= 1.02 * row.raw_bytes
    assert put(cas, paths)[0].new_bytes == 0
