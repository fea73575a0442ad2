"""Files that only their owner may read, in the access folder of a store: read, locked, replaced durably.

Three rules hold for every file in it: who changes one holds the lock of the folder; a change replaces the whole
file, durably, so that readers need no lock; and a file that others may read is refused, since it cannot be known who
has read it.
"""

# ruff: noqa: PTH104, PTH108, PTH116  # the calls of `os`, in their order, are the promise

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from xetstore.errors import AccessDeniedError, UnavailableError, XetError, kind_of
from xetstore.platform.files import NoRegularFileError, open_regular, sync_folder
from xetstore.platform.locks import Lock, no_locks, try_lock, unlock

LOCK_SECONDS: Final = 10.0
"""The wait for another process that changes the same folder. A change takes milliseconds."""

_PRIVATE_FILE: Final = 0o600


Stamp = tuple[int, int, int]
"""Which version of a file this is: inode, size and time. A file that was replaced or has grown has another one."""


def stamp_of(found: os.stat_result) -> Stamp:
    """The stamp of a file."""
    return found.st_ino, found.st_size, found.st_mtime_ns


def read_private(path: Path) -> tuple[bytes, Stamp] | None:
    """All of a file that only its owner may read, and its stamp; None if there is none.

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
        if found.st_mode & 0o077:
            raise AccessDeniedError(
                f"others than its owner may read or write {shown(path)} (its mode is {found.st_mode & 0o777:03o})",
                hint=f"chmod 600 {shown(path)}, in the store's directory; if a key has been read: xet token rotate",
            )
        return file.read(), stamp_of(found)


def replace_file(path: Path, data: bytes) -> None:
    """Make ``data`` the content of a private file, durably, or change nothing. Raises OSError.

    Objects never change, which is why ``write_new_object`` never replaces one; keys and revocations do change.
    The caller holds the lock of the folder, so that one name does for the unfinished file, and the next change
    sweeps what a crash has left.
    """
    unfinished = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(unfinished)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            give_to_owner_of(path.parent, descriptor)
            os.fsync(descriptor)
        os.rename(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of an access folder, against other threads and processes. Raises UnavailableError and OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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


def give_to_owner_of(folder: Path, target: Path | int) -> None:
    """Give a file to the owner of the store: what the superuser writes must not lock that user out."""
    if os.geteuid() == 0:
        owner = os.stat(folder)
        with contextlib.suppress(OSError):  # a superuser of his own container only
            os.chown(target, owner.st_uid, owner.st_gid)
