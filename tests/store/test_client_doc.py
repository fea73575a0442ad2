"""docs/client.md: its blocks of Python run as they stand, against a server in the place of the one that they name."""

from __future__ import annotations

import ast
import asyncio
import gzip
import io
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.support.live import ServerProcess
from tests.support.strategies import splitmix64
from xetstore import aio

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
BLOCKS: list[str] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
ELSEWHERE = ("duckdb", "to_parquet", "tensors(")
"""In blocks that other tests run: of tables, and of tensors."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server") / "store") as running:
        yield running


def sender() -> tuple[str, int]:
    """The address of a peer that sends some bytes and closes."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(60)

    def serve() -> None:
        with listening, listening.accept()[0] as peer:
            peer.sendall(b"bytes of no known number")

    threading.Thread(target=serve, daemon=True).start()
    address: tuple[str, int] = listening.getsockname()
    return address


@pytest.mark.parametrize("number", [n for n, text in enumerate(BLOCKS) if not any(word in text for word in ELSEWHERE)])
def test_a_block_runs(server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XET_TOKEN", token := server.token("write"))
    monkeypatch.setenv("XET_CACHE", str(tmp_path / "cache"))
    content = splitmix64(1, 1_200_000)
    for folder in ("ckpt", "copy"):
        Path(folder).mkdir()
    for name in ("model.safetensors", "older.safetensors", "ckpt/model.safetensors", "ckpt/old.bin"):
        Path(name).write_bytes(content)
    with gzip.open("dump.gz", "wb") as file:
        file.write(content)

    class Stdin:
        buffer = io.BytesIO(content)

    monkeypatch.setattr("sys.stdin", Stdin)
    with xetstore.open(server.url, token=token) as store:
        names: dict[str, Any] = {"HASH": store.put(content).hash, "OTHER": store.put(content[:100]).hash}
    names |= {"TOKEN": token, "xetstore": xetstore, "aio": aio, "expires_at": None}
    names["fetch_token_somewhere"] = server.token
    block = BLOCKS[number].replace("https://xet.example.org", server.url)
    if "data.example.org" in block:
        block = block.replace('("data.example.org", 7000)', repr(sender()))
    running = eval(compile(block, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if asyncio.iscoroutine(running):
        asyncio.run(running)


def test_the_blocks_are_those_of_the_page() -> None:
    assert len([text for text in BLOCKS if not any(word in text for word in ELSEWHERE)]) > 7
