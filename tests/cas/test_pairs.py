"""The four pairs of parts: objects in a directory or in S3, an index in SQLite or in PostgreSQL: one contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.support.cluster import write_store_file
from tests.support.seaweed import Seaweed
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.errors import NotFoundError
from xetstore.testing import EmbeddedCasContract


def store_file(folder: Path, objects: str, index: str, options: dict[str, Any]) -> Path:
    return write_store_file(folder / "store.toml", objects=objects, index=index, s3=options)


@pytest.fixture
def in_directories(tmp_path: Path) -> Path:
    """Objects and index in two directories."""
    return store_file(tmp_path, str(tmp_path / "objects"), str(tmp_path / "index" / "rows.sqlite3"), {})


@pytest.fixture
def in_directory_and_postgres(tmp_path: Path, postgres_url: str) -> Path:
    return store_file(tmp_path, str(tmp_path / "objects"), postgres_url, {})


@pytest.fixture
def in_s3_and_sqlite(tmp_path: Path, seaweed: Seaweed) -> Path:
    return store_file(tmp_path, seaweed.prefix(), str(tmp_path / "rows.sqlite3"), seaweed.options)


@pytest.fixture
def in_s3_and_postgres(tmp_path: Path, seaweed: Seaweed, postgres_url: str) -> Path:
    return store_file(tmp_path, seaweed.prefix(), postgres_url, seaweed.options)


def opened(where: Path) -> Iterator[EmbeddedCas]:
    with EmbeddedCas.open(where) as cas:
        yield cas
        verify_invariants(cas)


class TestInDirectories(EmbeddedCasContract):
    @pytest.fixture
    def cas(self, in_directories: Path) -> Iterator[EmbeddedCas]:
        yield from opened(in_directories)


class TestInADirectoryAndPostgres(EmbeddedCasContract):
    @pytest.fixture
    def cas(self, in_directory_and_postgres: Path) -> Iterator[EmbeddedCas]:
        yield from opened(in_directory_and_postgres)


class TestInS3AndSqlite(EmbeddedCasContract):
    @pytest.fixture
    def cas(self, in_s3_and_sqlite: Path) -> Iterator[EmbeddedCas]:
        yield from opened(in_s3_and_sqlite)


class TestInS3AndPostgres(EmbeddedCasContract):
    @pytest.fixture
    def cas(self, in_s3_and_postgres: Path) -> Iterator[EmbeddedCas]:
        yield from opened(in_s3_and_postgres)


@pytest.mark.parametrize(
    "pair", ["in_directories", "in_directory_and_postgres", "in_s3_and_sqlite", "in_s3_and_postgres"]
)
def test_files_go_in_and_come_out_and_are_found_again(
    pair: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Many small ones and a long one; the second version of that brings little; a check finds nothing wrong."""
    where: Path = request.getfixturevalue(pair)
    with pytest.raises(NotFoundError):
        xetstore.open(where, create=False)
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(30):
        (folder / f"small{number}").write_bytes(splitmix64(number, 5000 + number))
    long = splitmix64(100, 12_000_000)
    (folder / "long").write_bytes(long)
    with xetstore.open(where) as store:
        reports = store.put_many(sorted(folder.iterdir()))
        records = {report.path.name: report.info for report in reports}
        for name, info in records.items():
            store.get(info.hash, tmp_path / "out")
            assert (tmp_path / "out").read_bytes() == (folder / name).read_bytes()
        (folder / "long").write_bytes(long[:6_000_000] + b"something new" + long[6_000_000:])
        again = store.put(folder / "long")
    with xetstore.open(where) as store:
        assert store.stat(again.hash).size == len(long) + 13
        store.get(again.hash, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == (folder / "long").read_bytes()
        assert store.totals().stored_bytes < len(long) + 2_000_000, "the second version brought little"
        assert store.check(read_data=True).problems == ()
