"""Writing through fsspec: a write is one commit, and a transaction, or one call for many files, is one of many.

A name without a repository, ``xet://data.parquet``, is stored by its bytes alone, and its hash is told.
"""

from __future__ import annotations

import errno
import io
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from fsspec.transaction import Transaction

from xetstore.fs.stores import Stores, os_errors
from xetstore.protocol.hashes import Hash
from xetstore.records import RepoFile
from xetstore.remote.hub.locators import DEFAULT_REVISION, HubLocator

Content = Path | bytes | RepoFile
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


@dataclass
class BranchChanges:
    """Changes to one branch: content by path, and paths to delete."""

    add: dict[str, Content] = field(default_factory=dict)
    delete: dict[str, None] = field(default_factory=dict)

    def write(self, path: str, content: Content) -> None:
        """Have a path hold this content."""
        self.add[path] = content

    def remove(self, path: str) -> None:
        """Have a path hold nothing, and nothing be below it."""
        for one in [one for one in self.add if one == path or one.startswith(f"{path}/")]:
            del self.add[one]
        self.delete[path] = None


class XetTransaction(Transaction):  # type: ignore[misc]  # fsspec has no types
    """Writes, copies and deletions that become one commit for each branch, when it ends without an error."""

    def __init__(self, fs: WritableFileSystem, **more: Any) -> None:
        super().__init__(fs, **more)
        self.branches: dict[HubLocator, BranchChanges] = {}
        self.stored: dict[str, Path | bytes] = {}

    def complete(self, commit: bool = True) -> None:
        """Commit, or forget all of it."""
        fs = self.fs
        written = list(self.files)
        self.files.clear()
        try:
            if commit:
                for file in written:
                    file.commit()
                for root, changes in self.branches.items():
                    fs.commit_changes(root, changes)
                fs.store_contents(self.stored)
        finally:
            self.branches.clear()
            self.stored.clear()
            for file in written:
                file.discard()
            fs._intrans = False
            fs._transaction = None
            fs.invalidate_cache()


class XetWriter(AbstractBufferedFile):  # type: ignore[misc]
    """A file that is being written, on the disk here until it is closed; then it is committed, or stored.

    One that is left by an exception, or forgotten, is not.
    """

    def __init__(self, fs: WritableFileSystem, path: str, mode: str, before: bytes = b"", **more: Any) -> None:
        self._temporary: Path | None = None
        super().__init__(fs, path, mode, **more)
        descriptor, name = tempfile.mkstemp(prefix="xet-")
        self._temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(before)
        self.loc = len(before)

    def _initiate_upload(self) -> None:
        """Nothing: the file is there."""

    def _upload_chunk(self, final: bool = False) -> bool:
        assert self._temporary is not None
        with self._temporary.open("ab") as file:
            file.write(self.buffer.getvalue())
        if final and self.autocommit:
            try:
                self.commit()
            finally:
                self.discard()
        return True

    @property
    def xet_hash(self) -> Hash | None:
        """The hash by which the file was stored, after it was closed, and not in a repository."""
        return self.fs.written.get(self.path)  # type: ignore[no-any-return]

    def commit(self) -> None:
        """Commit the file; in a transaction, have it committed."""
        if self._temporary is not None:
            self.fs.change(self.path, self._temporary)

    def discard(self) -> None:
        """Forget what was written."""
        if self._temporary is not None:
            with suppress(OSError):
                self._temporary.unlink()
            self._temporary = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        self.closed = True
        self.discard()

    def __del__(self) -> None:
        self.closed = True
        if getattr(self, "autocommit", True):
            self.discard()


def is_name(path: str) -> bool:
    """True for a path of one part that is no hash: a file that is written so is in no repository."""
    return bool(path) and "/" not in path and not _HASH.fullmatch(path)


class WritableFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The writing half of :class:`xetstore.fs.XetFileSystem`, over ``_stores``."""

    transaction_type: ClassVar[type] = XetTransaction
    _stores: Stores
    written: dict[str, Hash]
    """The files that were stored without a repository, by the names that they were written under here."""

    def locator(self, path: str) -> HubLocator:
        """The file or folder of a repository that a path names. Raises UsageError for one that cannot be written."""
        raise NotImplementedError

    def change(self, path: str, content: Content | None) -> None:
        """Commit the content of a path, None for nothing; in a transaction, with all of it. Without a repository it is
        stored.
        """
        transaction = self._transaction if self._intrans else None
        if is_name(path) and isinstance(content, Path | bytes):
            if transaction is None:
                self.store_contents({path: content})
            else:
                transaction.stored[path] = content
            return
        locator = self.locator(path)
        root = locator.at("")
        branches = {} if transaction is None else transaction.branches
        changes = branches.setdefault(root, BranchChanges())
        if content is None:
            changes.remove(locator.path)
        else:
            changes.write(locator.path, content)
        if transaction is None:
            self.commit_changes(root, changes)

    def commit_changes(self, root: HubLocator, changes: BranchChanges) -> None:
        """Make one commit on a branch."""
        with os_errors(str(root)):
            repository = self._stores.repo(root)
            branch = root.revision or DEFAULT_REVISION
            names = list(changes.delete)
            there = {file.path for file in repository.files_at(names, branch)} if names else set()
            add: Mapping[str, Any] = changes.add
            repository.commit(add, [path for path in names if path in there], branch=branch)
        self.invalidate_cache()

    def store_contents(self, contents: Mapping[str, Path | bytes]) -> None:
        """Store contents in the store that is named, together, and keep their names for reads of this filesystem."""
        if not contents:
            return
        with os_errors(next(iter(contents))):
            reports = self._stores.named().put_many(contents.values())
        self.written |= {path: report.info.hash for path, report in zip(contents, reports, strict=True)}
        self.invalidate_cache()

    @contextmanager
    def one_commit(self) -> Iterator[None]:
        """All that is written in the block is one commit, or belongs to the transaction around it."""
        if self._intrans:
            yield
            return
        with self.transaction:
            yield

    def open_writer(self, path: str, mode: str, block_size: int, autocommit: bool, **more: Any) -> XetWriter:
        """A file to be written. ``xb`` raises FileExistsError where there is one, ``ab`` goes on behind its end."""
        if mode not in ("wb", "xb", "ab"):
            raise io.UnsupportedOperation(f"a file is opened to be read or to be written, and not for {mode!r}")
        with os_errors(path):
            if is_name(path):
                self._stores.named()
            else:
                locator = self.locator(path)
                if not locator.path:
                    raise IsADirectoryError(errno.EISDIR, "it is a repository, not a file", path)
                self._stores.repo(locator).info()
        before = b""
        if mode == "xb" and self.exists(path):
            raise FileExistsError(errno.EEXIST, "it is there already", path)
        if mode == "ab" and self.isfile(path):
            before = self.cat_file(path)
        elif self.isdir(path):
            raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", path)
        return XetWriter(self, path, mode, before, block_size=block_size, autocommit=autocommit, **more)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Commit bytes as a file."""
        path = self._strip_protocol(path)
        if mode == "create" and self.exists(path):
            raise FileExistsError(errno.EEXIST, "it is there already", path)
        with os_errors(path):
            self.change(path, bytes(value))

    def pipe(self, path: Any, value: bytes | None = None, **more: Any) -> None:
        """Commit bytes as a file, or those of several files in one commit."""
        with self.one_commit():
            super().pipe(path, value, **more)

    def put_file(
        self, lpath: Any, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite", **_: Any
    ) -> None:
        """Commit a local file. A folder alone is nothing."""
        rpath = self._strip_protocol(rpath)
        local = Path(lpath)
        if local.is_dir():
            return
        if mode == "create" and self.exists(rpath):
            raise FileExistsError(errno.EEXIST, "it is there already", rpath)
        size = local.stat().st_size
        callback.set_size(size)
        with os_errors(rpath):
            self.change(rpath, local)
        callback.relative_update(size)

    def put(self, lpath: Any, rpath: Any, recursive: bool = False, **more: Any) -> None:
        """Commit local files in one commit."""
        with self.one_commit():
            super().put(lpath, rpath, recursive=recursive, **more)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Commit a file under another name. Within a store no bytes of large files are moved."""
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        if self.isdir(path1):
            return
        with os_errors(path1):
            old, new = self.locator(path1), self.locator(path2)
            source, target = self._stores.repo(old), self._stores.repo(new)
            file = source.file(old.path, old.revision or DEFAULT_REVISION)
            if file.sha256 is not None and target.adopt(source, file):
                self.change(path2, file)
            else:
                self.change(path2, self.cat_file(path1))

    def copy(self, path1: Any, path2: Any, recursive: bool = False, **more: Any) -> None:
        """Commit copies in one commit."""
        with self.one_commit():
            super().copy(path1, path2, recursive=recursive, **more)

    def mv(self, path1: Any, path2: Any, recursive: bool = False, **more: Any) -> None:
        """Move in one commit, where both paths are on one branch."""
        with self.one_commit():
            super().mv(path1, path2, recursive=recursive, **more)

    def rm_file(self, path: str) -> None:
        """Delete a file by a commit."""
        path = self._strip_protocol(path)
        kind = self.info(path)["type"]
        if kind == "directory":
            raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", path)
        with os_errors(path):
            self.change(path, None)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Delete files, and folders if ``recursive``, in one commit."""
        with self.one_commit():
            for one in self.expand_path(path, recursive=False):
                if self.info(one)["type"] != "directory":
                    self.rm_file(one)
                elif recursive and maxdepth is None:
                    with os_errors(one):
                        if not self.locator(one).path:
                            raise PermissionError(errno.EPERM, "it is a repository: Store.delete_repo deletes it", one)
                        self.change(one, None)
                elif recursive:
                    for below in self.find(one, maxdepth=maxdepth):
                        self.rm_file(below)
                else:
                    raise IsADirectoryError(errno.EISDIR, "it is a folder: give recursive=True", one)

    def touch(self, path: str, truncate: bool = True, **_: Any) -> None:
        """Commit an empty file."""
        if not truncate and self.exists(path):
            raise NotImplementedError("a file has no time of its own")
        self.pipe_file(path, b"")

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Nothing: a folder is there as soon as a file in it is."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing, as :meth:`mkdir`."""

    def rmdir(self, path: str) -> None:
        """Nothing: a folder is gone with its last file."""
