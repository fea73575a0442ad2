"""Records of a store about files, itself and its repositories, and the changes that a commit is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self, TypeAlias

from xetstore.errors import UsageError
from xetstore.protocol.hashes import Hash

FOLDER_MODE: Final = 0o040000
FILE_MODE: Final = 0o100644
EXECUTABLE_MODE: Final = 0o100755
LINK_MODE: Final = 0o120000


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
class DeletedName:
    """A name that was deleted ``deleted_at``, and can be given back ``until`` then at least. Times are unix seconds.

    ``kind`` is ``repository``, ``branch``, ``tag`` or ``file`` (of a bucket, with ``size`` in bytes); ``oid`` is the id
    of the commit, or of the annotated tag, that a ref was at.
    """

    kind: str
    name: str
    deleted_at: float
    until: float
    size: int | None = None
    oid: str | None = None


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


@dataclass(frozen=True, slots=True, order=True)
class RepositoryId:
    """A repository by its kind, such as ``models``, and its ``name``, which is ``owner/name``."""

    kind: str
    name: str

    @property
    def path(self) -> str:
        """The name behind ``xet://``: that of a model has no kind.

        >>> RepositoryId("datasets", "alice/news").path, RepositoryId("models", "alice/bert").path
        ('datasets/alice/news', 'alice/bert')
        """
        return self.name if self.kind == "models" else f"{self.kind}/{self.name}"

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class RepositoryRecord:
    """A repository. ``head`` is the id of the last commit of its branch main, or None; times are unix seconds.

    ``size`` is the bytes of its files at that commit; it is None where it was not asked for, or is not told.
    """

    id: RepositoryId
    is_private: bool
    head: str | None = None
    gated: str | None = None
    created_at: float | None = None
    updated_at: float | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit: its id in 40 hexadecimal digits, ``created_at`` in unix seconds."""

    oid: str
    title: str = ""
    message: str = ""
    author: str = ""
    created_at: float | None = None


@dataclass(frozen=True, slots=True)
class Ref:
    """A branch or a tag, and the id of the commit that it is at. ``ref`` is its full name: ``refs/heads/main``."""

    name: str
    ref: str
    commit: str


@dataclass(frozen=True, slots=True)
class RepoFile:
    """A file, a link or a folder of a revision. ``path`` is from the root; ``size`` is bytes, 0 of a folder.

    ``oid`` is the id that git has for it. Of a large file, which the store has and git only points at, there are
    ``sha256`` in hex and ``hash``; else both are None. ``mode`` is git's, of a link ``0o120000``.
    """

    path: str
    size: int
    oid: str
    hash: Hash | None = None
    sha256: str | None = None
    mode: int = FILE_MODE

    @property
    def is_folder(self) -> bool:
        """True if it is a folder."""
        return self.mode == FOLDER_MODE

    @property
    def is_link(self) -> bool:
        """True if it is a symbolic link. Its bytes are the path that it leads to."""
        return self.mode == LINK_MODE

    @property
    def is_executable(self) -> bool:
        """True if it is a file that can be run."""
        return self.mode == EXECUTABLE_MODE

    def is_same(self, other: RepoFile) -> bool:
        """True if content and mode are the same."""
        return (self.oid, self.mode) == (other.oid, other.mode)


@dataclass(frozen=True, slots=True)
class NewBlob:
    """A small file, which git keeps itself: its bytes, or of a link the path that it leads to."""

    path: str
    data: bytes
    mode: int = FILE_MODE


@dataclass(frozen=True, slots=True)
class NewPointer:
    """A large file, by the SHA-256 in hex of content that was uploaded to the repository's store."""

    path: str
    sha256: str
    size: int
    mode: int = FILE_MODE


@dataclass(frozen=True, slots=True)
class NewFolder:
    """An empty folder. It is gone as soon as a file in it comes and goes, as all folders are."""

    path: str


@dataclass(frozen=True, slots=True)
class Removal:
    """A file, or a folder and all that is in it, which goes."""

    path: str


Change: TypeAlias = NewBlob | NewPointer | NewFolder | Removal
"""One change of a commit. Removals are applied first."""
