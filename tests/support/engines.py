"""Databases of both engines, for the tests of what is the same on each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from xetstore.blobs.local import LocalBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.folder import open_directory
from xetstore.cas.index import Index
from xetstore.database.database import Database
from xetstore.database.postgres import PostgresDatabase
from xetstore.database.sqlite import SqliteDatabase

SQLITE: Final = "sqlite"
POSTGRES: Final = "postgresql"
BOTH: Final = (SQLITE, POSTGRES)
"""As ``ENGINES`` in a module of tests: each of its tests that has the fixture ``engine`` is run on both. One that is
about SQLite alone has the fixture ``on_sqlite`` instead."""

Opening = Callable[[], Database]
OpenStore = Callable[..., EmbeddedCas]


def engines_of(metafunc: pytest.Metafunc) -> None:
    """Run a test on the engines of its module; on SQLite alone where it says nothing."""
    if "engine" in metafunc.fixturenames:
        named = (SQLITE,) if "on_sqlite" in metafunc.fixturenames else getattr(metafunc.module, "ENGINES", (SQLITE,))
        metafunc.parametrize("engine", named, scope="function")


def opening(engine: str, folder: Path, request: pytest.FixtureRequest) -> Opening:
    """Open one database, empty at first, once more with each call, as another process does."""
    if engine == SQLITE:
        return lambda: SqliteDatabase(folder / "some.sqlite3")
    return opening_of(request.getfixturevalue("postgres_url"))


def opening_of(url: str) -> Opening:
    """Open the database at a URL once more with each call."""
    return lambda: PostgresDatabase(url)


def opening_store(engine: str, root: Path, request: pytest.FixtureRequest) -> OpenStore:
    """Open one store, once more with each call: its objects in ``root``, its index in a database of the engine."""
    if engine == SQLITE:
        return lambda **options: EmbeddedCas.open(root, **options)
    url: str = request.getfixturevalue("postgres_url")
    return lambda **options: open_on_postgres(root, url, **options)


def open_on_postgres(root: Path, url: str, **options: object) -> EmbeddedCas:
    """The store whose objects are in ``root``, and whose index is in the database at ``url``."""
    if not root.exists():
        open_directory(root, create=True)
    return EmbeddedCas(LocalBlobStore(root), Index(PostgresDatabase(url)), **options)  # type: ignore[arg-type]
