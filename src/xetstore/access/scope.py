"""Scope: the rights of a token."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

OF_A_USER: Final = "hf_"
"""The first letters of a user's token, which is for repositories; it has no claims, and its scope is looked up."""


class Scope(StrEnum):
    """The rights of a token; each scope includes those before it.

    >>> Scope.WRITE >= Scope.READ, Scope.WRITE.includes(Scope.ADMIN)
    (True, False)
    """

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, other: Scope) -> bool:
        """True if this scope includes the rights of ``other``."""
        return _rank(self) >= _rank(other)

    # A str would compare by the alphabet, in which an admin comes first and may nothing.

    def __ge__(self, other: str) -> bool:
        return _rank(self) >= _rank(other)

    def __gt__(self, other: str) -> bool:
        return _rank(self) > _rank(other)

    def __le__(self, other: str) -> bool:
        return _rank(self) <= _rank(other)

    def __lt__(self, other: str) -> bool:
        return _rank(self) < _rank(other)


_RANKS: Final = {scope: rank for rank, scope in enumerate(Scope)}


def _rank(scope: str) -> int:
    if not isinstance(scope, Scope):
        raise TypeError("a Scope compares with a Scope only")
    return _RANKS[scope]
