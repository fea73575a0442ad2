"""A process whose system refuses something: threads, or locks. ``python -m tests.faults.refused WHAT xet-arguments…``

It is the system itself that refuses, by a filter of system calls (seccomp) that the process puts upon itself. Exit code
77 says that there are no such filters here.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys
from typing import Final

UNSUPPORTED: Final = 77

# The architecture, and the numbers of fcntl, flock, clone and clone3.
_MACHINES: Final = {"x86_64": (0xC000003E, 72, 73, 56, 435), "aarch64": (0xC00000B7, 25, 32, 220, 435)}
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE = 0, 4
_CLONE_THREAD: Final = 0x10000
_LOCK_COMMANDS: Final = (6, 7, 37, 38)


def _argument(index: int) -> int:
    return 16 + 8 * index


def _program(what: str) -> list[tuple[int, int, int, int]]:
    """Instructions: code, jump if true, jump if false, operand."""
    architecture, fcntl, flock, clone, clone3 = _MACHINES[platform.machine()]
    program = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _ALLOW)]
    program += [(_LOAD, 0, 0, _NUMBER)]
    if what == "locks":
        refuse = (_RETURN, 0, 0, _ERRNO | errno.ENOLCK)
        program += [(_EQUAL, 0, 1, flock), refuse, (_EQUAL, 1, 0, fcntl), (_RETURN, 0, 0, _ALLOW)]
        program += [(_LOAD, 0, 0, _argument(1))]
        for command in _LOCK_COMMANDS:
            program += [(_EQUAL, 0, 1, command), refuse]
    else:
        # The newer call has its flags in memory, where no filter looks: without it the older one is made.
        program += [(_EQUAL, 0, 1, clone3), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
        program += [(_EQUAL, 1, 0, clone), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, _argument(0))]
        program += [(_ANY_BIT, 0, 1, _CLONE_THREAD), (_RETURN, 0, 0, _ERRNO | errno.EAGAIN)]
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def refuse(what: str) -> None:
    """Have the system refuse ``threads`` or ``locks`` from now on. Exits with 77 where that cannot be."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        sys.exit(UNSUPPORTED)
    libc = ctypes.CDLL(None, use_errno=True)
    packed = b"".join(struct.pack("HBBI", *instruction) for instruction in _program(what))
    code = ctypes.create_string_buffer(packed, len(packed))
    program = struct.pack("HxxxxxxP", len(packed) // 8, ctypes.addressof(code))
    pr_set_no_new_privs, pr_set_seccomp, filters = 38, 22, 2
    if libc.prctl(pr_set_no_new_privs, 1, 0, 0, 0) or libc.prctl(pr_set_seccomp, filters, program, 0, 0):
        sys.exit(UNSUPPORTED)


if __name__ == "__main__":
    refuse(sys.argv.pop(1))
    from xetstore.cli.main import run

    run()
