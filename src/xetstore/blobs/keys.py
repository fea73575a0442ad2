"""Keys of objects: their form."""

from __future__ import annotations

import re
from typing import Final

from xetstore.errors import UsageError
from xetstore.platform.files import TEMPORARY_FOLDER

_KEY: Final = re.compile(r"[0-9a-z_-][0-9a-z._-]*(/[0-9a-z_-][0-9a-z._-]*)+")

ACCESS_FOLDER: Final = "access"
"""The folder of a store's keys and revocations."""

RESERVED_FOLDERS: Final = (TEMPORARY_FOLDER, ACCESS_FOLDER)
"""First segments that no key may have: files there are no objects, and never served as such."""


def check_key(key: str) -> str:
    """Return ``key`` if it is one. Raises UsageError otherwise.

    A key has a folder and a name at least: the top of a store is left to files that are not objects.

    >>> check_key("xorbs/ab/abcd")
    'xorbs/ab/abcd'
    """
    if not _KEY.fullmatch(key) or key.partition("/")[0] in RESERVED_FOLDERS:
        raise UsageError(
            f"{key[:100]!r} is not an object key",
            hint="a key is two or more segments of [0-9a-z._-], none of which starts with a dot",
        )
    return key


def taken(key: str) -> UsageError:
    """The error for a new object under a key that has one: that one stays, and nothing of the new one is kept."""
    return UsageError(
        f"there is an object {key} already; it was not replaced", hint="give each new object a key that none has had"
    )
