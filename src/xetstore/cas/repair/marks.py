"""mend_marks(): the marks by which a store is known, its file ``format`` and its object of an id, made anew.

Without them a store does not open: its objects may be those of another one. So they are made anew only
where the index tells that this is a store, and the random generations of its xorbs that these are its objects.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xetstore.cas.assembly import open_database, open_objects
from xetstore.cas.folder import FORMAT_FILE, has_marker, is_new_file, write_marker
from xetstore.cas.index.index import MIGRATIONS
from xetstore.cas.index.queries.reader import Reader
from xetstore.cas.layout import STORES, new_generation, store_key
from xetstore.cas.pairing import put_id
from xetstore.cas.repair.quarantine import QUARANTINE, set_aside
from xetstore.cas.repair.report import Repaired
from xetstore.errors import XetError
from xetstore.platform.files import make_durable_folder, storage_error, sync_folder

if TYPE_CHECKING:
    from xetstore.cas.parts import StoreParts
    from xetstore.interfaces import BlobStore

_LOOKED_AT: Final = 64
"""The xorbs of the index of which one has its object, by which the objects are known."""


def mend_marks(parts: StoreParts, *, is_dry: bool) -> list[Repaired]:
    """Make the marks of a closed store anew, where they are damaged and the store is known to be one; what was mended.

    Changes nothing where it cannot tell: opening the store then says what is wrong.
    """
    if isinstance(parts.index, Path) and is_new_file(parts.index):
        return []
    mended: list[Repaired] = []
    with closing(open_database(parts.index)) as database, database.snapshot() as connection:
        if not 0 < MIGRATIONS.version(connection) <= MIGRATIONS.newest:
            return []
        reader = Reader(connection)
        store_id, rows = reader.store_id(), reader.xorbs_after(0, _LOOKED_AT)
    if isinstance(parts.objects, Path) and parts.objects.is_dir() and not has_marker(parts.objects):
        if not is_dry:
            _make_marker(parts.objects)
        mended.append(Repaired(FORMAT_FILE, "made anew: the index says that this is a store"))
    blobs = open_objects(parts)
    is_ours = store_id is not None and any(row.generation and blobs.stat(row.key) for row in rows)
    if store_id is not None and is_ours and blobs.stat(store_key(store_id)) is None:
        if not is_dry:
            _put_id(blobs, store_id)
        mended.append(Repaired(store_key(store_id), "made anew: the objects are those of the index"))
    return mended


def _make_marker(root: Path) -> None:
    try:
        if (root / FORMAT_FILE).exists():
            folder = root / QUARANTINE
            make_durable_folder(folder)
            (root / FORMAT_FILE).rename(folder / f"{FORMAT_FILE}-{new_generation()}")
            sync_folder(folder)
        write_marker(root)
    except XetError:
        raise
    except OSError as error:
        raise storage_error(error, f"the store {root} cannot be repaired") from error


def _put_id(blobs: BlobStore, store_id: str) -> None:
    strangers = [blob.key for blob in blobs.list(STORES)]
    put_id(blobs, store_id)
    for key in strangers:
        set_aside(blobs, key)
