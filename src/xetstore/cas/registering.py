"""The registration of new objects: a row makes each count; one that no row ever will is removed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from xetstore.cas.grace import DAY_SECONDS
from xetstore.cas.index import Index, ObjectRow, ShardRow, Writer
from xetstore.cas.layout import new_generation, shard_key
from xetstore.cas.stored_xorb import looks_whole
from xetstore.errors import StorageFullError, UnavailableError, UsageError, XetError
from xetstore.protocol.hashes import Hash, chunk_hash

if TYPE_CHECKING:
    from xetstore.interfaces import BlobStore

_Row = TypeVar("_Row", bound=ObjectRow)


def register(
    key: str,
    store: Callable[[], None],
    add: Callable[[Writer, _Row | None], tuple[bool, _Row]],
    *,
    damaged: _Row | None,
    blobs: BlobStore,
    index: Index,
) -> tuple[bool, bool]:
    """Store the new object ``key`` and register it: True if anything is new, and True if the object counts.

    ``add`` registers it in a transaction, and gives the row that is there then. A row keeps the object it has, but for
    the one that ``add`` is told as damaged: in its place the new one counts. Whether the object of another upload is
    whole is looked at here, outside of the transaction, because that may wait for a network.

    A new object that does not count is removed, and so it is after an error, if it is certain that no row names it.
    After an error of the commit it is not, because a connection to a database can break behind it: then it stays. A
    process that slept for a day in between registers nothing: its object may have been collected as an abandoned one.
    """
    began = index.clock()
    try:
        store()
    except UsageError:
        raise  # the key is taken: what is there is not ours
    except BaseException:
        _remove(key, blobs)
        raise
    may_be_named = False
    row: _Row | None = damaged
    is_new = False

    def attempt(writer: Writer) -> tuple[bool, _Row]:
        nonlocal may_be_named
        if index.clock() - began > DAY_SECONDS:
            raise UnavailableError("the machine slept in the middle of an upload", hint="put it again")
        answer = add(writer, row)
        may_be_named = True
        return answer

    try:
        while True:
            added, row = index.change(attempt)
            is_new |= added
            if row.key == key:
                return is_new, True
            may_be_named = False
            if looks_whole(row, blobs):
                break
    except BaseException as error:
        # A database that has no room has committed nothing; and the next attempt needs the room.
        if not may_be_named or isinstance(error, StorageFullError):
            _remove(key, blobs)
        raise
    _remove(key, blobs)
    return is_new, False


def register_shard(
    stored: bytes,
    add_files: Callable[[Writer], bool],
    *,
    files: Collection[Hash],
    xorbs: Collection[Hash],
    now: float,
    blobs: BlobStore,
    index: Index,
) -> bool:
    """Store a shard as an object, unless it is there and whole, and register it with all that ``add_files`` registers.

    True if ``add_files`` says that anything is new.
    """
    name, generation = chunk_hash(stored), new_generation()
    with index.snapshot() as reader:
        found = reader.shards([name]).get(name)

    def add(writer: Writer, damaged: ShardRow | None) -> tuple[bool, ShardRow]:
        is_new = add_files(writer)
        if damaged is not None:
            writer.replace_shard(damaged, generation, now=now)
        writer.add_shard(name, len(stored), files=files, xorbs=xorbs, now=now, generation=generation)
        return is_new, writer.shards([name])[name]

    def add_to_stored(writer: Writer) -> bool:
        is_new, row = add(writer, None)
        if found is None or row.key != found.key:
            raise _OtherObjectError
        return is_new

    if found is not None and looks_whole(found, blobs):
        with contextlib.suppress(_OtherObjectError):
            return index.change(add_to_stored)
        found = None
    key = shard_key(name, generation)
    is_new, _ = register(key, partial(blobs.put_new, key, [stored]), add, damaged=found, blobs=blobs, index=index)
    return is_new


class _OtherObjectError(Exception):
    """A shard that was there is not any more, or has another object: a row must not be made without one."""


def _remove(key: str, blobs: BlobStore) -> None:
    with contextlib.suppress(XetError):
        blobs.delete_many([key])
