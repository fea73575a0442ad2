"""Storing a file while the database fails, at every single statement: nothing is half there. On both engines."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests.cas.test_faults import expect_absent_or_whole
from tests.support import engines
from tests.support.postgres import PostgresServer
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.index import MIGRATIONS, Index
from xetstore.errors import UnavailableError, UnknownOutcomeError
from xetstore.testing import FaultPlan, FaultyDatabase, make_sample, random_bytes, read_back, upload

ENGINES = engines.BOTH


def put_while_it_fails(cas: EmbeddedCas, plan: FaultPlan) -> list[bool]:
    """Put file after file, while the first, the second, … statement fails; of each put if it was acknowledged."""
    acknowledged = []
    leftovers = 0  # a connection that breaks during a commit may have committed, so the object stays
    for number in range(100):
        sample = make_sample(random_bytes(20_000, 100 + number))
        plan.fail_next(after=number)
        try:
            upload(cas, sample)
        except UnavailableError as error:
            acknowledged.append(False)
            leftovers += isinstance(error, UnknownOutcomeError)
        else:
            acknowledged.append(True)
        plan.disarm()
        if not plan.has_failed:
            break
        is_there = expect_absent_or_whole(cas, sample, leftovers)
        assert is_there or not acknowledged[-1], plan.operations[-1]
        assert read_back(cas, upload(cas, sample)) == sample.data
    verify_invariants(cas)
    return acknowledged


@pytest.mark.slow
def test_whichever_statement_fails_the_store_is_whole(tmp_path: Path, opening: engines.Opening) -> None:
    plan = FaultPlan()
    with EmbeddedCas(LocalBlobStore(tmp_path), Index(FaultyDatabase(opening(), plan))) as cas:
        acknowledged = put_while_it_fails(cas, plan)
    assert len(acknowledged) > 15
    assert acknowledged[-1]
    assert acknowledged.count(False) > 12


@pytest.mark.slow
def test_at_whichever_statement_the_connection_breaks_the_store_is_whole(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str
) -> None:
    plan = FaultPlan()
    database = FaultyDatabase(
        engines.opening_of(postgres_url)(), plan, instead=lambda: postgres.terminate(postgres_url)
    )
    with EmbeddedCas(LocalBlobStore(tmp_path), Index(database)) as cas:
        acknowledged = put_while_it_fails(cas, plan)
    assert acknowledged[-1]
    # Where a statement is the first of its transaction, another connection takes over, and nothing is lost.
    assert acknowledged.count(False) > 5
    assert acknowledged.count(True) > 3


COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns
WHERE table_schema = 'public' ORDER BY 1, 2
"""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "step"), [("refused", 1), ("broken", 3)])
def test_at_whichever_statement_a_migration_ends_the_next_start_goes_on(
    postgres: PostgresServer, how: str, step: int
) -> None:
    seen: list[str] = []

    def columns(url: str) -> list[object]:
        return list(postgres.query(COLUMNS, url=url))

    with postgres.database() as url:
        Index(engines.opening_of(url)()).close()
        expected = columns(url)
    number = 0
    while True:
        with postgres.database() as url:
            opening, plan = engines.opening_of(url), FaultPlan(fail_at=number)

            def end(url: str = url) -> None:
                postgres.terminate(url)

            try:
                Index(FaultyDatabase(opening(), plan, instead=end if how == "broken" else None)).close()
            except UnavailableError:
                seen.append("failed")
            if not plan.has_failed:
                break
            with closing(Index(opening())) as index, index.snapshot() as reader:
                assert MIGRATIONS.version(reader.connection) == MIGRATIONS.newest
            assert columns(url) == expected
        number += step
    assert len(seen) * step > 30
