"""Names in a snapshot of the index: every table and column but those that are left out for a reason, and no secret."""

from __future__ import annotations

import zlib
from base64 import b64encode
from contextlib import closing

from tests.hub.copies import fill
from tests.support import engines
from xetstore.access.table_secrets import TableSecrets
from xetstore.cas import EmbeddedCas
from xetstore.cas.index.queries.snapshots import LEFT_OUT as LEFT_OUT_BY_INDEX
from xetstore.cas.index.queries.snapshots import TABLES as TABLES_OF_INDEX
from xetstore.cas.snapshots.take import take_snapshot
from xetstore.hub.service import EmbeddedHub
from xetstore.hub.snapshot import LEFT_OUT, LEFT_OUT_COLUMNS, NAMES, TABLES

ENGINES = engines.BOTH


def columns_of(cas: EmbeddedCas, engine: str) -> dict[str, set[str]]:
    """The columns of every table."""
    with cas.index.snapshot() as reader:
        ask = reader.connection.rows
        if engine == engines.POSTGRES:
            found = ask("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'")
        else:
            found = ask(
                "SELECT one.name, columns.name FROM sqlite_master AS one, pragma_table_info(one.name) AS columns"
                " WHERE one.type = 'table' AND one.name <> 'sqlite_sequence'"
            )
        tables: dict[str, set[str]] = {}
        for table, column in found:
            tables.setdefault(table, set()).add(column)
    return tables


def test_every_table_and_column_is_exported_or_left_out_for_a_reason(cas: EmbeddedCas, engine: str) -> None:
    EmbeddedHub(cas)
    columns = columns_of(cas, engine)
    of_index = {table.name for table in TABLES_OF_INDEX} | LEFT_OUT_BY_INDEX.keys()
    assert columns.keys() - of_index == {table.name for table in TABLES} | LEFT_OUT.keys()
    for table in TABLES:
        left_out = {name.partition(".")[2] for name in LEFT_OUT_COLUMNS if name.startswith(f"{table.name}.")}
        assert columns[table.name] == {*table.columns} | left_out
        assert not {*table.columns} & left_out


SECRETS = {"access_token": "digest", "dedup_key": "key", "secret": "data"}


def test_no_secret_is_in_it(cas: EmbeddedCas, opening: engines.Opening, engine: str) -> None:
    hub = EmbeddedHub(cas)
    fill(hub)
    token = hub.accounts.issue("bob", name="a laptop")
    cas.index.change(lambda writer: writer.renew_dedup_key(b"k" * 32, now=2.0, old=1.0))
    secrets: list[bytes] = [token.encode()]
    with closing(opening()) as database:
        if engine == engines.POSTGRES:  # else they are in private files
            TableSecrets(database).change("keys", lambda _: b"a very private key of this store")
    report = take_snapshot(cas, [NAMES])
    with cas.index.snapshot() as reader:
        for table, column in SECRETS.items():
            if reader.connection.has_table(table):
                found = [value for (value,) in reader.connection.rows(f'SELECT "{column}" FROM {table}')]
                assert found
                secrets.extend(found)
    stored = cas.blobs.get(report.key)
    lines = zlib.decompress(stored)
    assert b'"bob"' in lines  # the names are there
    for secret in secrets:
        for form in (secret, b64encode(secret).rstrip(b"="), secret.hex().encode(), repr(secret)[2:-1].encode()):
            assert form not in lines
            assert form not in stored
