"""Files into a Cas: chunks deduplicated, new ones packed into xorbs shared by files, then one shard for many files.

Order of becoming durable (draft 12.7): every xorb of a shard is acknowledged before the shard is sent, and a file
is reported only when its shard is acknowledged. What is interrupted leaves xorbs that no file names: harmless, and
found again by the next attempt.

What is known of xorbs that this session has not stored itself is hints: they may be gone. A server that has not what a
shard names refuses it; then the files of that shard are read once more and stored without any hint.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import accumulate, groupby
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from xetstore.batches import batches
from xetstore.cancellation import Cancellation
from xetstore.errors import RejectedShardError, XetError
from xetstore.events import Emit, Forgotten, ignore
from xetstore.interfaces import MANY_PUT_AGAIN
from xetstore.platform import forks
from xetstore.protocol.chunking import ChunkList
from xetstore.transfer.byte_source import ByteSource
from xetstore.transfer.progress import NoProgress, Progress, with_files
from xetstore.transfer.pushed_scan import PushedScan
from xetstore.transfer.scan import Block, FileScan
from xetstore.transfer.upload.context import Context, Unchanged, UploadOptions
from xetstore.transfer.upload.pending import PendingFile, PutReport
from xetstore.transfer.upload.placing import Placer
from xetstore.transfer.upload.registry import Registry
from xetstore.transfer.upload.xorbs import Owners, XorbWriter

if TYPE_CHECKING:
    from xetstore.interfaces import Cas
    from xetstore.protocol.known_chunks import KnownXorb, Revision, Run
    from xetstore.records import FileInfo
    from xetstore.transfer.upload.known import KnownXorbs
    from xetstore.transfer.upload.remembered import RememberedFiles, Sighting

GATHERED_BYTES: Final = 1 << 20
GATHERED_FILES: Final = 256
GATHERED_FILE_BYTES: Final = 64 << 10
"""Small files, of at most 64 KiB, are looked for together: 256 of them, or as many as have a MiB."""


class UploadSession:
    """Files that share xorbs and shards. Not thread-safe; a context manager that abandons what was not flushed.

    What was still to be sent when it is left is given up. Every xorb that is stored is remembered in ``context.known``.
    """

    def __init__(self, context: Context, progress: Progress) -> None:
        self._context = context
        self._progress = progress
        self._dry_run = context.options.dry_run
        self._sizes = context.sizes
        self._threads = context.threads
        self._registry = Registry(context)
        self._writer = XorbWriter(context, self._registry)
        self._placer = Placer(context.cas, context.known, context.options, self._writer.sending_seconds)
        self._files: list[PendingFile] = []
        # Small files that were read, with all of their bytes, and are not placed yet; and unchanged ones among them.
        self._gathered: list[tuple[PendingFile, list[Block]]] = []
        self._gathered_bytes = 0
        # Of the xorb that is being filled: whose its chunks are, and the first file that may name it.
        self._filling: KnownXorb | None = None
        self._owners: Owners[PendingFile] = Owners()
        self._first_user = 0
        self._file_bytes = 0
        self._refused: list[Path | ByteSource] = []
        self._recognises = True
        self._has_recognised = False
        self.broken = False

    def __enter__(self) -> UploadSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:  # else a query that is under way may end: how it does is remembered for the next upload
            self._context.cancellation.cancel()
        self._placer.close()
        self._writer.close()

    def add(self, source: Path | ByteSource, sighting: Sighting | None = None) -> FileInfo:
        """Read a file and store its new chunks; it is registered by the next :meth:`flush`. ``sighting`` is how it
        looked before. Small files are gathered, and placed together.

        Raises what reading raises, after which other files can still be added, and what the Cas raises, after which
        the session is :attr:`broken`.
        """
        return self._add_bytes(source) if isinstance(source, ByteSource) else self._add_file(source, sighting)

    def _add_file(self, path: Path, sighting: Sighting | None) -> FileInfo:
        looked_ns = 0
        if (remembered := self._context.remembered) is not None:
            if sighting is None:
                [sighting] = remembered.look([path])
            looked_ns = remembered.clock()
        with FileScan(path, sha256=True, threads=self._threads, progress=self._progress) as scan:
            is_small = scan.size <= GATHERED_FILE_BYTES
            if is_small:
                pending, blocks = PendingFile(path), [*scan]
            else:
                pending = self.begin(path, scan.size)
                for block in scan:
                    self.take(pending, block)
            pending.info = info = scan.info()
            if sighting is not None and (status := scan.still) is not None:
                pending.sighting = sighting.again(status, looked_ns)
        if is_small:
            self._gather(pending, blocks)
        else:
            self.end(pending, info)
        return info

    def _add_bytes(self, source: ByteSource) -> FileInfo:
        size = source.size
        with PushedScan(size, threads=self._threads, progress=self._progress) as scan:
            pending = self.begin(Path(source.name), size)
            pending.source = source
            self._progress.total(size or 0)
            for part in source.parts(self._context.cancellation):
                if size is None:
                    self._progress.total(memoryview(part).nbytes)
                for block in scan.write(part):
                    self.take(pending, block)
            for block in scan.finish():
                self.take(pending, block)
            self.end(pending, info := scan.info())
        return info

    def look(self, sources: Sequence[Path | ByteSource]) -> list[Sighting | None]:
        """Look at files, if what is put is remembered; None for what is no file."""
        remembered = self._context.remembered
        return [None] * len(sources) if remembered is None else remembered.look(sources)

    def unchanged(self, sightings: Sequence[Sighting | None]) -> list[FileInfo | None]:
        """For each file its identity if it need not be read, else None: it is as it was when it was put before, and the
        Cas has it. At most ``MANY_PUT_AGAIN`` at once. Raises what the Cas raises; then the session is broken.
        """
        remembered = self._context.remembered
        if remembered is None or self._context.options.unchanged is not Unchanged.SKIP:
            return [None] * len(sightings)
        infos = remembered.find(sightings)
        asked = {info.hash for info in infos if info is not None}
        if not asked:
            return infos
        with self._or_broken():
            here = self._context.cas.put_again([*asked], dry_run=self._dry_run)
        return [info if info is not None and info.hash in here else None for info in infos]

    def skip(self, source: Path | ByteSource, info: FileInfo) -> None:
        """Add a file that is :meth:`unchanged`; it is reported by the next :meth:`flush`, in its turn."""
        self._progress.total(info.size)
        self._progress.advance(logical=info.size, deduped=info.size)
        assert isinstance(source, Path)
        file = PendingFile(source, info=info, unchanged=True)
        if self._gathered:
            self._gathered.append((file, []))
        else:
            self._files.append(file)

    def begin(self, path: Path, size: int | None) -> PendingFile:
        """Begin a file whose blocks the caller has; it knows its ``size`` or not. One after the other."""
        self._place_gathered()
        self._placer.start_file(size)
        return PendingFile(path)

    def take(self, pending: PendingFile, block: Block) -> None:
        """Store what is new of the next block. Raises what the Cas raises, after which the session is broken."""
        with self._or_broken():
            self._context.cancellation.check()
            if (revision := self._placer.look_up(block.chunks)) is not None:
                self._revise(revision, pending)
            runs = self._placer.place(block)
            self._note_owner(pending, runs)
            block_new = self._new_bytes(block, runs) if self._dry_run else self._store_new(pending, block, runs)
        pending.new_bytes += block_new
        pending.again_bytes = self._placer.again_bytes
        self._progress.advance(new=block_new, deduped=len(block.data) - block_new)
        for run in runs:
            whole = run.count == len(block.chunks)
            end = run.block_start + run.count
            chunks = block.chunks if whole else block.chunks.slice(run.block_start, end)
            pending.extend(run, chunks)

    def end(self, pending: PendingFile, info: FileInfo) -> None:
        """The file is whole: it is registered by the next :meth:`flush`. Raises as :meth:`take`."""
        pending.close_term()
        pending.info = info
        with self._or_broken():
            self._recognise(pending)
        self._files.append(pending)
        self._file_bytes += info.size

    @property
    def full(self) -> bool:
        """True if it is time to flush."""
        count = len(self._files) + len(self._gathered)
        return self._file_bytes >= self._sizes.file_bytes or count >= self._sizes.files

    def flush(self) -> list[PutReport]:
        """Make everything added so far durable: cut the open xorb, wait for all, register the files.

        RejectedShardError where the server has not what was believed; :meth:`start_over` then says what to add again.
        """
        self._place_gathered()
        with self._or_broken():
            if (revision := self._placer.last_revision()) is not None:
                self._revise(revision)
            files, self._files, self._file_bytes = self._files, [], 0
            if self._dry_run:
                return [file.report() for file in files]
            self._writer.finish()
            self._placer.close_xorb()
            self._filling = None
            read = [file for file in files if not file.unchanged]
            try:
                self._registry.register([file.entry() for file in read])
            except RejectedShardError:
                if any(file.is_hinted for file in files):
                    self._refused = [file.source or file.path for file in files]
                raise
            self._has_recognised = False
            if (remembered := self._context.remembered) is not None:
                seen = ((file.sighting, file.info) for file in read)
                remembered.remember((one, info) for one, info in seen if one is not None and info is not None)
        return [file.report() for file in files]

    def start_over(self, refusal: RejectedShardError) -> list[Path | ByteSource]:
        """After a refused :meth:`flush`: forget every hint. The files to be added once more; none if it is no use.

        But where files were taken to be stored as they are, first of all look for each of their chunks.
        """
        refused, self._refused = self._refused, []
        if refused:
            self.broken = False
        if refused and self._has_recognised:
            self._has_recognised = self._recognises = False
        elif refused:
            self._placer.forget()
            if self._context.known is not None:
                self._context.known.forget_all()
            self._context.emit(Forgotten(str(refusal)))
        return refused

    def _gather(self, file: PendingFile, blocks: list[Block]) -> None:
        """Take a small file that was read; its blocks are in memory of their own. It is placed with others."""
        assert file.info is not None
        self._gathered.append((file, blocks))
        self._gathered_bytes += file.info.size
        if self._gathered_bytes >= GATHERED_BYTES or len(self._gathered) >= GATHERED_FILES:
            self._place_gathered()

    def _place_gathered(self) -> None:
        """Look for all of the small files that were read, then place them, one after the other."""
        if not self._gathered:
            return
        gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        with self._or_broken():
            chunks = ((len(block.data), block.chunks) for _, blocks in gathered for block in blocks)
            is_ahead = self._placer.look_ahead(chunks)
        for file, blocks in gathered:
            assert file.info is not None
            if file.unchanged:
                self._files.append(file)
                continue
            self._placer.start_file(file.info.size, is_ahead=is_ahead)
            for block in blocks:
                self.take(file, block)
            self.end(file, file.info)

    def _recognise(self, file: PendingFile) -> None:
        """Let a file that is stored as it is have the terms that it has: of what it begins with, not all may have been
        found.
        """
        assert file.info is not None
        if not file.new_bytes or not file.terms[0][0].is_hint:
            return
        for revision in self._placer.end_file(file.new_bytes):
            self._revise(revision, file)
        file.close_term()
        if file.new_bytes and self._recognises:
            stored = self._placer.stored_file(file.info, file.new_bytes)
            if stored is not None:
                file.take_terms(stored)
                self._has_recognised = True
                if (withdrawn := self._placer.withdraw_file()) is not None:
                    self._revise(withdrawn)

    def _note_owner(self, file: PendingFile, runs: list[Run]) -> None:
        """Remember whose the new chunks are in the xorb that is being filled, and which file was its first."""
        for run in runs:
            if not run.new:
                continue
            if run.xorb is not self._filling:
                self._filling, self._owners, self._first_user = run.xorb, Owners(), len(self._files)
            self._owners.shares.append((file, run.count))

    def _revise(self, revision: Revision, current: PendingFile | None = None) -> None:
        """Drop chunks that are stored already from the xorb that is being filled, and let all files follow."""
        sizes = revision.chunks.sizes
        for owner, start, end in self._owners.drop(revision.dropped):
            nbytes = sum(sizes[start:end])
            owner.new_bytes -= nbytes
            owner.again_bytes -= revision.again_bytes(start, end)
            self._progress.advance(new=-nbytes, deduped=nbytes)
        if not self._dry_run:
            self._writer.drop(revision.xorb, revision.dropped)
        for file in self._files[self._first_user :]:
            file.revise(revision)
        if current is not None:
            current.revise(revision)

    def _store_new(self, file: PendingFile, block: Block, runs: list[Run]) -> int:
        """Send the block's new chunks to the xorbs the planner chose; how many bytes they are."""
        if len(runs) == 1 and runs[0].new:  # as of most small files
            self._append(file, block, runs[0].xorb, [block.data], block.chunks)
            return len(block.data)
        new_bytes = 0
        offsets = [0, *accumulate(block.chunks.sizes)]
        for xorb, new in groupby((run for run in runs if run.new), key=lambda run: run.xorb):
            spans = [(run.block_start, run.block_start + run.count) for run in new]
            chunks = ChunkList.concat(block.chunks.slice(start, end) for start, end in spans)
            pieces = [block.data[offsets[start] : offsets[end]] for start, end in spans]
            self._append(file, block, xorb, pieces, chunks)
            new_bytes += chunks.total_bytes
        return new_bytes

    def _append(
        self, file: PendingFile, block: Block, xorb: KnownXorb, pieces: list[memoryview], chunks: ChunkList
    ) -> None:
        if block.readers is None:
            self._writer.append_held(file, xorb, pieces, chunks)
        else:
            block.readers.append(self._writer.append(file, xorb, pieces, chunks))

    @staticmethod
    def _new_bytes(block: Block, runs: list[Run]) -> int:
        sizes = block.chunks.sizes
        return sum(sum(sizes[run.block_start : run.block_start + run.count]) for run in runs if run.new)

    @contextmanager
    def _or_broken(self) -> Iterator[None]:
        """Errors in here are not those of a file: the session ends with them."""
        try:
            yield
        except BaseException:
            self.broken = True
            raise


@forks.bound
def put_files(
    cas: Cas,
    sources: Iterable[Path | ByteSource],
    options: UploadOptions = UploadOptions(),  # noqa: B008  # it is immutable
    *,
    progress: Progress | None = None,
    on_error: Callable[[Path, XetError], None] | None = None,
    known: KnownXorbs | None = None,
    remembered: RememberedFiles | None = None,
    emit: Emit = ignore,
    cancellation: Cancellation | None = None,
) -> Generator[PutReport]:
    """Store files; yield a report for each, in order, once it is durable and registered.

    A file that cannot be read, or changes meanwhile, is handed to ``on_error`` and the others go on; without
    ``on_error`` its error ends the upload, after what was read before it has been registered. The reports of a dry run
    tell what would be new; ``stored_bytes`` is 0 then. ``known`` is what this machine remembers of the Cas, and
    ``remembered`` what it remembers of files, which is closed at the end. The upload ends with ``cancellation``.
    """
    own = Cancellation() if cancellation is None else cancellation.child()
    context = Context(cas.under(own), own, options, known, emit, remembered)
    told = with_files(progress)
    with remembered or nullcontext(), UploadSession(context, progress or NoProgress()) as session:
        # Some thousands are taken ahead where files may be skipped, to look for them and to ask at once.
        for part in batches(sources, MANY_PUT_AGAIN if options.unchanged is Unchanged.SKIP else 1):
            sightings = session.look(part)
            for source, sighting, unchanged in zip(part, sightings, session.unchanged(sightings), strict=True):
                told.file(source.name if isinstance(source, ByteSource) else str(source))
                if unchanged is None:
                    yield from _add(session, source, on_error, sighting)
                else:
                    session.skip(source, unchanged)
                if session.full:
                    yield from _flush(session, on_error)
        yield from _flush(session, on_error)


def _add(
    session: UploadSession,
    source: Path | ByteSource,
    on_error: Callable[[Path, XetError], None] | None,
    sighting: Sighting | None = None,
) -> Iterator[PutReport]:
    """Add a file; reports only where its error ends the upload."""
    try:
        session.add(source, sighting)
    except XetError as error:
        if session.broken:
            raise
        if on_error is None:
            yield from _flush(session, on_error)
            raise
        on_error(source if isinstance(source, Path) else Path(source.name), error)


def _flush(session: UploadSession, on_error: Callable[[Path, XetError], None] | None) -> Iterator[PutReport]:
    """Register what was added; once more from the start where the server has not what was believed."""
    while True:
        try:
            reports = session.flush()
        except RejectedShardError as refusal:
            again = session.start_over(refusal)
            if not again:
                raise
        else:
            yield from reports
            return
        for source in again:
            yield from _add(session, source, on_error)
