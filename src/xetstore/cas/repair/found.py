"""Files that a rebuild of the index has found, and of which no snapshot told whose they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from xetstore.batches import batches
from xetstore.records import FileRecord

if TYPE_CHECKING:
    from xetstore.cas.service import EmbeddedCas

LOST_FOUND: Final = "lost-found"
"""The namespace of such files: no caller has a token for it, unless the admin issues one."""
_AT_A_TIME: Final = 200


def found_files(cas: EmbeddedCas) -> Iterator[FileRecord]:
    """The files that are in no other namespace for now."""
    return cas.in_namespace(LOST_FOUND).files()


def give_found(cas: EmbeddedCas, namespace: str) -> int:
    """Grant all of them to a namespace, and take them out of that of found ones; how many these were.

    The journal has no note of it: an index that is made anew before the next snapshot sets them aside again.
    Raises QuotaExceededError: those before stay granted.
    """
    given = 0
    for batch in batches(found_files(cas), _AT_A_TIME):
        files, now = [record.hash for record in batch], cas.now()
        cas.index.change(
            lambda writer, files=files, now=now: (  # type: ignore[misc]
                writer.copy_grants(LOST_FOUND, namespace, files, now=now),
                writer.revoke(LOST_FOUND, files, now=now),
            )
        )
        given += len(files)
    return given
