"""Databases of both engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import engines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    engines.engines_of(metafunc)


@pytest.fixture
def opening(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> engines.Opening:
    """Open the database of this test."""
    return engines.opening(engine, tmp_path, request)
