"""Waits for a PostgreSQL server: an upload has few of them, however many files and chunks it brings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cas.test_answers import first_chunk, one_chunk_samples
from tests.support.round_trips import exchanges
from xetstore.access.tenant import Tenant
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.checking.files import check_files
from xetstore.cas.checking.naming import NamingCheck
from xetstore.cas.index import Index
from xetstore.database.postgres import PostgresDatabase
from xetstore.protocol.hashes import chunk_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry
from xetstore.testing import Sample, upload

Waits = Callable[[Callable[[], object]], int]


@pytest.fixture
def database(postgres_url: str) -> Iterator[PostgresDatabase]:
    with closing(PostgresDatabase(postgres_url)) as database:
        yield database


@pytest.fixture
def cas(database: PostgresDatabase) -> EmbeddedCas:
    return EmbeddedCas(MemoryBlobStore(), Index(database))


@pytest.fixture
def waits(database: PostgresDatabase, tmp_path: Path) -> Waits:
    """How often a call waits for the server."""
    return lambda call: sum(word != "rollback" for word in exchanges(database, tmp_path / "trace", call))


def test_each_verb_has_few_waits(cas: EmbeddedCas, waits: Waits, sample: Sample) -> None:
    assert 0 < waits(lambda: cas.put_xorb(sample.xorb.hash, sample.body)) <= 8
    assert 0 < waits(lambda: cas.put_shard(sample.shard)) <= 17
    assert 0 < waits(lambda: cas.put_xorb(sample.xorb.hash, sample.body)) <= 4
    assert 0 < waits(lambda: cas.reconstruct(sample.file.hash)) <= 3
    assert waits(lambda: cas.stat(sample.file.hash)) == 1
    assert waits(lambda: cas.find_chunks(chunk_hash(b"unknown"))) == 1
    assert 0 < waits(lambda: cas.find_chunks(first_chunk(sample))) <= 20


def test_many_files_and_chunks_have_few_waits(cas: EmbeddedCas, waits: Waits, sample: Sample) -> None:
    upload(cas, sample)
    term = Term(sample.xorb.hash, 0, 1, 5)
    files = [FileEntry(chunk_hash(b"%d" % number), (term,), (term.xorb,), bytes(32)) for number in range(10_000)]
    with cas.index.snapshot() as reader:
        row = reader.xorb(sample.xorb.hash)
    assert row is not None

    def add_files() -> None:
        with cas.index.transaction() as writer:
            rows = writer.require_xorbs([sample.xorb.hash], Tenant())
            writer.add_files(files, rows, namespace="default", now=1.0)

    def add_chunks() -> None:
        with cas.index.transaction() as writer:
            writer.add_dedup([(number, row.id) for number in range(100_000)])

    assert 0 < waits(add_files) <= 25
    assert 0 < waits(add_files) <= 16  # with one that renews their grants
    assert 2 <= waits(add_chunks) <= 3
    assert cas.totals().files == 10_001


@pytest.mark.parametrize("reads", [False, True])
def test_a_check_of_many_files_has_few_waits(cas: EmbeddedCas, waits: Waits, reads: bool) -> None:
    """Rows of files are asked for by pages."""
    for sample in one_chunk_samples(40):
        upload(cas, sample)
    assert 0 < waits(lambda: [*check_files(cas, set(), NamingCheck(cas, reads=reads))]) <= 8
