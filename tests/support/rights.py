"""Rights of root, given up: what permissions forbid is then forbidden to the tests too, if root runs them.

A process of root that becomes another user can no longer read a checkout in a home of mode 0700, so modules that are
imported late are missing. Without its capabilities root is bound by permissions like every owner of a file, and reads
its own home.
"""

from __future__ import annotations

import ctypes
import os
import struct

_PR_CAPBSET_DROP = 24
_PR_SET_KEEPCAPS = 8
_LAST_CAPABILITY = 63
_CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: 64 bits, in two halves


def give_up() -> None:
    """Let permissions bind this process, its threads to come and what it executes. For other users than root: nothing.

    The process ends up with the user id it had, and with no capability.
    """
    if os.geteuid() != 0:
        return
    libc = _libc()
    for capability in range(_LAST_CAPABILITY + 1):
        # Else a program that root executes has it again. Fails for those that this kernel does not know.
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _keep(libc, 0)


def become(user: int) -> None:
    """Let root, in one thread, become another user who may read all that root may, its checkout among it."""
    libc = _libc()
    libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    _keep(libc, 1 << _CAP_DAC_READ_SEARCH)


def _keep(libc: ctypes.CDLL, capabilities: int) -> None:
    """Give up all but these, which are permitted and effective, and not inherited by programs that are executed."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    if libc.capset(header, struct.pack("=6I", capabilities, capabilities, 0, 0, 0, 0)):
        raise OSError(ctypes.get_errno(), "the capabilities of root could not be given up")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
