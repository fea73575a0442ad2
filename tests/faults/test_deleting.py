"""A process that dies in the middle of a deletion, at every operation of its disk: all of it is done, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.model_store import FILES, GRACE, files_of, put
from tests.support.process import Worker
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.testing import FakeClock, read_back
from xetstore.testing.faults import CRASH_EXIT_CODE

NUMBERS = [0, 2, 5]


@pytest.fixture(scope="module")
def dying() -> Iterator[Worker]:
    with Worker(module="tests.faults.model_worker") as worker:
        yield worker


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["delete", "undelete"])
def test_wherever_the_process_dies_a_call_is_done_or_nothing_is(root: Path, dying: Worker, verb: str) -> None:
    clock = FakeClock()
    files = set(files_of(NUMBERS))
    with EmbeddedCas.open(root, clock=clock) as cas:
        cas.grace = GRACE
        put(cas, NUMBERS)
        found = []
        for die_at in range(200):
            if verb == "undelete":
                cas.delete(files_of(NUMBERS))
            ended = dying.run(
                "model",
                store=str(root),
                now=clock(),
                namespace="default",
                verb=verb,
                files=NUMBERS,
                die_at=die_at,
            )
            there, gone = {record.hash for record in cas.files()}, {done.hash for done in cas.deleted()}
            assert (there, gone) in ((files, set()), (set(), files))
            found.append((gone if verb == "delete" else there) == files)
            assert found[-1] or not ended.told
            cas.undelete(files_of(NUMBERS))
            if ended.code == 0:
                break
            assert ended.code == CRASH_EXIT_CODE
        verify_invariants(cas)
        assert all(read_back(cas, FILES[number].hash) == FILES[number].data for number in NUMBERS)
    assert ended.code == 0
    assert len(found) > 5
    # Up to the commit nothing is done, from then on all of it.
    assert found == sorted(found)
    assert not found[0]
