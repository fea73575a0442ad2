"""What xetstore writes, read by others: xorbs and dedup answers by the reference client, LZ4 frames by liblz4, by the
JavaScript reader and by our slow twin.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lz4.frame
import numpy as np
import pytest

from tests.interop.hf import HfClient, HfStore
from tests.support.strategies import (
    GENERATORS,
    constant,
    few_values,
    float32,
    hashed_chunks,
    ramp,
    splitmix64,
    text,
    unpacked,
)
from xetstore import Store, _kernel
from xetstore.cas.checksums import END_BYTES, told_section_bytes
from xetstore.cas.service import EmbeddedCas
from xetstore.protocol import reference
from xetstore.protocol.chunking import chunk_bytes
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.shard import Shard
from xetstore.protocol.suite import CHUNK_HEADER_BYTES, XET_GEARHASH_BLAKE3
from xetstore.protocol.xorb import CompressionPolicy, XorbBuilder, XorbInfo
from xetstore.records import FileInfo

MIB = 1 << 20
JS = Path(__file__).parent / "js"


@dataclass(frozen=True)
class Uploaded:
    """A store of the client's with one xorb, and the files in it."""

    store: HfStore
    files: list[tuple[FileInfo, bytes]]
    name: Hash
    original: bytes

    @property
    def info(self) -> XorbInfo:
        return XorbInfo.read(self.original)

    def raw(self) -> bytes:
        """What the xorb holds."""
        out = bytearray(self.info.raw_bytes)
        _kernel.decode_chunks(XET_GEARHASH_BLAKE3.kernel, self.original[: self.info.region_bytes], out, final=True)
        return bytes(out)

    def read(self, hf: HfClient, out: Path) -> list[bytes]:
        return [hf.download(self.store, file, out) for file, _ in self.files]


@pytest.fixture
def uploaded(hf: HfClient, corpus: dict[str, Path], tmp_path: Path) -> Uploaded:
    store = HfStore(tmp_path / "hf")
    store.root.mkdir()
    paths = list(corpus.values())
    infos = hf.upload(store, paths)
    [(name, data)] = store.xorbs().items()
    return Uploaded(store, [(info, path.read_bytes()) for info, path in zip(infos, paths, strict=True)], name, data)


def ours(uploaded: Uploaded, policy: CompressionPolicy) -> tuple[XorbInfo, bytes]:
    """The same chunks, encoded by us."""
    builder = XorbBuilder()
    builder.append([uploaded.raw()], uploaded.info.chunks, policy=policy, threads=2)
    info, body = builder.finish()
    assert info.hash == uploaded.name
    return info, bytes(body)


@pytest.mark.parametrize("policy", CompressionPolicy)
def test_the_client_reads_xorbs_that_we_encoded(
    hf: HfClient, uploaded: Uploaded, policy: CompressionPolicy, tmp_path: Path
) -> None:
    info, body = ours(uploaded, policy)
    uploaded.store.replace_xorb(uploaded.name, body + info.serialize_footer())
    assert uploaded.read(hf, tmp_path / "out") == [content for _, content in uploaded.files]


def test_it_is_really_our_bytes_that_the_client_reads(hf: HfClient, uploaded: Uploaded, tmp_path: Path) -> None:
    """It checks no hash on the way down: a byte changed in each stored chunk is as many bytes changed in its files."""
    info, body = ours(uploaded, CompressionPolicy.NONE)
    damaged = bytearray(body + info.serialize_footer())
    # In every chunk: which of two equal ones the client refers to depends on how its threads ran.
    for i in range(info.chunk_count):
        damaged[info.byte_range(i, i + 1)[0] + CHUNK_HEADER_BYTES] ^= 1
    uploaded.store.replace_xorb(uploaded.name, bytes(damaged))
    for found, (_, content) in zip(uploaded.read(hf, tmp_path / "out"), uploaded.files, strict=True):
        changed = sum(a != b for a, b in zip(found, content, strict=True))
        assert changed == len(chunk_bytes(content))


def test_our_footer_is_what_the_client_finds_chunks_by(hf: HfClient, uploaded: Uploaded, tmp_path: Path) -> None:
    _, body = ours(uploaded, CompressionPolicy.NONE)
    uploaded.store.replace_xorb(uploaded.name, body)
    with pytest.raises(Exception, match="error"):
        uploaded.read(hf, tmp_path / "out")


def test_the_client_deduplicates_against_our_answer(hf: HfClient, tmp_path: Path) -> None:
    """A store of ours is asked for a chunk; its answer, keyed, lies where the client keeps the answers it was given."""
    content = splitmix64(31, 3_000_000) + ramp(700_003)
    path = tmp_path / "file"
    path.write_bytes(content)
    theirs = HfStore(tmp_path / "hf")
    cas = EmbeddedCas.open(tmp_path / "store")
    with Store(cas) as store:
        store.put(path)
        answer = cas.find_chunks(Hash(chunk_bytes(content).digest(0)))
        with cas.index.snapshot() as reader:
            [row] = reader.xorbs_after(0)
        stored = cas.blobs.get(row.key)
    stored = stored[: -told_section_bytes(stored[-END_BYTES:])]  # the client reads a footer from the end
    assert answer is not None
    assert answer.key is not None
    data = answer.serialize_with_footer()
    theirs.shard_cache.mkdir(parents=True)
    (theirs.shard_cache / f"{chunk_hash(data)}.mdb").write_bytes(data)
    theirs.xorb_folder.mkdir(parents=True)
    theirs.xorb_path(row.hash).write_bytes(stored)

    edited = b"a new beginning" + content
    path.write_bytes(edited)
    [info] = hf.upload(theirs, [path])
    [shard] = [Shard.parse(found) for found in theirs.shards()]
    [entry] = shard.files
    known = [term for term in entry.terms if str(term.xorb) == str(row.hash)]
    assert sum(term.unpacked_bytes for term in known) > len(edited) - 2 * XET_GEARHASH_BLAKE3.max_chunk_bytes
    new = [found for name, found in theirs.xorbs().items() if str(name) != str(row.hash)]
    assert sum(map(len, new)) < 2 * XET_GEARHASH_BLAKE3.max_chunk_bytes
    assert hf.download(theirs, info, tmp_path / "out") == edited


def noise(size: int) -> bytes:
    return splitmix64(52, size)


def bf16_weights(size: int) -> bytes:
    words = np.frombuffer(float32(2 * size), dtype="<u4") >> 16
    return words.astype("<u2").tobytes()


def csv(size: int) -> bytes:
    numbers = np.frombuffer(splitmix64(51, size // 2), dtype="<u4")
    lines = (
        f"{i},2024-{n % 12 + 1:02d}-{n % 28 + 1:02d},{n / 7e4:.4f},user_{n % 977}\n" for i, n in enumerate(numbers)
    )
    return "".join(lines).encode()[:size]


@pytest.mark.parametrize(
    "generate",
    [noise, bf16_weights, csv, text, float32, ramp, few_values, constant],
    ids=lambda generate: generate.__name__,
)
def test_the_automatic_choice_of_schemes_is_no_worse_than_the_clients(
    hf: HfClient, tmp_path: Path, generate: Callable[[int], bytes]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(generate(MIB))
    theirs = HfStore(tmp_path / "hf")
    theirs.root.mkdir()
    [file] = hf.upload(theirs, [path])
    [(name, data)] = theirs.xorbs().items()
    uploaded = Uploaded(theirs, [(file, path.read_bytes())], name, data)
    # Sizes of each chunk under every policy; theirs are the schemes that they chose.
    ends = {policy: [0, *unpacked(ours(uploaded, policy)[0].ends)] for policy in CompressionPolicy}
    policies = [CompressionPolicy.NONE, CompressionPolicy.LZ4, CompressionPolicy.BG4_LZ4]
    chosen = [policies[scheme] for scheme in _kernel.walk_chunks(XET_GEARHASH_BLAKE3.kernel, data)[2]]
    as_they_chose = sum(ends[policy][i + 1] - ends[policy][i] for i, policy in enumerate(chosen))
    assert ends[CompressionPolicy.AUTO][-1] <= as_they_chose


# --- Readers of LZ4 frames -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoded:
    """Chunks and the payloads that became of them: (scheme, payload, raw)."""

    chunks: list[tuple[int, bytes, bytes]]

    @property
    def frames(self) -> list[tuple[bytes, bytes]]:
        """LZ4 frames, and what a reader has to make of them."""
        return [
            (payload, _kernel.byte_group(raw) if scheme == 2 else raw) for scheme, payload, raw in self.chunks if scheme
        ]


def encode(pieces: list[bytes], policy: CompressionPolicy) -> Encoded:
    chunks = hashed_chunks(pieces)
    builder = XorbBuilder()
    builder.append(pieces, chunks, policy=policy)
    info, body = builder.finish()
    schemes = _kernel.walk_chunks(XET_GEARHASH_BLAKE3.kernel, body)[2]
    found = []
    for i, (scheme, raw) in enumerate(zip(schemes, pieces, strict=True)):
        start, end = info.byte_range(i, i + 1)
        found.append((scheme, bytes(body[start + CHUNK_HEADER_BYTES : end]), raw))
    return Encoded(found)


def pieces() -> list[bytes]:
    """Chunks of every size around the blocks and limits of LZ4, and of every kind."""
    sizes = [1, 5, 13, 64, 100, 255, 1000, 4099, 8192, 65_535, 65_536, 65_537, 100_003, 131_071, 131_072]
    found = [generate(size) for size in sizes for generate in GENERATORS.values()]
    # Long matches, long literals, matches at the greatest distance, and halves that shrink beside halves that do not.
    noise = splitmix64(41, 131_072)
    found += [
        noise[:65_000] + constant(66_000),
        constant(66_000) + noise[:65_000],
        noise[:65_535] + noise[:65_535],
        noise[:65_536] + noise[:65_536],
        noise[:300] * 400,
        text(50_000) + noise[:30_000] + few_values(50_000),
    ]
    return found


COMPRESSING = [CompressionPolicy.AUTO, CompressionPolicy.LZ4, CompressionPolicy.BG4_LZ4]


@pytest.fixture(scope="module", params=COMPRESSING, ids=str)
def encoded(request: pytest.FixtureRequest) -> Encoded:
    found = encode(pieces(), request.param)
    assert len(found.frames) > 30
    return found


def test_liblz4_reads_every_frame_that_we_write(encoded: Encoded) -> None:
    for frame, raw in encoded.frames:
        assert lz4.frame.decompress(frame) == raw


def test_the_slow_twin_reads_every_chunk_that_we_write(encoded: Encoded) -> None:
    for scheme, payload, raw in encoded.chunks:
        if len(raw) <= 70_000:
            assert reference.decode_chunk(reference.StoredChunk(scheme, payload, len(raw))) == raw


def test_the_javascript_reader_reads_every_frame_that_we_write(encoded: Encoded) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("install Node.js, which runs the JavaScript reader")
    if not (JS / "node_modules").is_dir():
        pytest.skip("run `npm ci --prefix tests/interop/js`, which installs the JavaScript reader")
    records = b"".join(struct.pack("<II", len(frame), len(raw)) + frame for frame, raw in encoded.frames)
    done = subprocess.run([node, str(JS / "decode.cjs")], input=records, capture_output=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"".join(raw for _, raw in encoded.frames)
