"""CheckReport: the result of a check, a Problem for each thing that is not as it must be."""

from __future__ import annotations

from dataclasses import dataclass

from xetstore.protocol.hashes import Hash


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it must be. ``name`` is the object, ``files`` are those that it affects."""

    name: str
    what: str
    files: tuple[Hash, ...] = ()

    def __str__(self) -> str:
        affected = ", ".join(map(str, self.files))
        return f"{self.name}: {self.what}" + (f" (affects {affected})" if affected else "")


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of a check. ``notes`` are leftovers that do no harm, such as those of an interrupted upload.

    ``repositories`` is how many were checked: this room knows none. ``renewed`` is how many objects without checksums
    were stored anew with them; of a dry run, how many would have been. ``unread`` is True if not all was read that was
    chosen, because the time was over.
    """

    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    xorbs: int
    files: int
    bytes_read: int
    repositories: int = 0
    renewed: int = 0
    unread: bool = False
