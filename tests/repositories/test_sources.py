"""Local folders as sources of a commit: what is taken, what is left out and told, what stops a commit."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import xetstore
from xetstore.errors import NotFoundError, UsageError, XetError
from xetstore.hub.ignore import excluding
from xetstore.records import EXECUTABLE_MODE, FILE_MODE, FOLDER_MODE, LINK_MODE
from xetstore.repositories.repository import Repository
from xetstore.repositories.sources import EXCLUDED, Rules, Source, leads_within, sources_of

ALL = Rules()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_bytes(b"1")
    (folder / "run").write_bytes(b"2")
    (folder / "run").chmod(0o755)
    (folder / "inside").symlink_to("sub/file")
    (tmp_path / "elsewhere").write_bytes(b"3")
    (folder / "outside").symlink_to("../elsewhere")
    (folder / "empty").mkdir()
    return folder


def taken(folder: Path, rules: Rules = ALL) -> tuple[dict[str, Source], dict[str, str]]:
    notes: dict[str, str] = {}
    sources = sources_of({"": folder}, rules, on_note=lambda path, why: notes.__setitem__(path.name, why))
    return {source.path: source for source in sources}, notes


def test_links_modes_and_empty_folders_are_kept(folder: Path) -> None:
    found, notes = taken(folder)
    assert {path: source.mode for path, source in found.items()} == {
        "sub/file": FILE_MODE,
        "run": EXECUTABLE_MODE,
        "inside": LINK_MODE,
        "outside": FILE_MODE,
        "empty": FOLDER_MODE,
    }
    assert found["outside"].file == folder / "outside", "what leads out is stored as the file that it leads to"
    assert notes == {}


def test_a_hub_that_knows_none_of_these_gets_files_and_the_user_a_warning(folder: Path) -> None:
    found, notes = taken(folder, Rules(keeps_modes=False))
    assert {path: source.mode for path, source in found.items()} == dict.fromkeys(
        ("sub/file", "run", "inside", "outside"), FILE_MODE
    )
    assert set(notes) == {"run", "inside", "outside", "empty"}


def test_what_is_no_file_is_left_out_and_told(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_bytes(b"4")
    (tmp_path / "other").mkdir()
    (folder / "folder elsewhere").symlink_to(tmp_path / "other")
    (folder / "nothing elsewhere").symlink_to("/nothing/there")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        found, notes = taken(folder)
    assert set(notes) == {"pipe", "socket", ".git", "folder elsewhere", "nothing elsewhere"}
    assert not set(notes) & set(found)


def test_patterns_leave_out_paths_and_names(folder: Path) -> None:
    found, notes = taken(folder, Rules(exclude=excluding(["sub/f*", "*side", "empty/"])))
    assert set(found) == {"run", "sub"}
    assert found["sub"].mode == FOLDER_MODE
    assert notes == dict.fromkeys(("empty", "file", "inside", "outside"), EXCLUDED)


@pytest.mark.parametrize("name", [b"odd\xff", b"back\\slash", b"line\nend", b"\x1b[2J"])
def test_a_name_that_no_repository_takes_stops_the_commit(folder: Path, name: bytes) -> None:
    (folder / os.fsdecode(name)).write_bytes(b"5")
    with pytest.raises(UsageError, match="no repository takes"):
        taken(folder)
    errors: list[Path] = []
    told = sources_of({"": folder}, Rules(), on_error=lambda path, error: errors.append(path))
    assert {source.path for source in told} >= {"run", "inside"}
    assert errors == [folder / os.fsdecode(name)]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        list(sources_of({"": tmp_path / "missing"}, Rules()))
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(UsageError):
        list(sources_of({"": tmp_path / "file"}, Rules()))


@pytest.mark.parametrize(
    ("path", "target", "expected"),
    [
        ("a", "b", True),
        ("a/b", "../c", True),
        ("a/b", ".", True),
        ("a", "b/../c", False),
        ("a", "b/..", False),
        ("x/a", "../b/../c", False),
        ("x/a", "./..//c", True),
        ("a", "..", False),
        ("a", "../a", False),
        ("a/b", "../../x", False),
        ("a", "b/../../c", False),
        ("a/b", "../../a/c", False),
        ("a", "/abs", False),
        ("a", "", False),
        ("a", "b\0c", False),
    ],
)
def test_links_within(path: str, target: str, expected: bool) -> None:
    assert leads_within(path, target) is expected


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with xetstore.open(tmp_path / "store") as store:
        yield store.create_repo("alice/bert")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_stops_the_commit(repo: Repository, folder: Path) -> None:
    (folder / "run").chmod(0)
    with pytest.raises(XetError):
        repo.commit({"": folder})
    assert len(list(repo.log())) == 1
