"""Arguments of the library's verbs: one sentence for what is of another type."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

from xetstore.errors import WrongTypeError

T = TypeVar("T")


def text_of(role: str, given: str) -> str:
    """The same, if it is a text; ``role`` names the argument in the WrongTypeError.

    >>> text_of("a revision", "main")
    'main'
    """
    if not isinstance(given, str):
        raise WrongTypeError.of(role, given, "a text")
    return given


def several(given: Iterable[T], role: str, taken: str) -> Iterable[T]:
    """The same, if it is several things: one path or one hash is a text, whose letters are not meant."""
    if isinstance(given, str | bytes | os.PathLike) or not isinstance(given, Iterable):
        raise WrongTypeError.of(role, given, taken)
    return given
