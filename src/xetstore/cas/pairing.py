"""Pairing: the objects and the index of a store belong together, as a random id in both of them says.

The index has it in its table ``store``, and the objects have an object ``stores/<id>``. With an index of other objects
every read would find damage, and what collects would delete the objects of another store.

The index of a new store gets the id first, in a transaction: where several processes create a store at once, one id
wins, and all of them make sure of its object. So an object of an id that the index lacks is of another store; and an id
without its object was given by a process that died before the next step, if there is no xorb in the index yet. A
store from before there were ids gets its object first: an index with xorbs **must not** have an id without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from xetstore.cas.folder import RESTORE
from xetstore.cas.layout import STORES, XORBS, store_key
from xetstore.errors import AccessDeniedError, DamagedError, StorageFullError, UnavailableError, XetError

if TYPE_CHECKING:
    from xetstore.cas.index import Index, Writer, XorbRow
    from xetstore.cas.parts import StoreParts
    from xetstore.interfaces import BlobStore

_LOOKED_AT: Final = 16
"""Xorbs of an index from before there were ids, one of whose objects shows that it belongs to the objects."""

_PATIENCE_SECONDS: Final = 2.0
"""The wait for another writer, where a store works without an id, too."""

REBUILD: Final = "rebuild"
"""The chore of an index that is made anew: until it has ended, the index has no id, and no store is opened with it."""


def pair(parts: StoreParts, index: Index, blobs: BlobStore) -> None:
    """Raise DamagedError unless the index and the objects are those of one store; give it an id if it has none.

    One request to the objects, unless something is new. A store that cannot be written to, and has no id, is let pass.
    """
    store_id = index.store_id()
    if store_id is not None:
        _require_objects(parts, store_id, blobs, is_new=lambda: _has_no_xorb(index))
        return
    with index.snapshot() as reader:
        store_id, rows = reader.store_id(), reader.xorbs_after(0, _LOOKED_AT)
        rebuild = reader.chore(REBUILD) if store_id is None else None
    if rebuild is not None and rebuild.ended_at is None:
        raise DamagedError(
            f"the index {parts.index} is being made anew, or that was cut off",
            hint="xet repair --rebuild-index --yes goes on with it",
        )
    if store_id is None:
        if index.is_writable:
            _give_id(parts, index, blobs, rows)
    else:
        _require_objects(parts, store_id, blobs, is_new=lambda: not rows)


def _has_no_xorb(index: Index) -> bool:
    with index.snapshot() as reader:
        return not reader.xorbs_after(0, 1)


def stored_id(blobs: BlobStore) -> str | None:
    """The id of the store to which objects belong, or None."""
    first = next(iter(blobs.list(STORES)), None)
    return None if first is None else first.key.removeprefix(STORES)


def refuse_strangers(parts: StoreParts, blobs: BlobStore) -> None:
    """Raise DamagedError if there are objects, for an index that is about to be made."""
    stranger = stored_id(blobs)
    if stranger is not None or next(iter(blobs.list(XORBS)), None) is not None:
        raise _without_index(parts, stranger)


def _require_objects(parts: StoreParts, store_id: str, blobs: BlobStore, *, is_new: Callable[[], bool]) -> None:
    if blobs.stat(store_key(store_id)) is not None:
        return
    found = stored_id(blobs)
    if found == store_id:
        return  # the process that creates it has come so far meanwhile
    if found is not None or not is_new():
        raise _without_objects(parts, store_id, found)
    put_id(blobs, store_id)


def _give_id(parts: StoreParts, index: Index, blobs: BlobStore, rows: Sequence[XorbRow]) -> None:
    found = stored_id(blobs)
    # A directory has its index in it: what is there belongs together. So it does where an index from a backup, of the
    # time before there were ids, has its objects.
    is_ours = parts.is_directory or any(blobs.stat(row.key) for row in rows)
    if found is not None and not is_ours:
        with index.snapshot() as reader:
            given = reader.store_id()
        if given is None:  # or another process has created the store meanwhile
            raise _without_index(parts, found)
        _require_objects(parts, given, blobs, is_new=lambda: True)
        return
    ours = found or os.urandom(16).hex()
    try:
        if rows:
            put_id(blobs, ours)
        winner = index.change(_take_id(ours), patience_seconds=_PATIENCE_SECONDS if rows else None)
        put_id(blobs, winner)
        if rows and found is None and winner != ours:
            blobs.delete_many([store_key(ours)])
    except (AccessDeniedError, StorageFullError, UnavailableError):
        if not rows:
            raise  # what is there can be read as before


def _take_id(ours: str) -> Callable[[Writer], str]:
    """The change that gives the store an id, unless it has one: the id that it has then."""

    def take(writer: Writer) -> str:
        writer.set_store_id(ours)
        return writer.store_id() or ours

    return take


def put_id(blobs: BlobStore, store_id: str) -> None:
    """Make sure of the object of an id. Two processes may do so at once: both write the same."""
    key = store_key(store_id)
    if blobs.stat(key) is not None:
        return
    try:
        blobs.put_new(key, [f"xetstore store {store_id}\n".encode()])
    except XetError:
        if blobs.stat(key) is None:
            raise


def _without_objects(parts: StoreParts, store_id: str, stranger: str | None) -> DamagedError:
    theirs = "have no mark of any store" if stranger is None else f"are those of store {stranger}"
    return DamagedError(
        f"the index {parts.index} is that of store {store_id}, and the objects in {parts.objects} {theirs}",
        hint="name the objects and the index of one store: the directory, or the bucket and its prefix, or the"
        " database is another one; if the objects were deleted, bring them back first; if only their mark was lost,"
        " `xet repair --yes` makes it anew",
    )


def _without_index(parts: StoreParts, stranger: str | None) -> DamagedError:
    theirs = "are those of a store" if stranger is None else f"are those of store {stranger}"
    return DamagedError(
        f"the objects in {parts.objects} {theirs}, and the index {parts.index} is empty",
        hint=f"name the index of that store; if it is lost, {RESTORE}; a new store takes an empty place",
    )
