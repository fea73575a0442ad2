"""A small world for the model of a store: files that share xorbs, and the calls that change a store, in one place for
the process of the test and for those that die.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from xetstore.cas import EmbeddedCas
from xetstore.cas.collecting import collect
from xetstore.cas.grace import Grace
from xetstore.cas.lease import COLLECT, Lease
from xetstore.cas.repair.repair import repair
from xetstore.cas.rewriting import rewrite
from xetstore.protocol.chunking import ChunkList, chunk_bytes
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard
from xetstore.protocol.xorb import CompressionPolicy, XorbBuilder, XorbInfo
from xetstore.testing.samples import entry_of, random_bytes

GRACE: Final = Grace(unused=40.25, undelete=5.25)
NAMESPACES: Final = ("default", "anna", "bert")
_CHUNKS: Final = 4


@dataclass(frozen=True)
class ModelXorb:
    """A xorb of four chunks."""

    info: XorbInfo
    body: bytes
    pieces: tuple[bytes, ...]
    chunks: tuple[ChunkList, ...]


@dataclass(frozen=True)
class ModelFile:
    """A file: its bytes, and the xorbs that it is made of, by their numbers."""

    data: bytes
    entry: FileEntry
    xorbs: tuple[int, ...]

    @property
    def hash(self) -> Hash:
        return self.entry.hash

    @property
    def shard(self) -> Shard:
        return Shard((self.entry,))


def _xorb(seed: int) -> ModelXorb:
    pieces = tuple(random_bytes(900 + 300 * number, 100 * seed + number) for number in range(_CHUNKS))
    chunks = tuple(map(chunk_bytes, pieces))
    builder = XorbBuilder()
    builder.append(pieces, ChunkList.concat(list(chunks)), policy=CompressionPolicy.AUTO)
    info, body = builder.finish()
    return ModelXorb(info, bytes(body), pieces, chunks)


def _file(*parts: tuple[int, int, int]) -> ModelFile:
    data = b"".join(piece for xorb, start, end in parts for piece in XORBS[xorb].pieces[start:end])
    terms = []
    for xorb, start, end in parts:
        chunks = ChunkList.concat(list(XORBS[xorb].chunks[start:end]))
        terms.append((Term(XORBS[xorb].info.hash, start, end, chunks.total_bytes), chunks))
    entry = entry_of(terms, sha256=hashlib.sha256(data).digest())
    return ModelFile(data, entry, tuple(dict.fromkeys(xorb for xorb, _, _ in parts)))


XORBS: Final = tuple(_xorb(seed) for seed in range(1, 5))
FILES: Final = (
    _file((0, 0, 4)),
    _file((0, 0, 1)),
    _file((0, 2, 4), (1, 0, 2)),
    _file((1, 1, 2)),
    _file((2, 0, 4)),
    _file((2, 0, 1), (3, 3, 4), (2, 0, 1)),
    _file((3, 0, 3), (0, 1, 2)),
)


def files_of(numbers: Sequence[int]) -> list[Hash]:
    """The hashes of files by their numbers."""
    return [FILES[number].hash for number in numbers]


def put(cas: EmbeddedCas, files: Sequence[int]) -> None:
    """Upload files as a client does that knows nothing: each xorb, then one shard."""
    for xorb in dict.fromkeys(xorb for number in files for xorb in FILES[number].xorbs):
        cas.put_xorb(XORBS[xorb].info.hash, XORBS[xorb].body)
    cas.put_shard(replace(FILES[files[0]].shard, files=tuple(FILES[number].entry for number in files)))


def delete(cas: EmbeddedCas, files: Sequence[int]) -> None:
    """Delete files."""
    cas.delete(files_of(files))


def undelete(cas: EmbeddedCas, files: Sequence[int]) -> None:
    """Give files back."""
    cas.undelete(files_of(files))


def gc(cas: EmbeddedCas, files: Sequence[int] = ()) -> None:  # as the other calls
    """Collect, then rewrite."""
    with take(cas) as lease:
        collect(cas, lease, GRACE)
        rewrite(cas, lease, grace=GRACE)


def mend(cas: EmbeddedCas, files: Sequence[int] = ()) -> None:  # as the other calls
    """Repair what is left of the store."""
    with take(cas) as lease:
        repair(cas, lease, read_data=True)


def take(cas: EmbeddedCas) -> Lease:
    """The lease of a collection, also from a runner that died."""
    with cas.index.transaction() as writer:
        writer.connection.change("UPDATE chore SET expires_at = 0")
    lease = Lease.take(cas.index, COLLECT)
    assert lease is not None
    return lease


CALLS: Final = {"put": put, "delete": delete, "undelete": undelete, "gc": gc, "mend": mend}
"""The calls that may be cut off."""
