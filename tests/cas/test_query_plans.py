"""Uploads and dedup queries take the same time in a large index: no statement of theirs walks through a table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cas.test_answers import first_chunk, one_chunk_samples, put_file_of
from xetstore.access.tenant import DedupDomain
from xetstore.cas import EmbeddedCas
from xetstore.testing import upload

# A table, or a part of one that has no end but that of the table: all xorbs behind one.
WALK = re.compile(
    r"SCAN (?!asked VIRTUAL TABLE)|SEARCH \w+ USING INTEGER PRIMARY KEY \(rowid[<>]|AUTOMATIC|TEMP B-TREE"
)
# One key for the whole store.
SMALL = re.compile(r"(SCAN|SEARCH) dedup_key\b")

TENANTS: dict[str, dict[str, Any]] = {
    "shares": {},
    "alone": {"dedup": DedupDomain.NAMESPACE},
    "others are private": {"private": frozenset({"hidden", "secret"})},
}


@contextmanager
def statements(cas: EmbeddedCas) -> Iterator[set[str]]:
    """The queries of the index meanwhile, with their values in them."""
    with cas.index.snapshot() as reader:
        driver = reader.connection.driver  # one call after the other takes the same
    seen: set[str] = set()
    driver.set_trace_callback(lambda statement: seen.add(statement) if statement.startswith("SELECT") else None)
    try:
        yield seen
    finally:
        driver.set_trace_callback(None)


def walks(cas: EmbeddedCas, seen: set[str]) -> dict[str, list[str]]:
    """Each of these statements that walks, with the steps by which it does."""
    found: dict[str, list[str]] = {}
    with cas.index.snapshot() as reader:
        for statement in seen:
            plan = [row[3] for row in reader.connection.driver.execute(f"EXPLAIN QUERY PLAN {statement}")]
            if steps := [step for step in plan if WALK.match(step) and not SMALL.match(step)]:
                found[statement] = steps
    return found


@pytest.mark.parametrize("tenant", TENANTS)
def test_no_statement_of_an_upload_or_a_query_walks_through_a_table(cas: EmbeddedCas, tenant: str) -> None:
    view = cas.in_namespace("ours", **TENANTS[tenant])
    samples = one_chunk_samples(6)
    with statements(cas) as seen:
        for _ in range(2):
            upload(view, samples[0])
            put_file_of(view, samples[:4])
        assert view.find_chunks(first_chunk(samples[0])) is not None
        assert view.find_chunks(*map(first_chunk, samples)) is not None
        assert view.find_recent(1000) is not None
        assert view.reconstruct(samples[0].file.hash).terms
    assert len(seen) > 12
    assert walks(cas, seen) == {}


def test_a_walk_is_seen(cas: EmbeddedCas) -> None:
    upload(cas, one_chunk_samples(1)[0])
    with statements(cas) as seen:
        cas.totals()
        list(cas.files())
    assert walks(cas, seen)
