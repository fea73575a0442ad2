"""A collection that is killed at any moment, while files are put: the store is in order, and what is live is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import xetstore
from tests.support.process import Worker, moments
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.protocol.hashes import Hash

POINTS = 200
LIVE = 3
CHECKED = 10
"""After each of so many points all of the store is read."""


def content(number: int) -> bytes:
    """Files have parts in common, so that there is something to rewrite."""
    return splitmix64(number, 150_000) + splitmix64(7, 60_000) + splitmix64(number - 1, 150_000)[:70_000]


@pytest.mark.slow
def test_a_collection_killed_at_any_moment_loses_nothing_that_is_live(worker: Worker, scratch: Path) -> None:
    root, live = scratch / "store", dict[int, Hash]()

    def put(number: int) -> dict[str, object]:
        path = scratch / str(number)
        path.write_bytes(content(number))
        return {"call": "put", "store": str(root), "paths": [str(path)]}

    def note(number: int, told: list[dict[str, str]]) -> None:
        (scratch / str(number)).unlink()
        live[number] = Hash.parse(told[0]["hash"])
        with xetstore.open(root) as store:
            while len(live) > LIVE:
                store.delete(live.pop(min(live)))

    for number in range(1, 6):
        note(number, worker.run(**put(number)).told)  # type: ignore[arg-type]
    collection = {"call": "gc", "store": str(root)}
    killed = 0
    for number, moment in enumerate(moments(worker, POINTS, collection), 6):
        putting, collecting = worker.run_all(put(number), collection | {"kill_after": 1.5 * moment})
        assert collecting.code == 0 or collecting.was_killed, collecting.message
        killed += collecting.was_killed
        if putting.error == "MissingXorbError":  # without a grace a xorb may go before its shard comes
            putting = worker.run(**put(number))  # type: ignore[arg-type]
        assert putting.code == 0, putting.message
        note(number, putting.told)
        if number % CHECKED == 0:
            with EmbeddedCas.open(root) as cas:
                assert check(cas, read_data=True).problems == ()
            with xetstore.open(root) as store:
                for one, file in live.items():
                    assert b"".join(store.iter_range(file)) == content(one)
    assert killed > POINTS / 4
    for file in live.values():
        with xetstore.open(root) as store:
            store.delete(file)
    for _ in range(12):
        assert worker.run("gc", store=str(root)).code == 0
    with EmbeddedCas.open(root) as cas:
        verify_invariants(cas)
        assert cas.totals().xorbs == 0
        # A rewrite that was killed may leave an object that no row names: it goes when it is a week old.
        for key in objects(cas):
            os.utime(root / key, (0, 0))
    assert worker.run("gc", store=str(root)).code == 0
    with EmbeddedCas.open(root) as cas:
        assert objects(cas) == []


def objects(cas: EmbeddedCas) -> list[str]:
    return [blob.key for prefix in ("xorbs/", "shards/") for blob in cas.blobs.list(prefix)]
