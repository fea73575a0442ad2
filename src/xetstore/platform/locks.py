"""Locks of whole files (flock), and file systems that have none, such as some of a network."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Final

from xetstore.errors import UnavailableError

Flock = Callable[[int, int], None]
"""As fcntl.flock."""

_NO_LOCKS: Final = frozenset((errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL))


class Lock(Enum):
    """The outcome of an attempt to lock a file."""

    OURS = "ours"
    TAKEN = "taken"
    MISSING = "missing"


def try_lock(fd: int, *, flock: Flock = fcntl.flock) -> Lock:
    """Lock an open file against other processes without waiting: MISSING where its file system has no locks.

    It is unlocked by :func:`unlock`, or when ``fd`` and all copies of it are closed. Raises OSError for anything else.
    """
    try:
        flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Lock.TAKEN
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return Lock.MISSING
        raise
    return Lock.OURS


def unlock(fd: int) -> None:
    """Unlock a file that may be locked. Closing would not do where a child that was forked meanwhile has a copy."""
    fcntl.flock(fd, fcntl.LOCK_UN)


Lockf = Callable[..., None]
"""As fcntl.lockf."""


def has_range_locks(path: Path, *, lockf: Lockf = fcntl.lockf) -> bool:
    """True unless the file system of a file that can be read has no locks of ranges (fcntl), as databases need them.

    Closing a file lets go of all such locks of the process on it: ``path`` must be one that nothing else locks.
    """
    with path.open("rb") as file:
        try:
            lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in _NO_LOCKS
    return True


def no_locks(where: str) -> UnavailableError:
    """The error of a store on a file system without locks."""
    return UnavailableError(
        f"the file system of {where} has no locks, which a store needs",
        hint="keep it on a file system of this machine, or run the lock service of the network's",
    )
