"""fsspec's own tests of copying, getting, putting, opening and piping, with a repository of a directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest

pytest.importorskip("fsspec", reason="needs fsspec: pip install 'xetstore[fs]'")

from fsspec.tests import abstract

import xetstore
from xetstore.fs import XetFileSystem
from xetstore.store import Store

NUMBERS = count()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with xetstore.open(tmp_path_factory.mktemp("abstract") / "store") as opened:
        yield opened


@pytest.fixture(scope="module")
def filesystem(store: Store) -> Iterator[XetFileSystem]:
    opened = XetFileSystem(store=store.location, skip_instance_cache=True)
    yield opened
    opened.close()


@pytest.fixture
def repository(store: Store) -> str:
    """An empty repository for each test."""
    return store.create_repo(f"alice/{next(NUMBERS)}").name


class Repository(abstract.AbstractFixtures):  # type: ignore[misc]
    """The fixtures of fsspec's tests."""

    @pytest.fixture
    def fs(self, filesystem: XetFileSystem) -> XetFileSystem:
        return filesystem

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def fs_path(self, repository: str) -> str:
        return f"{repository}@main/folder"

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestCopy(abstract.AbstractCopyTests, Repository):  # type: ignore[misc]
    """Within a repository."""


class TestGet(abstract.AbstractGetTests, Repository):  # type: ignore[misc]
    """Out of it."""


class TestPut(abstract.AbstractPutTests, Repository):  # type: ignore[misc]
    """Into it."""


class TestOpen(abstract.AbstractOpenTests, Repository):  # type: ignore[misc]
    """Modes."""


class TestPipe(abstract.AbstractPipeTests, Repository):  # type: ignore[misc]
    """Bytes."""
