"""Secrets: the small documents of a store that only its owner may read: keys, revocations, the token of its admin.

:class:`FileSecrets` keeps them in the access folder of a store. Three rules hold for every file in it: who changes one
holds the lock of the folder; a change replaces the whole file, durably, so that readers need no lock; and a file that
others may read is refused, since it cannot be known who has read it.
"""

# ruff: noqa: PTH102, PTH108, PTH116  # the calls of `os`, in their order, are the promise

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol, Self

from xetstore.errors import AccessDeniedError, UnavailableError, XetError, kind_of
from xetstore.platform.descriptors import CREATE
from xetstore.platform.files import NoRegularFileError, open_regular, replace, sync_file, sync_folder
from xetstore.platform.locks import Lock, no_locks, open_for_lock, try_lock, unlock
from xetstore.platform.permissions import OTHERS, OTHERS_WRITE, give_to_owner_of, lets_others

LOCK_SECONDS: Final = 10.0
"""The wait for another process that changes the same folder. A change takes milliseconds."""

KEYS: Final = "keys.json"
REVOKED: Final = "revoked"
ADMIN_TOKEN: Final = "admin-token"
DOCUMENTS: Final = (KEYS, REVOKED, ADMIN_TOKEN)
"""The names of all documents of a store."""

_PRIVATE_FILE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700

Version = tuple[int, ...]
"""Which version of a document this is. One that was changed has another; it has no order, and is compared only."""


class Secrets(Protocol):
    """Small secret documents by name. Thread-safe, and safe between processes: a change is seen by all at once.

    Every method raises AccessDeniedError if the document cannot be read, or others may read it, and UnavailableError or
    StorageFullError if the place where it is kept does not answer.
    """

    def version(self, name: str) -> Version | None:
        """The version of a document; None if there is none. Quick, because it is asked for with every request."""

    def read(self, name: str) -> tuple[bytes, Version] | None:
        """A document, and its version; None if there is none."""

    def change(self, name: str, edit: Callable[[bytes | None], bytes | None]) -> None:
        """Replace a document by what ``edit`` makes of it (of None: there is none); it stays where that is None.

        One change at a time. Durable on return; where ``edit`` raises, nothing changes.
        """

    def clock(self) -> float:
        """Unix seconds by the clock that all who share them have in common. Asks nothing."""

    def followed(self) -> AbstractContextManager[None]:
        """Answer from memory as long as the block runs, where questions would wait otherwise: for an event loop."""

    def label(self, name: str) -> str:
        """A document in messages, which are sent to strangers: where a store lies is not their business."""


class FileSecrets:
    """Secrets in files of one folder, such as ``access/keys.json``. Thread-safe, and safe between processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._start = f"{folder}/"

    @classmethod
    def open(cls, folder: Path, *, create: bool) -> Self:
        """The secrets in ``folder``, which is made with ``create``; the directory above it is there.

        Raises AccessDeniedError if others may write to the folder.
        """
        try:
            if create and not folder.is_dir():
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, _PRIVATE_FOLDER)
                    give_to_owner_of(folder.parent, folder)
                sync_folder(folder.parent)
            if folder.is_dir() and lets_others(folder.stat().st_mode, OTHERS_WRITE):
                raise AccessDeniedError(
                    f"others may write to the folder {folder.name}, and so replace the keys in it",
                    hint=f"chmod 700 {folder.name}, in the store's directory",
                )
        except XetError:
            raise
        except OSError as error:
            raise access_error(error, f"the folder {folder.name} cannot be opened") from error
        return cls(folder)

    def version(self, name: str) -> Version | None:
        """Inode, size and time of the file: one that was replaced or has grown has others."""
        try:
            return _version_of(os.stat(self._start + name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError(f"{self.label(name)} cannot be read: {error.strerror}") from error

    def read(self, name: str) -> tuple[bytes, Version] | None:
        """All of a file, and its version. AccessDeniedError also if it is no regular file."""
        try:
            return read_private(self.folder / name)
        except XetError:
            raise
        except OSError as error:
            raise access_error(error, f"{self.label(name)} cannot be read") from error

    def change(self, name: str, edit: Callable[[bytes | None], bytes | None]) -> None:
        """Replace a file, with the lock of the folder held."""
        try:
            with locked(self.folder):
                found = read_private(self.folder / name)
                data = edit(None if found is None else found[0])
                if data is not None:
                    replace_file(self.folder / name, data)
        except XetError:
            raise
        except OSError as error:
            raise access_error(error, f"{self.label(name)} cannot be changed") from error

    def clock(self) -> float:
        """That of this machine."""
        return time.time()

    def followed(self) -> AbstractContextManager[None]:
        """Nothing: a look at a file takes some microseconds."""
        return contextlib.nullcontext()

    def label(self, name: str) -> str:
        """The names of the folder and of the file."""
        return shown(self.folder / name)

    def __repr__(self) -> str:
        return f"FileSecrets({str(self.folder)!r})"


def read_private(path: Path) -> tuple[bytes, Version] | None:
    """All of a file that only its owner may read, and its version; None if there is none.

    Raises AccessDeniedError if others may read or write it, or if it is no regular file, and OSError.
    """
    try:
        descriptor, found = open_regular(path)
    except NoRegularFileError:
        raise AccessDeniedError(
            f"{shown(path)} is no regular file", hint="see what is there, and who put it there"
        ) from None
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if lets_others(found.st_mode, OTHERS):
            raise AccessDeniedError(
                f"others than its owner may read or write {shown(path)} (its mode is {found.st_mode & 0o777:03o})",
                hint=f"chmod 600 {shown(path)}, in the store's directory; if a key has been read: xet token rotate",
            )
        return file.read(), _version_of(found)


def replace_file(path: Path, data: bytes) -> None:
    """Make ``data`` the content of a private file, durably, or change nothing. Raises OSError.

    Objects never change, which is why ``write_new_object`` never replaces one; keys and revocations do change.
    The caller holds the lock of the folder, so that one name does for the unfinished file, and the next change
    sweeps what a crash has left.
    """
    unfinished = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(unfinished)
    descriptor = os.open(unfinished, CREATE, _PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            give_to_owner_of(path.parent, descriptor)
            sync_file(descriptor)
        replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an access folder, against other threads and processes. Raises UnavailableError and OSError."""
    descriptor = open_for_lock(folder)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            lock = try_lock(descriptor)
            if lock is Lock.OURS:
                break
            if lock is Lock.MISSING:
                raise no_locks(folder.name)
            if time.monotonic() > deadline:
                raise UnavailableError(f"another process holds the folder {folder.name} locked")
            time.sleep(0.005)
        try:
            yield
        finally:
            unlock(descriptor)
    finally:
        os.close(descriptor)


def access_error(error: OSError, what: str) -> XetError:
    """The error of ours for one of the operating system; ``what`` says what was not done."""
    message = f"{what}: {error.strerror or error}"
    kind = kind_of(error)
    if kind is AccessDeniedError:
        return AccessDeniedError(message, hint="do it as the user who owns the store")
    return kind(message) if kind is not XetError else UnavailableError(message)


def shown(path: Path) -> str:
    """A file's name in messages, which a server sends to strangers: where the store lies is not their business."""
    return f"{path.parent.name}/{path.name}"


def _version_of(found: os.stat_result) -> Version:
    return found.st_ino, found.st_size, found.st_mtime_ns
