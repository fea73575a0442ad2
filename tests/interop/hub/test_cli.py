"""The command `hf`, as its users type it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.interop.hub.conftest import content, unused
from tests.support.hub import Hub, client_environment

Files = Callable[..., str]
HF = Path(sys.executable).with_name("hf")


@pytest.fixture
def hf(hub: Hub, ann_token: str, tmp_path: Path) -> Callable[..., str]:
    """Runs `hf` for ann; its stdout."""
    environment = client_environment(hub.endpoint, tmp_path / "home", ann_token)

    def run(*arguments: str, stdin: bytes = b"", code: int = 0) -> str:
        ended = subprocess.run(
            [str(HF), *arguments], input=stdin, capture_output=True, env=environment, timeout=60, check=False
        )
        assert ended.returncode == code, ended.stderr.decode()
        return ended.stdout.decode()

    return run


def parsed(text: str) -> Any:
    return json.loads(text)


def test_a_token_is_all_that_a_login_needs(hub: Hub, ann_token: str, tmp_path: Path) -> None:
    environment = client_environment(hub.endpoint, tmp_path)
    for command in (["auth", "login", "--token", ann_token], ["auth", "whoami"], ["env"]):
        ended = subprocess.run(
            [str(HF), *command], capture_output=True, text=True, env=environment, timeout=60, check=False
        )
        assert ended.returncode == 0, ended.stderr
        if command != ["auth", "login", "--token", ann_token]:
            assert "ann" in ended.stdout


def test_a_folder_is_uploaded_downloaded_and_verified(hf: Callable[..., str], files: Files, tmp_path: Path) -> None:
    contents = {"large.bin": content(), "a/small.txt": b"small"}
    repo = unused("by-hf")
    hf("upload", repo, files(contents), "--type", "dataset", "--private", "--commit-message", "by hand")
    hf("download", repo, "--type", "dataset", "--local-dir", str(tmp_path / "out"))
    assert {path: (tmp_path / "out" / path).read_bytes() for path in contents} == contents
    hf("download", repo, "large.bin", "--type", "dataset")
    hf("cache", "verify", repo, "--type", "dataset")


def test_repositories_branches_and_tags(hf: Callable[..., str], files: Files) -> None:
    repo = unused("by-hf")
    hf("repos", "create", repo)
    hf("repos", "create", repo, "--exist-ok")
    hf("upload", repo, files({"a.txt": b"a", "b.log": b"b"}))
    hf("repos", "branch", "create", repo, "dev")
    hf("repos", "tag", "create", repo, "v1", "--revision", "dev")
    assert "v1" in hf("repos", "tag", "list", repo)
    hf("repos", "delete-files", repo, "*.log")
    assert {file["path"] for file in parsed(hf("models", "ls", repo, "--json"))} == {".gitattributes", "a.txt"}
    hf("repos", "settings", repo, "--private")
    assert parsed(hf("models", "info", repo, "--json"))["private"] is True
    assert repo in hf("models", "ls", "--author", "ann", "--json")
    assert repo in hf("repos", "ls", "--json")
    moved = unused("by-hf")
    hf("repos", "move", repo, moved)
    hf("repos", "tag", "delete", moved, "v1", "--yes")
    hf("repos", "branch", "delete", moved, "dev")
    hf("repos", "delete", moved, "--yes")
    hf("models", "info", moved, code=1)


def test_one_file_is_copied_in_and_out(hf: Callable[..., str], tmp_path: Path) -> None:
    repo = unused("by-hf")
    hf("repos", "create", repo)
    (tmp_path / "a.json").write_text("{}")
    hf("cp", str(tmp_path / "a.json"), f"hf://{repo}/a.json")
    hf("cp", f"hf://{repo}/a.json", f"hf://{repo}/b.json")
    assert hf("cp", f"hf://{repo}/b.json", "-") == "{}"


def test_buckets_are_synced(hf: Callable[..., str], files: Files, tmp_path: Path) -> None:
    bucket, contents = unused("by-hf"), {"large.bin": content(), "logs/1.txt": b"1"}
    hf("buckets", "create", bucket)
    hf("sync", files(contents), f"hf://buckets/{bucket}")
    hf("cp", "-", f"hf://buckets/{bucket}/typed.txt", stdin=b"typed")
    hf("sync", f"hf://buckets/{bucket}", str(tmp_path / "out"))
    expected = contents | {"typed.txt": b"typed"}
    assert {path: (tmp_path / "out" / path).read_bytes() for path in expected} == expected
    listed = parsed(hf("buckets", "list", bucket, "-R", "--json"))
    assert {entry["path"] for entry in listed if entry["type"] == "file"} == set(expected)
    hf("buckets", "delete", bucket, "--yes")
    hf("buckets", "info", bucket, code=1)
