"""Putting again by the hash alone: files that are here for the caller and can be read, and no others."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import engines
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.layout import xorb_key
from xetstore.cas.putting_again import YOUNG_SECONDS, put_again
from xetstore.interfaces import BlobInfo
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import FileEntry, Shard
from xetstore.testing import Sample, make_sample, random_bytes, read_back, upload

ENGINES = engines.BOTH

SAMPLE = make_sample(random_bytes(100_000, 1))
OTHER = make_sample(random_bytes(50_000, 2))


def object_of(root: Path, sample: Sample) -> Path:
    [found] = root.rglob(f"{xorb_key(sample.xorb.hash, '').rpartition('/')[2]}*")
    return found


def cut(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])


def is_marked(cas: EmbeddedCas, sample: Sample) -> bool:
    with cas.index.snapshot() as reader:
        row = reader.xorb(sample.xorb.hash)
    assert row is not None
    return row.is_damaged


def granted_at(cas: EmbeddedCas, file: Hash) -> float:
    with cas.index.snapshot() as reader:
        [had] = reader.had_files([file.digest], cas.tenant.namespace)
    return had.granted_at


def test_another_namespace_has_it_not(cas: EmbeddedCas) -> None:
    file = upload(cas.in_namespace("theirs"), SAMPLE)
    ours = cas.in_namespace("ours")
    assert ours.put_again([file]) == set()
    assert ours.put_again([file], dry_run=True) == set()
    assert cas.in_namespace("theirs").put_again([file]) == {file}


@pytest.mark.parametrize("damage", [Path.unlink, cut])
def test_what_is_seen_to_be_damaged_is_not_leaned_on_and_heals(
    cas: EmbeddedCas, root: Path, damage: Callable[[Path], None]
) -> None:
    file, other = upload(cas, SAMPLE), upload(cas, OTHER)
    damage(object_of(root, SAMPLE))
    assert cas.put_again([file, other]) == {other}
    assert is_marked(cas, SAMPLE)
    assert upload(cas, SAMPLE) == file
    assert cas.put_again([file, other]) == {file, other}
    assert read_back(cas, file) == SAMPLE.data
    verify_invariants(cas)


def test_what_is_known_to_be_damaged_is_not_leaned_on(cas: EmbeddedCas, root: Path) -> None:
    file = upload(cas, SAMPLE)
    path = object_of(root, SAMPLE)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    assert cas.put_again([file]) == {file}, "nothing is known, and its length is right"
    cas.suspect(SAMPLE.xorb.hash)
    assert cas.put_again([file]) == set()
    assert cas.put_again([file], dry_run=True) == set()


def test_it_counts_as_put_now(cas: EmbeddedCas) -> None:
    """What ends grants that nothing names goes by the time of the grant."""
    file = upload(cas, SAMPLE)
    put_at = granted_at(cas, file)
    assert cas.put_again([file]) == {file}
    assert granted_at(cas, file) == put_at, "of the last hour: nothing is written"
    cas.now = lambda: put_at + YOUNG_SECONDS + 1
    assert cas.put_again([file], dry_run=True) == {file}
    assert granted_at(cas, file) == put_at
    assert cas.put_again([file]) == {file}
    assert granted_at(cas, file) == put_at + YOUNG_SECONDS + 1


def test_what_is_deleted_meanwhile_is_not_here(cas: EmbeddedCas, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deletion between the look and the note of the time."""
    file, other = upload(cas, SAMPLE), upload(cas, OTHER)
    put_at, change = granted_at(cas, file), cas.index.change
    cas.now = lambda: put_at + YOUNG_SECONDS + 100

    def deleting_first(work: Callable[..., object], **more: object) -> object:
        monkeypatch.undo()
        cas.delete([file])
        return change(work, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(cas.index, "change", deleting_first)
    assert cas.put_again([file, other]) == {other}


def test_the_empty_file_is_a_file(cas: EmbeddedCas) -> None:
    assert cas.put_again([Hash.ZERO]) == set()
    cas.put_shard(Shard((FileEntry(Hash.ZERO, (), (), hashlib.sha256(b"").digest()),)))
    assert cas.put_again([Hash.ZERO]) == {Hash.ZERO}


@pytest.mark.parametrize("tell", [EmbeddedCas.put_shard, None])
def test_a_file_without_a_sha256_is_to_be_read_again(
    cas: EmbeddedCas, tell: Callable[[EmbeddedCas, Shard], bool] | None
) -> None:
    """A commit would not find it. Once the SHA-256 was told, or computed from what is stored, it does."""
    assert SAMPLE.file.sha256 is not None
    file = upload(cas, replace(SAMPLE, file=replace(SAMPLE.file, sha256=None)))
    assert cas.put_again([file]) == cas.put_again([file], dry_run=True) == set()
    if tell is not None:
        tell(cas, SAMPLE.shard)
    else:
        sha256 = SAMPLE.file.sha256
        cas.index.change(lambda writer: writer.note_sha256(file, sha256))
    with cas.index.snapshot() as reader:
        assert SAMPLE.file.sha256 in reader.claimed(cas.tenant.namespace, {SAMPLE.file.sha256: None})
    assert cas.put_again([file]) == {file}


def test_what_cannot_be_looked_at_in_time_is_not_here(cas: EmbeddedCas, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client waits for the answer, and there may be more objects than can be looked at until then."""
    files = [upload(cas, sample) for sample in (SAMPLE, OTHER)]
    assert put_again(cas, files, look_seconds=0) == set()
    stat, looks = cas.blobs.stat, []

    def slow(key: str) -> BlobInfo | None:
        looks.append(key)
        time.sleep(0.2)
        return stat(key)

    monkeypatch.setattr(cas.blobs, "stat", slow)
    monkeypatch.setattr(EmbeddedCas, "is_remote", False)
    assert put_again(cas, files, look_seconds=0.1) < {*files}
    assert len(looks) <= 1
    monkeypatch.undo()
    assert not any(is_marked(cas, sample) for sample in (SAMPLE, OTHER))
    assert cas.put_again(files) == {*files}


def test_objects_that_are_far_away_are_looked_at_together(cas: EmbeddedCas, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [upload(cas, sample) for sample in (SAMPLE, OTHER)]
    stat, both = cas.blobs.stat, threading.Barrier(2, timeout=60)

    def together(key: str) -> BlobInfo | None:
        both.wait()
        return stat(key)

    monkeypatch.setattr(cas.blobs, "stat", together)
    monkeypatch.setattr(EmbeddedCas, "is_remote", True)
    assert cas.put_again(files) == {*files}
