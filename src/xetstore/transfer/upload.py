"""Files into a Cas: chunks deduplicated, new ones packed into xorbs shared by files, then one shard for many files.

Order of becoming durable (draft 12.7): every xorb of a shard is acknowledged before the shard is sent, and a file
is reported only when its shard is acknowledged. What is interrupted leaves xorbs that no file names: harmless, and
found again by the next attempt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from xetstore.errors import XetError
from xetstore.interfaces import Cas
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.dedup import DedupPlanner, KnownXorb, Run
from xetstore.protocol.hashes import Hash, verification_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard, XorbEntry, split_for_upload
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3, AlgorithmSuite
from xetstore.protocol.xorb import CompressionPolicy, XorbBuilder
from xetstore.transfer.progress import NoProgress, Progress
from xetstore.transfer.scan import Block, FileInfo, FileScan, usable_cores

XORBS_IN_FLIGHT = 1
"""Xorbs being stored while the next one is filled: each costs up to 64 MiB of memory."""

FLUSH_RAW_BYTES = 8 << 30
FLUSH_FILES = 10_000
"""Files are registered when so much has gathered, at the end of a file."""

FLUSH_CHUNKS = 100_000
"""A shard of xorbs alone is sent when so many new chunks have gathered."""


@dataclass(frozen=True, slots=True)
class PutReport:
    """A stored file. ``new_bytes`` and ``deduped_bytes`` are raw and add up to its size.

    ``stored_bytes`` is what the new ones take in xorbs, compressed, chunk headers included.
    """

    path: Path
    info: FileInfo
    new_bytes: int
    deduped_bytes: int
    stored_bytes: int


@dataclass(slots=True)
class _OpenTerm:
    """A term of a file whose xorb may not have its name yet."""

    xorb: KnownXorb
    start: int
    end: int
    unpacked_bytes: int
    hashes: bytearray


@dataclass(slots=True)
class _PendingFile:
    """A file read to its end, waiting for its shard. Equal neighbours share one object: a sparse file has many."""

    path: Path
    terms: list[tuple[KnownXorb, int, int, int, Hash]] = field(default_factory=list)
    report: PutReport | None = None

    def close_term(self, term: _OpenTerm, suite: AlgorithmSuite) -> None:
        if self.terms:
            last = self.terms[-1]
            if last[:4] == (term.xorb, term.start, term.end, term.unpacked_bytes):
                self.terms.append(last)
                return
        proof = verification_hash(bytes(term.hashes), suite)
        self.terms.append((term.xorb, term.start, term.end, term.unpacked_bytes, proof))

    def entry(self) -> FileEntry:
        """The file as a shard names it; all its xorbs have names by now."""
        assert self.report is not None
        cache: dict[int, Term] = {}
        terms = []
        for term in self.terms:
            known = cache.get(id(term))
            if known is None:
                xorb, start, end, nbytes, _ = term
                assert xorb.name is not None
                known = cache[id(term)] = Term(xorb.name, start, end, nbytes)
            terms.append(known)
        sha256 = self.report.info.sha256
        return FileEntry(
            hash=self.report.info.hash,
            terms=tuple(terms),
            verification=tuple(term[4] for term in self.terms),
            sha256=bytes.fromhex(sha256) if sha256 is not None else None,
        )


class UploadSession:
    """Files that share xorbs and shards. Not thread-safe; a context manager that abandons what was not flushed."""

    def __init__(
        self,
        cas: Cas,
        *,
        policy: CompressionPolicy = CompressionPolicy.AUTO,
        threads: int | None = None,
        progress: Progress | None = None,
        suite: AlgorithmSuite = XET_GEARHASH_BLAKE3,
    ) -> None:
        self._cas = cas
        self._policy = policy.kernel
        self._threads = threads or usable_cores()
        self._progress = progress or NoProgress()
        self._suite = suite
        self._planner = DedupPlanner(suite, cas.queries)
        self._builders: SimpleQueue[XorbBuilder] = SimpleQueue()
        for _ in range(1 + XORBS_IN_FLIGHT):
            self._builders.put(XorbBuilder(suite))
        self._storing: deque[Future[None]] = deque()
        self._executor = ThreadPoolExecutor(XORBS_IN_FLIGHT, "put_xorb")
        self._open: tuple[KnownXorb, XorbBuilder] | None = None
        self._files: list[_PendingFile] = []
        self._xorbs: list[XorbEntry] = []
        self._gathered_bytes = 0
        self._gathered_chunks = 0
        self.broken = False

    def __enter__(self) -> UploadSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def add(self, path: Path) -> None:
        """Read a file and store its new chunks; it is registered by the next :meth:`flush`.

        Raises what FileScan raises, after which other files can still be added, and what the Cas raises, after which
        the session is :attr:`broken`.
        """
        pending = _PendingFile(path)
        term: _OpenTerm | None = None
        new_bytes = stored_bytes = 0
        self._planner.start_file()
        with FileScan(path, sha256=True, threads=self._threads, progress=self._progress, suite=self._suite) as scan:
            for block in scan:
                for chunk in self._planner.worth_asking(block.chunks):
                    answer = self._ask(chunk)
                    if answer is not None:
                        self._planner.learn(answer)
                runs = self._planner.plan(block.chunks)
                block_new, block_stored = self._store_new(block, runs)
                new_bytes += block_new
                stored_bytes += block_stored
                self._progress.advance(new=block_new, deduped=len(block.data) - block_new)
                for run in runs:
                    chunks = block.chunks.slice(run.block_start, run.block_start + run.count)
                    term = self._extend(pending, term, run, chunks)
            if term is not None:
                pending.close_term(term, self._suite)
            info = scan.info()
        pending.report = PutReport(path, info, new_bytes, info.size - new_bytes, stored_bytes)
        self._files.append(pending)
        self._gathered_bytes += info.size

    @property
    def full(self) -> bool:
        """Whether it is time to flush."""
        return self._gathered_bytes >= FLUSH_RAW_BYTES or len(self._files) >= FLUSH_FILES

    def flush(self) -> list[PutReport]:
        """Make everything added so far durable: cut the open xorb, wait for all, register the files."""
        self._close_xorb()
        self._planner.close_xorb()
        self._await_all()
        files, xorbs = self._files, self._xorbs
        self._files, self._xorbs, self._gathered_bytes, self._gathered_chunks = [], [], 0, 0
        if files or xorbs:
            for part in split_for_upload(Shard(tuple(file.entry() for file in files), tuple(xorbs))):
                self._cas.put_shard(part)
        return [file.report for file in files if file.report is not None]

    def _ask(self, chunk: Hash) -> Shard | None:
        try:
            return self._cas.find_chunk(chunk)
        except BaseException:
            self.broken = True
            raise

    def _await_all(self) -> None:
        while self._storing:
            self._await_oldest()

    def _await_oldest(self) -> None:
        try:
            self._storing.popleft().result()
        except BaseException:
            self.broken = True
            raise

    def _extend(self, file: _PendingFile, term: _OpenTerm | None, run: Run, chunks: ChunkList) -> _OpenTerm:
        nbytes = chunks.total_bytes
        if term is not None:
            if term.xorb is run.xorb and term.end == run.xorb_start:
                term.end += run.count
                term.unpacked_bytes += nbytes
                term.hashes += chunks.hashes
                return term
            file.close_term(term, self._suite)
        return _OpenTerm(run.xorb, run.xorb_start, run.xorb_start + run.count, nbytes, bytearray(chunks.hashes))

    def _store_new(self, block: Block, runs: list[Run]) -> tuple[int, int]:
        """Encode the block's new chunks into the xorbs the planner chose. Raw and stored bytes of them."""
        new_bytes = stored_bytes = 0
        offsets = [0]
        for size in block.chunks.sizes:
            offsets.append(offsets[-1] + size)
        i = 0
        while i < len(runs):
            xorb = runs[i].xorb
            if not runs[i].new:
                i += 1
                continue
            # All new runs of this block that go to one xorb are encoded by one call.
            pieces: list[memoryview] = []
            parts: list[ChunkList] = []
            while i < len(runs) and (not runs[i].new or runs[i].xorb is xorb):
                run = runs[i]
                if run.new:
                    end = run.block_start + run.count
                    pieces.append(block.data[offsets[run.block_start] : offsets[end]])
                    parts.append(block.chunks.slice(run.block_start, end))
                i += 1
            builder = self._builder_of(xorb)
            before = builder.body_bytes
            chunks = ChunkList.concat(parts)
            builder.append(pieces, chunks, policy=self._policy, threads=self._threads)
            new_bytes += chunks.total_bytes
            stored_bytes += builder.body_bytes - before
        return new_bytes, stored_bytes

    def _builder_of(self, xorb: KnownXorb) -> XorbBuilder:
        if self._open is not None and self._open[0] is not xorb:
            self._close_xorb()
        if self._open is None:
            while self._storing and (self._storing[0].done() or len(self._storing) >= 1 + XORBS_IN_FLIGHT):
                self._await_oldest()
            self._open = (xorb, self._builders.get())
        return self._open[1]

    def _close_xorb(self) -> None:
        if self._open is None:
            return
        (known, builder), self._open = self._open, None
        info, body = builder.finish()
        known.name = info.hash
        self._xorbs.append(XorbEntry(info.hash, info.chunks))
        self._gathered_chunks += info.chunk_count

        def store() -> None:
            try:
                self._cas.put_xorb(info.hash, body)
            finally:
                body.release()
                builder.reset()
                self._builders.put(builder)

        self._storing.append(self._executor.submit(store))
        if self._gathered_chunks >= FLUSH_CHUNKS:
            # In the middle of a file too: what is held of a file must not grow with its size.
            self._await_all()
            xorbs, self._xorbs, self._gathered_chunks = self._xorbs, [], 0
            self._cas.put_shard(Shard(xorbs=tuple(xorbs)))


def put_files(
    cas: Cas,
    paths: Iterable[Path],
    *,
    policy: CompressionPolicy = CompressionPolicy.AUTO,
    threads: int | None = None,
    progress: Progress | None = None,
    on_error: Callable[[Path, XetError], None] | None = None,
    suite: AlgorithmSuite = XET_GEARHASH_BLAKE3,
) -> Iterator[PutReport]:
    """Store files; yield a report for each, in order, once it is durable and registered.

    A file that cannot be read, or changes meanwhile, is handed to ``on_error`` and the others go on; without
    ``on_error`` its error ends the upload, after what was read before it has been registered.
    """
    with UploadSession(cas, policy=policy, threads=threads, progress=progress, suite=suite) as session:
        for path in paths:
            try:
                session.add(path)
            except XetError as error:
                if session.broken:
                    raise
                if on_error is None:
                    yield from session.flush()
                    raise
                on_error(path, error)
            if session.full:
                yield from session.flush()
        yield from session.flush()
