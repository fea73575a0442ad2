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
from typing import TYPE_CHECKING, Any, TextIO

from xetstore.cli.names import entry_line, printable
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress as RichProgress

    from xetstore.errors import XetError
    from xetstore.transfer.progress import Progress


def count_text(count: int, noun: str) -> str:
    """A number with its noun.

    >>> count_text(1, "file"), count_text(12000, "chunk")
    ('1 file', '12,000 chunks')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


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


@dataclass(slots=True)
class Output:
    """The two streams of a command. ``json`` chooses between records and lines for people. Thread-safe.

    With ``null`` an entry ends with NUL, and its name is printed as it is.
    """

    json: bool = False
    null: bool = False
    _live: RichProgress | None = field(default=None, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def on_terminal(self) -> bool:
        """True if stderr is a terminal."""
        return sys.stderr.isatty()

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
        if not self.json:
            self._write(sys.stderr, printable(text))

    def warning(self, text: str) -> None:
        """Something was left out that a careful user wants to know of."""
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
    def progress(self, title: str, expected: int = 0, *, dedup: bool = False) -> Iterator[Progress | None]:
        """A progress bar on stderr, or None where stderr is not a terminal.

        ``expected`` is how many logical bytes are to come as far as the command knows; ``dedup`` shows how
        many of them were new and how many deduplicated.
        """
        if not sys.stderr.isatty():
            yield None
            return
        live = _live_display(dedup)
        with live:
            self._live = live
            try:
                yield _Bar(live, title, expected)
            finally:
                with self._lock:
                    self._live = None

    def _write(self, stream: TextIO, text: str) -> None:
        with self._lock:
            # A line that lands on the terminal in the middle of a bar would tear it: take the bar off meanwhile.
            live = self._live if stream.isatty() else None
            if live is not None:
                live.stop()
            try:
                stream.write(text + "\n")
                stream.flush()
            finally:
                if live is not None:
                    live.start()


def _live_display(dedup: bool) -> RichProgress:
    from rich import progress as rich
    from rich.console import Console
    from rich.table import Column
    from rich.text import Text

    class Rate(rich.ProgressColumn):
        def render(self, task: rich.Task) -> Text:
            return Text(f"{size_text(int(task.finished_speed or task.speed or 0))}/s")

    console = Console(stderr=True)
    one_line = Column(no_wrap=True)
    columns: list[rich.ProgressColumn] = [rich.TextColumn("{task.description}")]
    if not dedup or console.width >= 104:  # beside all the figures a bar has no room in 80 columns
        columns.append(rich.BarColumn(bar_width=20))
    columns.append(rich.DownloadColumn(binary_units=True, table_column=one_line))
    if dedup:
        columns.append(rich.TextColumn("{task.fields[figures]}"))
    columns += [Rate(one_line), rich.TimeRemainingColumn(table_column=one_line)]
    # Redirected, what is meant for stdout would be printed on this console, which is stderr.
    return rich.Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False, transient=True)


class _Bar:
    """A :class:`xetstore.transfer.progress.Progress` on the terminal. Thread-safe: rich locks its updates."""

    def __init__(self, live: RichProgress, title: str, expected: int) -> None:
        self._live = live
        self._expected = expected
        self._announced = 0
        self._new = 0
        self._deduped = 0
        self._task = live.add_task(title, total=expected or None, figures=self._figures())

    def total(self, nbytes: int) -> None:
        self._announced += nbytes
        self._live.update(self._task, total=max(self._announced, self._expected) or None)

    def advance(self, *, logical: int = 0, new: int = 0, deduped: int = 0) -> None:
        self._new += new
        self._deduped += deduped
        self._live.update(self._task, advance=logical, figures=self._figures())

    def _figures(self) -> str:
        return f"{size_text(self._new)} new, {size_text(self._deduped)} deduplicated"
