"""Records of a store about its repositories, and the changes that a commit is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from xetstore.protocol.hashes import Hash

FOLDER_MODE: Final = 0o040000
FILE_MODE: Final = 0o100644
EXECUTABLE_MODE: Final = 0o100755
LINK_MODE: Final = 0o120000


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
    ``sha256`` in hex and ``hash``; else both are None. ``mode`` is git's, of a link ``0o120000``. ``changed_at`` is the
    time of the last commit that changed it, in unix seconds, where it was asked for.
    """

    path: str
    size: int
    oid: str
    hash: Hash | None = None
    sha256: str | None = None
    mode: int = FILE_MODE
    changed_at: float | None = field(default=None, compare=False)

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
