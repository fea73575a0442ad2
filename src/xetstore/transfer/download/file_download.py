"""FileDownload: one file, window by window: chunks that are here already, the fetches that are left, the check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from xetstore.errors import IntegrityError
from xetstore.events import Damaged
from xetstore.transfer.download.fetching import Fetched, PartFetch
from xetstore.transfer.download.plan import Part, Run, Span, Window, check_hashes, in_file_order
from xetstore.transfer.download.reconstructions import Reconstructions
from xetstore.transfer.download.reuse.reuse import Left
from xetstore.transfer.download.second_look import look_again
from xetstore.transfer.download.verify import FileCheck
from xetstore.transfer.progress import NoProgress

if TYPE_CHECKING:
    from xetstore.protocol.reconstruction import Reconstruction
    from xetstore.transfer.download.context import Context
    from xetstore.transfer.download.delivery import Destination
    from xetstore.transfer.download.file_range import FileRange

LARGE_SPAN_BYTES: Final = 8 << 20
"""Larger missing spans are asked for before the fetches begin, so that several workers share them."""


class FileDownload:
    """A download of a file, or a range of it. A context manager, used by one thread at a time.

    ``fetched_bytes`` of xorbs came from the Cas; ``reused_bytes`` of the file were here.
    """

    def __init__(
        self,
        context: Context,
        wanted: FileRange,
        window_bytes: int | None = None,
        told: Reconstruction | None = None,
    ) -> None:
        self._context = context
        self._file = wanted.file
        options = context.options
        self._asking = Reconstructions(context.cas, wanted, context.emit, limits=options.limits, told=told)
        self._walk = self._asking.walk(window_bytes or options.window_bytes)
        self._check = FileCheck(wanted.file, is_whole=wanted.is_whole)
        self._distinct_bytes = 0
        self.fetched_bytes = 0
        self.reused_bytes = 0

    @property
    def is_at_end(self) -> bool:
        """True if the last window is there."""
        return self._walk.is_at_end

    @property
    def is_verified(self) -> bool:
        """True if every byte was checked against a hash, after :meth:`finish`."""
        return self._check.is_verified

    def load(self, destination_of: Callable[[Window], Destination]) -> Window | None:
        """Deliver the next window: chunks in order, as the Cas told them. None if there is none.

        If they are not, all of it is asked for and fetched once more, and nothing that was here is taken for granted.
        The window is the one that was believed in the end.
        """
        self._context.workers.check()
        window = self._walk.next(self._inline)
        if window is None:
            return None
        if self._context.inline_bytes:
            self._context.reuse.note(self._file, window)
        destination = destination_of(window)
        if destination.make_room is not None:
            self._distinct_bytes += sum(part.distinct_bytes for part in window.parts)
            destination.make_room(self._distinct_bytes)
        destination.progress.total(window.length)
        try:
            left = self._context.reuse.take(window, destination, self._asking, self._context.workers)
            runs = self._rebuild(window, destination, left)
        except _NotAsToldError as error:
            self._context.emit(Damaged(str(error.reason), refetching=True))
            window, runs = self._load_again(destination_of)
        self._check.add(window, runs)
        return window

    def finish(self, destination: Destination | None = None) -> None:
        """Check the whole file. If it is wrong, doubtful chunks are fetched once more to ``destination``.

        Raises HashMismatchError.
        """
        if self._check.is_right:
            return
        doubtful = self._check.doubtful
        if doubtful is None or destination is None:
            raise self._check.mismatch()
        quiet = replace(destination, progress=NoProgress())

        def fetch(span: Span) -> list[Run]:
            window = self._asking.ask_exactly(*span)
            return in_file_order(self._fetch(window.parts, quiet), window.position, window.end)

        look_again(self._context, self._check, doubtful, fetch)

    def _inline(self, start: int, end: int) -> int:
        """The bytes that may come along with the reconstruction of a window: none of what is here already."""
        most = self._context.inline_bytes
        return most if most and self._context.reuse.lacks(self._file, start, end) else 0

    def _load_again(self, destination_of: Callable[[Window], Destination]) -> tuple[Window, list[Run]]:
        window = self._walk.again()
        if window is None:
            raise IntegrityError(f"file {self._file} is said to end where it did not end before") from None
        quiet = replace(destination_of(window), progress=NoProgress())
        try:
            return window, self._rebuild(window, quiet, Left([], window.parts, []))
        except _NotAsToldError as error:
            raise error.reason from None

    def _rebuild(self, window: Window, destination: Destination, left: Left) -> list[Run]:
        runs = [*left.runs, *self._fetch(left.parts, destination, left.missing)]
        try:
            runs = in_file_order(runs, window.position, window.end)
            check_hashes(window, runs)
        except IntegrityError as error:
            raise _NotAsToldError(error) from None
        self.reused_bytes += sum(run.chunks.total_bytes for run in left.runs)
        return runs

    def _fetch(self, parts: Sequence[Part], destination: Destination, missing: Sequence[Span] = ()) -> list[Run]:
        items: list[tuple[int, Part | Span]] = [(part.span[0], part) for part in parts]
        for span in missing:
            if span[1] - span[0] > LARGE_SPAN_BYTES:
                items += [(part.span[0], part) for part in self._asking.ask_exactly(*span).parts]
            else:
                items.append((span[0], span))
        items.sort(key=lambda item: item[0])

        def work(item: tuple[int, Part | Span], threads: int) -> list[Fetched]:
            parts = (item[1],) if isinstance(item[1], Part) else self._asking.ask_exactly(*item[1]).parts
            return [PartFetch(self._context, destination, threads).run(part, self._asking) for part in parts]

        done = [fetched for each in self._context.workers.map(work, items) for fetched in each]
        self.fetched_bytes += sum(fetched.fetched_bytes for fetched in done)
        self.reused_bytes += sum(fetched.reused_bytes for fetched in done)
        return [run for fetched in done for run in fetched.runs]

    def __enter__(self) -> Self:
        self._context.workers.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._context.workers.__exit__(kind, error, traceback)
        self._check.close()
        if isinstance(error, IntegrityError):
            error.hint = error.hint or self._context.answer_hint


class _NotAsToldError(Exception):
    """All parts of a window came, and yet it is not what it was said to be, for this reason."""

    def __init__(self, reason: IntegrityError) -> None:
        super().__init__()
        self.reason = reason
