"""TensorFile: the file that tensors are in, and its bytes from the store at hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from xetstore.errors import IntegrityError
from xetstore.protocol.hashes import Hash
from xetstore.records import RepositoryId


class Files(Protocol):
    """Files by their hashes."""

    def iter_range(self, what: Hash, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """Bytes ``[start, end)`` of a file in order, each verified."""


class Home(Files, Protocol):
    """The store that tensors are read from: :class:`xetstore.Store` is one."""

    def files_of(self, repo: RepositoryId, revision: str) -> Files:
        """The files of a repository at a revision."""


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A file that is always the same one: its content, by hash, and the repository and commit by which it is granted.

    The bytes of a small file, which has no hash, are ``held``. ``name`` is for messages.
    """

    name: str
    size: int
    hash: Hash | None = None
    repo: RepositoryId | None = None
    commit: str = ""
    held: bytes | None = None

    def read(self, home: Home, start: int, end: int) -> bytearray:
        """Bytes ``[start, end)``, each verified."""
        if self.held is not None:
            return bytearray(self.held[start:end])
        assert self.hash is not None
        data = bytearray(end - start)
        if not data:
            return data
        files = home if self.repo is None else home.files_of(self.repo, self.commit)
        at = 0
        for part in files.iter_range(self.hash, start, end):
            data[at : at + len(part)] = part
            at += len(part)
        if at != end - start:
            raise IntegrityError(f"{self.name} ends before byte {end:,}")
        return data
