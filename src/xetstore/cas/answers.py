"""Answers to global dedup queries: which xorbs are worth telling, and the key that veils their chunks."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.access.tenant import DedupDomain, Tenant
from xetstore.cas.index.queries.rows import chunk_key
from xetstore.cas.stored_xorb import looks_whole
from xetstore.errors import StorageFullError, UnavailableError
from xetstore.protocol import kernel
from xetstore.protocol.cover import cover
from xetstore.protocol.hashes import Hash, split_hashes
from xetstore.protocol.shard import Shard, XorbEntry
from xetstore.protocol.suite import HASH_BYTES
from xetstore.protocol.xorb import XorbInfo

if TYPE_CHECKING:
    from xetstore.cas.footers import FooterCache
    from xetstore.cas.index import Index, Reader, XorbRow
    from xetstore.interfaces import BlobStore

ANSWER_SECONDS: Final = 7 * 24 * 3600
"""The time for which a client may use an answer, and for which one key serves for answers."""

MAX_RECENT_CHUNKS: Final = 16_384
"""Of an answer to a query for something that is not known: 1 GiB of content, 0.8 MB. A session gets few of them."""

# Xorbs considered for one chunk, objects looked at for one answer, and files that may add what else they are made of.
_MAX_HOLDERS: Final = 4
_MAX_LOOKS: Final = 128
_MAX_FILES: Final = 16
# Up to 40 chunks are looked for one by one: taking all hashes of a xorb apart takes as long as 40 searches.
_FEW_CHUNKS: Final = 40


@dataclass(frozen=True, slots=True)
class OfferBounds:
    """The most of an offer: xorbs, and their chunks.

    ``sibling_chunks`` of these, 2 GiB of content, are only of files that were put at the same time, for which ``uses``
    of xorbs are looked at; ``neighbours`` are xorbs that were uploaded next: good for small files, else a guess.
    """

    xorbs: int = 64
    chunks: int = 100_000
    sibling_chunks: int = 32_768
    uses: int = 256
    neighbours: int = 4


BOUNDS: Final = OfferBounds()


@dataclass(frozen=True, slots=True)
class Offer:
    """The xorbs that are worth telling of chunks that were found: those that hold them, then others.

    ``known`` is how many of the chunks were found.
    """

    rows: tuple[XorbRow, ...]
    known: int

    @property
    def chunk_count(self) -> int:
        """Chunks of all of these xorbs."""
        return sum(row.chunk_count for row in self.rows)


def find_offer(
    index: Index,
    blobs: BlobStore,
    footers: FooterCache,
    chunks: Iterable[Hash],
    tenant: Tenant,
    bounds: OfferBounds = BOUNDS,
) -> Offer | None:
    """The offer for chunks, or None if none of them is in the index of eligible chunks.

    First few of the newest xorbs that hold them, in the order in which the chunks are named, as far as there is room;
    then what follows these in the files that use them: who has its first chunks will likely want the rest. Chunk hashes
    are keyed in an answer, so that only those who have a chunk can recognise it (15.4.4). But the names of xorbs are in
    clear, and that of a xorb of one chunk is the chunk's hash: so what follows is told only as far as it is the
    tenant's own.
    """
    if tenant.dedup is DedupDomain.OFF:
        return None
    keys = {chunk: chunk_key(chunk.digest) for chunk in chunks}
    with index.snapshot() as reader:
        holders = reader.holders(keys.values(), tenant, most=_MAX_HOLDERS)
    candidates = {chunk: [*holders[key]] for chunk, key in keys.items() if key in holders}
    answer = _Rows(bounds)
    known = _take_holders(answer, candidates, index, blobs, footers, tenant)
    if not known:
        return None
    with index.snapshot() as reader:
        for row in _companions(tuple(answer.by_id.values()), reader, tenant.namespace, bounds):
            if not answer.take(row):
                break
    return Offer(tuple(answer.by_id.values()), known)


def recent_offer(index: Index, tenant: Tenant) -> Offer | None:
    """The offer for no chunk: the xorbs of the files that the tenant put last. None if there is nothing."""
    if tenant.dedup is DedupDomain.OFF:
        return None
    with index.snapshot() as reader:
        newest = reader.newest_file(tenant.namespace)
        rows = () if newest is None else tuple(_siblings(newest, reader, tenant.namespace, MAX_RECENT_CHUNKS, BOUNDS))
    return Offer(rows, 0) if rows else None


def uploaded_offer(index: Index, tenant: Tenant, most_chunks: int) -> Offer | None:
    """The offer for no chunk: the xorbs that the tenant uploaded last, one at least. None if there is nothing."""
    if tenant.dedup is DedupDomain.OFF:
        return None
    with index.snapshot() as reader:
        rows = reader.newest_held(tenant.namespace, BOUNDS.xorbs)
    return Offer((rows[0], *_up_to(most_chunks - rows[0].chunk_count, rows[1:])), 0) if rows else None


class _Rows:
    """The xorbs of an answer, within its bounds."""

    def __init__(self, bounds: OfferBounds) -> None:
        self._bounds = bounds
        self.by_id: dict[int, XorbRow] = {}
        self._chunks = 0

    @property
    def is_full(self) -> bool:
        return len(self.by_id) >= self._bounds.xorbs

    def has_room_for(self, row: XorbRow) -> bool:
        """True for the first, however many chunks it has."""
        return not self.is_full and (not self.by_id or self._chunks + row.chunk_count <= self._bounds.chunks)

    def take(self, row: XorbRow) -> bool:
        """False if there is no room for it."""
        if row.id in self.by_id:
            return True
        if not self.has_room_for(row):
            return False
        self.by_id[row.id] = row
        self._chunks += row.chunk_count
        return True


def _take_holders(
    answer: _Rows,
    candidates: dict[Hash, list[int]],
    index: Index,
    blobs: BlobStore,
    footers: FooterCache,
    tenant: Tenant,
) -> int:
    """Take few of the xorbs that may hold these chunks, ``candidates`` by their ids, which are used up.

    Returns how many of the chunks they hold.
    """
    known = looks = 0
    while candidates and looks < _MAX_LOOKS and not answer.is_full:
        taken = cover(candidates, _MAX_LOOKS - looks)
        looks += len(taken)
        with index.snapshot() as reader:
            # Asked again which are the tenant's: the id of one that was deleted may be that of another one by now.
            rows = reader.usable_xorbs([xorb_id for xorb_id, _ in taken], tenant)
        entries = _entries(blobs, footers, rows.values())
        for xorb_id, wanted in taken:
            held = set[Hash]()
            if xorb_id in entries and answer.has_room_for(rows[xorb_id]):
                held = _held(entries[xorb_id], wanted)
                if held:
                    answer.take(rows[xorb_id])
                    known += len(held)
            for chunk in wanted:
                candidates[chunk].remove(xorb_id)
                if chunk in held or not candidates[chunk]:
                    del candidates[chunk]
    return known


def answer_with(
    offer: Offer, index: Index, blobs: BlobStore, footers: FooterCache, tenant: Tenant, *, now: float
) -> Shard | None:
    """The dedup answer that tells what is offered; None if all of it was damaged meanwhile."""
    entries = _entries(blobs, footers, index.offerable(offer.rows, now=now))
    if not entries:
        return None
    # A key of its own for each tenant: what two of them are told cannot be compared.
    key = kernel.keyed_hash(_current_key(index, now), tenant.namespace.encode())
    return Shard(xorbs=tuple(entries.values())).keyed(key, int(now), int(now) + ANSWER_SECONDS)


def _companions(found: Sequence[XorbRow], reader: Reader, namespace: str, bounds: OfferBounds) -> Iterable[XorbRow]:
    """The xorbs that go with these in files, those that the newest of the files was put with, and those stored next.

    A client that puts a file again puts the others again, too, and of some of them the index can find nothing.
    """
    ids = [row.id for row in found]
    yield from reader.companions(ids, namespace, files=_MAX_FILES, xorbs=bounds.xorbs)
    if (newest := reader.newest_user(max(ids), namespace)) is not None:
        yield from _siblings(newest, reader, namespace, bounds.sibling_chunks, bounds)
    yield from reader.held_after(max(ids), namespace, bounds.neighbours)


def _siblings(file_id: int, reader: Reader, namespace: str, most_chunks: int, bounds: OfferBounds) -> Iterable[XorbRow]:
    """The xorbs of a file and of those that were put before and after it, at most ``most_chunks`` in all."""
    return _up_to(most_chunks, reader.siblings(file_id, namespace, uses=bounds.uses, xorbs=bounds.xorbs))


def _up_to(most_chunks: int, rows: Iterable[XorbRow]) -> Iterable[XorbRow]:
    """The first of these xorbs, as far as they have ``most_chunks`` together."""
    chunks = 0
    for row in rows:
        chunks += row.chunk_count
        if chunks > most_chunks:
            return
        yield row


def _entries(blobs: BlobStore, footers: FooterCache, rows: Iterable[XorbRow]) -> dict[int, XorbEntry]:
    """The entries of xorbs, by their ids; none of one that is seen to be damaged, which must not be offered."""
    whole = [row for row in rows if looks_whole(row, blobs)]
    infos = zip(whole, footers.get_many(whole), strict=True)
    return {row.id: XorbEntry(row.hash, info.chunks) for row, info in infos if isinstance(info, XorbInfo)}


def _held(entry: XorbEntry, wanted: Collection[Hash]) -> set[Hash]:
    """Those of the wanted chunks that a xorb holds. The key in the index is a part of the hash: the footer tells."""
    hashes = entry.chunks.hashes
    if len(wanted) <= _FEW_CHUNKS:
        return {chunk for chunk in wanted if _holds(hashes, chunk.digest)}
    digests = set(split_hashes(hashes))
    return {chunk for chunk in wanted if chunk.digest in digests}


def _holds(hashes: bytes, digest: bytes) -> bool:
    at = -1
    while (at := hashes.find(digest, at + 1)) >= 0:
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
    with contextlib.suppress(UnavailableError, StorageFullError):
        return index.change(
            lambda writer: writer.renew_dedup_key(fresh, now=now, old=now - ANSWER_SECONDS), patience_seconds=0
        )
    return fresh
