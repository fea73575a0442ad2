"""Checks of files: their terms against the footers of xorbs, and the SHA-256 that were computed."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Set
from itertools import islice, repeat
from operator import itemgetter
from typing import TYPE_CHECKING

from xetstore.blobs.ranges import read_all
from xetstore.cas.checking.pages import FilePage, FileRows, file_page, file_pages
from xetstore.cas.checking.report import Problem
from xetstore.cas.claims import term_fault
from xetstore.cas.footers import sound
from xetstore.cas.index.queries.rows import unpack_terms
from xetstore.errors import DamagedError, IntegrityError
from xetstore.protocol import kernel
from xetstore.protocol.hashes import Hash, file_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.protocol.xorb import XorbInfo

if TYPE_CHECKING:
    from xetstore.cas.checking.naming import NamingCheck
    from xetstore.cas.service import EmbeddedCas
    from xetstore.records import FileRecord


def check_files(cas: EmbeddedCas, broken: Set[Hash], naming: NamingCheck) -> Iterator[Problem | None]:
    """The problem of each file, or None: whether registered xorbs give its size and its hash, and shards name it.

    Those of ``broken`` xorbs are reported with these.
    """
    for listed, page in file_pages(cas.index):
        # Those of a page that cannot be read are read one by one.
        faults = repeat("") if page is None else _faults(cas, page, broken, naming)
        for (file_id, record), fault in zip(listed, faults, strict=False):
            if fault is not None:  # it may have been deleted meanwhile, or have other terms now
                fault = _fault_alone(cas, file_id, broken, naming)
            yield None if fault is None else Problem(f"file {record.hash}", fault, (record.hash,))


def wrong_sha256(cas: EmbeddedCas) -> Iterator[Problem]:
    """The files of which another SHA-256 is taken to be computed than their bytes have."""
    for page in cas.index.pages(lambda reader, last: reader.files_after(last, None), itemgetter(0), 0):
        for _, record in page:
            if record.sha256 is not None and (actual := _sha256(cas, record)) != record.sha256:
                yield Problem(f"file {record.hash}", f"its SHA-256 is {actual}, not {record.sha256}", (record.hash,))


def _fault_alone(cas: EmbeddedCas, file_id: int, broken: Set[Hash], naming: NamingCheck) -> str | None:
    """The fault of one file as it is now, or None."""
    try:
        page = file_page(cas.index, file_id)
    except IntegrityError as error:
        return str(error)
    return None if page is None else next(_faults(cas, page, broken, naming))


def _faults(cas: EmbeddedCas, page: FilePage, broken: Set[Hash], naming: NamingCheck) -> Iterator[str | None]:
    """The fault of each file of a page, or None. Footers are read for many terms ahead."""
    known: dict[int, str | None] = {}
    for file in page.files:
        try:
            used = page.xorbs_of(file)
        except IntegrityError as error:
            known[file.id] = str(error)
        else:
            if not broken.isdisjoint(used):
                known[file.id] = None  # reported with the xorb
    terms = (term for file in page.files if file.id not in known for term in file.packed)
    footers = cas.footers.get_many(page.xorbs[term[0]] for term in terms)
    for file in page.files:
        if file.id in known:
            yield known[file.id]
            continue
        its_own = islice(footers, file.term_count)
        try:
            fault = _compare(page, file, its_own)
        except IntegrityError as error:
            fault = str(error)
        deque(its_own, maxlen=0)
        yield fault or naming.file_fault(page, file)


def _compare(page: FilePage, file: FileRows, footers: Iterator[XorbInfo | DamagedError]) -> str | None:
    """The fault of a file, or None. Takes the footer of each term. Raises IntegrityError for a damaged one."""
    tree = kernel.MerkleTree(XET_GEARHASH_BLAKE3.kernel)
    first_uses: dict[int, int] = {}
    i = 0
    for first_byte, payload in file.segments:
        if first_byte != tree.total_bytes:
            return f"the index has its terms from byte {tree.total_bytes} on at byte {first_byte}"
        for (xorb_id, *rest), footer in zip(unpack_terms(payload, file.record.hash), footers, strict=False):
            chunks = sound(footer).chunks
            term = Term(page.xorbs[xorb_id].hash, *rest)
            if fault := term_fault(term, chunks):
                return f"term {i} {fault}"
            first_uses.setdefault(xorb_id, tree.total_bytes)
            taken = chunks.slice(term.chunk_start, term.chunk_end)
            tree.update(taken.hashes, taken.lengths)
            i += 1
    record = file.record
    actual = file_hash(Hash(tree.root()))
    if actual != record.hash:
        return f"its terms make file {actual}"
    if tree.total_bytes != record.size:
        return f"the index says it has {record.size} bytes, its terms make {tree.total_bytes}"
    if first_uses != file.edges or (i, len(file.edges)) != (record.terms, record.xorbs):
        return "the index counts other xorbs or terms than it is made of"
    return None


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
