"""Versions of files, put in turn: what is stored is not stored again, and what the guard costs is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import pytest

from tests.support.versions import CORPORA, MIB, Content, Ideal, Version, a_sparse_file, write, zeros
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.cas.claims import INDEXED_CHUNKS
from xetstore.protocol.chunking import chunk_bytes
from xetstore.protocol.hashes import Hash
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.upload import session as upload
from xetstore.transfer.upload.pending import PutReport
from xetstore.transfer.upload.session import put_files
from xetstore.transfer.upload.sizing import UploadSizes


@pytest.fixture
def cas(tmp_path: Path) -> Iterator[EmbeddedCas]:
    with EmbeddedCas.open(tmp_path / "store") as opened:
        yield opened
        assert check(opened, read_data=True).problems == ()


def put(cas: EmbeddedCas, paths: list[Path]) -> list[PutReport]:
    reports = list(put_files(cas, paths))
    for report in reports:
        assert report.new_bytes + report.deduped_bytes == report.info.size
        assert read(cas, report.info.hash) == report.path.read_bytes()
    return reports


def read(cas: EmbeddedCas, file: Hash) -> bytes:
    return b"".join(map(bytes, Downloader(cas).stream(file)))


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
        (tmp_path / "store" / row.key).unlink()
    [again] = put(cas, paths)
    assert again.new_bytes <= 1.02 * row.raw_bytes
    assert put(cas, paths)[0].new_bytes == 0
