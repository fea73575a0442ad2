"""Copies between stores of every kind: directories, and objects in S3 with an index in PostgreSQL."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cas.copies import content, copy, expect_readable, fill, sample
from xetstore.blobs.cached import CachedBlobStore
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.check import check
from xetstore.cas.copying.position import MARGIN_SECONDS
from xetstore.cas.index import Index
from xetstore.testing import FakeClock, upload

Make = Callable[[str], EmbeddedCas]
PAIRS = [("directory", "cluster"), ("cluster", "directory"), ("cluster", "cluster"), ("directory", "cached cluster")]


@pytest.fixture
def make(tmp_path: Path, clock: FakeClock, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make empty stores: a directory, or a cluster, with or without a cache of its objects."""
    with ExitStack() as closing:

        def make(kind: str) -> EmbeddedCas:
            if kind == "directory":
                cas = EmbeddedCas.open(tmp_path / secrets.token_hex(4), clock=clock)
            else:
                cas = EmbeddedCas(*_cluster(kind, tmp_path, request, closing), clock=clock)
            closing.callback(cas.close)
            cas.index.change(lambda writer: writer.set_store_id(secrets.token_hex(16)))
            return cas

        yield make


def _cluster(kind: str, tmp_path: Path, request: pytest.FixtureRequest, closing: ExitStack) -> tuple[Any, Index]:
    bucket = pytest.importorskip("xetstore.blobs.bucket")
    postgres = pytest.importorskip("xetstore.database.postgres")
    seaweed = request.getfixturevalue("seaweed")
    blobs = bucket.BucketBlobStore.open(seaweed.prefix(), seaweed.options)
    if kind.startswith("cached"):
        blobs = CachedBlobStore(blobs, tmp_path / "cache", 1 << 30)
    url = closing.enter_context(request.getfixturevalue("postgres").database())
    return blobs, Index(postgres.PostgresDatabase(url))


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_store_of_one_kind_is_copied_to_another_and_back(make: Make, clock: FakeClock, one: str, other: str) -> None:
    source, target, restored = make(one), make(other), make(one)
    found = fill(source, clock)
    clock.advance(2 * MARGIN_SECONDS)
    copy(source, target)
    assert content(target) == content(source)
    clock.advance(2 * MARGIN_SECONDS)
    new = sample(1000)
    found["carl", upload(source.in_namespace("carl"), new)] = new.data
    found["bert", upload(source.in_namespace("bert"), sample(2))] = sample(2).data
    report = copy(source, target, since_last=True)
    assert (report.added.xorbs, report.added.files, report.added.grants) == (1, 1, 2)
    assert not report.compared_all
    assert content(target) == content(source)
    verify_invariants(target)
    copy(target, restored)
    assert content(restored) == content(source)
    expect_readable(restored, found)
    assert check(restored, read_data=True).problems == ()


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_damage_in_a_store_of_one_kind_does_not_travel_to_another(
    make: Make, clock: FakeClock, one: str, other: str
) -> None:
    source, target = make(one), make(other)
    found = fill(source, clock)
    with source.index.snapshot() as reader:
        row = reader.xorb(sample(1).xorb.hash)
    assert row is not None
    source.blobs.delete_many([row.key])
    report = copy_with_problems(source, target)
    assert report == [f"xorb {row.hash}"]
    lost = sample(1).file.hash
    expect_readable(target, {one: data for one, data in found.items() if one[1] != lost})
    verify_invariants(target)
    source.in_namespace("anna").put_xorb(row.hash, sample(1).body)
    copy(source, target, since_last=True)
    expect_readable(target, found)


def copy_with_problems(source: EmbeddedCas, target: EmbeddedCas) -> list[str]:
    from xetstore.cas.copying.copy_store import copy_store

    return [problem.name for problem in copy_store(source, target).problems]
