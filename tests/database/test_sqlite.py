"""A SQLite file as a database: what is durable, who waits for whom, and the statements it takes."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from xetstore.database.sqlite import FREE_BYTES, SqliteDatabase
from xetstore.database.sqlite_file import LOWEST_VERSION, require_version
from xetstore.errors import AccessDeniedError, UnavailableError, UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.sqlite3"


def test_every_commit_reaches_the_disk(path: Path) -> None:
    with closing(SqliteDatabase(path)) as database, database.snapshot() as connection:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        modes = {name: connection.value(f"PRAGMA {name}") for name in names}
    assert modes == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


def test_lists_are_few_texts(path: Path) -> None:
    """A list of each length would be a statement of its own, and each of them prepared."""
    seen: set[str] = set()
    with closing(SqliteDatabase(path)) as database, database.snapshot() as connection:
        connection.driver.set_trace_callback(lambda text: seen.add(str(text.count(","))))
        for count in range(1, 513):
            connection.row("SELECT 1 WHERE 0 IN (:some)", {"some": [*range(1, 1 + count)]})
        connection.driver.set_trace_callback(None)
    assert len(seen) == 10


def test_a_query_that_is_not_read_to_its_end_keeps_no_snapshot(path: Path) -> None:
    """A connection that kept one would show the next caller what was there before."""
    with closing(SqliteDatabase(path)) as database:
        with database.transaction() as connection:
            connection.change("CREATE TABLE one (number INTEGER)")
            connection.change("INSERT INTO one VALUES (1), (2), (3)")
            kept = connection.rows("SELECT number FROM one")
            assert next(kept) == (1,)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("DELETE FROM one")
        with database.snapshot() as connection:
            assert connection.value("SELECT count(*) FROM one") == 0
        del kept


def test_a_writer_that_waits_too_long_is_told_to_try_again(path: Path) -> None:
    with closing(SqliteDatabase(path, busy_timeout_seconds=0.05)) as database, closing(sqlite3.connect(path)) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError), database.transaction():
            pass
        other.execute("ROLLBACK")
        with database.transaction():
            pass


def test_connections_are_kept_for_the_next_call_and_closed_at_the_end(path: Path) -> None:
    def files() -> int:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return sum(str(link.readlink()).startswith(str(path)) for link in links)

    if not Path("/proc/self/fd").exists():
        pytest.skip("no list of open files")
    database = SqliteDatabase(path)
    with database.snapshot() as connection:
        first = connection.driver
    for _ in range(3):
        with database.snapshot() as connection:
            assert connection.driver is first
    together = threading.Barrier(12)

    def look() -> None:
        with database.snapshot():
            together.wait(60)

    threads = [threading.Thread(target=look) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = files()
    database.close()
    assert 0 < kept <= 8 * 3, "of each connection the file, its log and their memory"
    assert files() == 0


def test_a_file_that_is_mostly_free_gives_its_space_back(path: Path) -> None:
    with closing(SqliteDatabase(path)) as database, closing(SqliteDatabase(path)) as reading:
        with database.transaction() as connection:
            connection.change("CREATE TABLE item (id INTEGER PRIMARY KEY, data BLOB)")
            connection.change_many(
                "INSERT INTO item (id, data) VALUES (:id, :data)",
                [{"id": number, "data": bytes(1 << 20)} for number in range(3, 19)],
            )
        assert database.give_back_space() == 0, "it is full"
        with database.transaction() as connection:
            connection.change("DELETE FROM item WHERE id > 4")
        with reading.snapshot() as before:  # a reader that has begun gets done
            assert before.value("SELECT count(*) FROM item") == 2
            given = database.give_back_space()
            assert before.value("SELECT count(*) FROM item") == 2
        assert given > 13 << 20
        assert database.give_back_space() == 0, "nothing is left to give"
        with reading.snapshot() as after:
            assert [row for (row,) in after.rows("SELECT id FROM item ORDER BY id")] == [3, 4]
    assert path.stat().st_size < 3 << 20


def test_a_file_that_others_write_to_keeps_its_space(path: Path) -> None:
    with closing(SqliteDatabase(path)) as database, closing(SqliteDatabase(path, busy_timeout_seconds=0.1)) as other:
        with database.transaction() as connection:
            connection.change("CREATE TABLE item (id INTEGER PRIMARY KEY, data BLOB)")
            connection.change("INSERT INTO item (data) VALUES (:data)", {"data": bytes(FREE_BYTES + (1 << 20))})
        with database.transaction() as connection:
            connection.change("DELETE FROM item")
        with database.transaction() as connection:
            connection.change("INSERT INTO item (data) VALUES (:data)", {"data": b"1"})
            with pytest.raises(UnavailableError):
                other.give_back_space()
        assert other.give_back_space() > FREE_BYTES


def test_a_folder_that_cannot_be_written_to_is_read(path: Path) -> None:
    SqliteDatabase(path).close()
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        if os.access(path.parent, os.W_OK):
            pytest.skip("this user may write everywhere")
        with closing(SqliteDatabase(path)) as database:
            assert isinstance(database.read_only_because, AccessDeniedError)
            with pytest.raises(AccessDeniedError), database.transaction():
                pass
            with database.snapshot() as connection:
                assert connection.value("SELECT count(*) FROM sqlite_master") == 0
    finally:
        path.parent.chmod(0o700)


def test_a_sqlite_without_on_conflict_is_refused() -> None:
    require_version(LOWEST_VERSION)
    with pytest.raises(UsageError, match=r"has SQLite 3\.23\.1; a store needs 3\.24\.0"):
        require_version((3, 23, 1))
