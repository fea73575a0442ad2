"""A file of an upload: read, its terms known, waiting for its shard."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from xetstore.protocol.hashes import Hash, verification_hash
from xetstore.protocol.known_chunks import KnownXorb, Revision, Run
from xetstore.protocol.reconstruction import Reconstruction, Term
from xetstore.protocol.shard import FileEntry

if TYPE_CHECKING:
    from xetstore.protocol.chunking import ChunkList
    from xetstore.records import FileInfo
    from xetstore.transfer.byte_source import ByteSource


@dataclass(frozen=True, slots=True)
class PutReport:
    """A stored file. ``new_bytes`` and ``deduped_bytes`` are raw and add up to its size.

    ``stored_bytes`` is what the new ones take in xorbs, compressed, chunk headers included. ``again_bytes`` of the new
    ones were stored already, and were stored again so that the file does not become fragmented (10.4).
    """

    path: Path
    info: FileInfo
    new_bytes: int
    deduped_bytes: int
    stored_bytes: int
    again_bytes: int = 0


# Its xorb, which may not have its name yet; first chunk, end chunk, raw bytes; verification hash (6.4).
_Term: TypeAlias = tuple[KnownXorb, int, int, int, Hash]


@dataclass(slots=True)
class _OpenTerm:
    """The last term of a file so far, which may go on."""

    xorb: KnownXorb
    start: int
    end: int
    unpacked_bytes: int
    hashes: bytearray


@dataclass(slots=True)
class PendingFile:
    """A file read to its end, of ``path`` or of ``source``, waiting for its shard.

    Terms that are equal neighbours share one object: a sparse file has many.
    """

    path: Path
    source: ByteSource | None = None
    terms: list[_Term] = field(default_factory=list)
    last: _OpenTerm | None = None
    info: FileInfo | None = None
    new_bytes: int = 0
    stored_bytes: int = 0
    again_bytes: int = 0

    def extend(self, run: Run, chunks: ChunkList) -> None:
        """Go on with the chunks of a run."""
        last = self.last
        if last is None or last.xorb is not run.xorb or last.end != run.xorb_start:
            self.close_term()
            last = self.last = _OpenTerm(run.xorb, run.xorb_start, run.xorb_start, 0, bytearray())
        last.end += run.count
        last.unpacked_bytes += chunks.total_bytes
        last.hashes += chunks.hashes

    def close_term(self) -> None:
        """End the last term."""
        term, self.last = self.last, None
        if term is None:
            return
        if self.terms:
            before = self.terms[-1]
            if before[:4] == (term.xorb, term.start, term.end, term.unpacked_bytes):
                self.terms.append(before)
                return
        proof = verification_hash(bytes(term.hashes))
        self.terms.append((term.xorb, term.start, term.end, term.unpacked_bytes, proof))

    def take_terms(self, stored: Reconstruction) -> None:
        """Let the terms be those of the stored file, told with the chunk hashes of each."""
        xorbs = {name: KnownXorb(name, is_hint=True) for name in stored.fetches}
        told = zip(stored.terms, stored.term_hashes or (), strict=True)
        self.terms = [
            (xorbs[term.xorb], term.chunk_start, term.chunk_end, term.unpacked_bytes, verification_hash(hashes))
            for term, hashes in told
        ]

    def revise(self, revision: Revision) -> None:
        """Let the terms name the chunks of a xorb where they are from now on."""
        before, last = self.terms, self.last
        self.terms, self.last = [], None
        revised: dict[int, list[_Term]] = {}  # equal neighbours stay one object
        for term in before:
            if term[0] is not revision.xorb:
                self.terms.append(term)
                continue
            if id(term) not in revised:
                first = len(self.terms)
                self._extend_by(revision, term[1], term[2])
                self.close_term()
                revised[id(term)] = self.terms[first:]
            else:
                self.terms += revised[id(term)]
        if last is None or last.xorb is not revision.xorb:
            self.last = last
        else:
            self._extend_by(revision, last.start, last.end)

    def _extend_by(self, revision: Revision, start: int, end: int) -> None:
        for run in revision.runs_of(start, end):
            self.extend(run, revision.chunks.slice(run.block_start, run.block_start + run.count))

    @property
    def is_hinted(self) -> bool:
        """True if a part of it is in a xorb that this session has not stored itself."""
        return any(term[0].is_hint for term in self.terms)

    def report(self) -> PutReport:
        """The report of the file when it is stored."""
        assert self.info is not None
        deduped_bytes = self.info.size - self.new_bytes
        return PutReport(self.path, self.info, self.new_bytes, deduped_bytes, self.stored_bytes, self.again_bytes)

    def entry(self) -> FileEntry:
        """The file as a shard names it; all its xorbs have names by now."""
        assert self.info is not None
        cache: dict[int, Term] = {}
        terms = []
        for term in self.terms:
            known = cache.get(id(term))
            if known is None:
                xorb, start, end, nbytes, _ = term
                assert xorb.name is not None
                known = cache[id(term)] = Term(xorb.name, start, end, nbytes)
            terms.append(known)
        sha256 = self.info.sha256
        return FileEntry(
            hash=self.info.hash,
            terms=tuple(terms),
            verification=tuple(term[4] for term in self.terms),
            sha256=bytes.fromhex(sha256) if sha256 is not None else None,
        )
