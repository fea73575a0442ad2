"""The journal: objects that tell what was deleted, or given back, since the last snapshot of the index.

An index that is made anew has the grants of a snapshot; by the journal it lacks what was deleted later. An entry is
written after its transaction: where it cannot be written (a full disk, a crash between), the deletion stands.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from xetstore.batches import batches
from xetstore.cas.layout import new_generation
from xetstore.errors import DamagedError, FormatError, XetError
from xetstore.protocol.hashes import Hash

if TYPE_CHECKING:
    from xetstore.cas.service import EmbeddedCas
    from xetstore.interfaces import BlobInfo, BlobStore

JOURNAL: Final = "snapshots/deleted-"
FILES_AT_A_TIME: Final = 10_000
"""The most files of one object: 650 KB."""

_VERSION: Final = 1
_MOST_BYTES: Final = 1 << 20
_log = logging.getLogger("xetstore.store")


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A change of what a namespace may read: ``files``, or all that it had (None), were deleted or given back ``at``
    a time of the database, in unix seconds.
    """

    at: float
    is_deletion: bool
    namespace: str
    files: tuple[Hash, ...] | None


def note_deleted(cas: EmbeddedCas, namespace: str, files: Collection[Hash] | None, *, at: float | None = None) -> None:
    """Note in the journal that files, or all of them (None), were deleted from a namespace; after the transaction.

    ``at`` is the time that the transaction gave them; now, if None. Raises nothing: where it cannot be noted, a warning
    is logged, and an index made anew from an older snapshot would bring the files back.
    """
    _note(cas, namespace, files, at=at, is_deletion=True)


def note_restored(cas: EmbeddedCas, namespace: str, files: Collection[Hash] | None, *, at: float | None = None) -> None:
    """Note that files, or all of them (None), were given back to a namespace: as :func:`note_deleted`."""
    _note(cas, namespace, files, at=at, is_deletion=False)


def journal_keys(blobs: BlobStore) -> Iterator[tuple[float, BlobInfo]]:
    """The objects of the journal in the order of their times, each with its time in unix seconds."""
    for blob in blobs.list(JOURNAL):
        microseconds, _, _ = blob.key.removeprefix(JOURNAL).partition("-")
        if microseconds.isdigit():
            yield int(microseconds) / 1e6, blob


def read_entry(blobs: BlobStore, blob: BlobInfo, store_id: str | None) -> JournalEntry:
    """The entry in an object of the journal. DamagedError if it is not whole, or that of another store."""
    if blob.size > _MOST_BYTES:
        raise DamagedError(f"{blob.key} is too long for an entry of the journal")
    data = blobs.get(blob.key)
    text, _, digest = data.removesuffix(b"\n").rpartition(b"\n")
    if digest != _digest(text):
        raise DamagedError(f"{blob.key} is not whole")
    try:
        values = json.loads(text)
        entry = _parsed(values)
    except (ValueError, KeyError, TypeError, AttributeError, FormatError) as error:
        raise DamagedError(f"{blob.key} is no entry of the journal") from error
    if values.get("store") != store_id:
        raise DamagedError(f"{blob.key} is of another store")
    return entry


def forget_before(blobs: BlobStore, moment: float) -> int:
    """Remove the entries of before a time, which a snapshot tells; how many they were."""
    keys = [blob.key for at, blob in journal_keys(blobs) if at < moment]
    return blobs.delete_many(keys) if keys else 0


def _note(
    cas: EmbeddedCas, namespace: str, files: Collection[Hash] | None, *, at: float | None, is_deletion: bool
) -> None:
    try:
        at = cas.now() if at is None else at
        with cas.index.snapshot() as reader:
            store_id = reader.store_id()
        parts: Sequence[list[Hash] | None] = [None] if files is None else [*batches(files, FILES_AT_A_TIME)]
        for part in parts:
            values = {
                "version": _VERSION,
                "store": store_id,
                "at": at,
                "change": "deleted" if is_deletion else "restored",
                "namespace": namespace,
                "files": None if part is None else [str(file) for file in part],
            }
            text = json.dumps(values).encode()
            key = f"{JOURNAL}{int(at * 1e6):018}-{new_generation()}"
            content = [text, b"\n", _digest(text), b"\n"]
            cas.index.with_reserve(partial(cas.blobs.put_new, key, content))
    except XetError as error:
        _log.warning(
            "what was %s in %s could not be noted for a rebuild of the index: %s",
            "deleted" if is_deletion else "given back",
            namespace,
            error,
        )


def _parsed(values: dict[str, Any]) -> JournalEntry:
    if values["version"] != _VERSION or values["change"] not in ("deleted", "restored"):
        raise ValueError("another version")
    files, namespace = values["files"], values["namespace"]
    if not isinstance(namespace, str):
        raise TypeError("a namespace is a text")
    hashes = None if files is None else tuple(map(Hash.parse, files))
    return JournalEntry(float(values["at"]), values["change"] == "deleted", namespace, hashes)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()
