"""Bar: the progress of a command as one line of a terminal, which never wraps.

The line is drawn anew some times a second by a thread, for the width that the terminal has then. It is plain text: no
colour, and the cursor stays visible, so a process that is killed leaves nothing to be mended.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, TextIO

from xetstore.cli.names import PRINTED_ERRORS, escaped
from xetstore.errors import UnavailableError
from xetstore.platform.threads import start_thread
from xetstore.sizes import size_text

DRAWN_SECONDS: Final = 0.1
RATE_SECONDS: Final = 10.0
"""The rate is that of the last seconds."""
USUAL_COLUMNS: Final = 80
FEW_COLUMNS: Final = 60
"""Terminals that are narrower have room for a few parts only."""
MANY_COLUMNS: Final = 140
"""Those that have as many have room for more than is needed."""
GRAPHIC_COLUMNS: Final = 20
EMPTY_COLUMNS: Final = 3
"""Behind a line there is room for the ^C that a terminal shows when it is typed."""
LEAST_NAME_COLUMNS: Final = 5


@dataclass(slots=True)
class Counts:
    """All that a bar shows. ``size`` is the bytes that are to come, as far as is known; ``rate`` is bytes a second."""

    title: str
    size: int = 0
    done: int = 0
    new: int = 0
    deduped: int = 0
    files: int = 0
    file: int = 0
    name: str = ""
    rate: float | None = None

    def line(self, columns: int, encoding: str = "utf-8", *, dedup: bool = False) -> str:
        """The line for a terminal of this width, of which the last columns stay empty."""
        room = columns - EMPTY_COLUMNS
        parts = self._few_parts() if columns < FEW_COLUMNS else self._parts(columns, dedup=dedup)
        gap = " " if columns < FEW_COLUMNS else "  "
        line = _taken(gap.join(part for part in parts if part), room)
        left = room - len(line) - len(gap)
        if self.name and left >= LEAST_NAME_COLUMNS:
            line += gap + shortened(_writable(escaped(self.name), encoding), left, encoding)
        return line

    def _few_parts(self) -> tuple[str, ...]:
        return self._of_files() or self._percent(), self._rate(), self._time_left()

    def _parts(self, columns: int, *, dedup: bool) -> tuple[str, ...]:
        size = size_text(self.done) + (f" of {size_text(self.size)}" if self.size else "")
        time_left = self._time_left()
        figures = f"{size_text(self.new)} new, {size_text(self.deduped)} deduplicated"
        has_figures = dedup and columns >= MANY_COLUMNS
        has_graphic = self.size > 0 and columns >= MANY_COLUMNS + 40 * has_figures
        return (
            self.title if columns >= MANY_COLUMNS - 40 else "",
            self._of_files(),
            f"[{'#' * int(self._share() * GRAPHIC_COLUMNS):<{GRAPHIC_COLUMNS}}]" if has_graphic else "",
            self._percent(),
            size,
            figures if has_figures else "",
            self._rate(),
            f"ETA {time_left}" if time_left else "",
        )

    def _share(self) -> float:
        return min(self.done / self.size, 1.0) if self.size else 0.0

    def _of_files(self) -> str:
        return f"{min(self.file, self.files)}/{self.files}" if self.files > 1 else ""

    def _percent(self) -> str:
        return f"{int(self._share() * 100):3}%" if self.size else ""

    def _rate(self) -> str:
        return "-- B/s" if self.rate is None else f"{size_text(int(self.rate))}/s"

    def _time_left(self) -> str:
        return time_left(max(self.size - self.done, 0), self.rate) if self.size else ""


def time_left(nbytes: int, rate: float | None) -> str:
    """The time that bytes still take.

    >>> time_left(90, 1), time_left(7300, 1), time_left(5, 0), time_left(10**9, 1)
    ('1:30', '2:01:40', '-:--', '11574 days')
    """
    if not nbytes:
        return "0:00"
    if not rate or nbytes / rate > 1e12:
        return "-:--"
    seconds = int(nbytes / rate + 0.5)
    minutes, hours = seconds // 60, seconds // 3600
    if hours >= 100:
        return f"{hours // 24} days"
    return f"{hours}:{minutes % 60:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"


def shortened(text: str, columns: int, encoding: str = "utf-8") -> str:
    """A printable text with its middle left out, so that it takes at most ``columns`` of a terminal.

    >>> shortened("checkpoints/model-00001.safetensors", 20), shortened("short", 20), shortened("模型模型模型", 8)
    ('checkpoint…fetensors', 'short', '模型…型')
    """
    if _width(text) <= columns:
        return text
    mark = "…" if _writable("…", encoding) == "…" else "..."
    room = columns - len(mark)
    head = _taken(text, (room + 1) // 2)
    tail = _taken(text[::-1], room - _width(head))[::-1]
    while tail and not _char_width(tail[0]):  # a mark without the character that it belongs to
        tail = tail[1:]
    return head + mark + tail


def _taken(text: str, columns: int) -> str:
    for at, char in enumerate(text):
        columns -= _char_width(char)
        if columns < 0:
            return text[:at]
    return text


def _width(text: str) -> int:
    """The columns that a printable text takes at most."""
    return len(text) if text.isascii() else sum(map(_char_width, text))


def _char_width(char: str) -> int:
    if char.isascii():
        return 1
    if unicodedata.category(char) in ("Mn", "Me") and char != "\ufe0f":  # which makes an emoji of what it follows
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _writable(text: str, encoding: str) -> str:
    return text.encode(encoding, PRINTED_ERRORS).decode(encoding)


class Bar:
    """A :class:`xetstore.transfer.progress.FileProgress` on a terminal. Thread-safe.

    ``lock`` is held while the terminal is written to. Only what is drawn takes it: a count never waits for a terminal
    that stands still.
    """

    def __init__(self, stream: TextIO, lock: threading.RLock, counts: Counts, *, dedup: bool = False) -> None:
        self._stream = stream
        self._lock = lock
        self._expected = counts.size
        self._announced = 0
        self._counts = counts
        self._dedup = dedup
        self._turn = threading.Lock()
        self._samples: deque[tuple[float, int]] = deque()
        self._drawn = ""
        self._ended = threading.Event()

    def total(self, nbytes: int) -> None:
        """Expect more bytes."""
        with self._turn:
            self._announced += nbytes
            self._counts.size = max(self._announced, self._expected)

    def advance(self, *, logical: int = 0, new: int = 0, deduped: int = 0) -> None:
        """Count bytes."""
        with self._turn:
            self._counts.done += logical
            self._counts.new += new
            self._counts.deduped += deduped

    def files(self, count: int) -> None:
        """Expect more files."""
        with self._turn:
            self._counts.files += count

    def file(self, name: str) -> None:
        """Go on to the next file."""
        with self._turn:
            self._counts.file += 1
            self._counts.name = name

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw it until the end of the block; then nothing of it is left."""
        with suppress(UnavailableError):  # a system that has no thread for it
            start_thread(self._run, name="bar")
        try:
            yield
        finally:
            self._ended.set()
            with self._lock:
                self.erase()

    def erase(self) -> None:
        """Take it off the terminal; the next time it is drawn it is there again. The caller holds the lock."""
        if self._drawn:
            self._stream.write(self._erasure())
            self._stream.flush()
            self._drawn = ""

    def draw(self, now: float) -> None:
        """Draw it for the width that the terminal has now."""
        with self._turn:
            self._note_rate(now)
            line = self._counts.line(_columns(self._stream), self._stream.encoding or "ascii", dedup=self._dedup)
        with self._lock:
            if not self._ended.is_set():
                self._stream.write(self._erasure() + line)
                self._stream.flush()
                self._drawn = line

    def _erasure(self) -> str:
        if sys.platform == "win32":  # where a console may know no escape sequences
            return f"\r{' ' * _width(self._drawn)}\r"
        return "\r\x1b[K"

    def _run(self) -> None:
        with suppress(OSError, ValueError):  # the terminal is gone
            while True:
                self.draw(time.monotonic())
                if self._ended.wait(DRAWN_SECONDS):
                    return

    def _note_rate(self, now: float) -> None:
        samples = self._samples
        samples.append((now, self._counts.done))
        while now - samples[0][0] > RATE_SECONDS:
            samples.popleft()
        (first, before), (last, done) = samples[0], samples[-1]
        self._counts.rate = (done - before) / (last - first) if last > first else None


def _columns(stream: TextIO) -> int:
    """The width of a terminal; of one that does not tell it COLUMNS, or as terminals usually have."""
    with suppress(OSError, ValueError):
        if columns := os.get_terminal_size(stream.fileno()).columns:
            return columns
    told = os.environ.get("COLUMNS", "")
    return int(told) if told.isascii() and told.isdigit() and 0 < int(told) < 10_000 else USUAL_COLUMNS
