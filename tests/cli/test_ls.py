"""``xet ls`` of a directory, a server and a repository; of a repository on a Hub it is in test_remote.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.runner import Xet
from tests.support.live import live_server
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas
from xetstore.cli.listing import Row, in_order

DATA = splitmix64(4, 123_456)
DATE = re.compile(r"  20\d\d-\d\d-\d\d \d\d:\d\d:\d\d")


def test_the_files_of_a_store_are_listed_by_hash(xet: Xet, tmp_path: Path) -> None:
    for name, data in (("one", DATA), ("empty", b""), ("small", b"1")):
        (tmp_path / name).write_bytes(data)
    names = {xet.put(tmp_path / name): size for name, size in (("one", len(DATA)), ("empty", 0), ("small", 1))}
    assert [(record["hash"], record["size"]) for record in xet("ls", "--json").records] == sorted(names.items())
    lines = xet("ls", xet.store).stdout.splitlines()
    assert lines == [f"{name}  {size:>15,}" for name, size in sorted(names.items())]
    assert [DATE.sub("", line) for line in xet("ls", "-l").stdout.splitlines()] == lines
    sizes = [record["size"] for record in xet("ls", "--json", "--sort", "size").records]
    assert sizes == [len(DATA), 1, 0]
    dates = [record["created_at"] for record in xet("ls", "--json", "--sort", "date").records]
    assert dates == sorted(dates, reverse=True)


def test_the_files_of_a_server_are_listed(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(DATA)
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas) as live:
        xet = Xet(tmp_path / "store", live.url, XET_TOKEN=live.token("write"))
        name = xet.put(tmp_path / "one")
        assert xet("ls").stdout == f"{name}  {len(DATA):>15,}\n"
        assert xet("find", "--larger", "1k").stdout == f"{name}  {len(DATA):>15,}\n"
        assert xet("find", "--larger", "1M").stdout == ""


def test_what_is_no_store_is_not_found(xet: Xet, tmp_path: Path) -> None:
    assert xet("ls").code == 3
    assert xet("ls", tmp_path / "missing").code == 3


@pytest.fixture
def named(xet: Xet, tmp_path: Path) -> Xet:
    """A store with a repository of two commits."""
    folder = tmp_path / "folder"
    for name, size in (("b.bin", 3_000_000), ("a/x.bin", 2_000_000), ("a/y.txt", 10), ("a.txt", 20)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(splitmix64(size, size))
    assert xet("cp", folder, "xet://alice/bert").code == 0
    (folder / "a.txt").write_bytes(b"changed")
    assert xet("cp", folder, "xet://alice/bert").code == 0
    return xet


def test_dates_and_sizes_of_a_repository_are_aligned(named: Xet) -> None:
    lines = named("ls", "-rl", "xet://alice/bert").stdout.splitlines()
    assert len({DATE.search(line).start() for line in lines if DATE.search(line)}) == 1  # type: ignore[union-attr]
    assert [line[DATE.search(line).end() :] for line in lines] == [  # type: ignore[union-attr]
        f"  {path}" for path in (".gitattributes", "a/", "a/x.bin", "a/y.txt", "a.txt", "b.bin")
    ]


def test_the_date_is_that_of_the_last_commit_that_changed_a_file(named: Xet) -> None:
    first, second = (
        record["created_at"] for record in reversed(named("log", "--json", "xet://alice/bert").records[:2])
    )
    rows = named("ls", "-rl", "--json", "xet://alice/bert").records
    dates = {row["path"]: row["changed_at"] for row in rows}
    assert dates["a.txt"] == pytest.approx(second)
    assert dates["b.bin"] == dates["a/x.bin"] == pytest.approx(first)
    assert {row["changed_at"] for row in named("ls", "--json", "xet://alice/bert").records} == {None}


def test_rows_that_do_not_fit_are_sorted_on_the_disk() -> None:
    rows = [Row(f"{number * 7919 % 1009:064x}", number * 31 % 17, float(number % 5), None) for number in range(1009)]
    for order in ("name", "size", "date"):
        assert list(in_order(iter(rows), order, at_once=100)) == list(in_order(rows, order))
    assert list(in_order(iter(rows), "name", at_once=100)) == sorted(rows, key=lambda row: str(row.hash))
