"""Bit rot at every kind of place: found by a check, named, and mended by a repair from a copy, or by an upload."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cas.test_repair import repaired
from tests.support import rot
from tests.support.objects import shard_object, xorb_object
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.parts import StoreParts
from xetstore.cas.repair.marks import mend_marks
from xetstore.cas.repair.sources import ObjectSource
from xetstore.errors import DamagedError, NotFoundError, UsageError
from xetstore.protocol.hashes import chunk_hash
from xetstore.testing import Sample, make_sample, random_bytes, read_back, upload


@pytest.fixture
def samples(cas: EmbeddedCas) -> list[Sample]:
    samples = [make_sample(random_bytes(size, size)) for size in (60_000, 50_000, 40_000)]
    for sample in samples:
        upload(cas, sample)
    return samples


def expect_whole(cas: EmbeddedCas, samples: list[Sample]) -> None:
    assert check(cas, read_data=True).problems == ()
    verify_invariants(cas)
    for sample in samples:
        assert read_back(cas, sample.file.hash) == sample.data
    assert repaired(cas).found_nothing


@pytest.mark.parametrize("place", rot.OF_A_XORB)
@pytest.mark.parametrize("how", ["repair", "upload"])
def test_a_xorb_that_rots_is_found_and_mended(
    cas: EmbeddedCas, root: Path, samples: list[Sample], tmp_path: Path, place: str, how: str
) -> None:
    shutil.copytree(root, tmp_path / "copy")
    hurt = samples[1]
    rot.OF_A_XORB[place](root / xorb_object(cas, hurt.xorb.hash))
    [problem] = check(cas, read_data=True).problems
    assert (problem.name, problem.files) == (f"xorb {hurt.xorb.hash}", (hurt.file.hash,))
    if how == "upload":
        upload(cas, hurt)
    else:
        report = repaired(cas, ObjectSource("copy", LocalBlobStore(tmp_path / "copy")))
        assert [one.name for one in report.repaired] == [f"xorb {hurt.xorb.hash}"]
        assert report.is_whole
        assert len(report.quarantined) == (place != "missing")
    expect_whole(cas, samples)


@pytest.mark.parametrize("place", ["hash in the footer", "checksum of a chunk", "checksum of the footer", "last byte"])
def test_a_xorb_whose_chunks_are_sound_is_mended_from_itself(
    cas: EmbeddedCas, root: Path, samples: list[Sample], place: str
) -> None:
    rot.OF_A_XORB[place](root / xorb_object(cas, samples[1].xorb.hash))
    assert repaired(cas).is_whole
    expect_whole(cas, samples)


@pytest.mark.parametrize("place", rot.OF_A_SHARD)
@pytest.mark.parametrize("how", ["rows", "copy", "upload"])
def test_a_shard_that_rots_is_found_and_mended(
    cas: EmbeddedCas, root: Path, samples: list[Sample], tmp_path: Path, place: str, how: str
) -> None:
    shutil.copytree(root, tmp_path / "copy")
    with cas.index.snapshot() as reader:
        [name] = reader.shards_of(samples[1].file.hash)
    rot.OF_A_SHARD[place](root / shard_object(cas, name))
    [problem] = check(cas, read_data=True).problems
    assert problem.name == f"shard {name}"
    if how == "upload":
        upload(cas, samples[1])
    else:
        sources = [ObjectSource("copy", LocalBlobStore(tmp_path / "copy"))] if how == "copy" else []
        report = repaired(cas, *sources)
        assert [one.name for one in report.repaired] == [f"shard {name}"]
        assert report.is_whole
        assert len(report.quarantined) == (place != "missing")
    expect_whole(cas, samples)
    with cas.index.snapshot() as reader:
        assert all(reader.shards_of(sample.file.hash) for sample in samples)
        for row in reader.shards_after(None):
            assert chunk_hash(cas.blobs.get(row.key)) == row.hash


@pytest.mark.parametrize("place", rot.OF_ROWS)
def test_a_row_that_rots_is_found_and_mended_from_objects(
    cas: EmbeddedCas, root: Path, samples: list[Sample], place: str
) -> None:
    rot.change_rows(root, rot.OF_ROWS[place])
    assert check(cas, read_data=place != "mark of a xorb").problems
    assert repaired(cas).is_whole
    expect_whole(cas, samples)


@pytest.mark.parametrize("place", rot.OF_MARKS)
def test_a_store_that_lost_its_marks_opens_again(
    cas: EmbeddedCas, root: Path, samples: list[Sample], place: str
) -> None:
    cas.close()
    rot.OF_MARKS[place](root)
    with pytest.raises((DamagedError, NotFoundError, UsageError)) as refused:
        EmbeddedCas.open(root, create=False)
    assert "xet repair" in str(refused.value.hint)
    parts = StoreParts.at(root)
    told = mend_marks(parts, is_dry=True)
    assert len(told) == 1
    assert mend_marks(parts, is_dry=False) == told
    with EmbeddedCas.open(root, create=False) as again:
        expect_whole(again, samples)


def test_marks_are_not_made_for_the_objects_of_another_store(
    cas: EmbeddedCas, root: Path, samples: list[Sample], tmp_path: Path
) -> None:
    cas.close()
    with EmbeddedCas.open(tmp_path / "other") as other:
        upload(other, samples[0])
    shutil.rmtree(root / "xorbs")
    shutil.rmtree(root / "stores")
    shutil.copytree(tmp_path / "other" / "xorbs", root / "xorbs")
    assert mend_marks(StoreParts.at(root), is_dry=False) == []
    with pytest.raises(DamagedError):
        EmbeddedCas.open(root, create=False)
