"""Stores that the tests of hub share, on both engines where a module asks for that by ``ENGINES``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import engines
from xetstore.cas import EmbeddedCas
from xetstore.testing import FakeClock


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    engines.engines_of(metafunc)


@pytest.fixture
def opening(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> engines.Opening:
    """Open the database of this test."""
    return engines.opening(engine, tmp_path, request)


@pytest.fixture
def open_store(engine: str, root: Path, request: pytest.FixtureRequest) -> engines.OpenStore:
    """Open the store of this test."""
    return engines.opening_store(engine, root, request)


@pytest.fixture
def cas(open_store: engines.OpenStore, clock: FakeClock) -> Iterator[EmbeddedCas]:
    with open_store(clock=clock) as cas:
        yield cas
