"""A file far bigger than what is held of it in memory: sparse, so that it costs little to make."""

from __future__ import annotations

from pathlib import Path

import xetstore
from tests.support.strategies import splitmix64
from xetstore.cas.check import verify_invariants
from xetstore.cas.service import EmbeddedCas

SIZE = 1 << 29


def test_half_a_gibibyte_of_holes_is_stored_in_nothing_and_comes_back_as_holes(scratch: Path) -> None:
    source, copy = scratch / "source", scratch / "copy"
    islands = {0: splitmix64(1, 5000), SIZE // 2 + 77: splitmix64(2, 300_000), SIZE - 9: b"the end.."}
    with source.open("wb") as file:
        for at, content in islands.items():
            file.seek(at)
            file.write(content)
    with xetstore.open(scratch / "store") as store:
        [report] = store.put_many([source])
        assert report.info.size == SIZE
        assert report.stored_bytes < 2_000_000
        assert store.get(report.info.hash, copy).verified
        assert (copy.stat().st_size, copy.stat().st_blocks * 512 < 5_000_000) == (SIZE, True)
        with copy.open("rb") as file:
            for at, content in islands.items():
                file.seek(at)
                assert file.read(len(content)) == content
        start = SIZE // 2
        store.get(report.info.hash, copy, start=start, end=start + 1_000_000)
        assert copy.read_bytes() == bytes(77) + islands[start + 77] + bytes(1_000_000 - 77 - 300_000)
    with EmbeddedCas.open(scratch / "store") as cas:
        verify_invariants(cas)
