"""Signals: what differs between systems."""

from __future__ import annotations

import os
import signal
import sys
import threading


def signal_pipe() -> int:
    """A pipe, the end to read from: it gets the number of each signal as a byte. In the main thread."""
    reader, writer = os.pipe()
    if sys.platform != "win32":  # where a pipe cannot be set so, and need not be
        os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def to_main_thread(number: int) -> None:
    """Let the main thread see a signal that another one may have got.

    On Windows it does so when the call that it is in has ended.
    """
    if sys.platform == "win32":
        signal.raise_signal(number)
    else:
        signal.pthread_kill(threading.main_thread().ident or 0, number)
