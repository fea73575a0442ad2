"""Trees of one repository in one snapshot of the index: read level by level, and remembered by their ids."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from xetstore.errors import DamagedError
from xetstore.hub.objects import FOLDER, Tree, TreeItem, read_tree
from xetstore.hub.queries import BlobRow, HubReader
from xetstore.platform import forks
from xetstore.protocol.hashes import Hash

CACHED_ITEMS: Final = 400_000
"""Names of trees that are remembered, and as many blobs: some 100 MB at most."""
_READ_AHEAD: Final = 100
"""Names in a folder among which the folders are read by one query."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a folder of a revision. ``oid`` is the git id, 20 bytes; ``size`` the bytes of the file, 0 of a folder.

    A file of the store has ``sha256``, the bytes of its pointer, and its Xet ``file``; else they are None. One that was
    deleted for good has no ``file``.
    """

    path: str
    mode: int
    oid: bytes
    size: int = 0
    sha256: bytes | None = None
    pointer_size: int | None = None
    file: Hash | None = None

    @property
    def is_folder(self) -> bool:
        """True if it is a folder."""
        return TreeItem(self.mode, self.oid).is_folder

    @property
    def id(self) -> str:
        """The git id in 40 hexadecimal digits."""
        return self.oid.hex()


class TreeCache:
    """Trees and blobs that were read, by repository and id: both never change. Thread-safe; the oldest go.

    The file that a blob points at may be deleted for good, perhaps by another process: blobs count as long as nothing
    of their repository is, which the time ``shrunk_at`` tells.
    """

    def __init__(self, most: int = CACHED_ITEMS) -> None:
        self._most = most
        self._lock = forks.lock()
        self._trees: OrderedDict[tuple[int, bytes], Tree] = OrderedDict()
        self._items = 0
        self._blobs: OrderedDict[tuple[int, float, bytes], BlobRow] = OrderedDict()

    def tree(self, repository_id: int, oid: bytes) -> Tree | None:
        """A tree, if it is remembered."""
        with self._lock:
            tree = self._trees.get((repository_id, oid))
            if tree is not None:
                self._trees.move_to_end((repository_id, oid))
            return tree

    def add_tree(self, repository_id: int, oid: bytes, tree: Tree) -> None:
        """Remember a tree."""
        with self._lock:
            if (repository_id, oid) in self._trees or len(tree) > self._most // 2:
                return
            self._trees[repository_id, oid] = tree
            self._items += len(tree) + 1
            while self._items > self._most:
                _, gone = self._trees.popitem(last=False)
                self._items -= len(gone) + 1

    def blobs(self, repository_id: int, shrunk_at: float, oids: Iterable[bytes]) -> dict[bytes, BlobRow]:
        """Those of these blobs that are remembered."""
        with self._lock:
            return {oid: row for oid in oids if (row := self._blobs.get((repository_id, shrunk_at, oid))) is not None}

    def add_blobs(self, repository_id: int, shrunk_at: float, blobs: dict[bytes, BlobRow]) -> None:
        """Remember blobs. One that points at nothing may come to point at a file, and is not remembered by this."""
        with self._lock:
            self._blobs.update({(repository_id, shrunk_at, oid): row for oid, row in blobs.items()})
            while len(self._blobs) > self._most:
                self._blobs.popitem(last=False)

    def forget_blobs(self, repository_id: int, shrunk_at: float, oids: Iterable[bytes]) -> None:
        """Forget blobs: they point at nothing any more."""
        with self._lock:
            for oid in oids:
                self._blobs.pop((repository_id, shrunk_at, oid), None)


class TreeReader:
    """The trees of a repository. Of one thread, and of use as long as the snapshot of ``reader`` is.

    ``shrunk_at`` is that of its row, where entries are described.
    """

    def __init__(self, reader: HubReader, repository_id: int, cache: TreeCache, shrunk_at: float = 0.0) -> None:
        self._reader = reader
        self._id = repository_id
        self._cache = cache
        self._shrunk_at = shrunk_at

    def trees(self, oids: Collection[bytes]) -> dict[bytes, Tree]:
        """These trees, in one query for those that are not remembered. Raises DamagedError for one that is missing."""
        found = {oid: tree for oid in oids if (tree := self._cache.tree(self._id, oid)) is not None}
        rest = {oid for oid in oids if oid not in found}
        if rest:
            for oid, _, data in self._reader.objects(self._id, rest):
                found[oid] = read_tree(data)
                self._cache.add_tree(self._id, oid, found[oid])
            if missing := rest - found.keys():
                raise DamagedError(f"a repository lacks the tree {missing.pop().hex()}")
        return found

    def tree(self, oid: bytes) -> Tree:
        """One of them."""
        return self.trees([oid])[oid]

    def blob(self, oid: bytes) -> bytes:
        """The bytes of a file that the repository itself keeps. Raises DamagedError for one that is missing."""
        found = self._reader.object(self._id, oid)
        if found is None:
            raise DamagedError(f"a repository lacks the file {oid.hex()}")
        return found[1]

    def at(self, root: bytes, path: str) -> TreeItem | None:
        """The item at a path below a root tree; None if there is none."""
        item = TreeItem(FOLDER, root)
        for part in path.split("/") if path else ():
            if not item.is_folder:
                return None
            below = self.tree(item.oid).get(part)
            if below is None:
                return None
            item = below
        return item

    def at_each(self, root: bytes, paths: Collection[str]) -> dict[str, TreeItem]:
        """The items at those of these paths where there is one. A level of folders is one query."""
        left: dict[str, tuple[bytes, list[str]]] = {path: (root, path.split("/")) for path in paths}
        found: dict[str, TreeItem] = {}
        while left:
            trees = self.trees({oid for oid, _ in left.values()})
            deeper: dict[str, tuple[bytes, list[str]]] = {}
            for path, (oid, parts) in left.items():
                item = trees[oid].get(parts[0])
                if item is None:
                    continue
                if len(parts) == 1:
                    found[path] = item
                elif item.is_folder:
                    deeper[path] = (item.oid, parts[1:])
            left = deeper
        return found

    def walk(
        self, root: bytes, folder: str = "", *, recursive: bool, after: str | None = None
    ) -> Iterator[tuple[str, TreeItem]]:
        """Paths and items below a tree that stands for ``folder``: by name, a folder before its content.

        With ``after`` those behind that path. Only trees on the way are read, some at a time in one query.
        """
        prefix = f"{folder}/" if folder else ""
        behind = () if after is None else tuple(after.removeprefix(prefix).split("/"))
        yield from self._walk(root, prefix, behind, recursive=recursive)

    def _walk(
        self, oid: bytes, prefix: str, behind: tuple[str, ...], *, recursive: bool
    ) -> Iterator[tuple[str, TreeItem]]:
        tree = self.tree(oid)
        names = list(tree)
        first = bisect_left(names, behind[0]) if behind else 0
        read = first
        for number in range(first, len(names)):
            name = names[number]
            item = tree[name]
            is_on_the_way = bool(behind) and name == behind[0]
            if not is_on_the_way:
                yield prefix + name, item
            if recursive and item.is_folder:
                if number >= read:
                    read = number + _READ_AHEAD
                    ahead = (tree[each] for each in names[number:read])
                    self.trees({each.oid for each in ahead if each.is_folder})
                below = behind[1:] if is_on_the_way else ()
                yield from self._walk(item.oid, f"{prefix}{name}/", below, recursive=True)

    def described(self, items: Collection[tuple[str, TreeItem]]) -> Iterator[Entry]:
        """Entries for paths and items; one query for the blobs that are not remembered."""
        oids = {item.oid for _, item in items if not item.is_folder}
        blobs = self._cache.blobs(self._id, self._shrunk_at, oids)
        if rest := oids - blobs.keys():
            new = self._reader.blobs(self._id, rest)
            kept = {oid: row for oid, row in new.items() if row.file or row.size > 1024}
            self._cache.add_blobs(self._id, self._shrunk_at, kept)
            blobs |= new
        for path, item in items:
            row = blobs.get(item.oid)
            if item.is_folder or row is None:  # the commit of a submodule is another repository's
                yield Entry(path, item.mode, item.oid)
            elif row.pointer is None:
                yield Entry(path, item.mode, item.oid, row.size)
            else:
                yield Entry(path, item.mode, item.oid, row.pointer.size, row.pointer.sha256, row.size, row.file)
