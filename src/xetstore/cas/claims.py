"""The claims of a shard, checked against the xorbs that it names: nothing in a shard is taken on trust."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from xetstore.cas.index.queries.rows import chunk_key
from xetstore.errors import RejectedShardError
from xetstore.interfaces import MANY_CHUNKS
from xetstore.protocol import kernel
from xetstore.protocol.dedup import QueryRule
from xetstore.protocol.hashes import Hash, file_hash, verification_hash
from xetstore.protocol.shard import FileEntry, Shard, XorbEntry
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3, AlgorithmSuite

if TYPE_CHECKING:
    from xetstore.cas.footers import FooterCache
    from xetstore.cas.index import XorbRow
    from xetstore.protocol.chunking import ChunkList
    from xetstore.protocol.reconstruction import Term

INDEXED_CHUNKS: Final = QueryRule(modulus=64, spacing_chunks=0, most_at_once=MANY_CHUNKS)
"""Which chunks the index can find. Sixteen times what the protocol asks for (1,024), and a multiple of it: a client in
this process can afford to ask often, and so finds what it knows after some 4 MiB instead of 64.
"""

_CHUNKS_AT_A_TIME: Final = 1 << 16
"""Chunks, some 20 ms of them, between two questions whether the check is to go on."""
_REMEMBERED_CHUNKS: Final = 1 << 17
"""Chunks of terms that are remembered within a shard: some 5 MB."""
_LISTED_XORBS: Final = 16
"""Xorbs whose chunks are at hand, at most 5 MB of them: files of a shard are in the order of their hashes."""
_HINT: Final = "the shard was made from other xorbs, or by a faulty client; nothing of it was registered"


def named_xorbs(shard: Shard) -> tuple[Hash, ...]:
    """Every xorb that a shard names, in a term or in an entry of its own, once."""
    terms = (term.xorb for entry in shard.files for term in entry.terms)
    return tuple(dict.fromkeys((*(entry.hash for entry in shard.xorbs), *terms)))


class _Run(NamedTuple):
    """The chunks of a term, and their verification hash (6.4)."""

    chunks: ChunkList
    verification: Hash


class ClaimCheck:
    """Checks one shard. ``rows`` are the registered xorbs that it names.

    While it checks, it collects in ``eligible`` what global dedup may find from now on: (chunk key, xorb
    id) of the chunks that are eligible by their hash or as the first of a file (10.3.1).
    """

    def __init__(
        self,
        rows: Mapping[Hash, XorbRow],
        footers: FooterCache,
        suite: AlgorithmSuite = XET_GEARHASH_BLAKE3,
    ) -> None:
        self._rows = rows
        self._footers = footers
        self._suite = suite
        self._scanned: set[Hash] = set()
        self._listed: dict[Hash, ChunkList] = {}  # most terms are of the xorbs of those before
        self._runs: dict[Term, _Run] = {}
        self._runs_left = _REMEMBERED_CHUNKS
        self.eligible: set[tuple[int, int]] = set()

    def check(self, shard: Shard, progress: Callable[[int, int], None] = lambda *_: None) -> None:
        """Raises RejectedShardError if anything in the shard is not so.

        ``progress`` is told, after each of them, how many of its xorbs and files are verified, and of how many; the
        same again within a long file. What it raises ends the check.
        """
        if shard.key is not None:
            raise _rejected("its chunk hashes are keyed: an upload carries plain ones")
        total = len(shard.xorbs) + len(shard.files)
        for verified, xorb in enumerate(shard.xorbs, 1):
            self._check_xorb(xorb)
            progress(verified, total)
        for verified, file in enumerate(shard.files, len(shard.xorbs) + 1):
            self._check_file(file, partial(progress, verified - 1, total))
            progress(verified, total)

    def eligible_in(self, rows: Mapping[Hash, XorbRow]) -> list[tuple[int, int]]:
        """The eligible chunks of those of the xorbs that are registered, with their ids of now: one that was deleted,
        and stored anew, has another id.
        """
        ids = {self._rows[name].id: row.id for name, row in rows.items() if name in self._rows}
        return sorted((key, ids[xorb_id]) for key, xorb_id in self.eligible if xorb_id in ids)

    def entry(self, file: Hash, terms: Sequence[Term], sha256: bytes | None = None) -> FileEntry:
        """The entry of a file that is made of these terms, as a shard has it. Raises as :meth:`check` does."""
        verification = tuple(self._run(term, i, file).verification for i, term in enumerate(terms))
        entry = FileEntry(file, tuple(terms), verification, sha256)
        self._check_file(entry, lambda: None)
        return entry

    def _check_xorb(self, entry: XorbEntry) -> None:
        if entry.chunks != self._chunks(entry.hash):
            raise _rejected(f"it lists other chunks for xorb {entry.hash} than are stored")

    def _check_file(self, entry: FileEntry, go_on: Callable[[], None]) -> None:
        if entry.verification is None and entry.terms:
            raise _rejected(f"file {entry.hash} has no verification hashes")
        tree = kernel.MerkleTree(self._suite.kernel)
        done = 0
        for i, (term, verification) in enumerate(zip(entry.terms, entry.verification or (), strict=True)):
            run = self._run(term, i, entry.hash)
            if run.verification != verification:
                raise _rejected(f"the verification hash of term {i} of file {entry.hash} is wrong")
            tree.update(run.chunks.hashes, run.chunks.lengths)
            if i == 0:
                self.eligible.add((chunk_key(run.chunks.digest(0)), self._rows[term.xorb].id))
            done += len(run.chunks)
            if done >= _CHUNKS_AT_A_TIME:
                done = 0
                go_on()
        actual = file_hash(tree.root(), self._suite)
        if actual != entry.hash:
            raise _rejected(f"the terms of file {entry.hash} make file {actual}")

    def _run(self, term: Term, number: int, file: Hash) -> _Run:
        """The chunks of a term, which is as it says. Remembered: a file that repeats itself repeats its terms."""
        run = self._runs.get(term)
        if run is None:
            chunks = self._chunks(term.xorb)
            if fault := term_fault(term, chunks):
                raise _rejected(f"term {number} of file {file} {fault}")
            taken = chunks.slice(term.chunk_start, term.chunk_end)
            run = _Run(taken, verification_hash(taken.hashes, self._suite))
            self._runs_left -= len(taken)
            if self._runs_left < 0:
                self._runs.clear()
                self._runs_left = _REMEMBERED_CHUNKS
            self._runs[term] = run
        return run

    def _chunks(self, name: Hash) -> ChunkList:
        listed = self._listed.get(name)
        if listed is not None:
            return listed
        chunks = self._footers.get(self._rows[name]).chunks
        if len(self._listed) == _LISTED_XORBS:
            self._listed.clear()
        self._listed[name] = chunks
        if name not in self._scanned:
            self._scanned.add(name)
            xorb_id = self._rows[name].id
            found = INDEXED_CHUNKS.selected(chunks)
            self.eligible.update((chunk_key(chunks.digest(i)), xorb_id) for i in found)
        return chunks


def term_fault(term: Term, chunks: ChunkList) -> str | None:
    """The fault of a term of a xorb that holds ``chunks``, or None."""
    if not 0 <= term.chunk_start < term.chunk_end <= len(chunks):
        return f"takes chunks {term.chunk_start} to {term.chunk_end} of a xorb of {len(chunks)}"
    unpacked = sum(chunks.sizes[term.chunk_start : term.chunk_end])
    if unpacked != term.unpacked_bytes:
        return f"claims {term.unpacked_bytes} bytes where its chunks have {unpacked}"
    return None


def _rejected(what: str) -> RejectedShardError:
    return RejectedShardError(f"the shard was refused: {what}", hint=_HINT)
