"""Uploads and dedup queries take the same time in a large index: no statement of theirs walks through a table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cas.test_answers import first_chunk, one_chunk_samples, put_file_of
from tests.support.engines import open_on_postgres
from tests.support.postgres import PostgresServer
from xetstore.access.tenant import DedupDomain
from xetstore.cas import EmbeddedCas
from xetstore.errors import NotFoundError, XetError
from xetstore.protocol.hashes import Hash
from xetstore.testing import Sample, upload

# A table, or a part of one that has no end but that of the table: all xorbs behind one.
WALK = re.compile(
    r"SCAN (?!asked VIRTUAL TABLE|CONSTANT ROW|room$)|SEARCH \w+ USING INTEGER PRIMARY KEY \(rowid[<>]"
    r"|AUTOMATIC|TEMP B-TREE"
    r"|SEARCH (file_grant|deleted_grant|sha256_claim)\b.* \(namespace=\?\)"  # all of a namespace
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
    driver.set_trace_callback(
        lambda statement: seen.add(statement) if statement.lstrip().startswith("SELECT") else None
    )
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


def look_up_sha256(view: EmbeddedCas, samples: list[Sample]) -> None:
    """Find files by what is claimed, note what was computed, and find them by that."""
    sha256 = {sample.file.hash: sample.file.sha256 or b"" for sample in samples[:4]}
    for _ in range(2):
        with view.index.snapshot() as reader:
            assert reader.files_by_sha256(view.tenant.namespace, sha256.values())
        view.index.change(lambda writer: writer.note_many(sha256))
    view.index.change(lambda writer: writer.copy_grants(view.tenant.namespace, "copy", [*sha256], now=1.0))


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
        look_up_sha256(view, samples)
    assert len(seen) > 12
    assert walks(cas, seen) == {}


def test_no_statement_about_many_files_walks_through_a_namespace(cas: EmbeddedCas) -> None:
    """SQLite takes a list of eight values for more than a namespace has."""
    view = cas.in_namespace("ours")
    here = [sample.file.hash for sample in one_chunk_samples(2)]
    put_file_of(view, one_chunk_samples(2))
    files = [*here, *(Hash(number.to_bytes(32, "big")) for number in range(64))]
    with statements(cas) as seen:
        view.put_again(files)
        with suppress(NotFoundError):
            view.reconstruct_many(files)
        view.index.change(lambda writer: writer.copy_grants("ours", "copy", files, now=1.0))
        view.index.change(lambda writer: writer.renew_grants([file.digest for file in files], "ours", now=1.0))
        view.index.change(lambda writer: writer.revoke("ours", files, now=1.0))
        view.index.change(lambda writer: writer.restore("ours", files, now=1.0))
    assert len(seen) > 6
    assert walks(cas, seen) == {}


def test_a_walk_is_seen(cas: EmbeddedCas) -> None:
    upload(cas, one_chunk_samples(1)[0])
    with statements(cas) as seen:
        cas.totals()
        list(cas.files())
    assert walks(cas, seen)


# PostgreSQL

FILL = """
INSERT INTO xorb (hash, region_bytes, raw_bytes, chunk_count, created_at, offered_at)
    SELECT sha256(CAST('x' || i AS BYTEA)), 1000, 1000, 10, 1, 1 FROM generate_series(1, 30000) AS i;
INSERT INTO file (hash, size, term_count, xorb_count, created_at)
    SELECT sha256(CAST('f' || i AS BYTEA)), 1000, 2, 2, 1 FROM generate_series(1, 30000) AS i;
INSERT INTO file_segment (file_id, first_byte, terms) SELECT i, 0, '' FROM generate_series(1, 30000) AS i;
INSERT INTO edge (file_id, first_byte, xorb_id)
    SELECT i, 500 * half, 1 + (i + half) % 30000 FROM generate_series(1, 30000) AS i, generate_series(0, 1) AS half;
INSERT INTO dedup (chunk_key, xorb_id) SELECT i * 7919, i FROM generate_series(1, 30000) AS i;
INSERT INTO file_grant (namespace, file_id, created_at)
    SELECT (ARRAY['ours', 'secret', 'theirs'])[1 + i % 3], i, 1 FROM generate_series(1, 30000) AS i;
INSERT INTO sha256_claim (namespace, file_id, sha256)
    SELECT (ARRAY['ours', 'secret', 'theirs'])[1 + i % 3], i, sha256(CAST('c' || i % 10000 AS BYTEA))
    FROM generate_series(1, 30000) AS i;
INSERT INTO xorb_holder (namespace, xorb_id)
    SELECT (ARRAY['ours', 'secret', 'theirs'])[1 + i % 3], i FROM generate_series(1, 30000) AS i;
INSERT INTO shard (hash, size, created_at, is_linked)
    SELECT sha256(CAST('s' || i AS BYTEA)), 1000, 1, 1 FROM generate_series(1, 30000) AS i;
INSERT INTO shard_file (shard_id, file_id) SELECT i, i FROM generate_series(1, 30000) AS i;
INSERT INTO shard_xorb (shard_id, xorb_id) SELECT i, i FROM generate_series(1, 30000) AS i;
ANALYZE;
"""
MOST_ROWS = 3_000
"""The rows that one step of a plan may look at, of tables of 30,000."""
EXPLAINED = "options=-c%20" + "%20-c%20".join(
    (
        *("session_preload_libraries%3Dauto_explain", "auto_explain.log_min_duration%3D0"),
        *("auto_explain.log_analyze%3Don", "auto_explain.log_format%3Djson", "auto_explain.log_nested_statements%3Don"),
    )
)


def steps(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A step of a plan and all below it."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from steps(below)


def plans(log: str) -> list[dict[str, Any]]:
    """The plans that a server has logged."""
    texts = re.findall(r" ms  plan:\n((?:\t.*\n)+)", log)
    return [json.loads(text) for text in texts]


def rows_of(step: dict[str, Any]) -> int:
    """The rows of a table or an index that a step has looked at."""
    rows = sum(step.get(name, 0) for name in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck"))
    return int(rows * step["Actual Loops"]) if "Scan" in step["Node Type"] else 0


def long_walks(log: str) -> dict[str, list[dict[str, Any]]]:
    """Each statement with the steps of it that look at many rows."""
    found: dict[str, list[dict[str, Any]]] = {}
    for plan in plans(log):
        if many := [step for step in steps(plan["Plan"]) if rows_of(step) > MOST_ROWS]:
            found[plan["Query Text"]] = many
    return found


@pytest.fixture
def filled(root: Path, postgres: PostgresServer, postgres_url: str) -> Iterator[EmbeddedCas]:
    """A store with an index of 30,000 xorbs and files, whose server logs the plan of every statement."""
    open_on_postgres(root, postgres_url).close()
    postgres.query(FILL, url=postgres_url)
    try:
        cas = open_on_postgres(root, f"{postgres_url}?{EXPLAINED}")
    except XetError:
        pytest.skip("this PostgreSQL has no auto_explain: apt-get install postgresql-contrib")
    with cas:
        yield cas


@pytest.mark.parametrize("tenant", TENANTS)
def test_no_statement_on_postgres_looks_at_many_rows(
    postgres: PostgresServer, filled: EmbeddedCas, tenant: str
) -> None:
    begin = len(postgres.log())
    view = filled.in_namespace("ours", **TENANTS[tenant])
    samples = one_chunk_samples(6)
    # A statement gets a plan for all values after some calls: that one counts, too.
    for _ in range(8):
        upload(view, samples[0])
        put_file_of(view, samples[:4])
        assert view.find_chunks(first_chunk(samples[0])) is not None
        assert view.find_chunks(*map(first_chunk, samples)) is not None
        assert view.find_recent(1000) is not None
        assert view.reconstruct(samples[0].file.hash).terms
        assert view.reconstruct_many([samples[0].file.hash])
        assert view.may_read(samples[0].xorb.hash, [(0, 10)])
        assert view.stat(samples[0].file.hash)
        look_up_sha256(view, samples)
        assert next(view.files())
        view.suspect(samples[0].xorb.hash)
    log = postgres.log()[begin:]
    assert len({plan["Query Text"] for plan in plans(log)}) > 30
    assert long_walks(log) == {}
    begin = len(postgres.log())
    filled.totals()
    assert long_walks(postgres.log()[begin:]), "a walk is seen"
