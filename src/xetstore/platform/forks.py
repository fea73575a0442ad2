"""Forks: state that a child must not share with its parent is made anew there, before code of the caller runs.

A child has one thread, the one that forked, and a copy of everything else as it was at that moment: locks that other
threads held stay held for ever, and sockets are shared. So

- a lock of an object that outlives a call is one of :func:`lock` or :func:`rlock`, which is free in a child;
- an object that holds connections or threads names with :func:`renew` what makes it anew in a child;
- a generator that a caller holds is :func:`bound` to the process that began it;
- what a fork must not cut in two is a :class:`Section`: a fork waits until no other thread is in one, and until no
  module that is needed here is half imported; at most :data:`WAIT_SECONDS`.

`subprocess` and `posix_spawn` do none of this, and need none: their children run another program.
"""

from __future__ import annotations

import _imp
import importlib
import itertools
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import thread as _futures
from contextlib import AbstractContextManager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from xetstore.errors import InterruptedCallError

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")

WAIT_SECONDS: Final = 5.0
"""The longest wait of a fork for other threads of the parent."""

IMPORTED: Final = sys.stdlib_module_names | {
    "xetstore",
    *("click", "cryptography", "fsspec", "httptools", "jwt", "msgspec"),
    *("prometheus_client", "psycopg", "psycopg_binary", "starlette", "typing_extensions", "urllib3", "uvicorn"),
}
"""The packages that a child may need. Of others, one whose import never ends may well be the program itself."""

_TICK_SECONDS: Final = 0.001

_numbers: Final = itertools.count()
_renewed: Final[dict[int, tuple[weakref.ref[Any], Callable[[Any], None]]]] = {}
_kept: Final[list[object]] = []
_cut_files: Final[set[tuple[int, int]]] = set()
_generation = 0


def generation() -> int:
    """A number that is another one in a child than in its parent."""
    return _generation


def renew(owner: T, function: Callable[[T], None]) -> None:
    """Have ``function(owner)`` called in every child, as long as ``owner`` lives.

    Functions are called in no particular order and use nothing of other owners. What ``owner`` held before is another
    process's: it is let go of, and not used.
    """
    number = next(_numbers)
    _renewed[number] = weakref.ref(owner, lambda _: _renewed.pop(number, None)), function


def lock() -> threading.Lock:
    """A lock that is free in a child, whichever thread held it."""
    return free(threading.Lock())


def rlock() -> Any:
    """The same for a lock that its owner may take again."""
    return free(threading.RLock())


def free(held: T) -> T:
    """The same lock or condition, which from now on is free in every child."""
    renew(held, _free)
    return held


def _free(held: Any) -> None:
    held._at_fork_reinit()  # as the standard library frees its own


def keep(inherited: object) -> None:
    """Never let an object be finalized, not even at the end of the program: what it would clean up is the parent's."""
    _kept.append(inherited)
    try:
        import ctypes
    except ImportError:  # pragma: no cover  # a Python without it finalizes it at the end
        return
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


def left_behind() -> InterruptedCallError:
    """The error of a call that goes on in the parent, and not here."""
    return InterruptedCallError(
        "the call was begun by another process, of which this one was forked", hint="make it again in this process"
    )


class Bound(Generator[T, None, R]):
    """A generator that goes on in the process that began it: in a child it raises InterruptedCallError."""

    def __init__(self, items: Generator[T, None, R]) -> None:
        self._items: Generator[T, None, R] | None = items
        renew(self, Bound._leave)

    def send(self, value: None, /) -> T:
        """The next item; StopIteration carries what the generator returned."""
        if self._items is None:
            raise left_behind()
        return self._items.send(value)

    def throw(self, kind: Any, error: Any = None, traceback: Any = None, /) -> T:  # noqa: ARG002
        """Raise an error where the generator waits."""
        if self._items is None:
            raise left_behind()
        return self._items.throw(kind if error is None else error)

    def close(self) -> None:
        """End it early."""
        if self._items is not None:
            self._items.close()

    def _leave(self) -> None:
        # Not closed, not finalized: temporary files, sockets and threads are the parent's.
        keep(self._items)
        self._items = None


def bound(begin: Callable[P, Generator[T, None, R]]) -> Callable[P, Bound[T, R]]:
    """A generator function whose generators are :class:`Bound`."""

    @wraps(begin)
    def begun(*args: P.args, **kwargs: P.kwargs) -> Bound[T, R]:
        return Bound(begin(*args, **kwargs))

    return begun


def mark_cut(path: Path) -> None:
    """Remember that a database was open when this process was forked.

    SQLite keeps the locks of a process by file: what it believes of this one is the parent's, for every connection.
    """
    with suppress(OSError):
        info = path.stat()
        _cut_files.add((info.st_dev, info.st_ino))


def is_cut(path: Path) -> bool:
    """True if SQLite must not touch this file in this process."""
    if not _cut_files:
        return False
    try:
        info = path.stat()
    except OSError:
        return False
    return (info.st_dev, info.st_ino) in _cut_files


class _Stay:
    """A thread's stay in a section. Entered for each look into an index: as a generator it would cost twice as much."""

    __slots__ = ("_generation", "_section", "_thread")

    def __init__(self, section: Section) -> None:
        self._section = section

    def __enter__(self) -> None:
        me = self._thread = threading.get_ident()
        self._generation = _generation
        with _changed:
            while _forking and me not in _inside:
                _changed.wait()
            _inside[me] = _inside.get(me, 0) + 1
            self._section.threads += 1
            self._section._is_at_rest = False

    def __exit__(self, *exc: object) -> None:
        if self._generation != _generation:
            return
        me = self._thread
        with _changed:
            self._section.threads -= 1
            _inside[me] -= 1
            if not _inside[me]:
                del _inside[me]
            if _forking:
                _changed.notify_all()


class Section:
    """Work of one ``owner`` that a fork must not cut in two. Thread-safe.

    Once no thread is at it, ``rest`` is called in the parent before it forks: to let go of what must not be inherited.
    Where threads are, though the fork has waited, ``cut`` is called in the child; so it is where a program forks in C
    and says so only afterwards.
    """

    def __init__(self, owner: T, *, rest: Callable[[T], None], cut: Callable[[T], None]) -> None:
        self._owner = weakref.ref(owner)
        self._rest: Callable[[Any], None] = rest
        self._cut: Callable[[Any], None] = cut
        self.threads = 0
        self._is_at_rest = True
        _sections[next(_numbers)] = self

    def entered(self) -> AbstractContextManager[None]:
        """Be at it. Waits while another thread is about to fork, unless this one is in a section already."""
        return _Stay(self)

    def come_to_rest(self) -> None:
        """Called in the parent, when it is about to fork."""
        owner = self._owner()
        if owner is not None and not self.threads:
            with suppress(Exception):  # then it is not at rest, and a child is told so
                self._rest(owner)
                self._is_at_rest = True

    def begin_anew(self) -> None:
        """Called in the child."""
        owner = self._owner()
        if owner is not None and not self._is_at_rest:
            self._cut(owner)
        self.threads = 0
        self._is_at_rest = True


_sections: Final[weakref.WeakValueDictionary[int, Section]] = weakref.WeakValueDictionary()
_changed = threading.Condition()
_forking = False
_inside: Final[dict[int, int]] = {}
"""In how many sections the threads are, by their number."""
_is_prepared = False
_turn = threading.Lock()
"""Held while a thread forks."""


def _before() -> None:
    """Wait for the other threads, let go of what must not be inherited, and let no import begin until it is over."""
    global _forking, _is_prepared
    _turn.acquire()
    deadline = time.monotonic() + WAIT_SECONDS
    try:
        with _changed:
            _forking = True
            me = {threading.get_ident()}
            _changed.wait_for(lambda: not _inside.keys() - me, WAIT_SECONDS)
        for section in _live(_sections):
            section.come_to_rest()
    finally:  # Ctrl-C, for one
        _is_prepared = True
        _hold_imports(deadline)


def _hold_imports(deadline: float) -> None:
    """Have the lock without which no import begins, once none is under way. It is held whatever happens."""
    _imp.acquire_lock()
    while _is_importing() and time.monotonic() < deadline:
        _imp.release_lock()
        try:
            time.sleep(_TICK_SECONDS)
        finally:
            _imp.acquire_lock()


def _is_importing() -> bool:
    """True if another thread is in the middle of importing what a child may need."""
    me = threading.get_ident()
    for name, reference in list(importlib._bootstrap._module_locks.items()):  # type: ignore[attr-defined]
        owner = getattr(reference(), "owner", None)
        if owner not in (None, me) and name.partition(".")[0] in IMPORTED:
            return True
    return False


def _in_parent() -> None:
    global _forking, _is_prepared
    if not _is_prepared:
        return
    _is_prepared = False
    _imp.release_lock()
    with _changed:
        _forking = False
        _changed.notify_all()
    _turn.release()


def _in_child() -> None:
    global _changed, _forking, _generation, _is_prepared, _turn
    if _is_prepared:
        _imp.release_lock()
    _is_prepared = _forking = False
    _generation += 1
    _changed, _turn = threading.Condition(), threading.Lock()
    _inside.clear()
    # All of them are held until the last is made anew: none is finalized as it was in the parent.
    owners = [(reference(), function) for reference, function in list(_renewed.values())]
    failures = []
    for owner, function in owners:
        if owner is not None:
            try:
                function(owner)
            except Exception as error:
                failures.append(error)
    for section in _live(_sections):
        section.begin_anew()
    if failures:
        raise failures[0]  # which Python shows


def _live(sections: weakref.WeakValueDictionary[int, Section]) -> list[Section]:
    """Those that are still there, whatever other threads add meanwhile."""
    return [section for reference in sections.valuerefs() if (section := reference()) is not None]


# What is registered last is called first before a fork. These modules take locks before one, which the threads that are
# waited for may need: so they are loaded, and registered, by now.
assert logging
assert _futures
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
