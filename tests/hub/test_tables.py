"""The tables of the hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.live import live_server
from tests.support.postgres import PostgresServer
from xetstore.cas.index import Index
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub
from xetstore.hub.tables import MIGRATIONS


def test_rows_that_go_with_another_are_found_by_an_index() -> None:
    """Where one is deleted, a database looks for those that name it, and walks through a table that has no index."""
    unindexed = []
    with closing(Index.in_memory()) as index:
        index.migrate(MIGRATIONS)
        with index.snapshot() as reader:
            ask = reader.connection.driver.execute
            tables = [name for (name,) in ask("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                indexes = [name for _, name, *_ in ask(f"PRAGMA index_list({table})")]
                keys = [[column[2] for column in ask(f"PRAGMA index_info({name})")] for name in indexes]
                references: dict[int, list[str]] = {}
                for number, _, _, column, *_ in ask(f"PRAGMA foreign_key_list({table})"):
                    references.setdefault(number, []).append(column)
                for columns in references.values():
                    if not any(set(key[: len(columns)]) == set(columns) for key in keys):
                        unindexed.append((table, columns))
    assert len(tables) > 15
    assert unindexed == []


RIGHTS = {"reader": "SELECT", "clerk": "SELECT, INSERT, UPDATE, DELETE"}


@pytest.fixture(params=RIGHTS)
def role(request: pytest.FixtureRequest, postgres: PostgresServer, postgres_url: str, root: Path) -> Iterator[str]:
    """The URL of a database for a role that can make no table in it; a store is there."""
    engines.open_on_postgres(root, postgres_url).close()
    name, rights = request.param, RIGHTS[request.param]
    postgres.query(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'", url=postgres_url)
    postgres.query(f"GRANT {rights} ON ALL TABLES IN SCHEMA public TO {name}", url=postgres_url)
    postgres.query(f"ALTER DEFAULT PRIVILEGES GRANT {rights} ON TABLES TO {name}", url=postgres_url)
    try:
        yield postgres.url(postgres_url.rpartition("/")[2], role=name, password=name)
    finally:
        postgres.query(f"DROP OWNED BY {name}", url=postgres_url)
        postgres.query(f"DROP ROLE {name}", url=postgres_url)


def test_a_server_whose_role_cannot_make_the_tables_serves_files_and_names_once_they_are_there(
    role: str, postgres_url: str, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with engines.open_on_postgres(root, role) as cas, live_server(cas) as server:
        assert server.site.hub is None
        assert server.request("GET", "/api/models").status == 404
        assert server.request("GET", "/v1/reconstructions/" + 64 * "0", token=server.token()).status == 404
    [warned] = [record for record in caplog.records if "no repositories" in record.message]
    assert warned.levelno == logging.WARNING
    with engines.open_on_postgres(root, postgres_url) as cas:
        EmbeddedHub(cas).create(LOCAL, RepositoryName(Kind.MODELS, "alice", "bert"))
    with engines.open_on_postgres(root, role) as cas, live_server(cas) as server:
        assert server.site.hub is not None
        assert server.request("GET", "/api/models/alice/bert").status == 200
