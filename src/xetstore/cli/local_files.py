"""Local files that a command line names: themselves, or all that is below a folder; stdin, named by a dash."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from xetstore.cli.context import Settings
from xetstore.cli.output import count_text
from xetstore.errors import UnavailableError, UsageError, kind_of

if TYPE_CHECKING:
    import io
    from collections.abc import Callable

    from xetstore.hub.ignore import Ignore

STDIN: Final = Path("-")


def exclude_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--exclude``, given to the command as ``exclude``: patterns."""
    return click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="Leave out what matches, as a line of .gitignore would; may be repeated.",
    )(command)


@dataclass(slots=True)
class LocalFiles:
    """The files that paths stand for, with what is left out of folders, and how much that is."""

    settings: Settings
    exclude: Sequence[str] = ()
    excluded: int = 0
    _rules: Ignore | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.exclude:
            from xetstore.hub.ignore import excluding

            self._rules = excluding(self.exclude)

    def of(self, path: Path) -> Iterator[Path]:
        """The path itself, or all files below it in the order of their names.

        A folder that cannot be read is reported. Whatever is neither a directory nor found in one is handed on: the
        library says best what is wrong with it.
        """
        is_folder = os.path.isdir(path)  # noqa: PTH112  # false too where it cannot be looked at
        if path.name not in ("", "..") and self._leaves_out(path, path.name, is_folder=is_folder):
            return
        if not is_folder:
            yield path
            return
        folders = [""]
        while folders:
            inner = folders.pop()
            folder = path / inner
            if self.settings.is_store(folder):
                self._left_out(folder, "it is the store itself")
                continue
            subfolders = []
            for entry in self._entries(folder):
                name = f"{inner}/{entry.name}" if inner else entry.name
                file = folder / entry.name
                is_folder = _is_folder(entry)
                if self._leaves_out(file, name, is_folder=is_folder):
                    continue
                if not is_folder:
                    if _can_be_stored(entry):
                        yield file
                    else:
                        self._left_out(file, "it is not a regular file")
                elif entry.is_symlink():  # listed, but not entered
                    self._left_out(file, "it is a link to a directory")
                else:
                    subfolders.append(name)
            folders += reversed(subfolders)

    def excluded_text(self) -> str:
        """The number of paths that were excluded, for the last line; empty if there is none."""
        return excluded_text(self.excluded)

    def _leaves_out(self, path: Path, name: str, *, is_folder: bool) -> bool:
        if self._rules is None or not self._rules.leaves_out(name, is_folder=is_folder):
            return False
        self.excluded += 1
        self.settings.output.detail(f"{path} is left out: it is excluded")
        return True

    def _left_out(self, path: Path, why: str) -> None:
        self.settings.output.warning(f"{path} is left out: {why}")

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """The entries of a folder, by name; as many of them as can be read."""
        entries: list[os.DirEntry[str]] = []
        try:
            with os.scandir(folder) as scan:
                for entry in scan:
                    entries.append(entry)  # what came before an error is kept
        except OSError as error:
            self.settings.failed(error)
        return sorted(entries, key=lambda entry: entry.name)


def excluded_text(count: int) -> str:
    """The number of paths that were excluded, for the last line; empty if there is none."""
    return f", {count_text(count, 'path')} excluded" if count else ""


def takes_stdin(paths: Sequence[Path]) -> bool:
    """True if one of the paths is a dash. Raises UsageError for several: stdin can be read once."""
    count = sum(path == STDIN for path in paths)
    if count > 1:
        raise UsageError("- is stdin, which can be read once", hint="name it once")
    return count == 1


def open_stdin(settings: Settings) -> Stdin:
    """Stdin as bytes. Raises UsageError where there is none, and UnavailableError for a pipe that has nothing: what was
    to write to it has failed, because an empty file can be named.
    """
    if settings.network.token_file == "-":
        raise UsageError("- and --token-file - both want stdin", hint="give the token in XET_TOKEN or in a file")
    if sys.stdin is None:
        raise UsageError("stdin is closed", hint="pipe something into the command, or name a file")
    stdin = Stdin(cast("io.BufferedReader", sys.stdin.buffer))
    if sys.stdin.isatty():
        settings.output.note("reading what you type; Ctrl-D on a line of its own ends it")
    elif stdin.is_empty_pipe():
        raise UnavailableError("nothing came through the pipe", hint="see what was to write to it, then run both again")
    return stdin


class Stdin:
    """Stdin, whose errors name it."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        """The next bytes; none at the end. Raises XetError."""
        with _named_errors():  # not read: behind the end of what is typed, that would wait for a second one
            return self._stream.read1(size)

    def is_empty_pipe(self) -> bool:
        """True if it is a pipe or a socket, and at its end. Waits for a first byte."""
        with _named_errors():
            mode = os.fstat(self._stream.fileno()).st_mode
            return (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)) and not self._stream.peek(1)


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise kind_of(error)(f"stdin cannot be read: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # the library says why, when it opens it
        return False


def _can_be_stored(entry: os.DirEntry[str]) -> bool:
    try:
        if not entry.is_symlink():
            return entry.is_file(follow_symlinks=False)  # which the folder says: nothing is looked up
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:  # gone, or a link to nothing: that is an error, and not left out silently
        return True
