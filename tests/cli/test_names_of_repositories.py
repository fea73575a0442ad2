"""The commands of repositories beside ``cp``: repo, ls, log, cat, rm, mv, branch, tag, diff."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.runner import Xet
from tests.support.strategies import splitmix64

LARGE = splitmix64(10, 1 << 20)


@pytest.fixture
def repo(xet: Xet, tmp_path: Path) -> Xet:
    """A store with a repository of two commits and a tag at the first."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.bin").write_bytes(LARGE)
    (folder / "sub" / "text").write_bytes(b"text")
    (folder / "gone").write_bytes(b"1")
    assert xet("cp", folder, "xet://alice/bert", "-m", "first").code == 0
    assert xet("tag", "xet://alice/bert", "v1", "-m", "The first").code == 0
    (folder / "model.bin").write_bytes(LARGE + b"more")
    (folder / "gone").unlink()
    (folder / "new").write_bytes(b"2")
    assert xet("cp", folder, "xet://alice/bert", "-m", "second", "--delete").code == 0
    return xet


def test_repositories_are_made_listed_moved_and_deleted(xet: Xet) -> None:
    made = xet("--json", "repo", "create", "datasets/alice/news", "--private")
    assert made.code == 0
    [record] = made.records
    assert (record["name"], record["kind"], record["private"]) == ("datasets/alice/news", "datasets", True)
    assert len(record["head"]) == 40
    assert xet("repo", "create", "datasets/alice/news").code == 1
    assert xet("repo", "create", "datasets/alice/news", "--exist-ok").code == 0
    xet("repo", "create", "xet://bob/bert")
    assert {one["name"] for one in xet("--json", "repo", "list").records} == {"datasets/alice/news", "bob/bert"}
    assert [one["name"] for one in xet("--json", "repo", "list", "alice").records] == ["datasets/alice/news"]
    assert [one["name"] for one in xet("--json", "repo", "list", "--kind", "models").records] == ["bob/bert"]
    assert [one["name"] for one in xet("--json", "repo", "list", "--search", "ER").records] == ["bob/bert"]
    assert "bob/bert" in xet("repo", "info", "bob/bert").stdout
    assert xet("repo", "move", "bob/bert", "carol/bert").code == 0
    assert xet("repo", "info", "carol/bert").code == 0
    assert xet("repo", "move", "carol/bert", "datasets/carol/bert").code == 2
    assert xet("repo", "delete", "carol/bert", "--dry-run").code == 0
    assert xet("repo", "info", "carol/bert").code == 0
    assert xet("repo", "delete", "carol/bert").code == 0
    assert xet("repo", "info", "carol/bert").code == 3
    assert xet("repo", "delete", "carol/bert").code == 3
    for name in ("alice", "alice/b/c", "alice/bert@main", "a b/c", "--"):
        assert xet("repo", "create", name).code == 2


def test_ls(repo: Xet) -> None:
    names = [line[83:] for line in repo("ls", "xet://alice/bert").stdout.splitlines()]
    assert names == [".gitattributes", "model.bin", "new", "sub/"]
    assert [line[83:] for line in repo("ls", "xet://alice/bert@v1/sub").stdout.splitlines()] == ["sub/text"]
    long = repo("ls", "-l", "-r", "xet://alice/bert@v1").stdout
    assert f"100644  {'':0}" in long
    assert len(long.splitlines()) == 5
    assert repo("ls", "xet://alice/bert@v2").code == 3
    assert repo("ls", "xet://alice/bert/nothing").code == 3
    assert repo("ls", "xet://alice/nothing").code == 3


def test_log(repo: Xet) -> None:
    lines = repo("log", "xet://alice/bert").stdout.splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["second", "first", "initial commit"]
    assert len(repo("log", "xet://alice/bert", "-n", 2).stdout.splitlines()) == 2
    assert [one["title"] for one in repo("--json", "log", "xet://alice/bert@v1").records] == ["first", "initial commit"]
    assert repo("log", "xet://alice/bert/new").code == 2


def test_cat_get_and_stat(repo: Xet, tmp_path: Path) -> None:
    assert repo("cat", "xet://alice/bert/sub/text").data == b"text"
    assert repo("cat", "xet://alice/bert@v1/model.bin").data == LARGE
    assert repo("cat", "xet://alice/bert/model.bin", "--range", f"{len(LARGE) - 2}:").data == LARGE[-2:] + b"more"
    assert repo("cat", "xet://alice/bert/sub/text", "--range", "1:3").data == b"ex"
    assert repo("cat", "xet://alice/bert/sub").code == 2
    assert repo("cat", "xet://alice/bert/gone").code == 3
    assert repo("get", "xet://alice/bert@v1/model.bin", "-o", tmp_path / "got").code == 0
    assert (tmp_path / "got").read_bytes() == LARGE
    [stat] = repo("--json", "stat", "xet://alice/bert@v1/model.bin").records
    assert stat["size"] == len(LARGE)
    assert repo("get", "xet://alice/bert/new", "-o", tmp_path / "got").code == 0
    assert (tmp_path / "got").stat().st_size == 1


def test_rm(repo: Xet) -> None:
    assert repo("rm", "xet://alice/bert/sub").code == 2
    assert repo("rm", "xet://alice/bert/sub", "-r", "--dry-run").stdout.split() == ["deleted", "sub"]
    done = repo("rm", "-r", "xet://alice/bert/sub", "xet://alice/bert/new", "-m", "less")
    assert done.code == 0
    assert [line[83:] for line in repo("ls", "xet://alice/bert").stdout.splitlines()] == [".gitattributes", "model.bin"]
    assert repo("--json", "log", "xet://alice/bert", "-n", 1).records[0]["title"] == "less"
    assert repo("cat", "xet://alice/bert@v1/sub/text").data == b"text"
    assert repo("rm", "xet://alice/bert/sub").code == 3
    assert repo("rm", "xet://alice/bert").code == 2
    assert repo("rm", "xet://alice/bert/a", "xet://alice/other/b").code == 2
    assert repo("rm", "xet://alice/bert@v1/gone").code == 3, "a tag is no branch"


def test_mv(repo: Xet) -> None:
    assert repo("mv", "xet://alice/bert/model.bin", "xet://alice/bert/sub/").code == 0
    assert repo("mv", "xet://alice/bert/new", "xet://alice/bert/sub").code == 0
    assert repo("mv", "xet://alice/bert/sub", "xet://alice/bert/other").code == 0
    paths = {one["path"] for one in repo("--json", "ls", "-r", "xet://alice/bert/other").records}
    assert paths == {"other/model.bin", "other/new", "other/text"}
    assert repo("cat", "xet://alice/bert/other/model.bin").data == LARGE + b"more"
    assert len(repo("log", "xet://alice/bert").stdout.splitlines()) == 6
    for args in (
        ("xet://alice/bert/other", "xet://alice/bert/other/inside"),
        ("xet://alice/bert/other", "xet://alice/bert@v1/x"),
        ("xet://alice/bert", "xet://alice/bert/x"),
        ("xet://alice/bert/other", "xet://alice/bert"),
        ("here", "there"),
    ):
        assert repo("mv", *args).code == 2, args
    assert repo("mv", "xet://alice/bert/nothing", "xet://alice/bert/x").code == 3


def test_branches_and_tags(repo: Xet) -> None:
    assert repo("branch", "xet://alice/bert@v1", "dev/x").code == 0
    branches = {one["name"]: one["commit"] for one in repo("--json", "branch", "xet://alice/bert").records}
    [tag] = repo("--json", "tag", "xet://alice/bert").records
    assert branches["dev/x"] == tag["commit"]
    assert tag["name"] == "v1"
    assert repo("branch", "xet://alice/bert", "dev/x").code == 1
    assert repo("tag", "xet://alice/bert@dev%2Fx", "v2").code == 0
    assert [line.split("  ")[1] for line in repo("tag", "xet://alice/bert").stdout.splitlines()] == ["v1", "v2"]
    assert repo("tag", "xet://alice/bert", "--delete", "v1").code == 0
    assert repo("branch", "xet://alice/bert", "-d", "dev/x").code == 0
    assert repo("branch", "xet://alice/bert", "-d", "main").code in (2, 5)
    assert repo("tag", "xet://alice/bert", "-d", "v1").code == 3
    assert repo("tag", "xet://alice/bert", "v3", "-d", "v2").code == 2
    assert repo("tag", "xet://alice/bert", "-m", "no name").code == 2
    for name in ("a b", "-x", "a..b", "a~b", ".x", "x.lock", "x/", "@{"):
        assert repo("branch", "xet://alice/bert", "--", name).code == 2, name
    assert repo("tag", "xet://alice/bert@nothing", "v3").code == 3


def test_diff_of_revisions(repo: Xet) -> None:
    done = repo("--json", "diff", "xet://alice/bert@v1", "xet://alice/bert")
    assert done.code == 1
    *changed, last = done.records
    by_path = {one["path"]: one for one in changed}
    assert {path: one["kind"] for path, one in by_path.items()} == {
        "gone": "deleted",
        "model.bin": "changed",
        "new": "added",
    }
    model = by_path["model.bin"]
    assert (model["old_size"], model["new_size"]) == (len(LARGE), len(LARGE) + 4)
    assert model["shared_chunks"] == model["new_chunks"] - 1
    assert (last["equal"], last["files"]) == (False, 3)
    lines = repo("diff", "xet://alice/bert@v1", "xet://alice/bert").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["deleted", "changed", "added"]
    same = repo("diff", "xet://alice/bert@v1/sub", "xet://alice/bert/sub")
    assert (same.code, same.stdout) == (0, "")
    assert repo("diff", "xet://alice/bert@v1", "xet://alice/other").code == 2
    assert repo("diff", "xet://alice/bert@v1", "xet://alice/bert@v9").code == 3
