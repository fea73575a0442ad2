"""Asking a Cas how a file is rebuilt: a window at a time, and once more where the answer cannot be right."""

from __future__ import annotations

import sys
from typing import Final

from xetstore.errors import FormatError, IntegrityError, RangeError, TooLargeError
from xetstore.events import Damaged, Emit
from xetstore.interfaces import AnswerTooLongError, Cas
from xetstore.protocol.hashes import Hash
from xetstore.transfer.download.parts import Window, parts_of

MOST_CHUNKS: Final = 2 << 20
"""No answer may speak of more chunks: it is four times what 4 GiB have where all are of the least size."""

CHUNK_BYTES: Final = 512
"""Memory for a chunk of an answer: its hash and length, as told and as found, in some lists at a time."""

LEAST_BYTES: Final = 64 << 10
"""Less is not asked for when a Cas refuses more."""


class Reconstructions:
    """The reconstructions of one file. Thread-safe.

    ``size`` is how many bytes the file has, if that was told before by another than the Cas: an answer that goes beyond
    is an IntegrityError, and so is one of more than ``most_chunks`` chunks.
    """

    def __init__(
        self, cas: Cas, file: Hash, emit: Emit, *, size: int | None = None, most_chunks: int = MOST_CHUNKS
    ) -> None:
        self._cas = cas
        self._file = file
        self._emit = emit
        self._size = size
        self._most_chunks = most_chunks
        self._most = sys.maxsize  # bytes that were not refused at once

    def exists(self, start: int) -> None:
        """Raises what asking for byte ``start`` raises."""
        self._cas.reconstruct(self._file, start, start + 1)

    def ask(self, start: int, end: int, *, limit: int | None = None, aligned: bool = False) -> Window:
        """Ask for bytes ``[start, end)``, which are clamped to the file; whole chunks unless ``limit`` cuts.

        With ``aligned``, ``start`` is known to be where a chunk starts. An answer that cannot be right is asked for
        once more. A Cas that refuses a window is asked for a quarter of it, and from then on for no more than
        that: the window ends earlier. Raises RangeError where the file ends before ``start``, and IntegrityError.
        """
        while True:
            most = self._most
            end = min(end, start + most)
            try:
                return self._ask_again(start, end, limit, aligned)
            except TooLargeError:
                if end - start <= LEAST_BYTES:
                    raise
                self._most = min(most, (end - start) // 4)

    def ask_exactly(self, start: int, end: int) -> Window:
        """Ask for bytes ``[start, end)``, which are known to be in the file."""
        try:
            window = self._ask_again(start, end, end, aligned=False)
        except RangeError as error:
            raise IntegrityError(f"file {self._file} is said to be shorter than it was before") from error
        if window.end != end:
            raise FormatError("reconstruction.length", 0, f"the terms make {window.length} of {end - start} bytes")
        return window

    def _ask_again(self, start: int, end: int, limit: int | None, aligned: bool) -> Window:
        try:
            return self._ask(start, end, limit, aligned)
        except AnswerTooLongError:
            raise
        except IntegrityError as error:
            self._emit(Damaged(f"the reconstruction of file {self._file}: {error}", refetching=True))
            return self._ask(start, end, limit, aligned)

    def _ask(self, start: int, end: int, limit: int | None, aligned: bool) -> Window:
        found = self._cas.reconstruct(self._file, start, end, hashes=True)
        chunks = sum(term.chunk_end - term.chunk_start for term in found.terms)
        if chunks > self._most_chunks:
            raise FormatError("reconstruction.chunks", 0, f"{chunks} chunks are said to make one part of the file")
        skip = found.offset_into_first_term
        covered = start - skip + found.unpacked_bytes
        reached = covered if limit is None else min(covered, limit)
        if reached <= start and found.terms:
            raise FormatError("reconstruction.length", 0, "the terms end before the requested range")
        if self._size is not None and covered > self._size:
            raise FormatError(
                "reconstruction.size", 0, f"the terms go on to byte {covered} of a file of {self._size} bytes"
            )
        if skip and aligned:
            raise FormatError("reconstruction.offset", 0, "bytes are to be skipped where a chunk starts")
        parts = parts_of(found, start, reached - start)
        return Window(start, reached - start, found, parts, is_last=covered < end)
