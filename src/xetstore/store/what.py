"""Names of files as callers give them, ``What``, and local paths; the sentence for an argument of another type."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, TypeAlias, TypeVar

from xetstore.errors import UsageError, WrongTypeError
from xetstore.opening import HUB_SCHEME
from xetstore.protocol.hashes import Hash
from xetstore.records import FileInfo

T = TypeVar("T")

What: TypeAlias = FileInfo | Hash | str
"""A file: what is known of it, its hash, the 64 digits of that, or its name, ``xet://OWNER/NAME@REVISION/PATH``."""

STORE_SCHEME: Final = "xet://"

_TAKEN: Final = "a FileInfo, a Hash, its 64 hexadecimal digits, or a name such as xet://alice/bert@main/config.json"


def named(what: What) -> Hash | str:
    """The hash that this is or has; or a name, which stays a text. Raises UsageError for what is neither."""
    if isinstance(what, Hash):
        return what
    if isinstance(what, str):
        if what.startswith((STORE_SCHEME, HUB_SCHEME)):
            return what
        try:
            return Hash.parse(what)
        except UsageError as error:
            error.hint = f"a file of a store is {_TAKEN}"
            raise
    if isinstance(what, FileInfo):
        return what.hash
    raise WrongTypeError.of("a file of a store", what, _TAKEN)


def several(given: Iterable[T], role: str, taken: str) -> Iterable[T]:
    """The same, if it is several things: one path or one hash is a text, whose letters are not meant."""
    if isinstance(given, str | bytes | os.PathLike | FileInfo) or not isinstance(given, Iterable):
        raise WrongTypeError.of(role, given, taken)
    return given
