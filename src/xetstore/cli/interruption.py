"""Ctrl-C and SIGTERM: unwind, so that nothing half-written stays, and be gone soon whatever hangs.

The first one raises KeyboardInterrupt in the main thread and wakes what waits for a network in others. The unwinding
has its time, and no more; a second Ctrl-C ends it at once. A thread beside it keeps that time, told of the signal
through a pipe, since a main thread in a name lookup does not see a signal before the lookup ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
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

SAME_SECONDS: Final = 0.3
"""Another signal within this time is the same one: some parents send it to a process and to its group."""

_open_stores: WeakSet[Store] = WeakSet()
_seen = threading.Event()
_finished = threading.Event()
_watching = False
_seen_at = 0.0
_hint = ""
_is_said = False


def going_on(hint: str) -> None:
    """Say how the work of the command can go on, should it be interrupted from now on."""
    global _hint
    _hint = hint


def farewell() -> str:
    """The last words of an interrupted command; empty if they were said."""
    global _is_said
    if _is_said:
        return ""
    _is_said = _seen.is_set()
    return "xet: interrupted" + (f"\nhint: {_hint}" if _hint else "")


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


def _on_signal(number: int, _frame: FrameType | None) -> None:
    global _seen_at
    if _seen.is_set():
        _on_another(number)
    else:
        _seen_at = time.monotonic()
        _seen.set()
        with contextlib.suppress(UnavailableError):
            start_thread(_wake_up, name="interruption")
        raise KeyboardInterrupt


def _on_another(number: int) -> None:
    if number == signal.SIGINT and time.monotonic() - _seen_at > SAME_SECONDS:
        _give_up()


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
        if _seen.is_set():
            _on_another(number[0])
        elif number[0] in (signal.SIGINT, signal.SIGTERM) and not _seen.wait(0.05):
            # Another thread may have got it, which wakes none.
            to_main_thread(number[0])
            if not _seen.wait(UNSEEN_SECONDS):
                _give_up()


def _give_up() -> NoReturn:
    # Not by sys.stderr: what it interrupts may be writing to it.
    if words := farewell():
        with contextlib.suppress(OSError):
            os.write(2, f"\n{words}\n".encode())
    os._exit(INTERRUPTED)
