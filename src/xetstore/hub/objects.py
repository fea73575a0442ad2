"""Objects of git: ids, blobs, pointers, trees, commits and tags as bytes and as values. Pure.

An id is 20 bytes. dulwich knows the formats; here they become values of this package.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final, NamedTuple

from dulwich.errors import ObjectFormatException
from dulwich.objects import Commit, ObjectID, Tag, parse_tree, serialize_tree, sorted_tree_items

from xetstore.errors import DamagedError

FOLDER: Final = 0o040000
FILE: Final = 0o100644
EXECUTABLE: Final = 0o100755
SYMLINK: Final = 0o120000
SUBMODULE: Final = 0o160000

MAX_POINTER_BYTES: Final = 1024
"""git-lfs takes nothing longer for a pointer."""

_POINTER: Final = re.compile(
    rb"version https?://[^\n]{1,200}/spec/v?1\n(?:ext-[^\n]{1,300}\n)*oid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n?"
)


class ObjectKind(IntEnum):
    """The four kinds of objects, as git numbers them."""

    COMMIT = 1
    TREE = 2
    BLOB = 3
    TAG = 4

    @property
    def word(self) -> str:
        """The word in an object's header: ``commit``."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer of git-lfs: the SHA-256 of a file, and its bytes."""

    sha256: bytes
    size: int

    def serialize(self) -> bytes:
        """The text in its one canonical form.

        >>> print(Pointer(bytes(32), 5).serialize().decode().splitlines()[-1])
        size 5
        """
        return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (
            self.sha256.hex().encode(),
            self.size,
        )

    @classmethod
    def parse(cls, data: bytes) -> Pointer | None:
        """The pointer that a blob is; None if it is an ordinary file."""
        if not 100 <= len(data) <= MAX_POINTER_BYTES:
            return None
        match = _POINTER.fullmatch(data)
        return None if match is None else cls(bytes.fromhex(match[1].decode()), int(match[2]))


@dataclass(frozen=True, slots=True)
class GitObject:
    """An object to be stored; ``data`` is without its header. ``pointer`` is that of a blob which is one.

    ``packed`` is the data as it is stored, where that was made ready.
    """

    kind: ObjectKind
    data: bytes
    oid: bytes
    pointer: Pointer | None = None
    packed: bytes | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, kind: ObjectKind, data: bytes) -> GitObject:
        """The object of some bytes."""
        pointer = Pointer.parse(data) if kind is ObjectKind.BLOB else None
        return cls(kind, data, object_id(kind, data), pointer)

    def deflated(self) -> bytes:
        """The data as it is stored."""
        return zlib.compress(self.data, 1) if self.packed is None else self.packed

    def ready(self) -> GitObject:
        """The same, deflated: before a transaction that keeps other writers waiting."""
        return replace(self, packed=self.deflated())


class TreeItem(NamedTuple):
    """One name in a tree. ``mode`` is git's: a folder, a file, an executable file, a symbolic link, a submodule."""

    mode: int
    oid: bytes

    @property
    def is_folder(self) -> bool:
        """True if it is a tree."""
        return self.mode == FOLDER


Tree = dict[str, TreeItem]
"""A tree by names. One that was stored is shared by its readers, and not changed."""


@dataclass(frozen=True, slots=True)
class CommitData:
    """A commit as it is written: ``author`` is ``Name <address>``, times are unix seconds."""

    tree: bytes
    parents: tuple[bytes, ...]
    author: str
    message: str
    created_at: int

    def serialize(self) -> bytes:
        """The bytes of the commit."""
        commit = Commit()
        commit.tree = self.tree.hex().encode()
        commit.parents = [ObjectID(parent.hex().encode()) for parent in self.parents]
        commit.author = commit.committer = self.author.encode()
        commit.author_time = commit.commit_time = self.created_at
        commit.author_timezone = commit.commit_timezone = 0
        commit.encoding = None
        commit.message = self.message.encode()
        return commit.as_raw_string()

    @classmethod
    def parse(cls, data: bytes) -> CommitData:
        """Read a commit. Raises DamagedError for bytes that are none."""
        try:
            commit = Commit.from_string(data)
            commit.check()
        except ObjectFormatException as error:
            raise DamagedError(f"a commit cannot be read: {error}") from error
        return cls(
            bytes.fromhex(commit.tree.decode()),
            tuple(bytes.fromhex(parent.decode()) for parent in commit.parents),
            commit.author.decode("utf-8", "replace"),
            commit.message.decode("utf-8", "replace"),
            int(commit.commit_time),
        )


def object_id(kind: ObjectKind, data: bytes) -> bytes:
    """The id of an object: SHA-1 over its header and its data.

    >>> object_id(ObjectKind.BLOB, b"").hex()
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    return hashlib.sha1(b"%s %d\0" % (kind.word.encode(), len(data)) + data, usedforsecurity=False).digest()


def inflated(data: bytes, size: int) -> bytes:
    """The data of a stored object, which has ``size`` bytes. Raises DamagedError."""
    try:
        found = zlib.decompressobj().decompress(data, size + 1) if size else zlib.decompress(data)
    except zlib.error as error:
        raise DamagedError(f"an object of a repository cannot be read: {error}") from error
    if len(found) != size:
        raise DamagedError("an object of a repository has another size than it was stored with")
    return found


def read_tree(data: bytes) -> Tree:
    """The names of a tree. Raises DamagedError for bytes that are no tree."""
    try:
        items = parse_tree(data, 20)
    except (ObjectFormatException, ValueError) as error:
        raise DamagedError(f"a tree cannot be read: {error}") from error
    # By name: git has a folder where it would be with a slash behind it.
    return dict(
        sorted(
            (name.decode("utf-8", "surrogateescape"), TreeItem(mode, bytes.fromhex(oid.decode())))
            for name, mode, oid in items
        )
    )


def write_tree(tree: Tree) -> bytes:
    """The bytes of a tree, its names in git's order."""
    entries = {
        name.encode("utf-8", "surrogateescape"): (item.mode, ObjectID(item.oid.hex().encode()))
        for name, item in tree.items()
    }
    return b"".join(serialize_tree((item.path, item.mode, item.sha) for item in sorted_tree_items(entries, False)))


def tagged(data: bytes) -> tuple[bytes, ObjectKind]:
    """The id and the kind of the object that an annotated tag names. Raises DamagedError."""
    try:
        kind, oid = Tag.from_string(data).object
    except (ObjectFormatException, ValueError) as error:
        raise DamagedError(f"a tag cannot be read: {error}") from error
    word = kind.type_name.decode()
    return bytes.fromhex(oid.decode()), next(each for each in ObjectKind if each.word == word)


def write_tag(name: str, commit: bytes, tagger: str, message: str, created_at: int) -> bytes:
    """The bytes of an annotated tag on a commit."""
    tag = Tag()
    tag.name = name.encode()
    tag.object = (Commit, commit.hex().encode())
    tag.tagger = tagger.encode()
    tag.tag_time, tag.tag_timezone = created_at, 0
    tag.message = message.encode()
    return tag.as_raw_string()


EMPTY_TREE: Final = GitObject.of(ObjectKind.TREE, b"")


def unique(objects: Iterable[GitObject]) -> list[GitObject]:
    """Objects, each id once."""
    return list({each.oid: each for each in objects}.values())
