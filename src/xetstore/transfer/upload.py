"""Files into a Cas: chunks deduplicated, new ones packed into xorbs shared by files, then one shard for many files.

Order of becoming durable (draft 12.7): every xorb of a shard is acknowledged before the shard is sent, and a file
is reported only when its shard is acknowledged. What is interrupted leaves xorbs that no file names: harmless, and
found again by the next attempt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from xetstore.errors import XetError
from xetstore.interfaces import Cas
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.dedup import DedupPlanner, KnownXorb, Run
from xetstore.protocol.hashes import Hash, verification_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard, split_for_upload
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3, AlgorithmSuite
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.transfer.progress import NoProgress, Progress
from xetstore.transfer.scan import Block, FileInfo, FileScan, usable_cores
from xetstore.transfer.xorbs import XorbWriter

FLUSH_RAW_BYTES = 8 << 30
FLUSH_FILES = 10_000
"""Files are registered when so much has gathered, at the end of a file."""


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
    info: FileInfo | None = None
    new_bytes: int = 0
    stored_bytes: int = 0

    def close_term(self, term: _OpenTerm, suite: AlgorithmSuite) -> None:
        if self.terms:
            last = self.terms[-1]
            if last[:4] == (term.xorb, term.start, term.end, term.unpacked_bytes):
                self.terms.append(last)
                return
        proof = verification_hash(bytes(term.hashes), suite)
        self.terms.append((term.xorb, term.start, term.end, term.unpacked_bytes, proof))

    def report(self) -> PutReport:
        """What is told of the file when it is stored."""
        assert self.info is not None
        return PutReport(self.path, self.info, self.new_bytes, self.info.size - self.new_bytes, self.stored_bytes)

    def entry(self) -> FileEntry:
        """The file as a shard names it; all its xorbs have names by now."""
        assert self.info is not None
        cache: dict[int, Term] = {}
        terms = []
        for term in self.terms:
            known = cache.get(id(term))
            if known is None:
                xorb, start, end, nbytes, _ = term
                assert xorb.name is not None
                known = cache[id(term)] = Term(xorb.name, start, end, nbytes)
            terms.append(known)
        sha256 = self.info.sha256
        return FileEntry(
            hash=self.info.hash,
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
        self._threads = threads or usable_cores()
        self._progress = progress or NoProgress()
        self._suite = suite
        self._planner = DedupPlanner(suite, cas.queries)
        self._writer = XorbWriter(cas, policy=policy, threads=self._threads, suite=suite)
        self._encoding: deque[tuple[_PendingFile, Future[int]]] = deque()
        self._files: list[_PendingFile] = []
        self._gathered_bytes = 0
        self.broken = False

    def __enter__(self) -> UploadSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self._writer.close()

    def add(self, path: Path) -> None:
        """Read a file and store its new chunks; it is registered by the next :meth:`flush`.

        Raises what FileScan raises, after which other files can still be added, and what the Cas raises, after which
        the session is :attr:`broken`.
        """
        pending = _PendingFile(path)
        term: _OpenTerm | None = None
        self._planner.start_file()
        with FileScan(path, sha256=True, threads=self._threads, progress=self._progress, suite=self._suite) as scan:
            for block in scan:
                for chunk in self._planner.worth_asking(block.chunks):
                    with self._or_broken():
                        answer = self._cas.find_chunk(chunk)
                    if answer is not None:
                        self._planner.learn(answer)
                runs = self._planner.plan(block.chunks)
                block_new = self._store_new(pending, block, runs)
                self._settle(wait=False)
                self._progress.advance(new=block_new, deduped=len(block.data) - block_new)
                for run in runs:
                    chunks = block.chunks.slice(run.block_start, run.block_start + run.count)
                    term = self._extend(pending, term, run, chunks)
            if term is not None:
                pending.close_term(term, self._suite)
            pending.info = scan.info()
        self._files.append(pending)
        self._gathered_bytes += pending.info.size

    @property
    def full(self) -> bool:
        """Whether it is time to flush."""
        return self._gathered_bytes >= FLUSH_RAW_BYTES or len(self._files) >= FLUSH_FILES

    def flush(self) -> list[PutReport]:
        """Make everything added so far durable: cut the open xorb, wait for all, register the files."""
        with self._or_broken():
            xorbs = self._writer.finish()
            self._settle(wait=True)
            self._planner.close_xorb()
            files, self._files, self._gathered_bytes = self._files, [], 0
            if files or xorbs:
                for part in split_for_upload(Shard(tuple(file.entry() for file in files), tuple(xorbs))):
                    self._cas.put_shard(part)
        return [file.report() for file in files]

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

    def _store_new(self, file: _PendingFile, block: Block, runs: list[Run]) -> int:
        """Send the block's new chunks to the xorbs the planner chose; how many bytes they are."""
        new_bytes = 0
        offsets = [0]
        for size in block.chunks.sizes:
            offsets.append(offsets[-1] + size)
        for xorb, new in groupby((run for run in runs if run.new), key=lambda run: run.xorb):
            spans = [(run.block_start, run.block_start + run.count) for run in new]
            chunks = ChunkList.concat(block.chunks.slice(start, end) for start, end in spans)
            pieces = [block.data[offsets[start] : offsets[end]] for start, end in spans]
            encoding = self._writer.append(xorb, pieces, chunks)
            block.readers.append(encoding)
            self._encoding.append((file, encoding))
            new_bytes += chunks.total_bytes
        file.new_bytes += new_bytes
        return new_bytes

    def _settle(self, *, wait: bool) -> None:
        """Credit files with what their chunks take in xorbs: those encoded by now, or all."""
        while self._encoding and (wait or self._encoding[0][1].done()):
            file, encoding = self._encoding.popleft()
            with self._or_broken():
                file.stored_bytes += encoding.result()

    @contextmanager
    def _or_broken(self) -> Iterator[None]:
        """Errors in here are not those of a file: the session ends with them."""
        try:
            yield
        except BaseException:
            self.broken = True
            raise


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
