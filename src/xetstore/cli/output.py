"""Output of the commands: data on stdout, errors, notes and progress on stderr; text for people or JSON lines."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TextIO

from xetstore.cli.names import entry_line, printable
from xetstore.errors import XetError, kind_of

if TYPE_CHECKING:
    from pathlib import Path

    from xetstore.cli.bar import Bar
    from xetstore.transfer.progress import FileProgress


_NO_TERM: Final = "console" if sys.platform == "win32" else ""
"""The kind of a terminal that does not say it: on Windows none does."""


def count_text(count: int, noun: str) -> str:
    """A number with its noun.

    >>> count_text(1, "file"), count_text(12000, "chunk")
    ('1 file', '12,000 chunks')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def files_text(count: int, failures: int) -> str:
    """A number of files that came right, and of those that did not.

    >>> files_text(3, 0), files_text(3, 1)
    ('3 files', '3 files, 1 failed')
    """
    return count_text(count, "file") + (f", {failures:,} failed" if failures else "")


def time_text(seconds: float) -> str:
    """A time in unix seconds; a server may send one that no calendar has.

    >>> time_text(0), time_text(1e300)
    ('1970-01-01 00:00:00 UTC', '-')
    """
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return "-"


def repositories_text(count: int) -> str:
    """A number of repositories."""
    return f"{count:,} repository" if count == 1 else f"{count:,} repositories"


def stdout_error(error: OSError) -> XetError:
    """Say that stdout takes no more, for another reason than that its reader has gone."""
    return kind_of(error)(f"stdout cannot be written: {error.strerror}")


@dataclass(slots=True)
class Output:
    """The two streams of a command. ``json`` chooses between records and lines for people. Thread-safe.

    With ``null`` an entry ends with NUL, and its name is printed as it is. With ``quiet`` there are data and errors
    alone; with ``verbose`` there are details too. Without ``bars`` no progress is shown.
    """

    json: bool = False
    null: bool = False
    quiet: bool = False
    verbose: bool = False
    bars: bool = True
    _bar: Bar | None = field(default=None, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def on_terminal(self) -> bool:
        """True if stderr is a terminal."""
        return sys.stderr.isatty()

    @property
    def can_draw(self) -> bool:
        """True if stderr is a terminal on which a line can be drawn anew."""
        return self.on_terminal and os.environ.get("TERM", _NO_TERM) not in ("", "dumb")

    def line(self, text: str) -> None:
        """Data for people, on stdout."""
        self._write(sys.stdout, printable(text))

    def lines(self, texts: Iterable[str]) -> None:
        """Many lines of data at once."""
        self._write(sys.stdout, "\n".join(printable(text) for text in texts))

    def entry(self, what: str, path: Path) -> None:
        """A line of a list: what is told of a file, two spaces, and its name, such that ``get --list`` reads it."""
        if self.null:
            with self._lock:
                sys.stdout.flush()
                sys.stdout.buffer.write(f"{what}  ".encode("ascii") + os.fsencode(path) + b"\0")
                sys.stdout.buffer.flush()
        else:
            self.line(entry_line(what, str(path)))

    def record(self, **fields: Any) -> None:
        """Data for programs, one JSON object a line on stdout. Plain ASCII, so any locale and any name will do."""
        self._write(sys.stdout, json.dumps(fields))

    def note(self, text: str) -> None:
        """A remark for people, on stderr; not printed with ``--json``."""
        if not (self.json or self.quiet):
            self._write(sys.stderr, printable(text))

    def detail(self, text: str) -> None:
        """A remark for those who want to know more."""
        if self.verbose:
            self.note(text)

    def warning(self, text: str) -> None:
        """Something was left out that a careful user wants to know of."""
        if self.quiet:
            return
        if self.json:
            self._write(sys.stderr, json.dumps({"warning": text}))
        else:
            self._write(sys.stderr, f"xet: warning: {printable(text)}")

    def event(self, record: dict[str, Any]) -> None:
        """Something that happened in a transfer, for programs, on stderr."""
        self._write(sys.stderr, json.dumps(record))

    def error(self, error: XetError, path: Path | None = None) -> None:
        """One sentence, and what to do next, on stderr; ``path`` is that of the file that it is about."""
        message = str(error)
        if self.json:
            fields = {"code": error.code, "message": message, "hint": error.hint}
            self._write(sys.stderr, json.dumps(fields if path is None else {**fields, "path": str(path)}))
            return
        if path is not None and str(path) not in message:
            message = f"{path}: {message}"
        self._write(sys.stderr, f"xet: {printable(message)}")
        if error.hint:
            self._write(sys.stderr, f"hint: {printable(error.hint)}")

    @contextmanager
    def progress(self, title: str, expected: int = 0, *, files: int = 0, dedup: bool = False) -> Iterator[FileProgress]:
        """A progress bar on stderr, where that is a terminal and the user wants one.

        ``expected`` is how many logical bytes are to come as far as the command knows, and ``files`` how many files;
        ``dedup`` shows how many of the bytes were new and how many deduplicated.
        """
        if not self.bars or self.quiet or not self.can_draw:
            from xetstore.transfer.progress import NoProgress

            yield NoProgress()
            return
        from xetstore.cli.bar import Bar, Counts

        bar = Bar(sys.stderr, self._lock, Counts(title, expected, files=files), dedup=dedup)
        with bar.shown():
            self._bar = bar
            try:
                yield bar
            finally:
                self._bar = None

    def _write(self, stream: TextIO, text: str) -> None:
        with self._lock:
            # A line that lands on the terminal in the middle of a bar would tear it: take the bar off before.
            if self._bar is not None and stream.isatty():
                self._bar.erase()
            try:
                stream.write(text + "\n")
                stream.flush()
            except BrokenPipeError:
                raise
            except OSError as error:
                if stream is sys.stdout:
                    raise stdout_error(error) from error
                raise
