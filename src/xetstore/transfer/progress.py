"""Progress of a transfer, told while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from xetstore.cancellation import Cancellation


class Progress(Protocol):
    """Receives byte counts from worker threads; must be quick and thread-safe."""

    def total(self, nbytes: int) -> None:
        """``nbytes`` more logical bytes will be moved."""

    def advance(self, *, logical: int = 0, new: int = 0, deduped: int = 0) -> None:
        """Bytes moved since the last call: of the file, and how many of them were new or deduplicated."""


@runtime_checkable
class FileProgress(Progress, Protocol):
    """Receives names of files too. Thread-safe and quick, as well."""

    def files(self, count: int) -> None:
        """``count`` more files will be moved."""

    def file(self, name: str) -> None:
        """A file is the next one; where many are moved at a time, the last one that was done."""


class NoProgress:
    """Progress that is not watched."""

    def total(self, nbytes: int) -> None:
        """Ignore."""

    def advance(self, *, logical: int = 0, new: int = 0, deduped: int = 0) -> None:
        """Ignore."""

    def files(self, count: int) -> None:
        """Ignore."""

    def file(self, name: str) -> None:
        """Ignore."""


def with_files(progress: Progress | None) -> FileProgress:
    """The progress itself if it takes names of files, else one that ignores them."""
    return progress if isinstance(progress, FileProgress) else NoProgress()


class Stoppable:
    """Another progress, which ends the work that tells it: for work that asks no Cas for anything."""

    def __init__(self, progress: Progress | None, cancellation: Cancellation) -> None:
        self._cancellation = cancellation
        self._progress = progress or NoProgress()
        self.total = self._progress.total
        told = with_files(progress)
        self.files, self.file = told.files, told.file

    def advance(self, *, logical: int = 0, new: int = 0, deduped: int = 0) -> None:
        """Tell it. Raises InterruptedCallError."""
        self._cancellation.check()
        self._progress.advance(logical=logical, new=new, deduped=deduped)
