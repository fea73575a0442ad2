"""The check of a shard's claims: repeated terms are looked at once, and it ends when nobody waits for it any more."""

from __future__ import annotations

import pytest

from tests.support.stored import file_of, scattered
from xetstore.cas.service import EmbeddedCas
from xetstore.protocol.hashes import Hash

XORB = scattered(4000, chunk_bytes=16)
"""A xorb of 8,000 chunks."""


class GoneError(Exception):
    """The client is."""


def stored() -> EmbeddedCas:
    cas = EmbeddedCas.in_memory()
    cas.put_xorb(XORB.xorb.hash, XORB.body)
    return cas


def test_a_file_that_repeats_itself_is_what_its_terms_make() -> None:
    ranges = [(0, 5000), (10, 20), (0, 5000), (3000, 8000), (10, 20), (0, 5000)] * 12
    file, content, shard = file_of(XORB, ranges)
    with stored() as cas:
        assert cas.put_shard(shard)
        assert cas.stat(file).size == len(content)


def test_the_check_of_one_long_file_asks_again_and_again_whether_to_go_on() -> None:
    file, _, shard = file_of(XORB, [(0, 8000)] * 40)
    told: list[tuple[int, int]] = []

    def progress(verified: int, total: int) -> None:
        told.append((verified, total))
        if len(told) == 3:
            raise GoneError

    with stored() as cas:
        with pytest.raises(GoneError):
            cas.put_shard(shard, progress=progress)
        assert told == [(1, 2)] * 3  # its xorb, and twice within the file
        assert not has(cas, file)


def has(cas: EmbeddedCas, file: Hash) -> bool:
    return file in {record.hash for record in cas.files()}
