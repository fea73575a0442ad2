"""Locks of whole files (flock), and file systems that have none, such as some of a network."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable
from enum import Enum
from typing import Final

Flock = Callable[[int, int], None]
"""As fcntl.flock."""

_NO_LOCKS: Final = frozenset((errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL))


class Lock(Enum):
    """What came of an attempt to lock a file."""

    OURS = "ours"
    TAKEN = "taken"
    MISSING = "missing"


def try_lock(fd: int, *, flock: Flock = fcntl.flock) -> Lock:
    """Lock an open file against other processes without waiting: MISSING where its file system has no locks.

    It is unlocked when ``fd`` is closed. Raises OSError for anything else.
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
