"""Asking a Cas how a file is rebuilt: a window at a time, and once more where the answer cannot be right."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from xetstore.errors import FormatError, IntegrityError, RangeError, TooLargeError
from xetstore.events import Damaged, Emit, ignore
from xetstore.interfaces import AnswerTooLongError, Cas
from xetstore.limits import NO_LIMITS, Limits
from xetstore.transfer.download.plan import Window, parts_of

if TYPE_CHECKING:
    from xetstore.protocol.reconstruction import Reconstruction
    from xetstore.transfer.download.file_range import FileRange

Inline = Callable[[int, int], int]
"""The bytes that may come along with the reconstruction of bytes ``[start, end)`` of a file."""

WINDOW_BYTES: Final = 4 << 30
"""Bytes of a file that one reconstruction asks for: bounds the terms held, whatever the size of the file."""

WINDOW_SHARE: Final = 4
"""The largest window with a cap on memory, in times of the cap: a chunk of 64 KiB takes some hundred bytes."""

LEAST_WINDOW_BYTES: Final = 8 << 20
"""The smallest window: where the answer about so little does not fit, none will."""

MOST_CHUNKS: Final = 2 << 20
"""No answer may speak of more chunks: it is four times what 4 GiB have where all are of the least size."""

CHUNK_BYTES: Final = 512
"""Memory for a chunk of an answer: its hash and length, as told and as found, in some lists at a time."""

LEAST_BYTES: Final = 64 << 10
"""Less is not asked for when a Cas refuses more."""


class Reconstructions:
    """The reconstructions of one file. Thread-safe.

    An answer that goes beyond the told size of the file is an IntegrityError, and so is one of more chunks than
    ``limits`` let hold. Without ``hashes`` those of the chunks
    are not asked for. ``told`` is the first answer, where it is here already.
    """

    def __init__(
        self,
        cas: Cas,
        wanted: FileRange,
        emit: Emit = ignore,
        *,
        limits: Limits = NO_LIMITS,
        hashes: bool = True,
        told: Reconstruction | None = None,
    ) -> None:
        self._cas = cas
        self._wanted = wanted
        self._file = wanted.file
        self._emit = emit
        self._hashes = hashes
        self._told = told
        memory = limits.max_memory
        self._most_chunks = MOST_CHUNKS if memory is None else min(MOST_CHUNKS, memory // CHUNK_BYTES)
        self._max_window_bytes = sys.maxsize if memory is None else WINDOW_SHARE * memory
        self._most = sys.maxsize  # bytes that were not refused at once

    def walk(self, window_bytes: int = WINDOW_BYTES) -> Walk:
        """The way through the bytes that are wanted, in windows of at most ``window_bytes``."""
        return Walk(self, self._wanted, min(window_bytes, self._max_window_bytes))

    def exists(self, start: int) -> None:
        """Raise the error of asking for byte ``start``, if it has one."""
        self._cas.reconstruct(self._file, start, start + 1)

    def ask(self, start: int, end: int, *, limit: int | None = None, aligned: bool = False, inline: int = 0) -> Window:
        """Ask for bytes ``[start, end)``, which are clamped to the file; whole chunks unless ``limit`` cuts. Of their
        parts at most ``inline`` bytes come along, the first time.

        With ``aligned``, ``start`` is known to be where a chunk starts. An answer that cannot be right is asked for
        once more. A Cas that refuses a window is asked for a quarter of it, and from then on for no more than
        that: the window ends earlier. Raises RangeError where the file ends before ``start``, and IntegrityError.
        """
        while True:
            most = self._most
            end = min(end, start + most)
            try:
                return self._ask_again(start, end, limit, aligned, inline)
            except TooLargeError:
                if end - start <= LEAST_BYTES:
                    raise
                self._most = min(most, (end - start) // 4)

    def ask_exactly(self, start: int, end: int) -> Window:
        """Ask for bytes ``[start, end)``, which are known to be in the file."""
        try:
            window = self._ask_again(start, end, end, aligned=False, inline=0)
        except RangeError as error:
            raise IntegrityError(f"file {self._file} is said to be shorter than it was before") from error
        if window.end != end:
            raise FormatError("reconstruction.length", 0, f"the terms make {window.length} of {end - start} bytes")
        return window

    def _ask_again(self, start: int, end: int, limit: int | None, aligned: bool, inline: int) -> Window:
        try:
            return self._ask(start, end, limit, aligned, inline)
        except AnswerTooLongError:
            raise
        except IntegrityError as error:
            self._emit(Damaged(f"the reconstruction of file {self._file}: {error}", refetching=True))
            return self._ask(start, end, limit, aligned, 0)

    def _ask(self, start: int, end: int, limit: int | None, aligned: bool, inline: int) -> Window:
        answer, self._told = self._told, None
        if answer is None and inline:
            answer = self._cas.reconstruct(self._file, start, end, hashes=self._hashes, inline=inline)
        elif answer is None:
            answer = self._cas.reconstruct(self._file, start, end, hashes=self._hashes)
        chunks = sum(term.chunk_end - term.chunk_start for term in answer.terms)
        if chunks > self._most_chunks:
            raise FormatError("reconstruction.chunks", 0, f"{chunks} chunks are said to make one part of the file")
        skip = answer.offset_into_first_term
        covered = start - skip + answer.unpacked_bytes
        reached = covered if limit is None else min(covered, limit)
        if reached <= start and answer.terms:
            raise FormatError("reconstruction.length", 0, "the terms end before the requested range")
        size = self._wanted.size
        if size is not None and covered > size:
            raise FormatError("reconstruction.size", 0, f"the terms go on to byte {covered} of a file of {size} bytes")
        if skip and aligned:
            raise FormatError("reconstruction.offset", 0, "bytes are to be skipped where a chunk starts")
        parts = parts_of(answer, start, reached - start)
        return Window(start, reached - start, answer, parts, is_last=covered < end)


class Walk:
    """The way through a file, a window at a time; whole chunks each, so that no chunk is in two. Not thread-safe."""

    def __init__(self, asking: Reconstructions, wanted: FileRange, window_bytes: int) -> None:
        self._asking = asking
        self._start = wanted.start
        self._end = wanted.end
        self._window_bytes = window_bytes
        self._position = wanted.start
        self._window: Window | None = None

    @property
    def is_at_end(self) -> bool:
        """True if there is no window after the one that was asked for last."""
        window = self._window
        return window is not None and (window.is_last or (self._end is not None and window.end >= self._end))

    def next(self, inline: Inline = lambda *_: 0) -> Window | None:
        """Ask for the window behind the last one, whose bytes may come ``inline``; None if there is none."""
        if self._window is not None:
            if self.is_at_end:
                return None
            self._position = self._window.end
        elif self._start == self._end:
            self._asking.exists(self._start)  # so that what is missing is missed
            return None
        return self._ask(inline(self._position, self._asked))

    def again(self) -> Window | None:
        """Ask for the same window anew; None where the file ends before, as the window before ended where it does."""
        return self._ask(0)

    @property
    def _asked(self) -> int:
        """The end of what is asked for next."""
        asked = self._position + self._window_bytes
        return asked if self._end is None else min(asked, self._end)

    def _ask(self, inline: int) -> Window | None:
        start, asked = self._position, self._asked
        aligned = start != self._start or not start
        while True:
            try:
                self._window = self._asking.ask(start, asked, limit=self._end, aligned=aligned, inline=inline)
            except AnswerTooLongError:
                if asked - start <= LEAST_WINDOW_BYTES:
                    raise
                asked = start + (asked - start) // 2  # of a file in many small pieces
            except RangeError:
                if start == self._start:
                    raise
                return None
            else:
                return self._window

    def __iter__(self) -> Iterator[Window]:
        while (window := self.next()) is not None:
            yield window
