"""Fixtures of the command line's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.runner import Xet


@pytest.fixture
def xet(tmp_path: Path) -> Xet:
    return Xet(tmp_path / "store")
