"""A store in a directory and over a server, and a file to put."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.support.live import live_server
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas


@dataclass(frozen=True)
class Place:
    """Where a store is reached: ``where``, and what opening it takes; ``root`` is its directory all the same."""

    root: Path
    where: Path | str
    options: dict[str, Any]

    def open(self, **more: Any) -> xetstore.Store:
        return xetstore.open(self.where, **self.options, **more)

    def xorbs(self) -> list[Path]:
        return sorted(path for path in (self.root / "xorbs").rglob("*") if path.is_file())


@pytest.fixture(params=["directory", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    root = tmp_path / "store"
    if request.param == "directory":
        yield Place(root, root, {})
        return
    with EmbeddedCas.open(root) as cas, live_server(cas) as live:
        yield Place(root, live.url, {"token": live.token("write"), "cache": tmp_path / "cache"})


@pytest.fixture
def data() -> bytes:
    return splitmix64(9, 3_000_000)


@pytest.fixture
def source(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "source"
    path.write_bytes(data)
    return path
