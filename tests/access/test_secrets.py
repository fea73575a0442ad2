"""Secrets: the promises of every place that keeps them: in files, and in a table on both engines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import engines
from tests.support.live import until
from tests.support.postgres import PostgresServer
from xetstore.access import table_secrets
from xetstore.access.keys import KeyKind, KeyRing, make_keys
from xetstore.access.secrets import FileSecrets, Secrets
from xetstore.access.table_secrets import FRESH_SECONDS, TableSecrets
from xetstore.access.tokens import Scope, TokenAuthority
from xetstore.database.connection import Connection
from xetstore.database.sqlite import SqliteDatabase
from xetstore.errors import UnauthenticatedError, UnavailableError

Opening = Callable[[], Secrets]


@pytest.fixture(params=["files", *engines.BOTH])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opening]:
    """Open the same place once more, as another process does. A table is asked anew each time."""
    if request.param == "files":
        yield lambda: FileSecrets.open(tmp_path / "access", create=True)
        return
    open_database = engines.opening(request.param, tmp_path, request)
    with ExitStack() as opened:
        yield lambda: TableSecrets(opened.enter_context(closing(open_database())), fresh_seconds=0)


def test_a_document_is_what_was_made_of_it_last(opening: Opening) -> None:
    kept, other = opening(), opening()
    assert kept.version("a") is None
    assert kept.read("a") is None
    versions = {kept.version("a")}
    expected: bytes | None = None
    for data in (b"one", b"two", b"", b"two"):

        def edit(before: bytes | None, expected: bytes | None = expected, data: bytes = data) -> bytes:
            assert before == expected
            return data

        kept.change("a", edit)
        assert other.read("a") == (data, other.version("a"))
        versions.add(other.version("a"))
        expected = data
    assert len(versions) == 5, "each change gives another version"
    assert other.version("b") is None


def test_a_document_stays_where_nothing_is_made_of_it(opening: Opening) -> None:
    kept = opening()
    kept.change("a", lambda _: None)
    assert kept.read("a") is None
    kept.change("a", lambda _: b"one")
    before = kept.read("a")
    kept.change("a", lambda _: None)
    with pytest.raises(ZeroDivisionError):
        kept.change("a", lambda _: bytes(1 // 0))
    assert kept.read("a") == before


def test_changes_at_once_lose_none(opening: Opening) -> None:
    def add() -> None:
        kept = opening()
        for _ in range(10):
            kept.change("count", lambda data: str(int(data or b"0") + 1).encode())

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = opening().read("count")
    assert found is not None
    assert found[0] == b"40"


def test_keys_and_tokens_are_the_same_wherever_they_are_kept(opening: Opening) -> None:
    for _ in range(2):
        make_keys(opening(), 1_000_000_000)
    ring, other = (KeyRing(opening()) for _ in range(2))
    authority, elsewhere = TokenAuthority(ring), TokenAuthority(other)
    assert ring.signing_key(KeyKind.URL).secret == other.signing_key(KeyKind.URL).secret
    revoked, rotated = (authority.issue(scope=Scope.READ, namespace="team") for _ in range(2))
    assert elsewhere.verify(revoked).namespace == elsewhere.verify(rotated).namespace == "team"
    authority.revoke(revoked)
    with pytest.raises(UnauthenticatedError, match="revoked"):
        elsewhere.verify(revoked)
    new = ring.rotate(KeyKind.TOKEN, overlap_seconds=0)
    with pytest.raises(UnauthenticatedError):
        elsewhere.verify(rotated)
    assert other.signing_key(KeyKind.TOKEN).kid == new.kid
    assert other.signing_key(KeyKind.TOKEN).algorithm is new.algorithm


@pytest.mark.parametrize("engine", engines.BOTH)
def test_a_change_elsewhere_is_seen_within_a_second_and_asked_for_no_more_often(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(table_secrets, "time", SimpleNamespace(monotonic=lambda: now))
    open_database = engines.opening(engine, tmp_path, request)
    with closing(open_database()) as one, closing(open_database()) as two:
        here, there = TableSecrets(one), TableSecrets(two)
        assert here.version("a") is there.version("a") is None
        there.change("a", lambda _: b"1")
        assert there.version("a") == (1,)
        assert here.version("a") is None
        now += FRESH_SECONDS
        assert here.version("a") == (1,)
        one.close()
        assert here.version("a") == (1,), "the database was not asked"


def test_a_list_of_revocations_that_cannot_be_looked_at_is_not_an_empty_one(
    postgres: PostgresServer, postgres_url: str
) -> None:
    with closing(engines.opening_of(postgres_url)()) as database:
        kept = TableSecrets(database, fresh_seconds=0)
        make_keys(kept, 1_000_000_000)
        authority = TokenAuthority(KeyRing(kept))
        token, revoked = (authority.issue(scope=Scope.READ, namespace="team") for _ in range(2))
        authority.revoke(revoked)
        postgres.stop()
        for one in (token, revoked):
            with pytest.raises(UnavailableError):
                authority.verify(one)
        postgres.start()
        assert authority.verify(token).namespace == "team"
        with pytest.raises(UnauthenticatedError, match="revoked"):
            authority.verify(revoked)


@pytest.mark.parametrize("engine", engines.BOTH)
def test_documents_that_are_followed_are_those_of_the_table(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    open_database = engines.opening(engine, tmp_path, request)
    with closing(open_database()) as one, closing(open_database()) as two:
        here, there = TableSecrets(one, fresh_seconds=0.02), TableSecrets(two)
        there.change("a", lambda _: b"one")
        with here.followed():
            assert here.read("a") == (b"one", (1,))
            assert (here.version("b"), here.read("b")) == (None, None)
            here.change("a", lambda data: (data or b"") + b", two")
            assert here.read("a") == (b"one, two", (2,)), "its own changes are seen at once"
            there.change("b", lambda _: b"three")
            until(lambda: here.read("b") == (b"three", (1,)))
            assert here.version("b") == (1,)


def test_documents_that_are_followed_wait_for_no_database(postgres: PostgresServer, postgres_url: str) -> None:
    """While it hangs they serve for some seconds; then every question is refused at once, until it answers again."""
    with closing(engines.opening_of(postgres_url)()) as database:
        kept = TableSecrets(database)
        kept.change("a", lambda _: b"one")
        with kept.followed():
            answered = 0
            with postgres.paused():
                with pytest.raises(UnavailableError):
                    while True:
                        assert kept.version("a") == (1,)
                        answered += 1
                        threading.Event().wait(0.001)
                for _ in range(1000):
                    with pytest.raises(UnavailableError):
                        kept.read("a")
            assert answered > 100
            until(lambda: answers(kept))


class Failing(SqliteDatabase):
    """A database whose next snapshots raise errors that are none of ours."""

    failures = 0

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("a defect")
        with super().snapshot() as connection:
            yield connection


def test_documents_are_followed_after_an_error_that_was_not_foreseen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        closing(Failing(tmp_path / "some.sqlite3")) as database,
        closing(SqliteDatabase(tmp_path / "some.sqlite3")) as other,
    ):
        here, there = TableSecrets(database, fresh_seconds=0.02), TableSecrets(other)
        with here.followed():
            database.failures = 2
            until(lambda: not database.failures)
            there.change("a", lambda _: b"one")
            until(lambda: here.read("a") == (b"one", (1,)))
    assert "a defect" in caplog.text


def answers(kept: TableSecrets) -> bool:
    try:
        return kept.read("a") == (b"one", (1,))
    except UnavailableError:
        return False
