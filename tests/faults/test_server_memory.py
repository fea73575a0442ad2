"""How much memory a server takes under the heaviest load there is: 32 of the biggest uploads, downloads and a shard."""

from __future__ import annotations

import re
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import pytest

from tests.faults.clients import Client, at_once, result_of
from tests.server.live import PATIENCE_SECONDS, ServerProcess
from tests.strategies import encode, hashed_chunks, splitmix64, unpacked
from xetstore import _kernel
from xetstore.protocol.chunking import ChunkList, chunk_bytes
from xetstore.protocol.hashes import Hash, file_hash, verification_hash, xorb_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import Shard, XorbEntry
from xetstore.protocol.suite import (
    FILE_WITH_VERIFICATION,
    HASH_BYTES,
    MAX_SHARD_BYTES,
    SHARD_BOOKEND,
    SHARD_RECORD_BYTES,
    SHARD_TAG,
    SHARD_VERSION,
    XET_GEARHASH_BLAKE3,
)
from xetstore.testing.samples import entry_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="how much memory a process had is read from /proc")

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CLIENTS = 32
XORB_BYTES = XET_GEARHASH_BLAKE3.max_xorb_bytes


@dataclass(frozen=True)
class BigXorb:
    """A xorb of 64 MiB when decoded: its chunks, and its body in parts, which it may have in common with others."""

    chunks: ChunkList
    parts: tuple[memoryview, ...]

    @cached_property
    def hash(self) -> Hash:
        return xorb_hash(self.chunks.hashes, self.chunks.lengths)

    def shard(self, chunk_end: int) -> Shard:
        """Registers the file of its first chunks."""
        chunks = self.chunks.slice(0, chunk_end)
        entry = entry_of([(Term(self.hash, 0, chunk_end, chunks.total_bytes), chunks)])
        return Shard((entry,), (XorbEntry(self.hash, self.chunks),))


def incompressible() -> Iterator[BigXorb]:
    """The same random chunks, starting with another one of them each time."""
    data = splitmix64(1, XORB_BYTES)
    chunks = chunk_bytes(data)
    body = bytearray(len(data) + 8 * len(chunks))
    ends = unpacked(
        _kernel.encode_chunks(XET_GEARHASH_BLAKE3.kernel, [data], chunks.lengths, body, policy=_kernel.NONE)
    )
    view = memoryview(body)[: ends[-1]]
    for first in range(1, CLIENTS + 1):
        turned = ChunkList.concat([chunks.slice(first, len(chunks)), chunks.slice(0, first)])
        yield BigXorb(turned, (view[ends[first - 1] :], view[: ends[first - 1]]))


def compressible() -> Iterator[BigXorb]:
    """Chunks of zeros behind one that is another each time: 64 MiB out of some hundred KiB."""
    zeros = bytes(XET_GEARHASH_BLAKE3.max_chunk_bytes)
    count = XORB_BYTES // len(zeros) - 1
    one, encoded = hashed_chunks([zeros]), encode([zeros], _kernel.LZ4)
    for number in range(CLIENTS):
        first = splitmix64(number, 1000)
        yield BigXorb(
            ChunkList.concat([hashed_chunks([first]), *[one] * count]),
            (memoryview(encode([first])), memoryview(encoded * count)),
        )


@pytest.fixture
def server(scratch: Path) -> Iterator[ServerProcess]:
    with ServerProcess(scratch / "store") as running:
        yield running


def peak_bytes(server: ServerProcess) -> int:
    """The most memory that the server ever had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * KIB


def upload_at_once(server: ServerProcess, xorbs: Sequence[BigXorb]) -> None:
    """All of them are half there before one of them is complete."""
    token = server.admin_token
    half_way = threading.Barrier(len(xorbs))

    def upload(xorb: BigXorb) -> None:
        length = sum(map(len, xorb.parts))

        def pieces() -> Iterator[memoryview]:
            sent = 0
            for part in xorb.parts:
                for at in range(0, len(part), 256 * KIB):
                    piece = part[at : at + 256 * KIB]
                    if sent < length // 2 <= sent + len(piece):
                        half_way.wait(PATIENCE_SECONDS)
                    sent += len(piece)
                    yield piece

        with Client(server.url, token) as client:
            answer = client.request("POST", f"/v1/xorbs/default/{xorb.hash}", pieces(), {"Content-Length": str(length)})
            assert (answer.status, answer.json()) == (200, {"was_inserted": True})

    at_once(upload, xorbs)


@pytest.mark.parametrize("kind", [incompressible, compressible])
def test_32_uploads_of_64_mib_at_once_take_less_than_a_gib(
    server: ServerProcess, kind: Callable[[], Iterator[BigXorb]]
) -> None:
    xorbs = list(kind())
    upload_at_once(server, xorbs)
    assert peak_bytes(server) < GIB


def test_32_slow_downloads_of_64_mib_at_once_take_less_than_a_gib(server: ServerProcess) -> None:
    xorb = next(incompressible())
    upload_at_once(server, [xorb])
    body = b"".join(xorb.parts)
    token = server.admin_token
    under_way = threading.Barrier(CLIENTS)
    with Client(server.url, token) as client:
        shard = xorb.shard(len(xorb.chunks))
        assert result_of(client.request("POST", "/v1/shards", shard.serialize())) == 1
        [fetch] = client.fetches(shard.files[0].hash)

    def download(_: int) -> None:
        with Client(server.url) as client, client.reading(fetch) as answer:
            got = memoryview(bytearray(MIB))
            assert answer.readinto(got) == MIB
            under_way.wait(PATIENCE_SECONDS)
            at = 0
            while count := answer.readinto(got):
                at += count
            assert at == len(body) - MIB

    at_once(download, range(CLIENTS))
    assert peak_bytes(server) < GIB


# --- Shards ---------------------------------------------------------------------------------------------------

_HEADER = struct.Struct("<32sQQ")
_RECORD = struct.Struct("<32s4I")
CHUNK_BYTES = 16
SUITE = XET_GEARHASH_BLAKE3


def tiny_chunks() -> BigXorb:
    """As many chunks as a xorb may have."""
    chunks = [struct.pack("<QQ", number, number) for number in range(SUITE.max_xorb_chunks)]
    return BigXorb(hashed_chunks(chunks), (memoryview(encode(chunks, _kernel.NONE)),))


def many_files(xorb: BigXorb, size: int) -> bytes:
    """A shard of so many bytes: files of one term each, every one another range of chunks."""
    hashes, lengths = xorb.chunks.hashes, xorb.chunks.lengths
    ranges = ((start, start + n) for n in range(1, 1000) for start in range(len(xorb.chunks) - n))
    records = []
    for start, end in islice(ranges, size // (3 * SHARD_RECORD_BYTES)):
        digests = hashes[HASH_BYTES * start : HASH_BYTES * end]
        root = _kernel.merkle_root(SUITE.kernel, digests, lengths[8 * start : 8 * end])
        records += [
            _RECORD.pack(_kernel.keyed_hash(SUITE.file_key, root), FILE_WITH_VERIFICATION, 1, 0, 0),
            _RECORD.pack(xorb.hash.digest, 0, CHUNK_BYTES * (end - start), start, end),
            _RECORD.pack(_kernel.keyed_hash(SUITE.verification_key, digests), 0, 0, 0, 0),
        ]
    return _shard(records)


def many_terms(xorb: BigXorb, size: int) -> bytes:
    """A shard of so many bytes: one file of terms of one chunk each."""
    count = len(xorb.chunks)
    verification = [
        _RECORD.pack(verification_hash(xorb.chunks.slice(i, i + 1).hashes).digest, 0, 0, 0, 0) for i in range(count)
    ]
    picked = [7 * i % count for i in range(size // (2 * SHARD_RECORD_BYTES))]
    whole = ChunkList.concat([xorb.chunks.slice(i, i + 1) for i in picked])
    root = Hash(_kernel.merkle_root(SUITE.kernel, whole.hashes, whole.lengths))
    return _shard(
        [
            _RECORD.pack(file_hash(root).digest, FILE_WITH_VERIFICATION, len(picked), 0, 0),
            *(_RECORD.pack(xorb.hash.digest, 0, CHUNK_BYTES, i, i + 1) for i in picked),
            *(verification[i] for i in picked),
        ]
    )


def _shard(records: list[bytes]) -> bytes:
    return b"".join([_HEADER.pack(SHARD_TAG, SHARD_VERSION, 0), *records, SHARD_BOOKEND, SHARD_BOOKEND])


@pytest.mark.parametrize(("kind", "size"), [(many_files, 4 * MIB), (many_terms, 16 * MIB)])
def test_the_biggest_shard_takes_less_than_a_gib(
    server: ServerProcess, kind: Callable[[BigXorb, int], bytes], size: int
) -> None:
    """Measured with smaller ones, for the sake of time: what they take grows with their size."""
    xorb = tiny_chunks()
    with Client(server.url, server.admin_token) as client:
        assert client.request("POST", f"/v1/xorbs/default/{xorb.hash}", bytes(xorb.parts[0])).status == 200
        before = peak_bytes(server)
        shard = kind(xorb, size)
        assert result_of(client.request("POST", "/v1/shards", shard)) == 1
    taken = (peak_bytes(server) - before) / len(shard)
    print(f"{taken:.1f} times its size")
    assert before + taken * MAX_SHARD_BYTES < GIB
