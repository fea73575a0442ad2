"""Stores to be copied, and all that they have acknowledged."""

from __future__ import annotations

from typing import Any

from tests.support.stored import file_of, scattered
from xetstore.cas import EmbeddedCas
from xetstore.cas.copying.copy_store import CopyReport, copy_store
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import FileEntry, Shard
from xetstore.testing import FakeClock, Sample, make_sample, random_bytes, read_back, upload


def sample(seed: int, size: int = 60_000) -> Sample:
    return make_sample(random_bytes(size, seed))


_CONTENT = {
    "xorbs": "SELECT hash, raw_bytes, chunk_count FROM xorb",
    "holders": "SELECT xorb.hash, namespace FROM xorb_holder JOIN xorb ON xorb.id = xorb_id",
    "files": "SELECT hash, size, checked_sha256, term_count, xorb_count, created_at FROM file",
    "grants": "SELECT hash, namespace, file_grant.created_at FROM file_grant JOIN file ON file.id = file_id",
    "claims": "SELECT hash, namespace, sha256_claim.sha256 FROM sha256_claim JOIN file ON file.id = file_id",
    "edges": "SELECT file.hash, first_byte, xorb.hash FROM edge JOIN file ON file.id = file_id"
    " JOIN xorb ON xorb.id = xorb_id",
    "dedup": "SELECT chunk_key, hash FROM dedup JOIN xorb ON xorb.id = xorb_id",
    "shards": "SELECT hash, size, is_linked FROM shard",
    "shard files": "SELECT shard.hash, file.hash FROM shard_file JOIN shard ON shard.id = shard_id"
    " JOIN file ON file.id = file_id",
    "shard xorbs": "SELECT shard.hash, xorb.hash FROM shard_xorb JOIN shard ON shard.id = shard_id"
    " JOIN xorb ON xorb.id = xorb_id",
}


def content(cas: EmbeddedCas) -> dict[str, set[Any]]:
    """Everything that a store has acknowledged, whatever the ids of its rows are."""
    with cas.index.snapshot() as reader:
        return {what: set(reader.connection.rows(statement)) for what, statement in _CONTENT.items()}


def fill(cas: EmbeddedCas, clock: FakeClock, first: int = 0) -> dict[tuple[str, Hash], bytes]:
    """Files in three namespaces, some shared; the empty one; a xorb that no file is made of. What can be read."""
    found: dict[tuple[str, Hash], bytes] = {}
    for number, namespaces in enumerate([["anna"], ["bert", "anna"], ["default"], ["anna", "bert", "default"]]):
        one = sample(first + number)
        for namespace in namespaces:
            clock.advance(10)
            found[namespace, upload(cas.in_namespace(namespace), one)] = one.data
    many = scattered(600, chunk_bytes=100, seed=first + 50)  # in two segments
    found["anna", upload(cas.in_namespace("anna"), many)] = many.data
    name, data, shard = file_of(many, [(3, 40), (0, 2), (3, 40)])
    cas.in_namespace("anna").put_shard(shard)
    found["anna", name] = data
    clock.advance(10)
    cas.put_shard(Shard((FileEntry(Hash.ZERO, (), ()),)))
    found["default", Hash.ZERO] = b""
    unused = sample(first + 90)
    cas.in_namespace("bert").put_xorb(unused.xorb.hash, unused.body)
    return found


def expect_readable(cas: EmbeddedCas, found: dict[tuple[str, Hash], bytes]) -> None:
    for (namespace, file), data in found.items():
        assert read_back(cas.in_namespace(namespace), file) == data
    for namespace in ("anna", "bert", "default"):
        listed = {record.hash for record in cas.in_namespace(namespace).files()}
        assert listed == {file for owner, file in found if owner == namespace}


def copy(source: EmbeddedCas, target: EmbeddedCas, **options: Any) -> CopyReport:
    report = copy_store(source, target, **options)
    assert report.problems == ()
    return report
