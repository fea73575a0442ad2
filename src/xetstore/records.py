"""Records of a store about files, itself and its repositories, and the changes that a commit is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

from xetstore.errors import UsageError
from xetstore.loading import lazily
from xetstore.protocol.hashes import Hash

if TYPE_CHECKING:
    from xetstore.repository_records import (
        EXECUTABLE_MODE,
        FILE_MODE,
        FOLDER_MODE,
        LINK_MODE,
        Change,
        Commit,
        DeletedName,
        NewBlob,
        NewFolder,
        NewPointer,
        Ref,
        Removal,
        RepoFile,
        RepositoryId,
        RepositoryRecord,
    )

__all__ = [
    "EXECUTABLE_MODE",
    "FILE_MODE",
    "FOLDER_MODE",
    "LINK_MODE",
    "Change",
    "Commit",
    "DeletedFile",
    "DeletedName",
    "FileInfo",
    "FileRecord",
    "NewBlob",
    "NewFolder",
    "NewPointer",
    "Ref",
    "Removal",
    "RepoFile",
    "RepositoryId",
    "RepositoryRecord",
    "Totals",
]

# The others are loaded when they are first asked for: a store that is opened needs none of them.
__getattr__ = lazily(__name__, dict.fromkeys(__all__, "xetstore.repository_records"))


@dataclass(frozen=True, slots=True, repr=False)
class FileInfo:
    """The identity of a file: its Xet hash, its size in bytes and, where it is known, its SHA-256 in hex.

    Sorted by hash. Every record of a file is one, and names it in all verbs of a store.

    >>> info = FileInfo(Hash(bytes(range(32))), 12)
    >>> FileInfo.from_dict(info.to_dict()) == info
    True
    """

    hash: Hash
    size: int
    sha256: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, ready for JSON."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**values, "hash": str(self.hash)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The record of which :meth:`to_dict` is this. A key that is none of its fields is passed over, so that a line
        of `xet put --json` is one too. Raises UsageError.
        """
        given = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        try:
            record = cls(**{**given, "hash": Hash.parse(given["hash"])})
        except (KeyError, TypeError) as error:
            raise UsageError(f"this is no {cls.__name__}: {error}", hint="it has what to_dict gives") from None
        if type(record.size) is not int or record.size < 0:
            raise UsageError(f"{record.size!r} is not a size in bytes")
        return record

    def __lt__(self, other: FileInfo) -> bool:
        if not isinstance(other, FileInfo):
            return NotImplemented
        return (self.hash, self.size) < (other.hash, other.size)

    def __repr__(self) -> str:
        told = (
            f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if getattr(self, each.name) is not None
        )
        return f"{type(self).__name__}({', '.join(told)})"


@dataclass(frozen=True, slots=True, repr=False)
class FileRecord(FileInfo):
    """A registered file. ``sha256`` was computed, or its uploader claims it; ``created_at`` is unix seconds.

    ``terms`` and ``xorbs`` count the runs of chunks it is made of, and the xorbs these lie in. What a server does not
    tell of its files is None.
    """

    created_at: float | None = None
    terms: int | None = None
    xorbs: int | None = None


@dataclass(frozen=True, slots=True, repr=False)
class DeletedFile(FileInfo):
    """A file that was deleted ``deleted_at``, and can be given back ``until`` then at least. Times are unix seconds."""

    deleted_at: float = field(kw_only=True)
    until: float = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the whole store, in bytes where the name says so.

    ``logical_bytes`` is the size of all files together, ``unique_bytes`` what is left of it as chunks in
    xorbs, ``stored_bytes`` what these xorbs take in the blob store, compressed and with their footers.
    """

    files: int
    logical_bytes: int
    unique_bytes: int
    stored_bytes: int
    xorbs: int
    chunks: int
