"""Prefixes: a file named by the first digits of its hash, as long as only one file has them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from xetstore.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.store import Store

LEAST_DIGITS: Final = 6
MOST_CANDIDATES: Final = 10
"""Files that an error names; there may be more."""

_DIGITS: Final = re.compile(r"[0-9a-fA-F]{1,63}")


class Prefix(str):
    """The first digits of a hash, in small letters."""

    __slots__ = ()


def parse_prefix(text: str) -> Prefix | None:
    """The digits of a hash that is not whole; None for anything else. Raises UsageError for too few of them.

    >>> parse_prefix("A9DAE0"), parse_prefix("a9dae0.bin")
    ('a9dae0', None)
    """
    if not _DIGITS.fullmatch(text):
        return None
    if len(text) < LEAST_DIGITS:
        raise UsageError(
            f"{text!r} is too short for a hash",
            hint=f"a hash is 64 hexadecimal digits, of which the first {LEAST_DIGITS} or more will do",
        )
    return Prefix(text.lower())


def whole(store: Store, file: Hash | Prefix) -> Hash:
    """The hash that a prefix begins, of a file in a store; a whole hash as it is.

    Raises NotFoundError, UsageError where several files have it, and for a server, which tells of whole hashes only.
    """
    if not isinstance(file, Prefix):
        return file
    from xetstore.cas.service import EmbeddedCas

    if not isinstance(store.cas, EmbeddedCas):
        raise UsageError(
            f"{file} is a part of a hash, and a server finds files by whole hashes only",
            hint="name the file by the 64 digits of its hash",
        )
    return only_one(file, store.cas.files_beginning(file, MOST_CANDIDATES + 1))


def only_one(prefix: Prefix, hashes: Iterable[Hash]) -> Hash:
    """The one hash that a prefix begins. Raises NotFoundError and UsageError."""
    candidates = [each for each in hashes if str(each).startswith(prefix)]
    if not candidates:
        raise NotFoundError(f"no file has a hash that begins with {prefix}")
    if len(candidates) > 1:
        more = ", and more" if len(candidates) > MOST_CANDIDATES else ""
        names = ", ".join(map(str, candidates[:MOST_CANDIDATES]))
        raise UsageError(f"several files have a hash that begins with {prefix}", hint=f"one of {names}{more}")
    return candidates[0]
