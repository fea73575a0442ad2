"""A database of a PostgreSQL server: round trips, durability, who waits for whom, and the server that goes away."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import PostgresServer
from tests.support.round_trips import exchanges
from xetstore.database.connection import Connection
from xetstore.database.guarded import GuardedDatabase
from xetstore.database.postgres import PostgresDatabase, ServedConnection
from xetstore.database.postgres_server import ServerUrl
from xetstore.errors import (
    AccessDeniedError,
    ConflictError,
    DamagedError,
    InterruptedCallError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
    UnknownOutcomeError,
    UnreachableError,
    UsageError,
    XetError,
)
from xetstore.extras import install_hint
from xetstore.platform.circuit import Circuit


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
def database(url: str) -> Iterator[PostgresDatabase]:
    with closing(PostgresDatabase(url, wait_seconds=5)) as database:
        with database.transaction() as connection:
            connection.change("CREATE TABLE one (number BIGINT PRIMARY KEY, name BYTEA UNIQUE)")
        yield database


def add(connection: Connection, *numbers: int) -> None:
    connection.change_many("INSERT INTO one (number) VALUES (:number)", [{"number": number} for number in numbers])


def all_numbers(database: PostgresDatabase) -> list[int]:
    with database.snapshot() as connection:
        return [number for (number,) in connection.rows("SELECT number FROM one ORDER BY 1")]


def driver_of(database: PostgresDatabase) -> Any:
    """The connection of the driver that the next call takes."""
    with database.snapshot() as connection:
        connection.value("SELECT 1")
        return connection.driver


# The network


def test_a_snapshot_of_one_query_is_one_round_trip_and_its_end_is_not_waited_for(
    database: PostgresDatabase, tmp_path: Path
) -> None:
    def look() -> None:
        with database.snapshot() as connection:
            connection.value("SELECT count(*) FROM one")

    assert exchanges(database, tmp_path / "trace", look) == ["sync", "rollback"]


def test_a_transaction_of_many_rows_is_two_round_trips(database: PostgresDatabase, tmp_path: Path) -> None:
    def write() -> None:
        with database.transaction() as connection:
            add(connection, *range(20_000))

    assert exchanges(database, tmp_path / "trace", write) == ["sync", "commit"]
    assert all_numbers(database) == [*range(20_000)]

    def change() -> None:
        with database.transaction(patience_seconds=0) as connection:
            each = [{"number": number, "more": 20_000} for number in range(500)]
            connection.change_many("UPDATE one SET number = number + :more WHERE number = :number", each)

    assert exchanges(database, tmp_path / "trace", change) == ["sync", "commit"]
    assert all_numbers(database) == [*range(500, 20_500)]


def test_a_transaction_that_does_nothing_asks_nothing(database: PostgresDatabase, tmp_path: Path) -> None:
    def nothing() -> None:
        with database.transaction():
            pass

    assert exchanges(database, tmp_path / "trace", nothing) == []


def test_a_query_of_very_many_rows_is_read_by_part_beside_others(database: PostgresDatabase, tmp_path: Path) -> None:
    with database.transaction() as connection:
        add(connection, *range(1000))

    def read() -> None:
        with database.snapshot() as connection:
            some = connection.rows_by_part("SELECT number FROM one WHERE number < :end ORDER BY 1", {"end": 900})
            assert [next(some)[0] for _ in range(3)] == [0, 1, 2]
            assert connection.value("SELECT count(*) FROM one") == 1000
            assert [number for (number,) in some] == [*range(3, 900)]
            assert next(connection.rows_by_part("SELECT number FROM one")) is not None

    assert 15 < len(exchanges(database, tmp_path / "trace", read)) < 30
    with database.transaction() as connection:
        assert next(connection.rows_by_part("SELECT number FROM one ORDER BY 1")) == (0,)


def test_connections_are_kept_up_to_a_number_and_closed_at_the_end(
    postgres: PostgresServer, database: PostgresDatabase, url: str
) -> None:
    together = threading.Barrier(10)

    def look() -> None:
        with database.snapshot() as connection:
            connection.value("SELECT 1")
            together.wait(60)

    threads = [threading.Thread(target=look) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert postgres.connections(url) == 10
    database.close()
    database.close()
    assert postgres.connections(url) == 0
    with pytest.raises(UsageError, match="closed"), database.snapshot():
        pass


def test_where_all_connections_are_in_use_a_call_waits_for_one_and_not_for_ever(url: str) -> None:
    with closing(PostgresDatabase(url, most_connections=1, wait_seconds=0.1)) as database:
        with database.snapshot(), pytest.raises(UnavailableError, match="in use"), database.snapshot():
            pass
        with database.snapshot() as connection:
            assert connection.value("SELECT 1") == 1


# Durable, or nothing


def test_a_commit_is_durable_where_the_server_would_not_wait_for_it(
    postgres: PostgresServer, database: PostgresDatabase
) -> None:
    assert postgres.query("SHOW synchronous_commit") == [("off",)]
    with database.transaction() as connection:
        assert connection.value("SHOW synchronous_commit") == "on"
        assert connection.value("SHOW transaction_isolation") == "read committed"
        add(connection, 1)
    postgres.kill()
    postgres.start()
    assert all_numbers(database) == [1]


def test_what_a_transaction_did_before_an_error_is_undone(database: PostgresDatabase) -> None:
    with pytest.raises(ZeroDivisionError), database.transaction() as connection:
        add(connection, 1)
        raise ZeroDivisionError
    with pytest.raises(ConflictError), database.transaction() as connection:
        add(connection, 1)
        add(connection, 1)
    assert all_numbers(database) == []


def test_an_error_that_the_caller_did_not_pass_on_is_no_success(database: PostgresDatabase) -> None:
    with pytest.raises(UnavailableError, match="void"), database.transaction() as connection:
        add(connection, 1)
        with suppress(Exception):
            add(connection, 1)
    assert all_numbers(database) == []


BREAK_DURING_COMMIT = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON one DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait();
"""


def test_where_the_connection_breaks_during_the_commit_the_outcome_is_not_known(
    postgres: PostgresServer, database: PostgresDatabase, url: str
) -> None:
    postgres.query(BREAK_DURING_COMMIT, url=url)

    def end() -> None:
        while not postgres.query("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            time.sleep(0.01)
        postgres.terminate(url)

    ending = threading.Thread(target=end)
    ending.start()
    with pytest.raises(UnknownOutcomeError), database.transaction() as connection:
        add(connection, 1)
    ending.join()
    assert all_numbers(database) == []


# Side by side


def test_writers_do_not_wait_for_each_other(database: PostgresDatabase) -> None:
    with database.transaction() as one, database.transaction() as other:
        add(one, 1)
        add(other, 2)
        assert all_numbers(database) == []
    assert all_numbers(database) == [1, 2]


def test_a_snapshot_sees_one_state_and_changes_nothing(database: PostgresDatabase) -> None:
    with database.snapshot() as before:
        assert before.value("SELECT count(*) FROM one") == 0
        with database.transaction() as connection:
            add(connection, 1)
        assert before.value("SELECT count(*) FROM one") == 0
        with pytest.raises(Exception, match="read-only"):
            add(before, 2)
    assert all_numbers(database) == [1]


def test_a_writer_waits_for_a_row_only_as_long_as_it_has_patience(database: PostgresDatabase) -> None:
    with database.transaction() as connection:
        add(connection, 1)
    with database.transaction() as connection:
        connection.change("UPDATE one SET name = NULL WHERE number = 1")
        with pytest.raises(UnavailableError, match="lock timeout"), database.transaction(patience_seconds=0) as other:
            other.change("UPDATE one SET name = NULL WHERE number = 1")
        with database.transaction() as other:
            assert other.value("SHOW lock_timeout") == "5s"


def test_of_two_in_each_others_way_one_gives_way(database: PostgresDatabase) -> None:
    with database.transaction() as connection:
        add(connection, 1, 2)
    both, outcomes = threading.Barrier(2), []

    def cross(first: int, second: int) -> None:
        try:
            with database.transaction() as connection:
                for number in (first, second):
                    connection.change("UPDATE one SET name = NULL WHERE number = :number", {"number": number})
                    if number == first:
                        both.wait(60)
        except ConflictError:
            outcomes.append("conflict")
        else:
            outcomes.append("done")

    threads = [threading.Thread(target=cross, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict", "done"]


@pytest.mark.slow
def test_a_stuck_client_keeps_no_lock_for_ever(url: str) -> None:
    with closing(PostgresDatabase(url, statement_seconds=2)) as stuck, closing(PostgresDatabase(url)) as other:
        with other.transaction() as connection:
            connection.change("CREATE TABLE one (number BIGINT PRIMARY KEY)")
            add(connection, 1)
        with pytest.raises(UnavailableError), stuck.transaction() as connection:
            connection.change("UPDATE one SET number = 2")
            with other.transaction() as waiting:
                waiting.change("UPDATE one SET number = 3")
        with pytest.raises(UnavailableError, match="timeout"), stuck.snapshot() as connection:
            connection.value("SELECT pg_sleep(60)")
        assert all_numbers(other) == [3]


def test_a_migration_is_waited_for_longer_than_a_row(database: PostgresDatabase, url: str) -> None:
    with closing(PostgresDatabase(url, wait_seconds=0.05, statement_seconds=1)) as hasty:
        begun, done = threading.Event(), threading.Event()

        def migrate() -> None:
            with database.transaction() as connection:
                connection.alone_with("tables", for_long=True)
                begun.set()
                done.wait(60)

        thread = threading.Thread(target=migrate)
        thread.start()
        begun.wait(60)
        with pytest.raises(UnavailableError, match="timeout"), hasty.transaction() as connection:
            connection.alone_with("tables")
        threading.Timer(1.5, done.set).start()
        with hasty.transaction() as connection:
            connection.alone_with("tables", for_long=True)
            assert done.is_set()
            assert connection.value("SHOW lock_timeout") == "50ms"
        thread.join()


# The server goes away


def test_a_server_that_was_restarted_is_used_at_once(postgres: PostgresServer, database: PostgresDatabase) -> None:
    for end in (postgres.stop, postgres.kill):
        with database.snapshot() as one, database.snapshot() as other:  # two are kept, and both are stale
            assert one.value("SELECT 1") == other.value("SELECT 1") == 1
        end()
        for _ in range(2):
            with pytest.raises(UnavailableError, match="reach"), database.snapshot() as connection:
                connection.value("SELECT 1")
        postgres.start()
        assert all_numbers(database) == []
        with database.transaction() as connection:
            connection.change("DELETE FROM one")


def test_a_connection_that_broke_unseen_is_replaced_at_the_first_statement(
    postgres: PostgresServer, database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a firewall has forgotten it: the look at it tells nothing."""
    driver = driver_of(database)
    monkeypatch.setattr(database._pool, "_is_alive", lambda _: True)
    driver.settle()
    os.close(os.dup(driver.pgconn.socket))
    postgres.query(f"SELECT pg_terminate_backend({driver.pgconn.backend_pid})")
    with database.transaction() as connection:
        add(connection, 1)
        assert connection.driver is not driver
    assert all_numbers(database) == [1]


def test_a_transaction_whose_connection_breaks_changes_nothing(
    postgres: PostgresServer, database: PostgresDatabase, url: str
) -> None:
    with pytest.raises(UnavailableError) as caught, database.transaction() as connection:
        add(connection, 1)
        postgres.terminate(url)
        add(connection, 2)
    assert not isinstance(caught.value, ConflictError | UnknownOutcomeError)
    assert all_numbers(database) == []


@pytest.mark.slow
def test_a_server_that_hangs_is_given_up(postgres: PostgresServer, url: str) -> None:
    with closing(PostgresDatabase(url, statement_seconds=0.5, connect_seconds=1)) as database:
        with postgres.paused():
            with pytest.raises(UnavailableError, match="reach"), database.snapshot() as connection:
                connection.value("SELECT 1")
            with pytest.raises(UnavailableError, match="reach"), database.snapshot() as connection:
                connection.value("SELECT 1")
        with database.snapshot() as connection:
            assert connection.value("SELECT 1") == 1


RAISED: dict[str, type[XetError]] = {
    "53100": StorageFullError,
    "53300": UnavailableError,
    "40001": ConflictError,
    "57P03": UnavailableError,
    "58030": UnavailableError,
    "42501": AccessDeniedError,
    "22001": UsageError,
    "22003": UsageError,
    "22021": UsageError,
    "42P01": DamagedError,
    "XX001": DamagedError,
}


@pytest.mark.parametrize("state", RAISED)
def test_an_error_of_the_server_is_one_of_ours(database: PostgresDatabase, state: str) -> None:
    with pytest.raises(XetError) as caught, database.transaction() as connection:
        connection.change(f"DO $$ BEGIN RAISE EXCEPTION 'so' USING ERRCODE = '{state}'; END $$")
    assert type(caught.value) is RAISED[state]
    assert caught.value.hint
    assert all_numbers(database) == []


def test_a_text_with_a_nul_is_an_error_of_the_caller(database: PostgresDatabase) -> None:
    with pytest.raises(UsageError), database.snapshot() as connection:
        connection.value("SELECT CAST(:text AS TEXT)", {"text": "a\0b"})


# Who may come in


@pytest.fixture
def role(postgres: PostgresServer) -> Iterator[str]:
    """A role that needs a password, ``zq:xw@t``."""
    postgres.query("CREATE ROLE reader LOGIN PASSWORD 'zq:xw@t'")
    yield "reader"
    postgres.query("DROP ROLE reader")


def said(error: BaseException | None) -> str:
    """All that an error tells."""
    if error is None:
        return ""
    hint = getattr(error, "hint", "")
    return f"{error!r} {error} {hint} {vars(error)} {said(error.__cause__)} {said(error.__context__)}"


def test_transactions_alone_tell_that_the_server_is_away(postgres: PostgresServer, url: str) -> None:
    circuit = Circuit("the index does not answer", failures=2)
    with closing(PostgresDatabase(url)) as inner:
        database = GuardedDatabase(inner, circuit)
        postgres.stop()
        try:
            for is_open in (False, True):
                with pytest.raises(UnreachableError), database.transaction() as connection:
                    connection.row("SELECT 1")
                assert circuit.is_open is is_open
        finally:
            postgres.start()


@pytest.mark.parametrize("name", ["scram_client_key", "scram_server_key", "sslpassword", "sslkey", "passfile"])
def test_no_parameter_that_may_be_a_secret_is_shown(name: str) -> None:
    assert "zq" not in str(ServerUrl(f"postgresql://xet@db/xet?{name}=zq&connect_timeout=3"))


def test_a_password_is_taken_and_never_shown(
    postgres: PostgresServer, role: str, url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    name = url.rpartition("/")[2]
    right, wrong = (postgres.url(name, role=role, password=word) for word in ("zq%3Axw%40t", "wr%3Aong"))
    told = []
    with closing(PostgresDatabase(right)) as database:
        told += [repr(database), str(database._url)]
        with database.snapshot() as connection:
            assert connection.value("SELECT current_user") == role
            told += [repr(connection.driver), str(connection.driver)]
    monkeypatch.setenv("PGPASSWORD", "zq:xw@t")
    PostgresDatabase(postgres.url(name, role=role)).close()
    monkeypatch.delenv("PGPASSWORD")
    refused: dict[str, type[XetError]] = {
        wrong: AccessDeniedError,
        postgres.url(name, role=role): AccessDeniedError,
        postgres.url("nowhere", role=role, password="zq%3Axw%40t"): NotFoundError,
        postgres.url(name, role="no_one", password="zq%3Axw%40t"): AccessDeniedError,
        f"postgresql://{role}:zq%ZZxw@127.0.0.1/{name}": UsageError,
        f"postgresql://{role}:zq xw@127.0.0.1/{name}": UsageError,
        f"mysql://{role}:zqxw@127.0.0.1/{name}": UsageError,
        right.replace(f":{postgres.port}", ":1"): UnreachableError,
        right.replace(f":{postgres.port}", ":1,127.0.0.1:2").replace("127.0.0.1:1", "127.0.0.1:1"): UnreachableError,
    }
    for address, kind in refused.items():
        with pytest.raises(kind) as caught:
            PostgresDatabase(address)
        assert type(caught.value) is kind
        told.append(said(caught.value))
    told.append(caplog.text)
    for secret in ("zq:xw@t", "zq%3Axw", "zqxw", "wr:ong", "wr%3A", "zq%ZZ", "zq xw"):
        assert not [text for text in told if secret in text]


def test_a_role_that_may_only_read_can_open_and_read(postgres: PostgresServer, role: str, url: str) -> None:
    reader = postgres.url(url.rpartition("/")[2], role=role, password="zq%3Axw%40t")
    with closing(PostgresDatabase(url)) as owner, owner.transaction() as connection:
        connection.change("CREATE TABLE one (number BIGINT PRIMARY KEY)")
        connection.change("CREATE TABLE others (number BIGINT PRIMARY KEY)")
        connection.change("GRANT SELECT ON one TO reader")
    with closing(PostgresDatabase(reader, look_seconds=0)) as database:
        assert isinstance(database.read_only_because, AccessDeniedError)
        with pytest.raises(AccessDeniedError, match="written"), database.transaction():
            pass
        assert all_numbers(database) == []
        postgres.query("GRANT ALL ON one TO reader", url=url)
        with database.transaction() as connection:
            add(connection, 1)
        assert database.read_only_because is None
        with pytest.raises(AccessDeniedError), database.transaction() as connection:
            connection.change("INSERT INTO others VALUES (1)")
    postgres.query("REVOKE ALL ON one FROM reader", url=url)


@pytest.mark.slow
def test_a_standby_can_be_read_and_takes_changes_again_once_it_is_none(
    postgres: PostgresServer, database: PostgresDatabase, url: str
) -> None:
    with database.transaction() as connection:
        add(connection, 1)
    with postgres.as_standby():
        assert all_numbers(database) == [1]
        with pytest.raises(AccessDeniedError, match="standby"), database.transaction() as connection:
            add(connection, 2)
        with closing(PostgresDatabase(url)) as other:
            assert isinstance(other.read_only_because, AccessDeniedError)
    assert all_numbers(database) == [1]
    with database.transaction() as connection:
        add(connection, 2)


# The rest


def test_the_clock_is_the_servers(database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.0)
    with database.snapshot() as connection:
        now = connection.value("SELECT CAST(extract(epoch FROM clock_timestamp()) AS FLOAT8)")
    assert abs(database.clock() - now) < 60
    assert database.clock() <= database.clock()


def test_a_child_has_connections_of_its_own(postgres: PostgresServer, database: PostgresDatabase, url: str) -> None:
    driver = driver_of(database)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with database.transaction() as connection:
                add(connection, 1)
                code = 0 if connection.driver is not driver else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert all_numbers(database) == [1]


def test_a_child_that_was_forked_by_a_transaction_leaves_it_to_its_parent(database: PostgresDatabase) -> None:
    child = -1
    try:
        with database.transaction() as connection:
            add(connection, 1)
            child = os.fork()
        with database.transaction() as connection:
            add(connection, 2)
        assert child
    except BaseException as error:
        if child:
            raise
        is_refused = isinstance(error, InterruptedCallError)
        os._exit(0 if is_refused and all_numbers(database) in ([], [1], [1, 2]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert all_numbers(database) == [1, 2]


FORKED_IN_THE_MIDDLE = """
import os, sys, threading
from xetstore.database.postgres import PostgresDatabase
from xetstore.platform.circuit import Circuit
from xetstore.platform import forks
forks.WAIT_SECONDS = 0.1
database = PostgresDatabase(sys.argv[1])
begun, done = threading.Event(), threading.Event()

def stay():
    with database.snapshot() as connection:
        connection.value("SELECT 1")
        begun.set()
        done.wait(60)
        print("parent", connection.value("SELECT 2"), flush=True)

thread = threading.Thread(target=stay)
thread.start()
begun.wait(60)
child = os.fork()
if child == 0:
    with database.snapshot() as connection:
        print("child", connection.value("SELECT 3"), flush=True)
    os._exit(0)
print("code", os.waitpid(child, 0)[1], flush=True)
done.set()
thread.join()
database.close()
"""


def test_a_child_that_was_forked_in_the_middle_of_a_call_goes_on(url: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKED_IN_THE_MIDDLE, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["child", "3", "code", "0", "parent", "2"]
    assert done.stderr == ""


def test_without_the_driver_the_error_names_the_extra() -> None:
    program = """
import sys
sys.modules["psycopg"] = None
try:
    import xetstore.database.postgres
except Exception as error:
    print(type(error).__name__, error, error.hint)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.startswith("UsageError")
    assert install_hint("postgres") in told


def test_rows_are_added_with_what_each_column_takes(database: PostgresDatabase) -> None:
    with database.transaction() as connection:
        assert isinstance(connection, ServedConnection)
        statement = "INSERT INTO one (number, name) VALUES (:number, :name) ON CONFLICT (number) DO NOTHING"
        rows = [{"number": number, "name": name} for number, name in ((1, None), (2, b"\0'two"), (3, None))]
        assert sorted(connection.add_many(statement, rows, "number")) == [1, 2, 3]
        assert connection.add_many(statement, [*rows, {"number": 4, "name": None}], "number") == [4]
        assert connection.add_many(statement, [], "number") == []
        connection.change_many(statement, [{"number": 5, "name": None}])
        assert [*connection.rows("SELECT name FROM one ORDER BY number")] == [(None,), (b"\0'two",), *[(None,)] * 3]
