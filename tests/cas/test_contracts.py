"""Every store of ours keeps the contract of its seam."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from xetstore.blobs.local import LocalBlobStore
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.index import Index, Writer
from xetstore.database.sqlite import SqliteDatabase
from xetstore.testing import BlobStoreContract, EmbeddedCasContract

_T = TypeVar("_T")


class TestLocalBlobStore(BlobStoreContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> LocalBlobStore:
        return LocalBlobStore(tmp_path)


class TestMemoryBlobStore(BlobStoreContract):
    @pytest.fixture
    def blobs(self) -> MemoryBlobStore:
        return MemoryBlobStore()


class TestStoreInADirectory(EmbeddedCasContract):
    @pytest.fixture
    def cas(self, tmp_path: Path) -> Iterator[EmbeddedCas]:
        with EmbeddedCas.open(tmp_path / "store") as cas:
            yield cas
            verify_invariants(cas)


class TestStoreInMemory(EmbeddedCasContract):
    @pytest.fixture
    def cas(self) -> Iterator[EmbeddedCas]:
        with EmbeddedCas.in_memory() as cas:
            yield cas
            verify_invariants(cas)


class ConflictingIndex(Index):
    """An index in which each change is undone at first, as after a conflict with another writer, and made again."""

    def change(self, work: Callable[[Writer], _T], *, patience_seconds: float | None = None) -> _T:
        with pytest.raises(ConflictError), self.transaction(patience_seconds=patience_seconds) as writer:
            work(writer)
            raise ConflictError
        return super().change(work, patience_seconds=patience_seconds)


class ConflictError(Exception):
    """The commit would have been one too many."""


class TestStoreWhoseChangesAreMadeTwice(EmbeddedCasContract):
    @pytest.fixture
    def cas(self) -> Iterator[EmbeddedCas]:
        with EmbeddedCas(MemoryBlobStore(), ConflictingIndex(SqliteDatabase.in_memory())) as cas:
            yield cas
            verify_invariants(cas)
