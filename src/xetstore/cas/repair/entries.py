"""Entries of files as shards have them: made anew from rows and footers, and registered under a new shard."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final

from xetstore.batches import sized_batches
from xetstore.cas.claims import term_fault
from xetstore.cas.index import Writer, XorbRow
from xetstore.cas.registering import register_shard
from xetstore.cas.repair.run import Run
from xetstore.errors import DamagedError
from xetstore.protocol import kernel
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, chunk_hash, file_hash, verification_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard, XorbEntry
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

ALL_BYTES: Final = 1 << 62
"""The end of any file, whatever its row says of its size."""
_TERMS: Final = 1 << 16
"""The most terms of the files of one shard, unless one file has more."""


def entry_of(
    run: Run,
    terms: Sequence[Term],
    rows: Mapping[Hash, XorbRow],
    *,
    sha256: str | None = None,
    known: Mapping[Hash, ChunkList] | None = None,
) -> FileEntry:
    """The entry of the file that these terms make. ``known`` are chunks of xorbs whose footers are not to be asked.

    Raises DamagedError where a footer is damaged, or a term does not fit its xorb.
    """
    tree = kernel.MerkleTree(XET_GEARHASH_BLAKE3.kernel)
    verification: list[Hash] = []
    for term in terms:
        chunks = (known or {}).get(term.xorb) or run.cas.footers.get(rows[term.xorb]).chunks
        if fault := term_fault(term, chunks):
            raise DamagedError(f"a term of xorb {term.xorb} {fault}")
        taken = chunks.slice(term.chunk_start, term.chunk_end)
        tree.update(taken.hashes, taken.lengths)
        verification.append(verification_hash(taken.hashes))
    digest = None if sha256 is None else bytes.fromhex(sha256)
    return FileEntry(file_hash(Hash(tree.root())), tuple(terms), tuple(verification), digest)


def in_shards(entries: Sequence[FileEntry]) -> Iterator[list[FileEntry]]:
    """Entries in lists that a shard each has room for."""
    return sized_batches(entries, lambda entry: len(entry.terms), _TERMS)


def register_entries(
    run: Run,
    entries: Sequence[FileEntry],
    *,
    xorbs: Collection[Hash] = (),
    known: Mapping[Hash, ChunkList] | None = None,
    rebound: Collection[Hash] = (),
    also: Callable[[Writer, Hash], None] = lambda *_: None,
) -> Hash:
    """Store a shard of these files, which are registered, and of the xorbs that they are made of, and of ``xorbs``.

    The files in ``rebound`` get the terms of their entries. ``also`` is called in the transaction, with the name of the
    shard. Durable on return: the name of the shard.
    """
    cas = run.cas
    named = list(dict.fromkeys([*xorbs, *(term.xorb for entry in entries for term in entry.terms)]))
    with cas.index.snapshot() as reader:
        rows = reader.xorbs(named)
    listed = tuple(
        XorbEntry(name, (known or {}).get(name) or cas.footers.get(row).chunks, row.region_bytes)
        for name, row in rows.items()
    )
    stored = Shard(tuple(entries), listed).serialize_with_footer()
    name = chunk_hash(stored)

    def add(writer: Writer) -> bool:
        run.require(writer)
        now = writer.xorbs(named)
        if rebound:
            known = writer.file_records(rebound)  # one that is gone stays so
            again = [entry for entry in entries if entry.hash in known]
            writer.add_files(again, now, namespace=None, now=cas.now(), rebound=rebound)
        also(writer, name)
        return True

    files = [entry.hash for entry in entries]
    register_shard(stored, add, files=files, xorbs=named, now=cas.now(), blobs=cas.blobs, index=cas.index)
    return name
