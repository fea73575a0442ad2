"""A version of a file as a list of chunks: one key each, by which equal ones are known, and where each starts."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from xetstore.errors import FormatError
from xetstore.protocol.suite import HASH_BYTES
from xetstore.transfer.download.file_range import FileRange
from xetstore.transfer.download.reconstructions import Reconstructions
from xetstore.transfer.scan import FileScan

if TYPE_CHECKING:
    from xetstore.interfaces import Cas
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.reconstruction import Reconstruction, Term
    from xetstore.transfer.progress import Progress


class Version(Protocol):
    """Chunks of a file. ``len`` is how many; ``hash`` and ``size``, in bytes, are the file's."""

    hash: Hash
    size: int

    def __len__(self) -> int: ...

    def take_keys(self) -> bytes:
        """The keys of all chunks, 32 bytes each, which are not kept."""

    def offset(self, index: int) -> int:
        """The byte at which a chunk starts; of the chunk behind the last one, the size."""


class LocalVersion:
    """A local file, read and hashed. 40 bytes a chunk. Raises as FileScan does."""

    def __init__(self, path: Path, *, threads: int | None, progress: Progress | None) -> None:
        self.path = path
        hashes: list[bytes] = []
        self._offsets = array("Q", [0])
        with FileScan(path, threads=threads, progress=progress) as scan:
            for block in scan:
                hashes.append(block.chunks.hashes)
                self._offsets.extend(accumulate(block.chunks.sizes, initial=self._offsets.pop()))
            info = scan.info()
            self.identity = scan.identity
        self.hash, self.size = info.hash, info.size
        self._keys = b"".join(hashes)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def take_keys(self) -> bytes:
        """The chunk hashes."""
        keys, self._keys = self._keys, b""
        return keys

    def offset(self, index: int) -> int:
        """The byte at which a chunk starts."""
        return self._offsets[index]


class StoredVersion:
    """A stored file, of which a Cas tells the chunks and how long runs of them are, not how long each is.

    Where a chunk starts is asked for when it is wanted: a few reconstructions of one byte each.
    """

    def __init__(self, cas: Cas, file: Hash) -> None:
        self.hash = file
        self.size = 0
        self._cas = cas
        self._keys: list[bytes] = []
        # What is known of where chunks start: chunk indices, ascending, and the bytes. The first chunk of each term is.
        self._known = array("Q", [0])
        self._bytes = array("Q", [0])
        # Of each term its first chunk and that one's place in its xorb.
        self._terms: list[tuple[int, Hash, int]] = []

    @classmethod
    def load(cls, cas: Cas, file: Hash, *, by_place: bool) -> StoredVersion | None:
        """Ask for all chunks; None where they are wanted by hash, and not told. ``by_place`` a chunk is known by its
        place in a xorb.
        """
        version = cls(cas, file)
        for window in Reconstructions(cas, FileRange(file), hashes=not by_place).walk():
            found = window.reconstruction
            if not by_place and found.terms and found.term_hashes is None:
                return None
            version._add(found, by_place=by_place)
        return version

    def _add(self, found: Reconstruction, *, by_place: bool) -> None:
        hashes = None if by_place else found.term_hashes
        for at, term in enumerate(found.terms):
            count = term.chunk_end - term.chunk_start
            keys = _places(term) if hashes is None else hashes[at]
            if len(keys) != HASH_BYTES * count:
                raise FormatError("term.chunk_hashes", 0, f"{len(keys)} bytes of hashes for {count} chunks")
            first = self._known[-1]
            self._terms.append((first, term.xorb, term.chunk_start))
            self._keys.append(keys)
            self.size += term.unpacked_bytes
            self._known.append(first + count)
            self._bytes.append(self.size)

    def __len__(self) -> int:
        return self._known[-1]

    def take_keys(self) -> bytes:
        """The chunk hashes, or the places of the chunks."""
        keys, self._keys = b"".join(self._keys), []
        return keys

    def tie(self, at: int, local: LocalVersion, local_at: int, count: int) -> None:
        """``count`` chunks from ``at`` on are those of a local version from ``local_at`` on, where all is known."""
        place = bisect_left(self._known, at)
        if place < len(self._known) and self._known[place] <= at + count:
            base = self._bytes[place] - local.offset(local_at + self._known[place] - at)
            for index in (at, at + count):
                self._learn(index, base + local.offset(local_at + index - at))

    def offset(self, index: int) -> int:
        """The byte at which a chunk starts. Raises what the Cas raises, and FormatError where it contradicts itself."""
        while True:
            place = bisect_left(self._known, index)
            if self._known[place] == index:
                return self._bytes[place]
            low, high = place - 1, place
            self._ask(index, low, high)

    def _ask(self, index: int, low: int, high: int) -> None:
        """Learn where the chunk is that lies about where ``index`` should be, between two that are known."""
        start, end = self._bytes[low], self._bytes[high]
        part = (2 * (index - self._known[low]) + 1) / (2 * (self._known[high] - self._known[low]))
        guess = max(start, min(start + int((end - start) * part), end - 1))
        found = self._cas.reconstruct(self.hash, guess, guess + 1)
        first, xorb, place = self._terms[bisect_right(self._terms, index, key=lambda term: term[0]) - 1]
        if len(found.terms) == 1:
            [term] = found.terms
            chunk, at = first + term.chunk_start - place, guess - found.offset_into_first_term
            behind = at + term.unpacked_bytes
            is_one = term.xorb == xorb and term.chunk_end - term.chunk_start == 1
            if is_one and self._known[low] <= chunk < self._known[high] and start <= at <= guess < behind <= end:
                self._learn(chunk, at)
                self._learn(chunk + 1, behind)
                return
        raise FormatError("reconstruction.terms", 0, f"byte {guess} of {self.hash} is told to be in different chunks")

    def _learn(self, index: int, offset: int) -> None:
        place = bisect_left(self._known, index)
        if self._known[place] != index:
            self._known.insert(place, index)
            self._bytes.insert(place, offset)


def _places(term: Term) -> bytes:
    """Keys for the chunks of a term that tell where they are: 4 bytes of index, 28 of the xorb's name."""
    name = term.xorb.digest[: HASH_BYTES - 4]
    return b"".join(index.to_bytes(4, "little") + name for index in range(term.chunk_start, term.chunk_end))
