"""Workers, and directories for them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import Worker


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    """Other processes of the same user."""
    with Worker() as started:
        yield started


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory that other users can look into, and that does not outlive the test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve()
        path.chmod(0o755)
        yield path
        # What a test made read-only cannot be removed otherwise.
        for root, _, _ in os.walk(path):
            Path(root).chmod(0o755)
