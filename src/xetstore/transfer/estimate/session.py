"""The session behind an estimate: chunks are placed as by an upload, without an upload."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xetstore.protocol import kernel
from xetstore.protocol.known_chunks import MAX_KNOWN_CHUNKS, KnownXorb, Revision, Run
from xetstore.protocol.suite import CHUNK_HEADER_BYTES, XET_GEARHASH_BLAKE3
from xetstore.transfer.estimate.picture import Kind
from xetstore.transfer.progress import Progress
from xetstore.transfer.scan import Block, FileScan
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.placing import Placer
from xetstore.transfer.upload.sizing import UploadSizes

if TYPE_CHECKING:
    from xetstore.interfaces import Cas
    from xetstore.records import FileInfo
    from xetstore.transfer.progress import Progress
    from xetstore.transfer.scan import Block, FileScan

SAMPLED: Final = 16
"""The share of new chunks that are compressed, as a divisor; and the first one of each file is."""

_KINDS: Final = tuple(Kind)
_NEW, _REPEATED, _SHARED, _STORED = range(4)


@dataclass(slots=True)
class Draft:
    """A file being estimated: bytes by kind, over all and in each cell; raw and compressed bytes of the sample."""

    path: Path
    size: int
    cell_count: int
    info: FileInfo | None = None
    totals: list[int] = field(default_factory=lambda: [0] * len(_KINDS))
    sampled: int = 0
    encoded: int = 0
    position: int = 0
    cells: list[list[int]] = field(default_factory=list)
    picture: tuple[Kind, ...] = ()

    def add(self, kind: int, nbytes: int) -> None:
        """The next bytes are of this kind."""
        if not self.cells:
            self.cells = [[0] * len(_KINDS) for _ in range(self.cell_count)]
        self._count(kind, self.position, nbytes)
        self.position += nbytes

    def turn(self, start: int, nbytes: int) -> None:
        """Bytes from ``start`` on that were counted as new are stored."""
        self._count(_NEW, start, nbytes, by=-1)
        self._count(_STORED, start, nbytes)

    def _count(self, kind: int, position: int, nbytes: int, *, by: int = 1) -> None:
        self.totals[kind] += by * nbytes
        end = position + nbytes
        while position < end:
            cell = min(position * self.cell_count // self.size, self.cell_count - 1)
            border = -(-(cell + 1) * self.size // self.cell_count)  # where the next cell starts
            stop = end if cell == self.cell_count - 1 else min(border, end)
            self.cells[cell][kind] += by * (stop - position)
            position = stop

    def close(self, info: FileInfo) -> None:
        """The file was read to its end: what each cell has most of is its kind, and the cells are done with."""
        kinds: list[Kind] = []
        for cell in self.cells:
            # A file of fewer bytes than cells has cells with none: these are as the one before.
            kinds.append(_KINDS[cell.index(max(cell))] if any(cell) or not kinds else kinds[-1])
        self.info, self.picture, self.cells = info, tuple(kinds), []


class _Origins:
    """Which file brought which chunks of the xorbs that an upload would fill."""

    def __init__(self, max_chunks: int) -> None:
        self._max_chunks = max_chunks
        self._count = 0
        # For each xorb, from which chunk on which file brought them; the oldest xorbs are forgotten, as by the planner.
        self._bounds: OrderedDict[KnownXorb, tuple[list[int], list[int]]] = OrderedDict()

    def add(self, run: Run, file: int) -> None:
        starts, files = self._bounds.setdefault(run.xorb, ([], []))
        if not files or files[-1] != file:
            starts.append(run.xorb_start)
            files.append(file)
        self._count += run.count
        while self._count > self._max_chunks and len(self._bounds) > 1:
            self._count -= self._bounds.popitem(last=False)[0].chunk_count

    def follow(self, revision: Revision) -> None:
        """Chunks of a xorb are gone, and those behind them moved up."""
        starts, _ = self._bounds.get(revision.xorb, ([], []))
        for i, start in enumerate(starts):
            starts[i] -= sum(max(0, min(end, start) - first) for first, end in revision.dropped)

    def split(self, run: Run) -> Iterator[tuple[int, int | None]]:
        """Yield the number of chunks of a run that each file brought, in order; None for a file that was forgotten."""
        starts, files = self._bounds.get(run.xorb, ((), ()))
        at, end = run.xorb_start, run.xorb_start + run.count
        while at < end:
            i = bisect_right(starts, at) - 1
            stop = min(starts[i + 1], end) if i + 1 < len(starts) else end
            yield stop - at, files[i] if i >= 0 else None
            at = stop


class EstimateSession:
    """Plans the chunks of one file after another, as an upload does."""

    def __init__(self, cas: Cas | None, threads: int, progress: Progress, cells: int) -> None:
        # Without a store to ask, more of the files is remembered.
        most = MAX_KNOWN_CHUNKS if cas is not None else 4 * MAX_KNOWN_CHUNKS
        self._threads = threads
        self._progress = progress
        self._cells = cells
        self._placer = Placer(cas, None, UploadOptions(dry_run=True, sizes=UploadSizes(known_chunks=most)))
        self._origins = _Origins(2 * most)
        self._file = -1
        # For each new chunk of this file in the xorb that is being filled, where in the file it is.
        self._filling: KnownXorb | None = None
        self._positions: dict[int, int] = {}
        self._new_chunks = 0
        self.broken = False

    @property
    def queries(self) -> int:
        """The number of questions that the store was asked."""
        return self._placer.questions

    def read(self, path: Path, scan: FileScan) -> Draft:
        """Plan a file to its end."""
        self._file += 1
        self._positions = {}
        draft = Draft(path, max(scan.size, 1), self._cells)
        self._placer.start_file(scan.size)
        for block in scan:
            if (revision := self._look_up(block)) is not None:
                self._revise(revision, draft)
            runs = self._placer.place(block)
            offsets = list(accumulate(block.chunks.sizes, initial=0))
            before = draft.totals[_NEW]
            for run in runs:
                self._count(draft, run, offsets)
            self._sample(draft, block, runs, offsets)
            new = draft.totals[_NEW] - before
            self._progress.advance(new=new, deduped=len(block.data) - new)
        draft.close(scan.info())
        return draft

    def _look_up(self, block: Block) -> Revision | None:
        try:
            return self._placer.look_up(block.chunks)
        except BaseException:
            self.broken = True
            raise

    def _revise(self, revision: Revision, draft: Draft) -> None:
        """Count as stored what an upload would drop from its open xorb."""
        self._origins.follow(revision)
        positions, self._positions = self._positions, {}
        for run in revision.runs:
            for old in range(run.block_start, run.block_start + run.count):
                if old not in positions:
                    continue  # of a file before this one
                if run.xorb is revision.xorb:
                    self._positions[run.xorb_start + old - run.block_start] = positions[old]
                else:
                    nbytes = revision.chunks.sizes[old]
                    draft.turn(positions[old], nbytes)
                    self._progress.advance(new=-nbytes, deduped=nbytes)

    def _count(self, draft: Draft, run: Run, offsets: Sequence[int]) -> None:
        at = run.block_start
        if run.new:
            self._origins.add(run, self._file)
            if run.xorb is not self._filling:
                self._filling, self._positions = run.xorb, {}
            base = draft.position - offsets[at]
            for i in range(run.count):
                self._positions[run.xorb_start + i] = base + offsets[at + i]
            parts: Iterable[tuple[int, int]] = [(run.count, _NEW)]
        elif run.xorb.name is not None:
            parts = [(run.count, _STORED)]
        else:
            parts = ((count, _REPEATED if file == self._file else _SHARED) for count, file in self._origins.split(run))
        for count, kind in parts:
            draft.add(kind, offsets[at + count] - offsets[at])
            at += count

    def _sample(self, draft: Draft, block: Block, runs: Iterable[Run], offsets: Sequence[int]) -> None:
        new = chain.from_iterable(range(run.block_start, run.block_start + run.count) for run in runs if run.new)
        picked: list[int] = []
        for index in new:
            if self._new_chunks % SAMPLED == 0 or not (draft.sampled or picked):
                picked.append(index)
            self._new_chunks += 1
        if not picked:
            return
        pieces = [block.data[offsets[i] : offsets[i + 1]] for i in picked]
        lengths = b"".join(block.chunks.lengths[8 * i : 8 * (i + 1)] for i in picked)
        raw = sum(map(len, pieces))
        room = bytearray(raw + CHUNK_HEADER_BYTES * len(picked))
        ends = kernel.encode_chunks(
            XET_GEARHASH_BLAKE3.kernel, pieces, lengths, room, policy=kernel.AUTO, threads=self._threads
        )
        draft.sampled += raw
        draft.encoded += memoryview(ends).cast("Q")[-1]
