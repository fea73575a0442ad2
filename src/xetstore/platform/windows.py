"""Locks of files on Windows, with the words of fcntl."""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

assert sys.platform == "win32"

import msvcrt  # noqa: E402

LOCK_SH: Final = 1
LOCK_EX: Final = 2
LOCK_NB: Final = 4
LOCK_UN: Final = 8

_PLACE: Final = 0x7FFF_FFF0
"""The byte that is locked: one that is locked can neither be read nor written by others, so it lies behind the data."""


def flock(descriptor: int, operation: int) -> None:
    """Lock a file against other processes, without waiting whatever ``operation`` says; or unlock it.

    Raises BlockingIOError where another one holds the lock. Shared locks are exclusive ones.
    """
    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, _PLACE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK if operation & LOCK_UN else msvcrt.LK_NBLCK, 1)
    except PermissionError as error:
        if operation & LOCK_UN:
            return  # it was not locked
        raise BlockingIOError(errno.EAGAIN, error.strerror) from error
    finally:
        os.lseek(descriptor, position, os.SEEK_SET)


def lockf(_file: object, _operation: int) -> None:
    """Nothing: it tells file systems without locks of ranges from others, and on Windows all have them."""
