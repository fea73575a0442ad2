"""A folder in a repository and back: modes, links, empty folders, odd names; nothing outside of it, nothing half."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

import xetstore
from tests.support.strategies import splitmix64
from xetstore.errors import EntryNotFoundError, FormatError, UsageError, XetError
from xetstore.platform.names import FolderNames
from xetstore.records import LINK_MODE, NewBlob, RepoFile
from xetstore.repositories.repository import Repository
from xetstore.repositories.restoring import Restore, RestoreOptions
from xetstore.store import Store

LARGE = splitmix64(8, 2 << 20)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with xetstore.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def repo(store: Store) -> Repository:
    return store.create_repo("alice/bert")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all that git keeps, and empty folders."""
    folder = tmp_path / "folder"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "run").write_bytes(b"#!/bin/sh\n")
    (folder / "bin" / "run").chmod(0o755)
    (folder / "model.bin").write_bytes(LARGE)
    (folder / "model.bin").chmod(0o755)
    (folder / "empty" / "deep" / "er").mkdir(parents=True)
    (folder / "full").mkdir()
    (folder / "full" / "empty").mkdir()
    (folder / "full" / "file").write_bytes(b"")
    (folder / "to file").symlink_to("bin/run")
    (folder / "to folder").symlink_to("full")
    (folder / "full" / "up").symlink_to("../model.bin")
    (folder / "to nothing").symlink_to("missing/too")
    (folder / "tidy").symlink_to("./bin//run")
    return folder


def picture(root: Path) -> dict[str, object]:
    """All that is below a folder: targets of links, content and executable bit of files, None for folders."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"  # noqa: PTH115
        elif path.is_dir():
            found[name] = None
        elif name != ".gitattributes":
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & stat.S_IXUSR))
    return found


def link(repo: Repository, path: str, target: bytes) -> None:
    """Commit a link of any kind, as another client may have done."""
    names, _ = repo._home.call_names()
    names.commit(repo.id, "main", [NewBlob(path, target, LINK_MODE)], message="a link")


def test_a_folder_comes_back_whole(repo: Repository, folder: Path, tmp_path: Path) -> None:
    repo.commit({"": folder})
    done = repo.download("main", tmp_path / "out")
    assert picture(tmp_path / "out") == picture(folder)
    assert {str(one.action) for one in done} == {"written", "linked", "folder"}
    again = repo.download("main", tmp_path / "out")
    assert {str(one.action) for one in again} == {"unchanged"}
    assert repo.commit({"": folder}).is_new is False


def test_modes_alone_are_a_change(repo: Repository, folder: Path, tmp_path: Path) -> None:
    repo.commit({"": folder})
    repo.download("main", tmp_path / "out")
    repo.create_tag("v1")
    (folder / "bin" / "run").chmod(0o644)
    (folder / "model.bin").chmod(0o644)
    report = repo.commit({"": folder})
    assert {file.path for file in report.files} == {"bin/run", "model.bin"}
    assert {str(one.kind) for one in repo.diff("v1")} == {"mode"}
    repo.download("main", tmp_path / "out")
    assert picture(tmp_path / "out") == picture(folder)


def test_an_empty_folder_is_gone_with_its_last_file_and_stays_beside_others(repo: Repository, folder: Path) -> None:
    repo.commit({"": folder})
    repo.commit({"elsewhere": b"1", "full/more": b"2"})
    assert repo.file("empty/deep/er").is_folder, "other commits leave it"
    repo.commit({"empty/deep/er/file": b"3"})
    repo.commit(delete=["empty/deep/er/file"])
    with pytest.raises(EntryNotFoundError):
        repo.file("empty")


def test_a_part_is_restored(repo: Repository, folder: Path, tmp_path: Path) -> None:
    repo.commit({"": folder})
    repo.download("main", tmp_path / "out", path="full", any_links=True)  # one of them leads out of this part
    assert set(picture(tmp_path / "out")) == {"empty", "file", "up"}
    repo.download("main", tmp_path / "one.bin", path="model.bin")
    assert (tmp_path / "one.bin").read_bytes() == LARGE
    with pytest.raises(EntryNotFoundError):
        repo.download("main", tmp_path / "nothing", path="nothing")
    assert not (tmp_path / "nothing").exists()


def test_what_is_not_in_the_revision_is_deleted_on_request_only(repo: Repository, folder: Path, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_bytes(b"keep")
    repo.commit({"": folder})
    repo.download("main", out)
    (out / "extra" / "deep").mkdir(parents=True)
    (out / "extra" / "deep" / "file").write_bytes(b"1")
    (out / "bin" / "more").write_bytes(b"2")
    (out / "linked").symlink_to(outside)
    repo.download("main", out)
    assert (out / "extra" / "deep" / "file").exists()
    dry = repo.download("main", out, delete=True, dry_run=True)
    assert {one.path for one in dry if one.action == "deleted"} == {out / "extra", out / "bin" / "more", out / "linked"}
    assert (out / "linked").is_symlink()
    done = repo.download("main", out, delete=True)
    assert {one.path for one in done if one.action == "deleted"} == {
        out / "extra",
        out / "bin" / "more",
        out / "linked",
    }
    assert picture(out) == picture(folder)
    assert (outside / "keep").read_bytes() == b"keep", "a link is deleted, not what it leads to"


def test_a_dry_run_writes_nothing(repo: Repository, folder: Path, tmp_path: Path) -> None:
    repo.commit({"": folder})
    done = repo.download("main", tmp_path / "out", dry_run=True)
    assert len(done) > 5
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", [b"/etc/passwd", b"..", b"../out", b"full/../../x", b"../../etc", b"here/.."])
def test_a_link_that_leads_out_is_not_made_unless_asked_for(repo: Repository, tmp_path: Path, target: bytes) -> None:
    link(repo, "here", b".")  # behind which `..` leads out, as its text does not say
    link(repo, "link", target)
    repo.commit({"file": b"1"})
    with pytest.raises(UsageError, match="leads out"):
        repo.download("main", tmp_path / "out")
    assert not os.path.lexists(tmp_path / "out" / "link")
    errors: list[Path] = []
    repo.download("main", tmp_path / "out", on_error=lambda path, _: errors.append(path), delete=True)
    assert errors == [tmp_path / "out" / "link"]
    assert (tmp_path / "out" / "file").read_bytes() == b"1"
    repo.download("main", tmp_path / "out", any_links=True)
    assert os.fsencode(os.readlink(tmp_path / "out" / "link")) == target  # noqa: PTH115


def test_a_link_leads_out_of_a_part_of_a_repository_too(repo: Repository, tmp_path: Path) -> None:
    """Where a deep folder, or a link alone, is restored, what is above it in the repository is not above it here."""
    link(repo, "a/b/up", b"../../x")
    link(repo, "a/b/near", b"x")
    for path in ("a/b", "a/b/up"):
        with pytest.raises(UsageError, match="leads out"):
            repo.download("main", tmp_path / "out" / "up" if path.endswith("up") else tmp_path / "out", path=path)
        assert not os.path.lexists(tmp_path / "out" / "up")
    repo.download("main", tmp_path / "whole")
    assert os.readlink(tmp_path / "whole" / "a" / "b" / "up") == "../../x"  # noqa: PTH115


def test_nothing_is_written_through_a_link(repo: Repository, folder: Path, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    (outside / "run").write_bytes(b"mine")
    repo.commit({"": folder})
    out.mkdir()
    (out / "bin").symlink_to(outside)
    with pytest.raises(UsageError, match="is a folder in the revision"):
        repo.download("main", out)
    assert (outside / "run").read_bytes() == b"mine"
    (out / "bin").unlink()
    (out / "model.bin").symlink_to(outside / "run")
    repo.download("main", out)
    assert (outside / "run").read_bytes() == b"mine"
    assert picture(out) == picture(folder), "a link gives way to a file"


def test_a_file_and_a_folder_give_way_to_each_other_with_delete_only(
    repo: Repository, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    repo.commit({"": folder})
    (out / "model.bin").mkdir(parents=True)
    (out / "model.bin" / "inside").write_bytes(b"1")
    (out / "full").write_bytes(b"2")
    for _ in range(2):
        with pytest.raises(UsageError):
            repo.download("main", out)
    assert (out / "model.bin" / "inside").read_bytes() == b"1"
    repo.download("main", out, delete=True)
    assert picture(out) == picture(folder)


@pytest.mark.parametrize(
    "path", ["../up", "/etc/x", "a/../../b", "a//b", ".", "..", ".git/hooks/x", "sub/.GIT/x", "a\0b"]
)
def test_a_path_that_leads_out_is_never_written(store: Store, repo: Repository, tmp_path: Path, path: str) -> None:
    names, _ = store.call_names()
    restore = Restore(names, store.files_of(repo.id, "main"), repo.id, "main", RestoreOptions())
    with pytest.raises(FormatError):
        list(restore.folder([RepoFile("fine", 1, "0" * 40), RepoFile(path, 1, "0" * 40)], "", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


class OneName(FolderNames):
    """A folder whose file system takes all names for one that are alike without case and accents."""

    def takes_for_one(self, first: str, second: str) -> bool:
        return True


def test_a_file_that_would_overwrite_another_is_refused_before(store: Store, repo: Repository, tmp_path: Path) -> None:
    """On a file system that ignores case or the way of accents, where the second would take the place of the first."""
    accents = unicodedata.normalize("NFD", "é")
    contents = {
        "A": b"upper",
        "a": b"lower",
        "D/x": b"1",
        "d/y": b"2",
        "é": b"composed",
        accents: b"apart",
        "other": b"3",
    }
    repo.commit(add=contents)
    commit = next(repo.log()).oid
    entries = sorted((file for file in repo.files(commit) if not file.is_folder), key=lambda file: file.path)
    names, _ = store.call_names()
    out = tmp_path / "out"

    def restore(errors: dict[Path, XetError] | None) -> None:
        on_error = None if errors is None else errors.__setitem__
        files = store.files_of(repo.id, commit)
        options = RestoreOptions(delete=True)
        made = Restore(names, files, repo.id, commit, options, on_error=on_error, names_in=OneName)
        list(made.folder(entries, "", out))

    with pytest.raises(UsageError, match="takes it for"):
        restore(None)
    assert not out.exists()
    errors: dict[Path, XetError] = {}
    restore(errors)
    first, second = sorted(("é", accents))
    assert set(errors) == {out / "a", out / "d/y", out / second}
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there == {"A", "D/x", first, "other", ".gitattributes"}
    assert (out / "A").read_bytes() == b"upper"


def test_a_file_that_is_listed_in_another_spelling_is_not_deleted(repo: Repository, tmp_path: Path) -> None:
    """As on HFS+, which lists accents apart: here a second name of the same file stands for that."""
    repo.commit(add={"é": b"1"})
    out, apart = tmp_path / "out", unicodedata.normalize("NFD", "é")
    repo.download("main", out)
    os.link(out / "é", out / apart)
    (out / "e").write_bytes(b"2")
    deleted = {one.path.name for one in repo.download("main", out, delete=True) if one.action == "deleted"}
    assert deleted == {"e"}
    (out / apart).unlink()
    (out / apart).write_bytes(b"another file")
    deleted = {one.path.name for one in repo.download("main", out, delete=True) if one.action == "deleted"}
    assert deleted == {apart}


def test_a_file_that_cannot_be_written_does_not_keep_the_others(repo: Repository, folder: Path, tmp_path: Path) -> None:
    repo.commit({"": folder})
    out = tmp_path / "out"
    (out / "model.bin").mkdir(parents=True)
    (out / "extra").write_bytes(b"1")
    errors: dict[Path, XetError] = {}
    repo.download("main", out, on_error=errors.__setitem__)
    assert set(errors) == {out / "model.bin"}
    assert (out / "bin" / "run").exists()
    assert (out / "extra").exists(), "nothing is deleted after an error"


def test_the_name_of_a_repository_is_free_after_it_is_deleted(store: Store, repo: Repository, tmp_path: Path) -> None:
    """Of a later repository of the same name the files of the one before are not shown."""
    repo.commit({"model.bin": LARGE})
    hash_before = repo.file("model.bin").hash
    store.delete_repo(repo.id)
    again = store.create_repo("alice/bert")
    assert hash_before is not None
    with pytest.raises(XetError):
        store.files_of(again.id, "main").stat(hash_before)
    again.commit({"other.bin": LARGE[: 1 << 20]})
    again.download("main", tmp_path / "out")
    assert (tmp_path / "out" / "other.bin").read_bytes() == LARGE[: 1 << 20]


KILLED = """
import sys, pathlib, xetstore
with xetstore.open(sys.argv[1], create=False) as store:
    for _ in store.repo("alice/many").iter_download("main", sys.argv[2]):
        print("one", flush=True)
"""


@pytest.mark.parametrize("after", [0, 3, 20])
def test_a_killed_restore_leaves_no_half_file_under_its_name(store: Store, tmp_path: Path, after: int) -> None:
    files = {f"{number}.bin": splitmix64(number, 300_000 + number) for number in range(40)}
    files |= {f"{number}.txt": b"text" * number for number in range(40)}
    repo = store.create_repo("alice/many")
    repo.commit(files)
    out = tmp_path / "out"
    running = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "store"), str(out)], stdout=subprocess.PIPE
    )
    try:
        assert running.stdout is not None
        for _ in range(after):
            running.stdout.readline()
        if not after:
            time.sleep(0.2)
        running.send_signal(signal.SIGKILL)
    finally:
        running.kill()
        running.communicate(timeout=60)
    for path in out.rglob("*") if out.exists() else ():
        if path.name in files:
            assert path.read_bytes() == files[path.name]
        elif path.name != ".gitattributes":
            assert path.is_dir() or path.name.endswith(".incomplete"), path
    repo.download("main", out, delete=True)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".gitattributes"} == files
