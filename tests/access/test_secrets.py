"""Secrets: the promises of every place that keeps them, in files and as rows with a version number."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from xetstore.access.keys import KeyKind, KeyRing, make_keys
from xetstore.access.secrets import FileSecrets, Secrets, Version
from xetstore.access.tokens import Scope, TokenAuthority
from xetstore.errors import UnauthenticatedError


class RowSecrets:
    """A row a document, as a database that is shared by servers keeps them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._connect() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS secret (name TEXT PRIMARY KEY, version INT, data BLOB)")
        connection.close()

    def version(self, name: str) -> Version | None:
        row = self._row(name)
        return row and row[1]

    def read(self, name: str) -> tuple[bytes, Version] | None:
        return self._row(name)

    def change(self, name: str, edit: Callable[[bytes | None], bytes | None]) -> None:
        connection = self._connect()
        try:
            connection.execute("BEGIN IMMEDIATE")
            row = connection.execute("SELECT data FROM secret WHERE name = ?", (name,)).fetchone()
            data = edit(None if row is None else row[0])
            if data is not None:
                connection.execute(
                    "INSERT INTO secret VALUES (?, 1, ?) ON CONFLICT DO UPDATE SET version = version + 1, data = ?",
                    (name, data, data),
                )
            connection.execute("COMMIT")
        finally:
            connection.close()

    def label(self, name: str) -> str:
        return f"secret {name}"

    def _row(self, name: str) -> tuple[bytes, Version] | None:
        connection = self._connect()
        row = connection.execute("SELECT data, version FROM secret WHERE name = ?", (name,)).fetchone()
        connection.close()
        return None if row is None else (row[0], (row[1],))

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None, timeout=60)


Opening = Callable[[], Secrets]


@pytest.fixture(params=["files", "rows"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Opening:
    """Open the same place once more, as another process does."""
    if request.param == "files":
        return lambda: FileSecrets.open(tmp_path / "access", create=True)
    return lambda: RowSecrets(tmp_path / "database")


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
