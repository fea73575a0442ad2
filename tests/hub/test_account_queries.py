"""Accounts cost the same in a store with many: which statements are run, and that none walks through a table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from xetstore.cas.index import Index
from xetstore.hub.access_requests import AccessRequests, Status
from xetstore.hub.accounts import Accounts
from xetstore.hub.queries.accounts import AccountKind
from xetstore.hub.rights import Role
from xetstore.hub.tables import MIGRATIONS
from xetstore.testing import FakeClock

WALK = re.compile(r"SCAN |AUTOMATIC|USE TEMP B-TREE(?! FOR ORDER BY)")


@pytest.fixture
def index() -> Iterator[Index]:
    with closing(Index.in_memory()) as index:
        index.migrate(MIGRATIONS)
        yield index


@contextmanager
def statements(index: Index) -> Iterator[list[str]]:
    """The statements that are run meanwhile, with their values in them, but those that begin and end transactions."""
    with index.snapshot() as reader:
        driver = reader.connection.driver  # one call after the other takes the same
    seen: list[str] = []

    def trace(statement: str) -> None:
        if statement.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            seen.append(statement)

    driver.set_trace_callback(trace)
    try:
        yield seen
    finally:
        driver.set_trace_callback(None)


def test_a_token_is_one_query_and_none_while_it_is_remembered(index: Index, clock: FakeClock) -> None:
    accounts = Accounts(index, clock)
    accounts.add_user("alice")
    for number in range(5):
        accounts.add_org(f"org{number}")
        accounts.add_member(f"org{number}", "alice", Role.READ)
    token = accounts.issue("alice")
    with statements(index) as seen:
        accounts.authenticate(token)
        assert [statement.split()[0] for statement in seen] == ["SELECT", "UPDATE"], "and its first use"
        for _ in range(100):
            accounts.authenticate(token)
        assert len(seen) == 2
        clock.advance(10)
        assert len(accounts.authenticate(token).orgs) == 5
        assert [statement.split()[0] for statement in seen[2:]] == ["SELECT"]


def test_no_statement_walks_through_a_table(index: Index, clock: FakeClock) -> None:
    accounts, requests = Accounts(index, clock), AccessRequests(index, clock)
    with statements(index) as seen:
        accounts.add_user("alice")
        accounts.add_user("bob")
        accounts.add_org("acme")
        accounts.add_member("acme", "alice", Role.READ)
        token = accounts.issue("alice")
        accounts.authenticate(token)
        accounts.list(AccountKind.USER, after="a")
        accounts.members("acme")
        accounts.orgs_of("alice")
        row = accounts.token(token)
        accounts.tokens("alice", after=row)
        accounts.tokens(after=row)
        requests.list(1, Status.PENDING, after=(1.0, 1))
        requests.status(1, 1)
        accounts.revoke(token)
        accounts.remove_member("acme", "alice")
        accounts.remove("alice")
    with index.snapshot() as reader:
        plans = {
            statement: [row[3] for row in reader.connection.driver.execute(f"EXPLAIN QUERY PLAN {statement}")]
            for statement in seen
        }
    assert len(plans) > 20
    assert {statement: plan for statement, plan in plans.items() if any(map(WALK.search, plan))} == {}
