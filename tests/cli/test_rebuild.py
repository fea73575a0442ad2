"""``xet repair --rebuild-index`` and ``xet snapshot``: a store without an index, and the ways back from copies."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.runner import Xet
from tests.support.strategies import splitmix64

DATA = splitmix64(5, 500_000)


@pytest.fixture
def file(xet: Xet, tmp_path: Path) -> str:
    """The hash of the one file of the store."""
    (tmp_path / "original").write_bytes(DATA)
    return xet.put(tmp_path / "original")


def test_an_index_is_made_anew_and_what_was_not_restored_is_said(xet: Xet, file: str, tmp_path: Path) -> None:
    [written] = xet("snapshot", "--json").records
    assert written["is_new"]
    assert xet("snapshot").stdout == f"{written['key']}\n"
    (tmp_path / "later").write_bytes(b"later")
    later = xet.put(tmp_path / "later")
    (tmp_path / "gone").write_bytes(b"deleted")
    gone = xet.put(tmp_path / "gone")
    assert xet("rm", gone).code == 0
    (xet.store / "index.sqlite3").write_bytes(b"no database")
    refused = xet("cat", file)
    assert (refused.code, "xet repair --rebuild-index" in refused.stderr) == (4, True)
    planned = xet("repair", "--rebuild-index", "--json")
    assert planned.code == 4
    assert planned.records[0]["snapshot"] == written["key"]
    assert (xet.store / "index.sqlite3").read_bytes() == b"no database"
    ran = xet("repair", "--rebuild-index", "--yes")
    assert ran.code == 0
    assert written["key"] in ran.stdout
    assert "later: 2 files, granted to the namespace default" in ran.stdout
    assert "deleted since, and deleted again: 1 file" in ran.stdout
    assert "tokens of users" in ran.stderr
    assert xet("check", "--read-data").code == 0
    assert (xet("cat", file).data, xet("cat", later).data) == (DATA, b"later")
    assert xet("cat", gone).code == 3
    assert xet("undelete", gone).code == 0
    assert xet("cat", gone).data == b"deleted"


def test_without_a_snapshot_it_says_that_all_names_are_gone(xet: Xet, file: str) -> None:
    ran = xet("repair", "--rebuild-index", "--yes")
    assert (ran.code, "no snapshot of the index is whole" in ran.stdout) == (0, True)
    assert "not restored: repositories, accounts and grants, and" in ran.stderr
    assert xet("cat", file).data == DATA


def test_files_are_set_aside_listed_and_granted(xet: Xet, file: str) -> None:
    (xet.store / "index.sqlite3").unlink()
    [record] = xet("repair", "--rebuild-index", "--yes", "--found-in", "lost-found", "--json").records
    assert (record["found"], record["found_in"]) == (1, "lost-found")
    assert xet("cat", file).code == 3
    assert [one["hash"] for one in xet("repair", "--list-found", "--json").records] == [file]
    listed = xet("repair", "--give-found", "default")
    assert listed.stdout.startswith(file), "without --yes it lists them"
    assert "1 file would be granted: the same command with --yes does it" in listed.stderr
    assert xet("repair", "--give-found", "default", "--yes").stdout == "granted to default: 1 file\n"
    assert xet("cat", file).data == DATA


@pytest.mark.parametrize("yes", [(), ("--yes",)])
def test_where_there_is_no_store_none_is_made(xet: Xet, tmp_path: Path, yes: tuple[str, ...]) -> None:
    ran = xet("repair", "--rebuild-index", *yes, "--store", tmp_path / "mistyped", "--json")
    assert (ran.code, ran.errors[0]["code"]) == (3, "not_found")
    assert not (tmp_path / "mistyped").exists()


def test_what_is_lost_is_an_error(xet: Xet, file: str) -> None:
    [xorb] = xet.xorbs()
    xorb.unlink()
    (xet.store / "index.sqlite3").unlink()
    ran = xet("repair", "--rebuild-index", "--yes")
    assert ran.code == 4
    assert f"xorb {xorb.name[:64]}" in ran.stdout
    assert file in ran.stdout


def test_a_copied_store_is_restored_and_equal(xet: Xet, file: str, tmp_path: Path) -> None:
    """Back up and restore, as docs/care.md has it; and of a backup that has lost its index."""
    (tmp_path / "more").write_bytes(b"more")
    more = xet.put(tmp_path / "more")
    backup, empty = tmp_path / "backup", tmp_path / "empty"
    assert xet("copy-store", "--since-last", "--secrets", xet.store, backup).code == 0
    xet("rm", more)
    assert xet("copy-store", "--since-last", "--secrets", xet.store, backup).code == 0
    (backup / "index.sqlite3").unlink()
    assert xet("repair", "--rebuild-index", "--yes", "--store", backup).code == 0
    assert xet("copy-store", "--secrets", backup, empty).code == 0
    assert xet("check", "--read-data", "--store", empty).code == 0
    assert xet("cat", "--store", empty, file).data == DATA
    assert xet("cat", "--store", empty, more).data == b"more", "a deletion does not reach the backup"
    listed = {record["hash"] for record in xet("ls", "--json", "--store", backup).records}
    assert listed == {record["hash"] for record in xet("ls", "--json", "--store", empty).records} == {file, more}


@pytest.mark.parametrize("with_index", [True, False])
def test_a_copy_of_the_files_of_a_store_in_use_opens(xet: Xet, file: str, tmp_path: Path, with_index: bool) -> None:
    """The index first, by SQLite's own means, then the objects; or the objects alone."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with closing(sqlite3.connect(xet.store / "index.sqlite3")) as use:
        use.execute("SELECT count(*) FROM file").fetchone()  # it is open meanwhile
        if with_index:
            with closing(sqlite3.connect(copy / "index.sqlite3")) as target:
                use.backup(target)
        (tmp_path / "later").write_bytes(b"later")
        later = xet.put(tmp_path / "later")
        for name in ("xorbs", "shards", "stores", "snapshots"):
            if (xet.store / name).exists():
                shutil.copytree(xet.store / name, copy / name)
        shutil.copy(xet.store / "format", copy / "format")
    if not with_index:
        assert xet("repair", "--rebuild-index", "--yes", "--store", copy).code == 0
        assert xet("cat", "--store", copy, later).data == b"later"
    assert xet("check", "--read-data", "--store", copy).code == 0
    assert xet("cat", "--store", copy, file).data == DATA
