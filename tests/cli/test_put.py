"""``xet put``."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tests.cli.runner import Xet
from tests.support.opened import opened
from tests.support.strategies import splitmix64

DATA = splitmix64(1, 600_000)
VECTORS = Path(__file__).parents[1] / "vectors"


def test_json_has_the_documented_fields(xet: Xet, tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(DATA)
    ran = xet.process("put", "--json", file)
    [record] = ran.records
    assert (ran.code, ran.stderr) == (0, "")
    assert record.pop("hash") == xet("hash", "--json", file).records[0]["hash"]
    assert record.pop("stored_bytes") >= len(DATA)
    assert record == {
        "path": str(file),
        "size": len(DATA),
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "new_bytes": len(DATA),
        "deduped_bytes": 0,
        "again_bytes": 0,
        "unchanged": False,
    }


def test_what_is_stored_already_is_not_stored_again(xet: Xet, tmp_path: Path) -> None:
    old, new = tmp_path / "v1", tmp_path / "v2"
    old.write_bytes(DATA)
    new.write_bytes(DATA + b"one line more\n")
    xet("put", old)
    [again] = xet("put", "--json", old).records
    [more] = xet("put", "--json", new).records
    assert (again["new_bytes"], again["deduped_bytes"], again["stored_bytes"]) == (0, len(DATA), 0)
    assert 0 < more["new_bytes"] < len(DATA) / 2
    assert more["new_bytes"] + more["deduped_bytes"] == more["size"]


def test_an_unchanged_file_is_not_read(xet: Xet) -> None:
    """Files that were changed long ago."""
    files = sorted(path for path in VECTORS.glob("*.py"))[:3]
    first = xet("put", "--json", *files).records
    with opened() as names:
        again = xet("put", "--json", *files).records
    assert [record["unchanged"] for record in again] == [True] * 3
    assert not {*map(str, files)} & {*names}
    assert [(record["hash"], record["sha256"]) for record in again] == [
        (record["hash"], record["sha256"]) for record in first
    ]
    ran = xet("put", *files)
    assert ran.stderr.startswith("3 files (3 unchanged), ")
    assert ran.stdout == "".join(f"{record['hash']}  {record['path']}\n" for record in first)
    dry = xet("put", "--json", "--dry-run", *files).records
    assert [record["unchanged"] for record in dry] == [True] * 3
    for option in ("--force", "--no-cache"):
        with opened() as names:
            read = xet("put", "--json", option, *files).records
        assert [record["unchanged"] for record in read] == [False] * 3
        assert {*map(str, files)} <= {*names}


def test_people_get_hashes_on_stdout_and_the_savings_on_stderr(xet: Xet, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(DATA)
    ran = xet("put", tmp_path / "a", tmp_path / "b")
    name = xet("hash", "--json", tmp_path / "a").records[0]["hash"]
    assert ran.stdout == f"{name}  {tmp_path / 'a'}\n{name}  {tmp_path / 'b'}\n"
    assert ran.stderr.startswith("2 files, 1.1 MiB: 585.9 KiB new, 585.9 KiB deduplicated, ")


def test_a_directory_stands_for_all_files_below_it_in_order(xet: Xet, tmp_path: Path) -> None:
    top = tmp_path / "top"
    for name in ("b.txt", ".hidden", "a/deep/er.txt", "c/z.txt"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    ran = xet("put", "--json", top)
    stored = [str(Path(record["path"]).relative_to(top)) for record in ran.records]
    assert stored == [".hidden", "b.txt", "a/deep/er.txt", "c/z.txt"]
    assert (ran.code, ran.stderr) == (0, "")


def test_links_to_files_are_followed_and_links_to_directories_are_left_out(xet: Xet, tmp_path: Path) -> None:
    top, elsewhere = tmp_path / "top", tmp_path / "elsewhere"
    top.mkdir()
    elsewhere.mkdir()
    (elsewhere / "file").write_text("found")
    (top / "file").symlink_to(elsewhere / "file")
    (top / "folder").symlink_to(elsewhere)
    ran = xet("put", "--json", top)
    assert [(record["path"], record["size"]) for record in ran.records] == [(str(top / "file"), 5)]
    assert ran.errors == [{"warning": f"{top / 'folder'} is left out: it is a link to a directory"}]
    assert ran.code == 0
    [named] = xet("put", "--json", top / "folder").records
    assert named["path"] == str(top / "folder" / "file")


def test_a_link_to_nothing_is_an_error_and_the_rest_is_stored(xet: Xet, tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    (top / "broken").symlink_to(tmp_path / "nowhere")
    (top / "file").write_text("here")
    ran = xet("put", "--json", top)
    assert [record["path"] for record in ran.records] == [str(top / "file")]
    assert [error["code"] for error in ran.errors] == ["not_found"]
    assert ran.code == 3


def test_a_missing_file_does_not_keep_the_others_from_being_stored(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("first")
    (tmp_path / "c").write_text("last")
    ran = xet("put", "--json", *(tmp_path / name for name in "abc"))
    assert [record["path"] for record in ran.records] == [str(tmp_path / "a"), str(tmp_path / "c")]
    assert [error["code"] for error in ran.errors] == ["not_found"]
    assert str(tmp_path / "b") in ran.errors[0]["message"]
    assert ran.code == 3
    assert xet("stat", "--json").records[0]["files"] == 2


def test_what_is_not_a_regular_file_is_refused_by_name_and_left_out_of_a_directory(xet: Xet, tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    os.mkfifo(top / "fifo")
    (top / "file").write_text("here")
    named = xet("put", "--json", top / "fifo")
    assert (named.code, named.records, [error["code"] for error in named.errors]) == (2, [], ["usage"])
    walked = xet("put", "--json", top)
    assert (walked.code, len(walked.records)) == (0, 1)
    assert walked.errors == [{"warning": f"{top / 'fifo'} is left out: it is not a regular file"}]


def test_a_store_does_not_store_itself(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    xet("put", tmp_path / "file")
    ran = xet("put", "--json", tmp_path)
    assert [record["path"] for record in ran.records] == [str(tmp_path / "file")]
    assert ran.errors == [{"warning": f"{xet.store} is left out: it is the store itself"}]


def test_an_empty_directory_is_no_error(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = xet("put", tmp_path / "empty")
    assert (ran.code, ran.stdout) == (0, "")
    assert ran.stderr.startswith("0 files, 0 B")


def test_a_store_that_cannot_be_made_is_an_error(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    ran = xet("put", "--json", tmp_path / "file", "--store", tmp_path / "file")
    assert ran.code in (2, 3)
    assert ran.records == []
    assert len(ran.errors) == 1


def test_names_that_are_not_unicode_survive(xet: Xet, tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n\x1b[2J"))
    file.write_text("odd name")
    [record] = xet.process("put", "--json", file).records
    assert os.fsencode(record["path"]) == os.fsencode(file)
    ran = xet.process("put", file)
    assert ran.code == 0
    assert ran.stdout.endswith("caf\\xe9\\n\\x1b[2J\n"), "control characters never reach a terminal"
