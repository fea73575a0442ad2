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

from tests.support.clients import Client, at_once, result_of
from tests.support.live import PATIENCE_SECONDS, ServerProcess
from tests.support.strategies import encode, hashed_chunks, splitmix64, unpacked
from xetstore import _kernel
from xetstore.cas.claims import INDEXED_CHUNKS
from xetstore.interfaces import MANY_CHUNKS
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
from xetstore.server.http.receiving import DIRECT_BYTES
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
    # One worker: what is measured is the memory of this process.
    with ServerProcess(scratch / "store", "--workers", "1") as running:
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
    first, *others = kind()
    upload_at_once(server, [first])
    before = peak_bytes(server)
    upload_at_once(server, others)
    assert peak_bytes(server) < GIB
    taken = (peak_bytes(server) - before) / len(others)
    print(f"{taken / MIB:.1f} MiB an upload")
    assert taken < 2 * DIRECT_BYTES


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


# --- Answers --------------------------------------------------------------------------------------------------


def put_tiny_chunks(server: ServerProcess) -> BigXorb:
    xorb = tiny_chunks()
    with Client(server.url, server.admin_token) as client:
        assert client.request("POST", f"/v1/xorbs/default/{xorb.hash}", bytes(xorb.parts[0])).status == 200
    return xorb


def whole_xorbs(xorb: BigXorb, terms: int) -> tuple[Hash, bytes]:
    """A file of so many terms of all chunks of a xorb, and the small shard that registers it."""
    tree = _kernel.MerkleTree(SUITE.kernel)
    for _ in range(terms):
        tree.update(xorb.chunks.hashes, xorb.chunks.lengths)
    name = file_hash(Hash(tree.root()))
    term = _RECORD.pack(xorb.hash.digest, 0, xorb.chunks.total_bytes, 0, len(xorb.chunks))
    proof = _RECORD.pack(verification_hash(xorb.chunks.hashes).digest, 0, 0, 0, 0)
    return name, _shard(
        [_RECORD.pack(name.digest, FILE_WITH_VERIFICATION, terms, 0, 0), *[term] * terms, *[proof] * terms]
    )


def far_ranges(xorb: BigXorb, terms: int) -> tuple[Hash, bytes]:
    """A file of so many terms of one chunk each, no two of which touch; at most every other chunk once, then again."""
    count = len(xorb.chunks)
    picked = [2 * i % count for i in range(terms)]
    one = [xorb.chunks.slice(i, i + 1) for i in range(0, count, 2)]
    proofs = [_RECORD.pack(verification_hash(chunks.hashes).digest, 0, 0, 0, 0) for chunks in one]
    whole = ChunkList.concat([one[i // 2] for i in picked])
    name = file_hash(Hash(_kernel.merkle_root(SUITE.kernel, whole.hashes, whole.lengths)))
    return name, _shard(
        [
            _RECORD.pack(name.digest, FILE_WITH_VERIFICATION, terms, 0, 0),
            *(_RECORD.pack(xorb.hash.digest, 0, CHUNK_BYTES, i, i + 1) for i in picked),
            *(proofs[i // 2] for i in picked),
        ]
    )


def register(server: ServerProcess, shard: bytes) -> None:
    with Client(server.url, server.admin_token) as client:
        assert result_of(client.request("POST", "/v1/shards", shard)) == 1


def asked_at_once(
    server: ServerProcess, path: str, times: int, headers: dict[str, str], body: bytes = b""
) -> tuple[list[int], int]:
    """The statuses of the answers, and how much more memory the server had at most than before. A body is posted."""
    token = server.admin_token
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # the peak counts from here
    before = peak_bytes(server)

    def ask(_: int) -> int:
        with Client(server.url, token) as client:
            return client.request("POST" if body else "GET", path, body, headers=headers).status

    statuses = at_once(ask, range(times))
    return statuses, peak_bytes(server) - before


@pytest.mark.parametrize("terms", [10, 80, 250])
def test_answers_with_millions_of_chunk_hashes_take_what_is_reserved(server: ServerProcess, terms: int) -> None:
    file, shard = whole_xorbs(put_tiny_chunks(server), terms)
    register(server, shard)
    statuses, taken = asked_at_once(server, f"/v2/reconstructions/{file}", 4, {"X-Xet-Chunk-Hashes": "true"})
    print(f"{terms} terms: {statuses}, {taken >> 20} MiB, {taken / terms / 8192:.0f} bytes a chunk")
    assert 200 in statuses
    assert set(statuses) <= {200, 503}
    assert taken < 384 * MIB


def test_an_answer_that_would_take_too_much_is_refused_before_it_is_made(server: ServerProcess) -> None:
    """1,500 terms: 500 MiB with chunk hashes. Without them they are a short answer."""
    file, shard = whole_xorbs(put_tiny_chunks(server), 1500)
    assert len(shard) < 150_000
    register(server, shard)
    statuses, taken = asked_at_once(server, f"/v2/reconstructions/{file}", 8, {"X-Xet-Chunk-Hashes": "true"})
    assert statuses == [413] * 8
    assert taken < 64 * MIB
    assert asked_at_once(server, f"/v2/reconstructions/{file}", 1, {})[0] == [200]
    edit = {"X-Range-Dirty": "bytes=0-9"}
    assert asked_at_once(server, f"/v2/file-chunk-hashes/{file}", 4, edit)[0] == [413] * 4


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("terms", [20_000, 150_000])
def test_answers_of_many_terms_take_what_is_reserved(server: ServerProcess, version: int, terms: int) -> None:
    file, shard = far_ranges(put_tiny_chunks(server), terms)
    register(server, shard)
    statuses, taken = asked_at_once(server, f"/v{version}/reconstructions/{file}", 4, {})
    print(f"{terms} terms: {statuses}, {taken >> 20} MiB, {taken / terms:.0f} bytes a term")
    assert 200 in statuses
    assert set(statuses) <= {200, 503}
    assert taken < 384 * MIB


def test_edits_of_a_file_of_many_chunks_take_what_is_reserved(server: ServerProcess) -> None:
    file, shard = whole_xorbs(put_tiny_chunks(server), 60)
    register(server, shard)
    statuses, taken = asked_at_once(server, f"/v2/file-chunk-hashes/{file}", 4, {"X-Range-Dirty": "bytes=0-9"})
    print(f"{statuses}, {taken >> 20} MiB, {taken / 60 / 8192:.0f} bytes a chunk")
    assert 200 in statuses
    assert set(statuses) <= {200, 503}
    assert taken < 384 * MIB


def test_40_dedup_answers_at_once_take_what_is_reserved(server: ServerProcess) -> None:
    """Of 100,000 chunks each: xorbs that were uploaded one after the other, and belong to one file."""
    parts = []
    with Client(server.url, server.admin_token) as client:
        for first in range(13):
            chunks = [struct.pack("<QQ", first, number) for number in range(SUITE.max_xorb_chunks)]
            xorb = BigXorb(hashed_chunks(chunks), (memoryview(encode(chunks, _kernel.NONE)),))
            assert client.request("POST", f"/v1/xorbs/default/{xorb.hash}", bytes(xorb.parts[0])).status == 200
            parts.append((Term(xorb.hash, 0, len(xorb.chunks), xorb.chunks.total_bytes), xorb.chunks))
        shard = Shard((entry_of(parts),), ())
        assert result_of(client.request("POST", "/v1/shards", shard.serialize())) == 1
    chunk = Hash(parts[0][1].digest(0))
    statuses, taken = asked_at_once(server, f"/v1/chunks/default/{chunk}", 1, {})
    print(f"one: {statuses}, {taken >> 20} MiB, {taken / 13 / 8192:.0f} bytes a chunk")
    statuses, taken = asked_at_once(server, f"/v1/chunks/default/{chunk}", 40, {})
    print(f"40: {statuses}, {taken >> 20} MiB")
    assert set(statuses) <= {200, 404}
    assert statuses.count(200) >= 8
    assert taken < 200 * MIB
    eligible = [chunks.digest(index) for _, chunks in parts for index in INDEXED_CHUNKS.selected(chunks)]
    statuses, taken = asked_at_once(server, "/v1/chunks", 40, {}, b"".join(eligible[:MANY_CHUNKS]))
    print(f"40 for {MANY_CHUNKS} chunks: {statuses}, {taken >> 20} MiB")
    assert set(statuses) <= {200, 204}
    assert statuses.count(200) >= 8
    assert taken < 200 * MIB
