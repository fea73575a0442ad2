"""Differences between two revisions: which files came, went or changed, and of large ones which bytes and chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from xetstore.records import RepoFile


class DifferenceKind(StrEnum):
    """The fate of a path from one revision to another one."""

    ADDED = "added"
    DELETED = "deleted"
    CHANGED = "changed"
    MODE = "mode"
    """The content is the same; the executable bit, or that it is a link, is not."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A path that two revisions do not have in common: ``old`` or ``new`` is None where one has no such file."""

    path: str
    old: RepoFile | None
    new: RepoFile | None

    @property
    def kind(self) -> DifferenceKind:
        """The fate of the path."""
        if self.old is None:
            return DifferenceKind.ADDED
        if self.new is None:
            return DifferenceKind.DELETED
        return DifferenceKind.MODE if self.old.oid == self.new.oid else DifferenceKind.CHANGED


def differences(old: Iterable[RepoFile], new: Iterable[RepoFile]) -> Iterator[Difference]:
    """Two listings side by side, folders left out, by the order of paths.

    >>> [str(one.kind) for one in differences([RepoFile("a", 1, "0")], [RepoFile("a", 1, "1"), RepoFile("b", 1, "0")])]
    ['changed', 'added']
    """
    before = {file.path: file for file in old if not file.is_folder}
    after = {file.path: file for file in new if not file.is_folder}
    for path in sorted(before.keys() | after.keys()):
        one, other = before.get(path), after.get(path)
        if one is None or other is None or not one.is_same(other):
            yield Difference(path, one, other)
