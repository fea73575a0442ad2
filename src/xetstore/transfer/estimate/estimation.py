"""Estimate of the saving of an upload: deduplication among files and against a store, and compression.

The planner of uploads decides here too, with the same answers of the store, but nothing is sent and nothing is
written. The compressed size of new bytes is estimated from a sample of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xetstore.errors import InterruptedCallError, XetError
from xetstore.platform.threads import usable_cores
from xetstore.sizes import size_text
from xetstore.transfer.estimate import CELLS
from xetstore.transfer.estimate.picture import Kind, Strip, draw_svg
from xetstore.transfer.estimate.session import Draft, EstimateSession
from xetstore.transfer.progress import NoProgress, Progress, with_files
from xetstore.transfer.scan import FileScan

if TYPE_CHECKING:
    from xetstore.interfaces import Cas
    from xetstore.records import FileInfo

__all__ = ["Estimate", "FileEstimate", "Kind", "estimate"]


@dataclass(frozen=True, slots=True)
class FileEstimate:
    """The estimate of one file: raw bytes by where they are known from, which add up to its size.

    ``repeated_bytes`` are in the file itself, ``shared_bytes`` in a file before it, ``stored_bytes`` in the store.
    ``compressed_bytes`` is about what the new ones would take, chunk headers included. ``picture`` has one kind for
    each of the equal parts of the file, from its start on: the one with most bytes in it; none for an empty file.
    """

    path: Path
    info: FileInfo
    new_bytes: int
    repeated_bytes: int
    shared_bytes: int
    stored_bytes: int
    compressed_bytes: int
    picture: tuple[Kind, ...]

    @property
    def deduped_bytes(self) -> int:
        """Bytes that would not be moved."""
        return self.repeated_bytes + self.shared_bytes + self.stored_bytes


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimate of some files, in the order in which they were given.

    ``queries`` is how many chunks the store was asked for. The sums are raw bytes, but for ``compressed_bytes``.
    """

    files: tuple[FileEstimate, ...]
    queries: int = 0

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.info.size for file in self.files)

    @property
    def new_bytes(self) -> int:
        """Bytes that are known from nowhere."""
        return sum(file.new_bytes for file in self.files)

    @property
    def repeated_bytes(self) -> int:
        """Bytes that their own file holds already."""
        return sum(file.repeated_bytes for file in self.files)

    @property
    def shared_bytes(self) -> int:
        """Bytes that another of the files holds already."""
        return sum(file.shared_bytes for file in self.files)

    @property
    def stored_bytes(self) -> int:
        """Bytes that the store holds already."""
        return sum(file.stored_bytes for file in self.files)

    @property
    def deduped_bytes(self) -> int:
        """Bytes that would not be moved."""
        return self.size - self.new_bytes

    @property
    def compressed_bytes(self) -> int:
        """About what an upload would move, and what it would add to the store."""
        return sum(file.compressed_bytes for file in self.files)

    def svg(self) -> str:
        """The pictures of all files as an SVG document that needs nothing else."""
        strips = [Strip(str(file.path), file.info.size, file.new_bytes, file.picture) for file in self.files]
        total = f"{size_text(self.size)} in all files; about {size_text(self.compressed_bytes)} to store"
        nbytes = {
            Kind.NEW: self.new_bytes,
            Kind.REPEATED: self.repeated_bytes,
            Kind.SHARED: self.shared_bytes,
            Kind.STORED: self.stored_bytes,
        }
        return draw_svg(strips, total, nbytes)


def estimate(
    paths: Iterable[Path],
    cas: Cas | None = None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    on_error: Callable[[Path, XetError], None] | None = None,
    cells: int = CELLS,
) -> Estimate:
    """Read files and say what an upload of them, in this order, would save; against the store ``cas`` if it is given.

    As an upload, it remembers a part of the files: matches over a distance of some tens of GiB are missed, and so are
    runs of known chunks that are too short to be worth it. A file that cannot be read is handed to ``on_error`` and the
    others go on; without it, its error is raised. Raises what the Cas raises.
    """
    session = EstimateSession(cas, threads or usable_cores(), progress or NoProgress(), cells)
    drafts: list[Draft] = []
    told = with_files(progress)
    for path in paths:
        told.file(str(path))
        try:
            with FileScan(path, threads=threads, progress=progress) as scan:
                drafts.append(session.read(path, scan))
        except XetError as error:
            if on_error is None or session.broken or isinstance(error, InterruptedCallError):
                raise
            on_error(path, error)
    sampled, encoded = sum(draft.sampled for draft in drafts), sum(draft.encoded for draft in drafts)
    overall = encoded / sampled if sampled else 1.0
    return Estimate(tuple(_finished(draft, overall) for draft in drafts), session.queries)


def _finished(draft: Draft, overall_ratio: float) -> FileEstimate:
    assert draft.info is not None
    new, repeated, shared, stored = draft.totals
    ratio = draft.encoded / draft.sampled if draft.sampled else overall_ratio
    return FileEstimate(draft.path, draft.info, new, repeated, shared, stored, round(new * ratio), draft.picture)
