"""Ctrl-C and SIGTERM: unwind, so that nothing half-written stays, and be gone soon whatever hangs.

The first one raises KeyboardInterrupt in the main thread and wakes what waits for a network in others. Further ones
change nothing: the unwinding has its time, and no more. A thread beside it keeps that time, told of the signal through
a pipe, since a main thread in a name lookup does not see a signal before the lookup ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final, NoReturn
from weakref import WeakSet

from xetstore.errors import UnavailableError
from xetstore.platform.signals import signal_pipe, to_main_thread
from xetstore.platform.threads import start_thread

if TYPE_CHECKING:
    from types import FrameType

    from xetstore.store import Store

INTERRUPTED: Final = 130

UNSEEN_SECONDS: Final = 0.7
"""A main thread that has not seen the signal by then hangs in the system, and has nothing to unwind."""

UNWIND_SECONDS: Final = 5.0
"""The time that the unwinding may take: a disk may be slow, while no network is waited for any more."""

_open_stores: WeakSet[Store] = WeakSet()
_seen = threading.Event()
_finished = threading.Event()
_watching = False


def listen() -> None:
    """Take both signals from now on; for the command as a process of its own, at its start.

    A parent that started it deaf to Ctrl-C, such as a shell that put it in the background, meant it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if number != signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)


def interruptible(store: Store) -> Store:
    """Let an interruption wake what this store waits for."""
    _open_stores.add(store)
    return store


def watch() -> None:
    """Notice a signal even where the main thread does not. To be called before anything that may hang."""
    global _watching
    if _watching or signal.getsignal(signal.SIGTERM) is not _on_signal:
        return
    _watching = True
    reader = signal_pipe()
    with contextlib.suppress(UnavailableError):  # a system that has no thread for it
        start_thread(_read, reader, name="signals")


def finish(code: int) -> int:
    """The command has ended; its exit code.

    After an interruption this does not return: threads that hang are left behind.
    """
    _finished.set()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave_on_signal)
    if code == INTERRUPTED and _seen.is_set():
        leave()
    return code


def leave() -> NoReturn:
    """End the process now, and wait for no thread."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(INTERRUPTED)


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    if not _seen.is_set():
        _seen.set()
        with contextlib.suppress(UnavailableError):
            start_thread(_wake_up, name="interruption")
        raise KeyboardInterrupt


def _leave_on_signal(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(INTERRUPTED)


def _wake_up() -> None:
    for store in list(_open_stores):
        with contextlib.suppress(Exception):
            store.interrupt()
    if not _finished.wait(UNWIND_SECONDS):
        _give_up()


def _read(reader: int) -> None:
    """Wait for a signal, and for the main thread to see it."""
    while number := os.read(reader, 1):
        if number[0] in (signal.SIGINT, signal.SIGTERM) and not _seen.wait(0.05):
            # Another thread may have got it, which wakes none.
            to_main_thread(number[0])
            if not _seen.wait(UNSEEN_SECONDS):
                _give_up()


def _give_up() -> NoReturn:
    with contextlib.suppress(OSError, ValueError):
        # A progress bar hides the cursor.
        sys.stderr.write("\x1b[?25h\n" if sys.stderr.isatty() else "\n")
        sys.stderr.write("xet: interrupted\n")
    leave()
