"""Children of a process that forks: each ends with 0, or with what went wrong on stderr, or by a signal if it hangs."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Final

CHILD_SECONDS: Final = 60
"""A child that takes longer hangs."""

# Since Python 3.12 a fork beside threads warns: it is what is tested here.
warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")


def in_child(work: Callable[[], None]) -> int:
    """Fork; the process that does the work, and ends with 0 if it was done."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(CHILD_SECONDS)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def failures(pids: list[int]) -> list[str]:
    """How those of the children ended that did not end well."""
    found = []
    for pid in pids:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code == -signal.SIGALRM:
            found.append(f"child {pid} hung")
        elif code:
            found.append(f"child {pid} ended with {code}")
    return found
