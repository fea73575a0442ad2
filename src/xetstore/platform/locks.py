"""Locks of whole files (flock), and file systems that have none, such as some of a network."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Final

from xetstore.errors import UnavailableError
from xetstore.platform.descriptors import BINARY

if sys.platform == "win32":
    from xetstore.platform.windows import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN
    from xetstore.platform.windows import flock as flock
    from xetstore.platform.windows import lockf as lockf
else:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN
    from fcntl import flock as flock
    from fcntl import lockf as lockf

Flock = Callable[[int, int], None]
"""As fcntl.flock."""

_NO_LOCKS: Final = frozenset((errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL))

_LOCK_FILE: Final = ".lock"


class Lock(Enum):
    """The outcome of an attempt to lock a file."""

    OURS = "ours"
    TAKEN = "taken"
    MISSING = "missing"


def try_lock(fd: int, *, flock: Flock = flock) -> Lock:
    """Lock an open file against other processes without waiting: MISSING where its file system has no locks.

    It is unlocked by :func:`unlock`, or when ``fd`` and all copies of it are closed. Raises OSError for anything else.
    """
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return Lock.TAKEN
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return Lock.MISSING
        raise
    return Lock.OURS


def unlock(fd: int) -> None:
    """Unlock a file that may be locked. Closing would not do where a child that was forked meanwhile has a copy."""
    flock(fd, LOCK_UN)


def open_for_lock(folder: Path | str) -> int:
    """A descriptor by which a folder is locked: of itself, or on Windows of a file in it. Raises OSError."""
    if sys.platform == "win32":
        return os.open(f"{folder}/{_LOCK_FILE}", os.O_RDWR | os.O_CREAT | BINARY, 0o600)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


Lockf = Callable[..., None]
"""As fcntl.lockf."""


def has_range_locks(path: Path, *, lockf: Lockf = lockf) -> bool:
    """True unless the file system of a file that can be read has no locks of ranges (fcntl), as databases need them.

    Closing a file lets go of all such locks of the process on it: ``path`` must be one that nothing else locks.
    """
    with path.open("rb") as file:
        try:
            lockf(file, LOCK_SH | LOCK_NB)
        except OSError as error:
            return error.errno not in _NO_LOCKS
    return True


def no_locks(where: str) -> UnavailableError:
    """The error of a store on a file system without locks."""
    return UnavailableError(
        f"the file system of {where} has no locks, which a store needs",
        hint="keep it on a file system of this machine, or run the lock service of the network's",
    )
