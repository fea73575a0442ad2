"""Rights of root, given up: what permissions forbid is then forbidden to the tests too, whoever runs them.

A process of root that becomes another user can no longer read a checkout in a home of mode 0700, so modules that are
imported late are missing. Without its capabilities root is bound by permissions like every owner of a file, and reads
its own home.
"""

from __future__ import annotations

import ctypes
import os
import struct

_PR_CAPBSET_DROP = 24
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: 64 bits, in two halves


def give_up() -> None:
    """Let permissions bind this process, its threads to come and what it executes. For other users than root: nothing.

    The process ends up with the user id it had, and with no capability.
    """
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(_LAST_CAPABILITY + 1):
        # Else a program that root executes has it again. Fails for those that this kernel does not know.
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    if libc.capset(header, bytes(24)):
        raise OSError(ctypes.get_errno(), "the capabilities of root could not be given up")
