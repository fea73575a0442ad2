"""Stores that the reference client wrote: every xorb and shard read and verified, every file rebuilt, all of it taken
into a store of ours.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.hf import HfClient, HfStore
from tests.support.strategies import ramp, splitmix64, text
from xetstore import Store, _kernel, hash_file
from xetstore.cas.check import verify_invariants
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import IntegrityError, MissingXorbError
from xetstore.protocol import reference
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, file_hash, verification_hash, xorb_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard
from xetstore.protocol.suite import SHARD_FOOTER_BYTES, XET_GEARHASH_BLAKE3
from xetstore.protocol.xorb import XorbInfo
from xetstore.records import FileInfo


@dataclass(frozen=True)
class Written:
    """A store, the files that went into it, and what the client said of them."""

    store: HfStore
    paths: list[Path]
    infos: list[FileInfo]

    def files(self) -> dict[Hash, FileEntry]:
        return {file.hash: file for shard in self.store.shards() for file in Shard.parse(shard).files}


@pytest.fixture(scope="module", params=["upload_files", "session"])
def written(
    hf: HfClient, corpus: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Written:
    store = HfStore(tmp_path_factory.mktemp("hf_store"))
    upload = hf.upload if request.param == "upload_files" else hf.upload_by_session
    # The edited version comes second, so that it is made of chunks of the first upload.
    second = corpus["edited"]
    first = [path for path in corpus.values() if path != second]
    infos = upload(store, first) + upload(store, [second])
    return Written(store, [*first, second], infos)


def decoded(info: XorbInfo, data: bytes, start: int, end: int) -> bytes:
    """The raw bytes of some chunks of a xorb."""
    out = bytearray(sum(info.chunks.sizes[start:end]))
    low, high = info.byte_range(start, end)
    _kernel.decode_chunks(XET_GEARHASH_BLAKE3.kernel, data[low:high], out, final=True)
    return bytes(out)


def test_the_client_and_we_name_every_file_alike(written: Written) -> None:
    for path, info in zip(written.paths, written.infos, strict=True):
        found = hash_file(path, sha256=True)
        assert (found.hash, found.size) == (info.hash, info.size)
        # The client knows no SHA-256 of the empty file.
        assert info.sha256 == (found.sha256 if found.size else "0" * 64)


def test_every_xorb_is_what_its_name_says(written: Written) -> None:
    xorbs = written.store.xorbs()
    assert len(xorbs) >= 2
    for name, data in xorbs.items():
        info = XorbInfo.read(data, threads=2)
        assert info.hash == name
        assert len(data) == info.region_bytes + XorbInfo.footer_bytes(info.chunk_count)


def test_every_footer_is_the_one_that_we_write(written: Written) -> None:
    for data in written.store.xorbs().values():
        info = XorbInfo.read(data)
        assert XorbInfo.parse_footer(data[info.region_bytes :], info.region_bytes) == info
        assert info.serialize_footer() == data[info.region_bytes :]


def test_a_xorb_of_the_client_with_a_flipped_byte_is_refused(written: Written) -> None:
    data = min(written.store.xorbs().values(), key=len)
    for at in range(0, len(data), len(data) // 50):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        with pytest.raises(IntegrityError):
            XorbInfo.read(damaged)


def test_all_three_compression_schemes_are_among_what_was_read(written: Written) -> None:
    schemes = {
        scheme
        for data in written.store.xorbs().values()
        for scheme in _kernel.walk_chunks(XET_GEARHASH_BLAKE3.kernel, data)[2]
    }
    assert schemes == {0, 1, 2}


def test_every_shard_tells_the_truth(written: Written) -> None:
    xorbs = {name: XorbInfo.read(data) for name, data in written.store.xorbs().items()}
    for shard in map(Shard.parse, written.store.shards()):
        for xorb in shard.xorbs:
            assert xorb.chunks == xorbs[xorb.hash].chunks
        for file in shard.files:
            used = [xorbs[term.xorb].chunks.slice(term.chunk_start, term.chunk_end) for term in file.terms]
            assert [chunks.total_bytes for chunks in used] == [term.unpacked_bytes for term in file.terms]
            assert file.verification == tuple(verification_hash(chunks.hashes) for chunks in used)
            chunks = ChunkList.concat(used)
            assert file.hash == file_hash(xorb_hash(chunks.hashes, chunks.lengths))
    assert set(written.files()) == {info.hash for info in written.infos}


def test_shards_carry_the_sha256_of_each_file(written: Written) -> None:
    expected = {
        info.hash: hashlib.sha256(path.read_bytes()).digest()
        for path, info in zip(written.paths, written.infos, strict=True)
    }
    assert {name: file.sha256 for name, file in written.files().items()} == expected


def test_shards_with_lookup_tables_are_read_as_those_without(written: Written) -> None:
    """What the client caches are the shards it sent, xorbs only or with their files, and three lookup tables."""
    sent = {xorb.hash: xorb.chunks for shard in map(Shard.parse, written.store.shards()) for xorb in shard.xorbs}
    cached = written.store.cached_shards()
    assert cached
    for data in cached:
        _, _, _, _, files, _, xorbs, _, chunks = struct.unpack_from("<9Q", data, len(data) - SHARD_FOOTER_BYTES)
        shard = Shard.parse(data)
        assert (files, xorbs, chunks) == (
            len(shard.files),
            len(shard.xorbs),
            sum(len(xorb.chunks) for xorb in shard.xorbs),
        )
        assert chunks or not shard.xorbs
        assert all(sent[xorb.hash] == xorb.chunks for xorb in shard.xorbs)
        assert shard.expires_at > shard.created_at > 0


def test_every_file_is_rebuilt_from_the_clients_xorbs(written: Written) -> None:
    bodies = written.store.xorbs()
    xorbs = {name: XorbInfo.read(data) for name, data in bodies.items()}
    files = written.files()

    def bytes_of(term: Term) -> bytes:
        return decoded(xorbs[term.xorb], bodies[term.xorb], term.chunk_start, term.chunk_end)

    for path, info in zip(written.paths, written.infos, strict=True):
        assert b"".join(map(bytes_of, files[info.hash].terms)) == path.read_bytes(), path.name


def test_a_store_of_the_client_is_taken_into_ours(written: Written, tmp_path: Path) -> None:
    cas = EmbeddedCas.open(tmp_path / "store")
    with Store(cas) as store:
        for name, data in written.store.xorbs().items():
            assert cas.put_xorb(name, data)
        for shard in written.store.shards():
            assert cas.put_shard(Shard.parse(shard))
        for path, info in zip(written.paths, written.infos, strict=True):
            content = path.read_bytes()
            out = tmp_path / "out"
            assert store.get(info.hash, out).verified
            assert out.read_bytes() == content, path.name
            assert store.stat(info.hash).sha256 == hashlib.sha256(content).hexdigest()
            middle = slice(info.size // 3, info.size // 2)
            store.get(info.hash, out, start=middle.start, end=middle.stop)
            assert out.read_bytes() == content[middle]
        verify_invariants(cas)


def test_what_the_client_stored_is_deduplicated_against(written: Written, tmp_path: Path) -> None:
    cas = EmbeddedCas.open(tmp_path / "store")
    with Store(cas) as store:
        for name, data in written.store.xorbs().items():
            cas.put_xorb(name, data)
        for shard in written.store.shards():
            cas.put_shard(Shard.parse(shard))
        for report in store.put_many(written.paths):
            assert (report.new_bytes, report.stored_bytes) == (0, 0), report.path


def test_a_full_xorb_of_the_client_is_read(hf: HfClient, scratch: Path) -> None:
    """64 MiB of chunks that do not shrink: with the headers, the body is larger than that."""
    path = scratch / "file"
    content = splitmix64(23, 66 << 20)
    path.write_bytes(content)
    store = HfStore(scratch / "hf")
    store.root.mkdir()
    [info] = hf.upload(store, [path])
    cas = EmbeddedCas.open(scratch / "store")
    with Store(cas) as ours:
        sizes = []
        for name, data in store.xorbs().items():
            cas.put_xorb(name, data)
            sizes.append(XorbInfo.read(data).raw_bytes)
        assert len(sizes) == 2
        assert max(sizes) > (64 << 20) - XET_GEARHASH_BLAKE3.max_chunk_bytes
        for shard in store.shards():
            cas.put_shard(Shard.parse(shard))
        ours.get(info.hash, path)
        assert path.read_bytes() == content


def test_a_shard_of_the_client_without_its_xorbs_is_refused(written: Written) -> None:
    with EmbeddedCas.in_memory() as cas:
        for shard in written.store.shards():
            with pytest.raises(MissingXorbError):
                cas.put_shard(Shard.parse(shard))
        assert list(cas.files()) == []


def test_the_slow_twin_agrees_with_the_client(hf: HfClient, tmp_path: Path) -> None:
    """Chunks, hashes, decompression: by code that shares nothing with the kernel."""
    contents = [splitmix64(21, 20_000), ramp(30_001), text(20_000), b"!"]
    paths = [tmp_path / str(i) for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    store = HfStore(tmp_path / "hf")
    store.root.mkdir()
    infos = hf.upload(store, paths)
    assert [info.hash.digest for info in infos] == [reference.file_hash(content) for content in contents]
    [(name, data)] = store.xorbs().items()
    chunks = reference.decode_xorb(data)
    assert {stored.scheme for stored in reference.walk_xorb(data)} == {0, 1, 2}
    assert reference.xorb_hash(chunks) == name.digest
    files = {file.hash: file for shard in store.shards() for file in Shard.parse(shard).files}
    for info, content in zip(infos, contents, strict=True):
        file = files[info.hash]
        taken = [chunks[term.chunk_start : term.chunk_end] for term in file.terms]
        assert b"".join(b"".join(part) for part in taken) == content
        assert file.verification is not None
        assert [proof.digest for proof in file.verification] == [
            reference.verification_hash(map(reference.chunk_hash, part)) for part in taken
        ]
