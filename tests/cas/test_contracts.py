"""Every store of ours keeps the contract of its seam."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from xetstore.blobs.local import LocalBlobStore
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.index import Index
from xetstore.database.postgres import PostgresDatabase
from xetstore.testing import BlobStoreContract, CasContract


class TestLocalBlobStore(BlobStoreContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> LocalBlobStore:
        return LocalBlobStore(tmp_path)


class TestMemoryBlobStore(BlobStoreContract):
    @pytest.fixture
    def blobs(self) -> MemoryBlobStore:
        return MemoryBlobStore()


class TestStoreInADirectory(CasContract):
    @pytest.fixture
    def cas(self, tmp_path: Path) -> Iterator[EmbeddedCas]:
        with EmbeddedCas.open(tmp_path / "store") as cas:
            yield cas
            verify_invariants(cas)


class TestStoreInMemory(CasContract):
    @pytest.fixture
    def cas(self) -> Iterator[EmbeddedCas]:
        with EmbeddedCas.in_memory() as cas:
            yield cas
            verify_invariants(cas)


class TestStoreInMemoryAndPostgres(CasContract):
    @pytest.fixture
    def cas(self, postgres_url: str) -> Iterator[EmbeddedCas]:
        with EmbeddedCas(MemoryBlobStore(), Index(PostgresDatabase(postgres_url))) as cas:
            yield cas
            verify_invariants(cas)
