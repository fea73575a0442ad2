"""Files of one repository in another: by grants alone, and of what the copier could read."""

from __future__ import annotations

from collections.abc import Iterable

from xetstore.cas.index import Writer
from xetstore.protocol.hashes import Hash


def copy_files(writer: Writer, source: str, target: str, files: Iterable[Hash], *, now: float) -> list[Hash]:
    """Grant namespace ``target`` those of these files that namespace ``source`` has, and no other.

    Returns the others, in order: a file of the store that ``source`` has no grant of is one that does not exist. The
    SHA-256 that are claimed, or were computed, come along. It is part of the transaction of ``writer``, so that grants
    and the pointers to these files appear together. ``now`` is unix seconds.
    """
    asked = list(dict.fromkeys(files))
    granted = writer.copy_grants(source, target, asked, now=now)
    return [file for file in asked if file not in granted]
