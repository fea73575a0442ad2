"""NewTree: the tree of a revision with operations applied to it, and the objects that this makes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from xetstore.errors import EntryNotFoundError, UnprocessableError
from xetstore.hub.attributes import FILE as ATTRIBUTES
from xetstore.hub.attributes import with_large
from xetstore.hub.names import add_with_folders
from xetstore.hub.objects import (
    EMPTY_TREE,
    EXECUTABLE,
    FILE,
    FOLDER,
    GitObject,
    ObjectKind,
    Pointer,
    Tree,
    TreeItem,
    write_tree,
)
from xetstore.hub.operations import AddFile, AddFolder, AddPointer, Copy, Delete, Operation
from xetstore.hub.trees import TreeReader

NO_SUCH_FILE: Final = "A file with this name doesn't exist"
MAX_FOLDERS: Final = 200_000
"""Folders that one commit changes. A short path may have 500 of them, and each becomes an object."""


class NewTree:
    """The tree below ``root`` (None: an empty one), to be changed. Not thread-safe.

    ``objects`` are the blobs, and after :meth:`write` the trees, that operations made. ``changed`` are the paths that
    are other than before, and the folders above them.
    """

    def __init__(self, trees: TreeReader, root: bytes | None) -> None:
        self._trees = trees
        self._before = root
        self._root = _Folder(root, {} if root is None else dict(trees.tree(root)))
        self._opened = 0
        self.objects: list[GitObject] = []
        self.changed: set[str] = set()

    def read_ahead(self, paths: Collection[str]) -> None:
        """Read the folders of these paths, a level of them in one query."""
        if self._before is not None:
            self._trees.at_each(self._before, paths)

    def apply(
        self,
        operation: Operation,
        files: Mapping[bytes, int],
        source: bytes | None = None,
        blob: GitObject | None = None,
    ) -> None:
        """Apply one operation. ``files`` has the bytes of each file that pointers name, by its SHA-256; ``source`` is
        the tree from which a Copy takes, ``blob`` that of an AddFile.

        Raises EntryNotFoundError for a path that is not there; UnprocessableError for a file where a folder is, or the
        other way round, for a file that the store has not, or not of this size, and for more than MAX_FOLDERS.
        """
        match operation:
            case AddFile(path, _, mode):
                assert blob is not None
                self._add(path, TreeItem(self._mode(path, mode), blob.oid), blob)
            case AddPointer(path, sha256, size, mode):
                known = files.get(sha256)
                if known is None:
                    raise UnprocessableError(f"the file {sha256.hex()} was not uploaded to this repository")
                if size not in (None, known):
                    raise UnprocessableError(f"the file {sha256.hex()} has {known} bytes, not {size}")
                blob = GitObject.of(ObjectKind.BLOB, Pointer(sha256, known).serialize())
                self._add(path, TreeItem(self._mode(path, mode), blob.oid), blob)
            case AddFolder(path):
                self._add_folder(path)
            case Delete(path):
                self._delete(path)
            case Copy(path, source_path):
                item = None if source is None else self._trees.at(source, source_path)
                if item is None:
                    raise EntryNotFoundError(f"{NO_SUCH_FILE}: {source_path[:200]}")
                self._add(path, item)

    def _mode(self, path: str, mode: int | None) -> int:
        """The mode of a file that comes, where None keeps the executable bit of the one that it replaces."""
        if mode is not None:
            return mode
        parent, _, name = path.rpartition("/")
        folder = self._folder(parent, make=False)
        before = None if folder is None else folder.items.get(name)
        return EXECUTABLE if isinstance(before, TreeItem) and before.mode == EXECUTABLE else FILE

    def track(self, paths: Collection[str]) -> None:
        """Let .gitattributes say of these paths that they are large files, where it does not yet."""
        item = self._root.items.get(ATTRIBUTES)
        if isinstance(item, TreeItem) and item.mode in (FILE, EXECUTABLE):
            made = next((each.data for each in self.objects if each.oid == item.oid), None)
            data = self._trees.blob(item.oid) if made is None else made
            mode = item.mode
        elif item is None:
            data, mode = b"", FILE
        else:
            return
        if Pointer.parse(data) is not None:
            return
        text = data.decode("utf-8", "surrogateescape")
        changed = with_large(text, [*paths])
        if changed != text:
            blob = GitObject.of(ObjectKind.BLOB, changed.encode("utf-8", "surrogateescape"))
            self._add(ATTRIBUTES, TreeItem(mode, blob.oid), blob)

    def write(self) -> bytes:
        """The id of the new root."""
        oid = self._write(self._root)
        if oid is not None:
            return oid
        self.objects.append(EMPTY_TREE)
        return EMPTY_TREE.oid

    def _add(self, path: str, item: TreeItem, blob: GitObject | None = None) -> None:
        parent, _, name = path.rpartition("/")
        folder = self._folder(parent, make=True)
        assert folder is not None
        before = folder.items.get(name)
        if isinstance(before, _Folder) or (before is not None and before.is_folder and not item.is_folder):
            raise UnprocessableError(f"{path[:200]!r} is a folder", hint="delete it before, in the same commit")
        if blob is not None:
            self.objects.append(blob)
        if before != item:
            folder.items[name] = item
            add_with_folders(self.changed, path)

    def _add_folder(self, path: str) -> None:
        folder = self._folder(path, make=True)
        assert folder is not None
        if not folder.items:
            folder.is_kept = True
            if folder.before is None:
                add_with_folders(self.changed, path)

    def _delete(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        folder = self._folder(parent, make=False)
        if folder is None or name not in folder.items:
            raise EntryNotFoundError(f"{NO_SUCH_FILE}: {path[:200]}")
        del folder.items[name]
        add_with_folders(self.changed, path)

    def _folder(self, path: str, *, make: bool) -> _Folder | None:
        """A folder, to be changed; with ``make`` there is one after that, else None where none is."""
        folder = self._root
        for part in path.split("/") if path else ():
            below = folder.items.get(part)
            if isinstance(below, TreeItem):
                if not below.is_folder:
                    if make:
                        raise UnprocessableError(f"{path[:200]!r} is no folder: {part[:100]!r} is a file")
                    return None
                below = folder.items[part] = self._open(below.oid, self._trees.tree(below.oid))
            elif below is None:
                if not make:
                    return None
                below = folder.items[part] = self._open(None, {})
            folder = below
        return folder

    def _open(self, before: bytes | None, items: Tree) -> _Folder:
        self._opened += 1
        if self._opened > MAX_FOLDERS:
            raise UnprocessableError(
                f"a commit changes at most {MAX_FOLDERS} folders", hint="make several commits of it"
            )
        return _Folder(before, {**items})

    def _write(self, folder: _Folder) -> bytes | None:
        """The id of a folder; None for an empty one that is not to be kept."""
        tree: Tree = {}
        for name, item in folder.items.items():
            if isinstance(item, TreeItem):
                tree[name] = item
            elif (oid := self._write(item)) is not None:
                tree[name] = TreeItem(FOLDER, oid)
        if not tree and not folder.is_kept:
            return None
        made = GitObject.of(ObjectKind.TREE, write_tree(tree))
        if made.oid != folder.before:
            self.objects.append(made)
        return made.oid


class _Folder:
    """A folder that was opened to be changed. ``before`` is the tree that it was, if it was one; one that ``is_kept``
    stays where it is empty.
    """

    __slots__ = ("before", "is_kept", "items")

    def __init__(self, before: bytes | None, items: dict[str, TreeItem | _Folder]) -> None:
        self.before = before
        self.is_kept = False
        self.items = items
