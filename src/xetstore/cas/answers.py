"""Answers to global dedup queries: which xorbs are worth telling, and the key that veils their chunks."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from xetstore import _kernel
from xetstore.cas.access import DedupDomain, Tenant
from xetstore.cas.footers import FooterCache
from xetstore.cas.index import Index, Reader, XorbRow
from xetstore.cas.index.queries import chunk_key
from xetstore.cas.stored_xorb import looks_whole
from xetstore.errors import IntegrityError, StorageFullError, UnavailableError
from xetstore.interfaces import BlobStore
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import Shard, XorbEntry
from xetstore.protocol.suite import HASH_BYTES

ANSWER_SECONDS: Final = 7 * 24 * 3600
"""How long a client may use an answer, and how long one key is used for answers."""

MAX_ANSWER_XORBS: Final = 64
MAX_ANSWER_CHUNKS: Final = 100_000
MAX_SIBLING_CHUNKS: Final = 32_768
"""Of these chunks, 2 GiB of content, how many are offered only for being of files that were put at the same time."""
MAX_ANSWER_NEIGHBOURS: Final = 4
"""Of these xorbs, how many are offered only for having been uploaded next: good for small files, else a guess."""

# Places looked at for one chunk, files that may add what else they are made of, and uses of xorbs in files that were
# put before and after the newest of these.
_MAX_HOLDERS: Final = 4
_MAX_FILES: Final = 16
_MAX_USES: Final = 256


@dataclass(frozen=True, slots=True)
class Offer:
    """What is worth telling of a chunk that was found: the xorb that holds it, and the rows of others."""

    first: XorbEntry
    others: tuple[XorbRow, ...]

    @property
    def chunk_count(self) -> int:
        """Chunks of all of these xorbs."""
        return len(self.first.chunks) + sum(row.chunk_count for row in self.others)


def find_offer(index: Index, blobs: BlobStore, footers: FooterCache, chunk: Hash, tenant: Tenant) -> Offer | None:
    """What can be told of a chunk, or None if it is not in the index of eligible chunks.

    First the newest xorb that holds the chunk, then what follows it in the files that use it: who has its
    first chunks will likely want the rest. Chunk hashes are keyed in an answer, so that only those who have a chunk can
    recognise it (15.4.4). But the names of xorbs are in clear, and that of a xorb of one chunk is the chunk's hash: so
    what follows is told only as far as it is the tenant's own.
    """
    if tenant.dedup is DedupDomain.OFF:
        return None
    with index.snapshot() as reader:
        holders = reader.holders(chunk_key(chunk.digest), _MAX_HOLDERS, tenant)
    for holder in holders:
        entry = _entry(blobs, footers, holder)
        # The key in the index is a part of the hash: the footer tells whether it is this chunk.
        if entry is not None and _holds(entry, chunk):
            break
    else:
        return None
    with index.snapshot() as reader:
        return Offer(entry, tuple(_bounded(holder, reader, tenant.namespace)))


def recent_xorbs(
    index: Index, blobs: BlobStore, footers: FooterCache, tenant: Tenant, *, most_chunks: int, now: float
) -> Shard | None:
    """An answer to no query: what the tenant uploaded last, one xorb at least. None if there is nothing."""
    if tenant.dedup is DedupDomain.OFF:
        return None
    with index.snapshot() as reader:
        rows = reader.newest_held(tenant.namespace, MAX_ANSWER_XORBS)
    entries: list[XorbEntry] = []
    chunks = 0
    for row in rows:
        chunks += row.chunk_count
        if entries and chunks > most_chunks:
            break
        if (entry := _entry(blobs, footers, row)) is not None:
            entries.append(entry)
    return _keyed(entries, index, tenant, now) if entries else None


def answer_with(
    offer: Offer, index: Index, blobs: BlobStore, footers: FooterCache, tenant: Tenant, *, now: float
) -> Shard:
    """The dedup answer that tells what is offered."""
    others = (_entry(blobs, footers, row) for row in offer.others)
    return _keyed((offer.first, *(other for other in others if other is not None)), index, tenant, now)


def _keyed(entries: Iterable[XorbEntry], index: Index, tenant: Tenant, now: float) -> Shard:
    # A key of its own for each tenant: what two of them are told cannot be compared.
    key = _kernel.keyed_hash(_current_key(index, now), tenant.namespace.encode())
    return Shard(xorbs=tuple(entries)).keyed(key, int(now), int(now) + ANSWER_SECONDS)


def _bounded(holder: XorbRow, reader: Reader, namespace: str) -> list[XorbRow]:
    """What goes into an answer beside the xorb that was found, within the bounds of an answer."""
    chosen: dict[int, XorbRow] = {}
    chunks = holder.chunk_count
    for row in _companions(holder, reader, namespace):
        if len(chosen) + 1 >= MAX_ANSWER_XORBS or chunks + row.chunk_count > MAX_ANSWER_CHUNKS:
            break
        if row.id != holder.id and row.id not in chosen:
            chosen[row.id] = row
            chunks += row.chunk_count
    return list(chosen.values())


def _companions(holder: XorbRow, reader: Reader, namespace: str) -> Iterable[XorbRow]:
    """What goes with a xorb in files, what the newest of these files was put with, and what was uploaded next.

    A client that puts a file again puts the others again, too, and of some of them the index can find nothing.
    """
    yield from reader.companions(holder.id, namespace, files=_MAX_FILES, xorbs=MAX_ANSWER_XORBS)
    chunks = 0
    for row in reader.siblings(holder.id, namespace, uses=_MAX_USES, xorbs=MAX_ANSWER_XORBS):
        chunks += row.chunk_count
        if chunks > MAX_SIBLING_CHUNKS:
            break
        yield row
    yield from reader.held_after(holder.id, namespace, MAX_ANSWER_NEIGHBOURS)


def _entry(blobs: BlobStore, footers: FooterCache, row: XorbRow) -> XorbEntry | None:
    """None for a xorb that is seen to be damaged: it must not be offered."""
    try:
        return XorbEntry(row.hash, footers.get(row).chunks) if looks_whole(row, blobs) else None
    except IntegrityError:
        return None


def _holds(entry: XorbEntry, chunk: Hash) -> bool:
    at = -1
    while (at := entry.chunks.hashes.find(chunk.digest, at + 1)) >= 0:
        if at % HASH_BYTES == 0:
            return True
    return False


def _current_key(index: Index, now: float) -> bytes:
    """The key of this store, replaced when it has been in use for as long as an answer is good for.

    A query never waits for those who write: if the key cannot be replaced now, a fresh one is good for this answer.
    """
    with index.snapshot() as reader:
        found = reader.dedup_key()
    if found is not None and now - found[1] < ANSWER_SECONDS:
        return found[0]
    fresh = secrets.token_bytes(HASH_BYTES)
    if not index.is_writable:
        return fresh
    with contextlib.suppress(UnavailableError, StorageFullError), index.transaction(patience_seconds=0) as writer:
        found = writer.dedup_key()
        if found is not None and now - found[1] < ANSWER_SECONDS:
            return found[0]
        writer.replace_dedup_key(fresh, now=now)
    return fresh
