"""repair(): damage of every kind is mended from what is left, here and elsewhere, and what is lost is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.objects import xorb_object
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.quotas import quotas, set_quota
from xetstore.cas.repair.repair import repair, take_lease
from xetstore.cas.repair.report import RepairReport
from xetstore.cas.repair.sources import CasSource, ObjectSource, Source
from xetstore.protocol.shard import Shard
from xetstore.testing import Sample, make_sample, random_bytes, read_back, upload

ENGINES = engines.BOTH


def repaired(cas: EmbeddedCas, *sources: Source, read_data: bool = True) -> RepairReport:
    with take_lease(cas) as lease:
        return repair(cas, lease, sources=sources, read_data=read_data)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_store_in_order_is_left_alone(cas: EmbeddedCas, sample: Sample) -> None:
    upload(cas, sample)
    before = [*cas.blobs.list()]
    assert repaired(cas).found_nothing
    assert [*cas.blobs.list()] == before


def test_a_flipped_bit_is_mended_from_another_store(
    cas: EmbeddedCas, root: Path, sample: Sample, tmp_path: Path
) -> None:
    upload(cas, sample)
    shutil.copytree(root, tmp_path / "copy")
    flip(root / xorb_object(cas, sample.xorb.hash), 200_000)
    told = repair(cas, None, sources=[ObjectSource("copy", LocalBlobStore(tmp_path / "copy"))], read_data=True)
    assert [one.name for one in told.repaired] == [f"xorb {sample.xorb.hash}"]
    assert check(cas, read_data=True).problems, "nothing was done yet"
    report = repaired(cas, ObjectSource("copy", LocalBlobStore(tmp_path / "copy")))
    assert report.repaired == told.repaired
    assert report.is_whole
    [aside] = report.quarantined
    assert aside.startswith("quarantine/xorbs/")
    verify_invariants(cas)
    assert read_back(cas, sample.file.hash) == sample.data
    assert repaired(cas).found_nothing


@pytest.mark.parametrize("is_missing", [False, True])
def test_a_xorb_is_mended_from_the_same_file_in_other_xorbs(cas: EmbeddedCas, root: Path, is_missing: bool) -> None:
    sample = make_sample(random_bytes(400_000, 1))
    upload(cas, sample)
    other = make_sample(sample.data, before=random_bytes(150_000, 2))
    path = root / xorb_object(cas, sample.xorb.hash)
    if is_missing:
        path.unlink()
    else:
        flip(path, 100_000)
    with EmbeddedCas.in_memory() as server:
        upload(server, other)
        report = repaired(cas, CasSource("server", server))
    assert report.is_whole
    verify_invariants(cas)
    assert read_back(cas, sample.file.hash) == sample.data


def test_of_a_xorb_that_is_partly_lost_the_files_that_need_the_rest_are_whole(cas: EmbeddedCas, root: Path) -> None:
    one, two = random_bytes(300_000, 1), random_bytes(300_000, 2)
    both = make_sample(two, before=one)
    first = make_sample(one)
    upload(cas, both)
    [term] = first.file.terms
    count = term.chunk_end
    shared = both.shard.__class__(
        (
            first.file.__class__(
                first.file.hash,
                (term.__class__(both.xorb.hash, 0, count, term.unpacked_bytes),),
                first.file.verification,
                first.file.sha256,
            ),
        )
    )
    cas.put_shard(shared)
    ends = memoryview(both.xorb.ends).cast("Q")
    flip(root / xorb_object(cas, both.xorb.hash), ends[count] + 20)  # in the second chunk of the second file
    report = repaired(cas)
    assert read_back(cas, first.file.hash) == one
    [hurt] = report.hurt
    assert hurt.hash == both.file.hash
    sizes = both.xorb.chunks.sizes
    assert hurt.lost == ((sizes[count], sizes[count] + sizes[count + 1]),)
    assert read_back(cas, both.file.hash, 0, sizes[count]) == two[: sizes[count]]
    assert [problem.files for problem in check(cas, read_data=True).problems] == [(both.file.hash,)]
    # A later copy makes it whole.
    with EmbeddedCas.in_memory() as server:
        upload(server, make_sample(two))
        assert repaired(cas, CasSource("server", server)).is_whole
    verify_invariants(cas)
    assert read_back(cas, both.file.hash) == two


def test_what_is_used_of_a_quota_is_counted_anew(cas: EmbeddedCas, sample: Sample) -> None:
    set_quota(cas, "default", max_bytes=1 << 30, max_files=None)
    upload(cas, sample)
    cas.index.change(lambda writer: writer.connection.change("UPDATE quota SET used_bytes = :size", {"size": 7}))
    with take_lease(cas) as lease:
        [told] = repair(cas, None).repaired
        assert repair(cas, lease).repaired == [told]
        assert told.name == "quota default"
        assert repair(cas, lease).found_nothing
    [quota] = quotas(cas)
    assert quota.used_bytes == len(sample.data)


def test_a_shard_that_names_what_is_gone_is_made_anew(cas: EmbeddedCas, sample: Sample) -> None:
    other = make_sample(random_bytes(20_000, 9))
    for each in (sample, other):
        upload(cas, each)
    gone = other.file.hash
    cas.index.change(lambda writer: writer.connection.change("DELETE FROM file WHERE id = :id", {"id": 2}))
    assert [problem.name.partition(" ")[0] for problem in check(cas, read_data=True).problems] == ["shard"]
    assert repaired(cas).is_whole
    assert check(cas, read_data=True).problems == ()
    for blob in cas.blobs.list("shards/"):
        assert gone not in {entry.hash for entry in Shard.parse(cas.blobs.get(blob.key)).files}
    assert repaired(cas).found_nothing


def test_a_repair_that_takes_long_keeps_its_lease(
    cas: EmbeddedCas, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(cas, sample)
    monkeypatch.setattr("xetstore.cas.repair.run.KEPT_SECONDS", -1.0)
    with take_lease(cas) as lease:
        with cas.index.snapshot() as reader:
            [before] = reader.chores()
        repair(cas, lease)
        with cas.index.snapshot() as reader:
            [after] = reader.chores()
    assert after.expires_at > before.expires_at
