"""Checks of files: their terms against the footers of xorbs, and the SHA-256 that were computed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from operator import itemgetter
from typing import TYPE_CHECKING

from xetstore.blobs.ranges import read_all
from xetstore.cas.checking.report import Problem
from xetstore.cas.claims import term_fault
from xetstore.errors import IntegrityError
from xetstore.protocol import kernel
from xetstore.protocol.hashes import Hash, file_hash
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

if TYPE_CHECKING:
    from xetstore.cas.checking.naming import NamingCheck
    from xetstore.cas.service import EmbeddedCas
    from xetstore.records import FileRecord


def check_files(cas: EmbeddedCas, broken: Collection[Hash], naming: NamingCheck) -> Iterator[Problem | None]:
    """The problem of each file, or None: whether registered xorbs give its size and its hash, and shards name it.

    Those of ``broken`` xorbs are reported with these.
    """
    for page in cas.index.pages(lambda reader, last: reader.files_after(last, None), itemgetter(0), 0):
        for file_id, record in page:
            fault = _fault(cas, record, broken, naming)
            if fault is not None:  # it may have been deleted meanwhile, or have other terms now
                with cas.index.snapshot() as reader:
                    now = dict(reader.files_after(file_id - 1, None)[:1]).get(file_id)
                fault = None if now is None else _fault(cas, now, broken, naming)
            yield None if fault is None else Problem(f"file {record.hash}", fault, (record.hash,))


def wrong_sha256(cas: EmbeddedCas) -> Iterator[Problem]:
    """The files of which another SHA-256 is taken to be computed than their bytes have."""
    for page in cas.index.pages(lambda reader, last: reader.files_after(last, None), itemgetter(0), 0):
        for _, record in page:
            if record.sha256 is not None and (actual := _sha256(cas, record)) != record.sha256:
                yield Problem(f"file {record.hash}", f"its SHA-256 is {actual}, not {record.sha256}", (record.hash,))


def _fault(cas: EmbeddedCas, record: FileRecord, broken: Collection[Hash], naming: NamingCheck) -> str | None:
    try:
        return _compare(cas, record, broken, naming)
    except IntegrityError as error:
        return str(error)


def _compare(cas: EmbeddedCas, record: FileRecord, broken: Collection[Hash], naming: NamingCheck) -> str | None:
    """The fault of a file, or None. Raises IntegrityError where the index itself is broken."""
    with cas.index.snapshot() as reader:
        _, terms, rows = reader.terms(record.hash, 0, record.size)
        edges = reader.edges_of(record.hash)
    if any(xorb in broken for xorb in rows):
        return None  # reported with the xorb
    tree = kernel.MerkleTree(XET_GEARHASH_BLAKE3.kernel)
    first_uses: dict[Hash, int] = {}
    for i, term in enumerate(terms):
        chunks = cas.footers.get(rows[term.xorb]).chunks
        if fault := term_fault(term, chunks):
            return f"term {i} {fault}"
        first_uses.setdefault(term.xorb, tree.total_bytes)
        taken = chunks.slice(term.chunk_start, term.chunk_end)
        tree.update(taken.hashes, taken.lengths)
    actual = file_hash(Hash(tree.root()))
    if actual != record.hash:
        return f"its terms make file {actual}"
    if tree.total_bytes != record.size:
        return f"the index says it has {record.size} bytes, its terms make {tree.total_bytes}"
    if first_uses != edges or (len(terms), len(edges)) != (record.terms, record.xorbs):
        return "the index counts other xorbs or terms than it is made of"
    return naming.file_fault(record, terms)


def _sha256(cas: EmbeddedCas, record: FileRecord) -> str:
    digest = hashlib.sha256()
    with cas.index.snapshot() as reader:
        _, terms, rows = reader.terms(record.hash, 0, record.size)
    for term in terms:
        row = rows[term.xorb]
        start, end = cas.footers.get(row).byte_range(term.chunk_start, term.chunk_end)
        body, raw = read_all(cas.blobs.get_range(row.key, start, end), end - start), bytearray(term.unpacked_bytes)
        kernel.decode_chunks(XET_GEARHASH_BLAKE3.kernel, body, raw, final=True)
        digest.update(raw)
    return digest.hexdigest()
