"""``xet cp`` and ``xet put --name``: into a repository, out of it, between two; over a store that is a directory."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.runner import COMMAND, Xet
from tests.support.strategies import splitmix64

LARGE = splitmix64(9, 2 << 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ckpt"
    (folder / "sub").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "model.safetensors").write_bytes(LARGE)
    (folder / "sub" / "config.json").write_bytes(b"{}")
    (folder / "run").write_bytes(b"#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / "link").symlink_to("run")
    return folder


def files(xet: Xet, where: str) -> set[str]:
    return {record["path"] for record in xet("--json", "ls", "-r", where).records if not record["is_folder"]}


def test_a_folder_goes_up_in_one_commit_and_comes_back(xet: Xet, folder: Path, tmp_path: Path) -> None:
    up = xet("cp", folder, "xet://alice/bert@main/", "-m", "A checkpoint")
    assert up.code == 0, up.stderr
    [line] = up.stdout.splitlines()
    commit, where = line.split("  ")
    assert where == "xet://alice/bert"
    assert "alice/bert is new" in up.stderr
    log = xet("--json", "log", "xet://alice/bert").records
    assert (log[0]["commit"], log[0]["title"]) == (commit, "A checkpoint")
    assert len(log) == 2
    down = xet("cp", "xet://alice/bert@main/", tmp_path / "out")
    assert (down.code, down.stdout) == (0, "")
    (tmp_path / "out" / ".gitattributes").unlink()
    assert subprocess.run(["diff", "-r", str(folder), str(tmp_path / "out")], check=False).returncode == 0
    assert os.access(tmp_path / "out" / "run", os.X_OK)
    assert os.readlink(tmp_path / "out" / "link") == "run"  # noqa: PTH115
    assert (tmp_path / "out" / "empty").is_dir()
    again = xet("cp", folder, "xet://alice/bert")
    assert "nothing to commit" in again.stderr
    assert again.stdout.startswith(commit)


@pytest.mark.parametrize("name", ["no such file", "new\nline"])
def test_a_repository_is_called_new_when_it_is_there(xet: Xet, folder: Path, name: str) -> None:
    if name != "no such file":
        (folder / name).write_bytes(b"x")
    ran = xet("cp", folder if name != "no such file" else folder / name, "xet://alice/bert")
    assert ran.code != 0
    assert "is new" not in ran.stderr
    if name == "no such file":
        assert not xet.store.exists()


def test_put_with_a_name_is_cp(xet: Xet, folder: Path, tmp_path: Path) -> None:
    assert xet("put", folder, "--name", "alice/run-7", "-m", "Run 7").code == 0
    assert files(xet, "xet://alice/run-7") >= {"model.safetensors", "sub/config.json", "run", "link"}
    assert xet("--json", "log", "xet://alice/run-7", "-n", 1).records[0]["title"] == "Run 7"
    assert xet("put", folder / "run", "--name", "datasets/alice/news/bin/").code == 0
    assert "bin/run" in files(xet, "xet://datasets/alice/news")
    for args in (
        ("put", folder, folder, "--name", "alice/x"),
        ("put", folder, "--name", "alice/x", "--null"),
        ("put", folder, "--name", "alice/x", "--compression", "none"),
        ("put", folder, "-m", "no name"),
        ("put", folder, "--name", "alice"),
    ):
        assert xet(*args).code == 2


def test_json_tells_each_path_and_the_commit(xet: Xet, folder: Path, tmp_path: Path) -> None:
    *changed, last = xet("--json", "cp", folder, "xet://alice/bert").records
    by_path = {record["path"]: record for record in changed}
    assert {record["action"] for record in changed} == {"added"}
    assert by_path["run"]["mode"] == "100755"
    assert (by_path["link"]["mode"], by_path["empty"]["mode"]) == ("120000", "040000")
    assert by_path["model.safetensors"]["size"] == len(LARGE)
    assert len(by_path["model.safetensors"]["sha256"]) == len(by_path["model.safetensors"]["hash"]) == 64
    assert (last["files"], last["deleted"], last["repository"]) == (len(changed), 0, "alice/bert")
    assert last["commit"] == xet("--json", "log", "xet://alice/bert").records[0]["commit"]
    told = {
        record["path"]: record["action"] for record in xet("--json", "cp", "xet://alice/bert", tmp_path / "out").records
    }
    assert told[str(tmp_path / "out" / "model.safetensors")] == "written"
    assert told[str(tmp_path / "out" / "link")] == "linked"


def test_single_files_go_where_they_are_meant_to(xet: Xet, folder: Path, tmp_path: Path) -> None:
    model = folder / "model.safetensors"
    assert xet("cp", model, "xet://alice/bert").code == 0
    assert xet("cp", model, "xet://alice/bert/other.bin").code == 0
    assert xet("cp", model, "xet://alice/bert/weights/").code == 0
    assert xet("cp", folder / "run", "xet://alice/bert/weights").code == 0
    assert files(xet, "xet://alice/bert") == {
        ".gitattributes",
        "model.safetensors",
        "other.bin",
        "weights/model.safetensors",
        "weights/run",
    }
    (tmp_path / "here").mkdir()
    for target in (tmp_path / "here", tmp_path / "new.bin", f"{tmp_path}/made/"):
        assert xet("cp", "xet://alice/bert/weights/model.safetensors", target).code == 0
    for path in ("here/model.safetensors", "new.bin", "made/model.safetensors"):
        assert (tmp_path / path).read_bytes() == LARGE


def test_delete_and_dry_run_up(xet: Xet, folder: Path) -> None:
    xet("cp", folder, "xet://alice/bert")
    (folder / "run").unlink()
    (folder / "new").write_bytes(b"1")
    dry = xet("cp", folder, "xet://alice/bert", "--delete", "--dry-run")
    assert dry.stdout.split() == ["deleted", "run", "added", "new"]
    assert "run" in files(xet, "xet://alice/bert")
    kept = xet("cp", folder, "xet://alice/bert")
    assert kept.code == 0
    assert "run" in files(xet, "xet://alice/bert")
    xet("cp", folder, "xet://alice/bert", "--delete")
    assert files(xet, "xet://alice/bert") == {".gitattributes", "model.safetensors", "sub/config.json", "link", "new"}
    assert xet("cp", folder, "xet://alice/nothing", "--dry-run").code == 0
    assert [one["name"] for one in xet("--json", "repo", "list").records] == ["alice/bert"]


def test_delete_and_dry_run_down(xet: Xet, folder: Path, tmp_path: Path) -> None:
    xet("cp", folder, "xet://alice/bert")
    out = tmp_path / "out"
    out.mkdir()
    (out / "extra").write_bytes(b"1")
    dry = xet("cp", "xet://alice/bert", out, "--delete", "--dry-run")
    assert f"deleted   {out / 'extra'}" in dry.stdout
    assert f"written   {out / 'run'}" in dry.stdout
    assert [path.name for path in out.iterdir()] == ["extra"]
    assert xet("cp", "xet://alice/bert", out).code == 0
    assert (out / "extra").exists()
    assert xet("cp", "xet://alice/bert", out, "--delete").code == 0
    assert not (out / "extra").exists()


def test_between_repositories(xet: Xet, folder: Path, tmp_path: Path) -> None:
    xet("cp", folder, "xet://alice/bert/in/")
    assert xet("cp", "xet://alice/bert/in", "xet://datasets/bob/copy").code == 0
    assert xet("cp", "xet://alice/bert/in/run", "xet://datasets/bob/copy/sub/").code == 0
    assert files(xet, "xet://datasets/bob/copy") >= {"model.safetensors", "run", "link", "sub/run"}
    xet("cp", "xet://datasets/bob/copy", tmp_path / "out")
    assert os.access(tmp_path / "out" / "sub" / "run", os.X_OK)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == LARGE


def test_what_is_left_out_is_told(xet: Xet, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / ".git").mkdir()
    done = xet("cp", folder, "xet://alice/bert", "--exclude", "*.json", "--exclude", "run")
    assert done.code == 0
    assert f"{folder / 'pipe'} is left out" in done.stderr
    assert f"{folder / '.git'} is left out" in done.stderr
    assert files(xet, "xet://alice/bert") == {".gitattributes", "model.safetensors", "link"}


def test_the_store_in_the_folder_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    xet = Xet(tmp_path / "store")
    assert xet("cp", tmp_path, "xet://alice/bert", "--exclude", "cache").code == 0
    done = xet("cp", tmp_path, "xet://alice/bert", "--exclude", "cache")
    assert "it is the store itself" in done.stderr
    assert files(xet, "xet://alice/bert") == {".gitattributes", "file"}


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("a", "b"), 2),
        (("{folder}", "xet://alice"), 2),
        (("{folder}", "xet://alice/bert/../x"), 2),
        (("{folder}", "xet://alice/bert@nothing"), 3),
        (("{folder}/missing", "xet://alice/bert"), 3),
        (("{folder}", "xet://al--ice/bert"), 2),
        (("{folder}", "xet://buckets/alice/bert"), 2),
        (("{folder}/run", "xet://alice/bert", "--delete"), 2),
        (("{folder}", "xet://alice/bert", "--fsync"), 2),
        (("{folder}", "xet://alice/bert", "--any-links"), 2),
        (("xet://alice/bert", "{folder}/out", "-m", "x"), 2),
        (("xet://alice/bert", "{folder}/out", "--exclude", "x"), 2),
        (("xet://alice/nothing", "{folder}/out"), 3),
        (("xet://alice/bert@nothing", "{folder}/out"), 3),
        (("xet://alice/bert/nothing", "{folder}/out"), 3),
        (("xet://alice/bert/run", "{folder}/out", "--delete"), 2),
        (("xet://alice/nothing", "xet://alice/other"), 3),
    ],
)
def test_bad_arguments_end_in_their_exit_codes(xet: Xet, folder: Path, args: tuple[str, ...], code: int) -> None:
    assert xet("cp", folder, "xet://alice/bert").code == 0
    before = xet("--json", "log", "xet://alice/bert").records
    done = xet("cp", *(arg.format(folder=folder) for arg in args))
    assert done.code == code, done.stderr
    assert not (folder / "out").exists()
    assert xet("--json", "log", "xet://alice/bert").records == before


def test_two_at_once_to_one_branch_both_land(xet: Xet, tmp_path: Path) -> None:
    xet("repo", "create", "alice/bert")
    running = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        for name in range(5):
            (tmp_path / str(number) / f"{number}-{name}.bin").write_bytes(splitmix64(number * 10 + name, 300_000))
        running.append(
            subprocess.Popen(
                [*COMMAND, "cp", str(tmp_path / str(number)), "xet://alice/bert"],
                env=xet.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        )
    for process in running:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr.decode()
    assert files(xet, "xet://alice/bert") - {".gitattributes"} == {f"{a}-{b}.bin" for a in range(3) for b in range(5)}
    assert len(xet("--json", "log", "xet://alice/bert").records) == 4
