"""Reuse: all of a file that is here already, and the notes that let the next download have more."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from xetstore.events import Emit, Resumed, ignore
from xetstore.protocol import kernel
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.transfer.download.plan import Part, Run, Span, Window, leave_out
from xetstore.transfer.download.reuse.base_chunks import of_base_file
from xetstore.transfer.download.reuse.earlier_attempt import of_journal

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from xetstore.protocol.chunking import ChunkList
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.reconstruction import FetchRange
    from xetstore.transfer.download.delivery import Destination
    from xetstore.transfer.download.reconstructions import Reconstructions
    from xetstore.transfer.download.reuse.base_file import BaseFile
    from xetstore.transfer.download.reuse.chunk_cache import CachedRange, ChunkCache
    from xetstore.transfer.download.reuse.journal import DownloadJournal
    from xetstore.transfer.download.workers import Workers

CACHED_BYTES: Final = 16 << 20
"""Larger fetches are not gathered for the chunk cache."""


class Left(NamedTuple):
    """The rest of a window: ``runs`` are in the file, ``parts`` and the bytes ``missing`` are to be fetched."""

    runs: list[Run]
    parts: Sequence[Part]
    missing: Sequence[Span]


class Reuse:
    """Chunks that need not be fetched: of an earlier attempt, a base file and the chunk cache. Thread-safe.

    ``journal`` tells of the earlier attempt. ``cache`` is put to only with ``fills_cache``. Without any of them nothing
    is here. All that is taken is hashed before it is believed.
    """

    def __init__(
        self,
        cache: ChunkCache | None = None,
        *,
        fills_cache: bool = False,
        journal: DownloadJournal | None = None,
        base: BaseFile | None = None,
        emit: Emit = ignore,
    ) -> None:
        self._cache = cache
        self._fills_cache = fills_cache
        self._journal = journal
        self._base = base
        self._emit = emit

    def take(self, window: Window, destination: Destination, asking: Reconstructions, workers: Workers) -> Left:
        """Take all chunks of a window that the earlier attempt and the base file have; those of the latter are put."""

        def counted(found: Iterable[Run]) -> Iterator[Run]:
            for run in found:
                workers.check()
                destination.progress.advance(logical=run.chunks.total_bytes)
                yield run

        left = Left([], window.parts, [])
        if self._journal is not None:
            kept = list(counted(of_journal(self._journal, window.position, window.end, workers.cores)))
            if kept:
                self._emit(Resumed(self._journal.path, sum(run.chunks.total_bytes for run in kept)))
                left = Left(kept, *leave_out(window.parts, _spans(kept)))
        if self._base is not None and window.reconstruction.term_hashes is not None:
            parts = [*left.parts, *(part for span in left.missing for part in asking.ask_exactly(*span).parts)]
            copied = []
            for run in counted(of_base_file(self._base, parts, asking, destination.put, workers.cores)):
                if self._journal is not None:
                    self._journal.record(run.position, run.chunks)
                copied.append(run)
            left = Left([*left.runs, *copied], *leave_out(parts, _spans(copied)))
        return left

    def lacks(self, file: Hash, start: int, end: int) -> bool:
        """True if bytes ``[start, end)`` of a file are not here, as far as is known before they are asked for."""
        if self._base is not None or (self._journal is not None and self._journal.recorded_bytes):
            return False
        return self._cache is None or self._cache.layouts.lacks(self._cache, file, start, end)

    def note(self, file: Hash, window: Window) -> None:
        """Remember which chunks make the bytes of a window that is about to be read, if they are kept."""
        if self._fills_cache and self._cache is not None:
            self._cache.layouts.note(self._cache, file, window)

    def cached(self, fetch: FetchRange) -> CachedRange | None:
        """The bytes of a fetch, to be closed, if the cache has all of them."""
        return None if self._cache is None else self._cache.get(fetch.xorb, fetch.chunk_start, fetch.chunk_end)

    def keeps(self, nbytes: int) -> bool:
        """True if a fetch of ``nbytes`` serialized bytes is to be kept."""
        return self._fills_cache and self._cache is not None and nbytes <= CACHED_BYTES

    def keep(self, fetch: FetchRange, body: Sequence[Buffer], chunks: ChunkList) -> None:
        """Put the verified chunks of a fetch into the cache: ``body`` in pieces of whole chunks."""
        assert self._cache is not None
        ends: array[int] = array("Q")
        for piece in body:
            start = ends[-1] if ends else 0
            _, packed, _ = kernel.walk_chunks(XET_GEARHASH_BLAKE3.kernel, piece)
            ends.extend(start + end for end in memoryview(packed).cast("Q"))
        self._cache.put_later(fetch.xorb, fetch.chunk_start, body, chunks, ends)


def _spans(runs: Iterable[Run]) -> list[Span]:
    return [(run.position, run.end) for run in runs]
