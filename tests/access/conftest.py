"""A clock and a place for the tests of access."""

from __future__ import annotations

from pathlib import Path

import pytest

from xetstore.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"
