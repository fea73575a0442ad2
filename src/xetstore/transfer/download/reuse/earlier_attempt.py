"""Chunks that an earlier attempt at the same file wrote: they are in their place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xetstore.protocol.hashes import chunk_hash
from xetstore.transfer.download.plan import Run
from xetstore.transfer.download.reuse.hashed import Place, verified

if TYPE_CHECKING:
    from xetstore.protocol.chunking import ChunkList
    from xetstore.transfer.download.reuse.journal import DownloadJournal


def of_journal(journal: DownloadJournal, start: int, end: int, threads: int) -> Iterator[Run]:
    """Chunks of bytes ``[start, end)`` that an earlier attempt wrote, and that are still what they were."""
    zeros = _Zeros()
    holes: list[Run] = []

    def places() -> Iterator[Place]:
        for position, chunks in journal.runs(start, end):
            if zeros.are_all(chunks) and journal.is_hole(position, chunks.total_bytes):
                holes.append(Run(position, chunks, None, 0, verified=False))
                continue
            for at, length, digest in _chunks(position, chunks):
                yield at, length, digest, at

    for position, chunks, _ in verified(places(), journal.read, threads):
        yield Run(position, chunks, None, 0, verified=False)
    yield from holes


class _Zeros:
    """Knows the hashes of chunks of zeros: a hole of a sparse file need not be read to be right."""

    def __init__(self) -> None:
        self._hashes: dict[int, bytes] = {}

    def are_all(self, chunks: ChunkList) -> bool:
        return all(chunks.digest(index) == self._hash(size) for index, size in enumerate(chunks.sizes))

    def _hash(self, size: int) -> bytes:
        found = self._hashes.get(size)
        if found is None:
            if len(self._hashes) > 16:  # zeros are cut into chunks of the largest size, but for the last one
                self._hashes.clear()
            found = self._hashes[size] = chunk_hash(bytes(size)).digest
        return found


def _chunks(position: int, chunks: ChunkList) -> Iterator[tuple[int, int, bytes]]:
    for index, length in enumerate(chunks.sizes):
        yield position, length, chunks.digest(index)
        position += length
