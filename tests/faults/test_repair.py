"""A repair that is killed at any moment, two of them at once, and one beside uploads: nothing is lost or in the way."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from tests.support import rot
from tests.support.process import Worker, moments
from tests.support.strategies import splitmix64
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.repair.repair import repair, take_lease
from xetstore.cas.repair.sources import ObjectSource
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import UnavailableError
from xetstore.interfaces import BlobStore
from xetstore.testing import make_sample, read_back, upload

FILES = 6
POINTS = 40
SAMPLES = [make_sample(splitmix64(seed, 300_000)) for seed in range(FILES)]


def objects(cas: EmbeddedCas) -> list[str]:
    with cas.index.snapshot() as reader:
        return [row.key for row in reader.xorbs_after(0)]


def stored(root: Path, copy: Path) -> BlobStore:
    """Store all samples, and a copy of their objects."""
    with EmbeddedCas.open(root) as cas, EmbeddedCas.open(copy) as other:
        for sample in SAMPLES:
            upload(cas, sample)
            upload(other, sample)
    return LocalBlobStore(copy)


def plant(root: Path, chance: random.Random) -> None:
    """Damage every xorb and shard, each in another way."""
    with EmbeddedCas.open(root) as cas:
        for key in objects(cas):
            chance.choice([*rot.OF_A_XORB.values()])(root / key)
        with cas.index.snapshot() as reader:
            shards = reader.shards_after(None)
        for row in shards:
            chance.choice([*rot.OF_A_SHARD.values()])(root / row.key)
        check(cas, read_data=True)


def expect_whole(root: Path) -> None:
    with EmbeddedCas.open(root) as cas:
        assert check(cas, read_data=True).problems == ()
        verify_invariants(cas)
        for sample in SAMPLES:
            assert read_back(cas, sample.file.hash) == sample.data


def test_a_repair_killed_at_any_moment_is_gone_on_with(worker: Worker, scratch: Path) -> None:
    root, copy = scratch / "store", scratch / "copy"
    stored(root, copy)
    chance = random.Random(5)
    command = ["--store", str(root), "repair", "--yes", "--from", str(copy)]
    killed = 0
    plant(root, chance)
    times = moments(worker, POINTS, {"call": "cli", "arguments": command})
    plant(root, chance)
    for number, moment in enumerate(times):
        ended = worker.run("cli", arguments=command, kill_after=moment)
        assert ended.code == 0 or ended.was_killed
        killed += ended.was_killed
        rot.end_leases(root)
        if ended.code == 0 or number == POINTS - 1:
            assert worker.run("cli", arguments=command).code == 0
            expect_whole(root)
            plant(root, chance)
    assert killed > POINTS / 4
    assert worker.run("cli", arguments=command).code == 0
    expect_whole(root)


def test_of_two_repairs_at_once_one_is_told_to_wait(scratch: Path) -> None:
    root, copy = scratch / "store", scratch / "copy"
    blobs = stored(root, copy)
    plant(root, random.Random(6))
    with EmbeddedCas.open(root) as cas, EmbeddedCas.open(root) as other:
        with take_lease(cas) as lease:
            with pytest.raises(UnavailableError):
                take_lease(other)
            repair(cas, lease, sources=[ObjectSource("copy", blobs)])
        with take_lease(other) as lease:
            assert repair(other, lease).found_nothing
    expect_whole(root)


def test_a_repair_beside_uploads_of_the_same_files(scratch: Path) -> None:
    root, copy = scratch / "store", scratch / "copy"
    blobs = stored(root, copy)
    chance = random.Random(7)
    for _ in range(3):
        plant(root, chance)
        failures: list[BaseException] = []
        with EmbeddedCas.open(root) as cas, EmbeddedCas.open(root) as other:

            def put(other: EmbeddedCas = other, failures: list[BaseException] = failures) -> None:
                try:
                    for sample in reversed(SAMPLES):
                        upload(other, sample)
                except BaseException as error:
                    failures.append(error)

            putting = threading.Thread(target=put)
            putting.start()
            with take_lease(cas) as lease:
                report = repair(cas, lease, sources=[ObjectSource("copy", blobs)])
            putting.join(120)
            assert not failures
            assert report.is_whole
        expect_whole(root)
