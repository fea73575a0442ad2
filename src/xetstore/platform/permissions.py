"""Permissions: who else may read or write a file, and whose it is.

Windows has lists of permissions, which a file takes from its folder, and no mode that would tell of them: there the
folder that a user chose for secrets is the user's word that others may not read it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Final

OTHERS: Final = 0o077
"""The bits of a mode that let others than the owner do something."""
OTHERS_WRITE: Final = 0o022


def lets_others(mode: int, bits: int) -> bool:
    """True if a mode has one of these bits; never on Windows, where it says nothing."""
    return sys.platform != "win32" and bool(mode & bits)


def is_own(info: os.stat_result) -> bool:
    """True if a file is this user's. On Windows every file counts as that."""
    return not hasattr(os, "geteuid") or info.st_uid == os.geteuid()


def give_to_owner_of(folder: Path, target: Path | int) -> None:
    """Give a file to the owner of its folder: what the superuser writes must not lock that user out."""
    if sys.platform != "win32" and os.geteuid() == 0:
        owner = os.stat(folder)  # noqa: PTH116
        with contextlib.suppress(OSError):  # a superuser of his own container only
            os.chown(target, owner.st_uid, owner.st_gid)
