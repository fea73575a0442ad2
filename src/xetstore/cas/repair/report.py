"""The outcome of a repair: what was mended, what was set aside, and which bytes of which files stay lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from xetstore.protocol.hashes import Hash

NamesOf: TypeAlias = Callable[[Collection[Hash]], Mapping[Hash, Sequence[str]]]
"""Tells the names of files, as ``xet://…``, where some are known."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """Something that was mended, or would be. ``name`` is the object or row, ``how`` a sentence without its subject."""

    name: str
    how: str


@dataclass(frozen=True, slots=True)
class HurtFile:
    """A file of which bytes are lost: ``lost`` are ranges ``[start, end)`` of it. The others can still be read."""

    hash: Hash
    size: int
    lost: tuple[tuple[int, int], ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unrepaired:
    """Something that stays as it is, and why."""

    name: str
    why: str


@dataclass(slots=True)
class RepairReport:
    """The deeds of a repair, done or to be done. ``notes`` are of sources and other things that no object is about."""

    repaired: list[Repaired] = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)
    unrepaired: list[Unrepaired] = field(default_factory=list)
    hurt: list[HurtFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def found_nothing(self) -> bool:
        """True if there was nothing to repair."""
        return not (self.repaired or self.quarantined or self.unrepaired or self.hurt)

    @property
    def is_whole(self) -> bool:
        """True if nothing stays damaged."""
        return not (self.unrepaired or self.hurt)
