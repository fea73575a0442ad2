"""Operations of a commit: each names a path, which is valid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from xetstore.hub.names import check_path
from xetstore.hub.objects import EXECUTABLE, FILE, SYMLINK

_MODES = frozenset((FILE, EXECUTABLE, SYMLINK))


@dataclass(frozen=True, slots=True)
class AddFile:
    """A file kept in the repository itself: its bytes, or of a symbolic link its target. Replaces a file; without a
    mode it is executable if that was.
    """

    path: str
    data: bytes
    mode: int | None = None

    def __post_init__(self) -> None:
        check_path(self.path)
        assert self.mode is None or self.mode in _MODES


@dataclass(frozen=True, slots=True)
class AddPointer:
    """A file of the store, by its SHA-256 of 32 bytes; ``size`` in bytes, None as the store knows. Replaces a file as
    AddFile does.
    """

    path: str
    sha256: bytes
    size: int | None = None
    mode: int | None = None

    def __post_init__(self) -> None:
        check_path(self.path)
        assert len(self.sha256) == 32
        assert self.mode is None or self.mode in _MODES


@dataclass(frozen=True, slots=True)
class AddFolder:
    """A folder, empty if there is none: as git has it, by an empty tree. The last file that leaves takes it along."""

    path: str

    def __post_init__(self) -> None:
        check_path(self.path)


@dataclass(frozen=True, slots=True)
class Delete:
    """A file, or a folder and all that is in it, which goes."""

    path: str

    def __post_init__(self) -> None:
        check_path(self.path)


@dataclass(frozen=True, slots=True)
class Copy:
    """A file or a folder of the revision ``source`` (of the parent if None) that appears at ``path``, too."""

    path: str
    source_path: str
    source: str | None = None

    def __post_init__(self) -> None:
        check_path(self.path)
        check_path(self.source_path)


Operation: TypeAlias = AddFile | AddPointer | AddFolder | Delete | Copy
