"""``xet estimate``."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.cli.runner import Xet
from tests.support.strategies import splitmix64
from tests.support.terminal import Terminal

DATA = splitmix64(6, 700_000)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    top.mkdir()
    (top / "a").write_bytes(DATA)
    (top / "b").write_bytes(DATA + splitmix64(7, 300_000))
    return top


def test_each_file_and_their_sum(xet: Xet, top: Path) -> None:
    ran = xet("estimate", top)
    first, second = ran.stdout.splitlines()
    assert first.startswith(f"{top / 'a'}: 683.6 KiB: 683.6 KiB new, about ")
    assert second.endswith("in a file before it")
    assert ran.stderr.startswith("2 files, 1.6 MiB: ")
    assert not xet.store.exists(), "nothing is stored"


def test_json_has_the_documented_fields(xet: Xet, top: Path) -> None:
    a, b = xet("estimate", "--json", top).records
    for record in (a, b):
        parts = (record[f"{part}_bytes"] for part in ("new", "repeated", "shared", "stored"))
        assert sum(parts) == record["size"]
        assert set(record) == {
            *("path", "hash", "size", "new_bytes", "repeated_bytes", "shared_bytes", "stored_bytes"),
            "compressed_bytes",
        }
    assert b["shared_bytes"] > 600_000


def test_it_is_compared_with_the_store_that_is_named(xet: Xet, top: Path) -> None:
    xet("put", top / "a")
    [a, _] = xet("estimate", "--json", top).records
    assert a["stored_bytes"] == len(DATA)
    without = Xet(xet.store, XET_STORE="")
    [a, _] = without("estimate", "--json", top).records
    assert a["new_bytes"] == len(DATA)
    [a, _] = without("estimate", "--json", "--store", xet.store, top).records
    assert a["stored_bytes"] == len(DATA)


def test_a_picture_is_drawn(xet: Xet, top: Path, tmp_path: Path) -> None:
    assert xet("estimate", top, "--picture", tmp_path / "picture.svg").code == 0
    assert ET.parse(tmp_path / "picture.svg").getroot().tag.endswith("svg")
    assert xet("estimate", top, "--picture", tmp_path / "missing" / "picture.svg").code == 3


def test_a_terminal_sees_where_the_bytes_are(xet: Xet, top: Path) -> None:
    terminal = Terminal()
    environment = {**xet.environment, "PYTHONIOENCODING": "utf-8", "COLUMNS": "50"}
    xet.process("estimate", top, env=environment, stdout=terminal.slave)
    seen = terminal.seen()
    assert "  " + 47 * "█" in seen
    assert "▓▓▓▓" in seen


def test_a_file_that_cannot_be_read_is_reported_and_the_others_go_on(xet: Xet, top: Path, tmp_path: Path) -> None:
    ran = xet("estimate", "--json", tmp_path / "missing", top / "a")
    assert (ran.code, len(ran.records)) == (3, 1)
