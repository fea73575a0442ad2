"""Verification of a whole file: its merkle tree, and the parts to look at again if it is another one."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator, Sequence
from typing import Final

from xetstore.errors import HashMismatchError
from xetstore.protocol import kernel
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, file_hash
from xetstore.protocol.suite import HASH_BYTES, XET_GEARHASH_BLAKE3
from xetstore.transfer.download.plan import Run, Window

SPOOL_BYTES: Final = 16 << 20
"""Bytes up to which the chunk hashes of a file, which may be looked at again, are in memory; then on disk."""


class FileCheck:
    """Collects the chunks of ``file`` in order. Not thread-safe; close it, or use it as a context manager.

    Only of a whole file is the hash known; where the Cas does not tell those of its chunks, they are kept, so that they
    can be compared with what a second look finds.
    """

    def __init__(self, file: Hash, *, is_whole: bool) -> None:
        self.file = file
        self._is_whole = is_whole
        self._tree = kernel.MerkleTree(XET_GEARHASH_BLAKE3.kernel)
        self._hashes_told = True
        self._kept: RunSpool | None = None

    def add(self, window: Window, runs: Sequence[Run]) -> None:
        """The chunks of the next window, which are in order and as the Cas told them."""
        told = window.reconstruction.term_hashes is not None
        self._hashes_told = self._hashes_told and told
        if not self._is_whole:
            return
        if not told and window.position == 0:
            self._kept = RunSpool()
        for run in runs:
            self._tree.update(run.chunks.hashes, run.chunks.lengths)
        if self._kept is not None:
            self._kept.add(run._replace(verified=run.verified or told) for run in runs)

    @property
    def is_right(self) -> bool:
        """False where a whole file is not what its hash says."""
        return not self._is_whole or file_hash(Hash(self._tree.root())) == self.file

    @property
    def is_verified(self) -> bool:
        """True if every byte was checked against a hash, if :attr:`is_right`."""
        return self._is_whole or self._hashes_told

    @property
    def doubtful(self) -> RunSpool | None:
        """All runs of the file, if some of them were not checked on their own."""
        return None if self._hashes_told else self._kept

    def mismatch(self, hint: str | None = None) -> HashMismatchError:
        """The error of a file that is not right."""
        actual = file_hash(Hash(self._tree.root()))
        error = HashMismatchError("the file", expected=str(self.file), actual=str(actual))
        error.hint = hint
        return error

    def start_again(self) -> None:
        """Forget all chunks: they are added anew, by :meth:`add_run`."""
        self._tree = kernel.MerkleTree(XET_GEARHASH_BLAKE3.kernel)

    def add_run(self, run: Run) -> None:
        """The next chunks, after :meth:`start_again`."""
        self._tree.update(run.chunks.hashes, run.chunks.lengths)

    def close(self) -> None:
        """Let go of what is kept."""
        if self._kept is not None:
            self._kept.close()

    def __enter__(self) -> FileCheck:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class RunSpool:
    """Runs in order, in a temporary file where they are many: 40 bytes a chunk."""

    _HEAD = struct.Struct("<QIIB32s")

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115

    def add(self, runs: Iterator[Run]) -> None:
        """Append."""
        for run in runs:
            xorb = b"" if run.xorb is None else run.xorb.digest
            flags = run.verified | (run.xorb is not None) << 1
            self._file.write(self._HEAD.pack(run.position, len(run.chunks), run.chunk_start, flags, xorb))
            self._file.write(run.chunks.hashes + run.chunks.lengths)

    def __iter__(self) -> Iterator[Run]:
        self._file.seek(0)
        while head := self._file.read(self._HEAD.size):
            position, count, chunk_start, flags, xorb = self._HEAD.unpack(head)
            chunks = ChunkList(self._file.read(count * HASH_BYTES), self._file.read(count * 8))
            yield Run(position, chunks, Hash(xorb) if flags & 2 else None, chunk_start, verified=bool(flags & 1))

    def close(self) -> None:
        """Forget them."""
        self._file.close()
