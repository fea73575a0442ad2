"""Destinations behind a path: a regular file, which is replaced as a whole, or a pipe or device, which is written to.

A link is followed, as by cp and curl: the file it leads to is replaced, and the link stays.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from xetstore.errors import UnavailableError, UsageError, XetError, kind_of
from xetstore.platform.descriptors import BINARY, NO_WAIT
from xetstore.transfer.progress import NoProgress, Progress

if TYPE_CHECKING:
    from xetstore.cancellation import Cancellation

T = TypeVar("T")

MAX_LINKS: Final = 40
READER_SECONDS: Final = 60.0
"""The wait for a process that opens a named pipe for reading; then it is given up."""

_TICK_SECONDS: Final = 0.05


def followed(path: Path) -> Path | int:
    """The path behind all links, of a file that may not be there yet; or the number of the open file of this process
    that is meant, as by /dev/stdout. Raises OSError.
    """
    own = {os.path.realpath("/proc/self/fd"), os.path.realpath("/dev/fd")}
    here = path
    for _ in range(MAX_LINKS):
        if here.name.isascii() and here.name.isdigit() and os.path.realpath(here.parent) in own:
            return int(here.name)
        if not here.is_symlink():
            return here
        here = here.parent / here.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))


def open_through(path: Path, cancellation: Cancellation, *, reader_seconds: float = READER_SECONDS) -> int | None:
    """A descriptor to write a stream to, where ``path`` leads to a pipe, a terminal or another character device, or to
    an open file of this process; None where it leads to a regular file or to none.

    The wait for a reader of a pipe ends with ``cancellation``. Raises UsageError for a directory and for
    what is neither, UnavailableError where a pipe has no reader, AccessDeniedError.
    """
    try:
        return _open_through(path, cancellation, reader_seconds)
    except XetError:
        raise
    except OSError as error:
        raise kind_of(error)(f"{path} cannot be written: {error.strerror}") from error


def _open_through(path: Path, cancellation: Cancellation, reader_seconds: float) -> int | None:
    target = followed(path)
    if isinstance(target, int):
        return os.dup(target)
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a directory", hint=f"give the name of a file, such as {path / 'copy'}")
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        raise UsageError(f"{path} is not a file to write to", hint="give the name of a file")
    deadline = time.monotonic() + reader_seconds
    while True:
        try:
            fd = os.open(target, os.O_WRONLY | NO_WAIT | BINARY)
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(mode):
                raise
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"nothing reads from the pipe {path}", hint="start what reads it, then run the same command again"
                ) from None
            cancellation.wait(_TICK_SECONDS)
            continue
        if sys.platform != "win32":  # which opens no pipe by its path
            os.set_blocking(fd, True)
        return fd


def pour(fd: int, path: Path, blocks: Generator[memoryview, None, T], progress: Progress | None) -> T:
    """Write blocks to a descriptor, in order, and close it; what ``blocks`` returns in the end.

    Raises BrokenPipeError where the reader has gone, and for any other error of ``path`` one of ours.
    """
    told = progress or NoProgress()
    with os.fdopen(fd, "wb", buffering=0) as stream, closing(blocks):
        while True:
            try:
                block = next(blocks)
            except StopIteration as end:
                done: T = end.value
                return done
            told.total(len(block))
            told.advance(logical=len(block))
            try:
                while block:
                    block = block[stream.write(block) :]
            except BrokenPipeError:
                raise
            except OSError as error:
                raise kind_of(error)(f"{path} cannot be written: {error.strerror}") from error
