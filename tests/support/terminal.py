"""A pseudo-terminal of a size, and what its screen shows: for commands that draw on one, and for keys typed at them."""

from __future__ import annotations

import codecs
import os
import re
import struct
import threading
import unicodedata

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """The screen of a terminal, as far as our commands use one: text, carriage return, line feed, erase to the end.

    ``wraps`` counts the lines that had more than fits. ``erased`` are the texts that were drawn and erased again.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.wraps = 0
        self.erased: list[str] = []
        self.widths: list[int] = []
        self._next: tuple[int, int] | None = None
        self._rows: list[list[str]] = [[]]
        self._at = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._left = ""

    @property
    def lines(self) -> list[str]:
        """The lines from the top, without blanks at their ends."""
        return ["".join(row).rstrip() for row in self._rows]

    def resize(self, columns: int) -> None:
        """Be so wide from the third erasure on: what was drawn for the old width may still be on its way."""
        self._next = (columns, 3)

    def feed(self, data: bytes) -> None:
        """Show what a process prints."""
        text = self._left + self._decoder.decode(data)
        self._left = ""
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                match = _CONTROL.match(text, at)
                if match is None and len(text) - at < 16:
                    self._left = text[at:]
                    return
                assert match is not None, f"an escape that is not known: {text[at : at + 16]!r}"
                assert match[0] == "\x1b[K", f"a control sequence that is not known: {match[0]!r}"
                row = self._rows[-1]
                if drawn := "".join(row[self._at :]).rstrip():
                    self.erased.append(drawn)
                    self.widths.append(self.columns)
                del row[self._at :]
                at = match.end()
                if self._next is not None:
                    columns, left = self._next
                    self.columns, self._next = (columns, None) if left == 1 else (self.columns, (columns, left - 1))
            else:
                self._put(text[at])
                at += 1

    def _put(self, char: str) -> None:
        if char == "\r":
            self._at = 0
        elif char == "\n":
            self._rows.append([])
            self._at = 0
        else:
            assert char.isprintable(), f"a control character: {char!r}"
            width = 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
            if self._at + width > self.columns:
                self.wraps += 1
                self._rows.append([])
                self._at = 0
            row = self._rows[-1]
            row[self._at : self._at + max(width, 1)] = [char] + [""] * (width - 1)
            self._at += width


class Terminal:
    """A pseudo-terminal. ``slave`` is for the process; ``screen`` is what it shows. To be closed by :meth:`seen`."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        import pty

        self._master, self.slave = pty.openpty()
        self._chunks: list[bytes] = []
        self._turn = threading.Lock()
        self.screen = Screen(columns)
        self.resize(columns, rows)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def resize(self, columns: int, rows: int = 24) -> None:
        """Give the terminal another size. What is on the screen stays; what is drawn from now on has the new width."""
        import fcntl
        import termios

        with self._turn:
            if columns != self.screen.columns:
                self.screen.resize(columns)
            fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        """Type at it."""
        os.write(self._master, keys)

    @property
    def so_far(self) -> str:
        """All that was printed on it."""
        return b"".join(self._chunks).decode(errors="replace")

    def seen(self) -> str:
        """All that was printed, once the process has ended."""
        os.close(self.slave)
        self._reader.join()
        os.close(self._master)
        return b"".join(self._chunks).decode()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # EIO: the last writer is gone
                break
            if not data:
                break
            self._chunks.append(data)
            with self._turn:
                self.screen.feed(data)


def as_controlling_terminal() -> None:
    """In a child, before its program: make its stderr the terminal whose Ctrl-C it gets. For ``preexec_fn``."""
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(2, termios.TIOCSCTTY, 0)
