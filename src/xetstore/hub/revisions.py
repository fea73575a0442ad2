"""Revisions by name: a branch, a tag, a ref in full, or an id, whole or its first digits."""

from __future__ import annotations

import re
from typing import Final

from xetstore.errors import RevisionNotFoundError
from xetstore.hub.names import HEADS, MAIN, TAGS
from xetstore.hub.objects import ObjectKind, tagged
from xetstore.hub.queries import HubReader, Revision

MIN_PREFIX_DIGITS: Final = 4
_ID: Final = re.compile(r"[0-9a-f]{40}")
_PREFIX: Final = re.compile(rf"[0-9a-f]{{{MIN_PREFIX_DIGITS},39}}")
_MOST_TAGS: Final = 10
"""A tag may name a tag, and that another one: at most this many."""


def resolve(reader: HubReader, repository_id: int, text: str) -> Revision:
    """The revision that a text names; a branch goes before a tag, and both before an id. RevisionNotFoundError."""
    oid = _ref_of(reader, repository_id, text)
    if oid is not None:
        return peeled(reader, repository_id, oid, text)
    if _ID.fullmatch(text):
        revision = reader.revision(repository_id, bytes.fromhex(text))
        if revision is not None:
            return revision
    elif _PREFIX.fullmatch(text):
        found = reader.revisions_from(repository_id, text)
        if len(found) == 1:
            return found[0]
    raise no_revision(text)


def ref_names(text: str) -> list[str]:
    """The refs that a text may mean, the first one that is there counts."""
    if text == "HEAD":
        return [MAIN]
    if text.startswith("refs/"):
        return [text, HEADS + text, TAGS + text]
    return [HEADS + text, TAGS + text]


def peeled(reader: HubReader, repository_id: int, oid: bytes, text: str) -> Revision:
    """The revision that an id stands for: of a commit, or of an annotated tag on one."""
    for _ in range(_MOST_TAGS):
        revision = reader.revision(repository_id, oid)
        if revision is not None:
            return revision
        found = reader.object(repository_id, oid)
        if found is None or found[0] is not ObjectKind.TAG:
            break
        oid, _ = tagged(found[1])
    raise no_revision(text)


def no_revision(text: str) -> RevisionNotFoundError:
    """The error for a text that names none."""
    return RevisionNotFoundError(f"Invalid rev id: {text[:200]}")


def _ref_of(reader: HubReader, repository_id: int, text: str) -> bytes | None:
    names = ref_names(text)
    found = reader.refs_named(repository_id, names)
    return next((found[name] for name in names if name in found), None)
