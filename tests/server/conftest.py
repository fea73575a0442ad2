"""Fixtures of the server's tests: a store in a directory, and a server over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.live import LiveServer, live_server
from xetstore.cas.service import EmbeddedCas


@pytest.fixture
def cas(tmp_path: Path) -> Iterator[EmbeddedCas]:
    with EmbeddedCas.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def server(cas: EmbeddedCas) -> Iterator[LiveServer]:
    with live_server(cas) as running:
        yield running
