"""The commands of repositories against a real server, with tokens of users: xet://, and hf:// by HF_ENDPOINT."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.runner import COMMAND, Xet
from tests.support.hub import Hub
from tests.support.strategies import splitmix64

LARGE = splitmix64(12, 2 << 20)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub") / "store", ("--workers", "1")) as running:
        yield running


@pytest.fixture(scope="module")
def alice(hub: Hub) -> str:
    return hub.add_user("alice")


@pytest.fixture(scope="module")
def bob(hub: Hub) -> str:
    return hub.add_user("bob")


@pytest.fixture
def xet(hub: Hub, alice: str, tmp_path: Path) -> Xet:
    return Xet(tmp_path / "unused", hub.endpoint, XET_TOKEN=alice)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ckpt"
    (folder / "sub").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "model.bin").write_bytes(LARGE)
    (folder / "sub" / "config.json").write_bytes(b"{}")
    (folder / "run").write_bytes(b"#!/bin/sh\n")
    (folder / "run").chmod(0o755)
    (folder / "link").symlink_to("run")
    return folder


def test_dates_and_all_repositories(xet: Xet, folder: Path) -> None:
    assert xet("cp", folder, "xet://alice/dated").code == 0
    (folder / "run").write_bytes(b"#!/bin/sh\nexit\n")
    assert xet("put", folder / "run", "--name", "alice/dated").code == 0
    last, first, _ = [record["created_at"] for record in xet("--json", "log", "xet://alice/dated").records]
    dates = {row["path"]: row["changed_at"] for row in xet("ls", "-rl", "--json", "xet://alice/dated").records}
    assert dates["run"] == pytest.approx(last, abs=0.01)
    assert dates["model.bin"] == dates["sub"] == dates["sub/config.json"] == pytest.approx(first, abs=0.01)
    newest = xet("ls", "--sort", "date", "--json", "xet://alice/dated").records
    assert [row["changed_at"] for row in newest] == sorted((row["changed_at"] for row in newest), reverse=True)
    found = xet("find", "xet://", "--name", "config.json", "--newer", "1h", "--json").records
    assert "xet://alice/dated/sub/config.json" in [row["name"] for row in found]


def test_a_folder_goes_up_and_comes_back(xet: Xet, hub: Hub, folder: Path, tmp_path: Path) -> None:
    up = xet("cp", folder, "xet://alice/up", "-m", "A checkpoint")
    assert up.code == 0, up.stderr
    for told in ("run is stored without its executable bit", "link is stored as the file", "empty is left out"):
        assert told in up.stderr
    assert [one["title"] for one in xet("--json", "log", "xet://alice/up").records] == [
        "A checkpoint",
        "initial commit",
    ]
    assert xet("cp", "xet://alice/up", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "model.bin").read_bytes() == LARGE
    assert (tmp_path / "out" / "link").read_bytes() == b"#!/bin/sh\n"
    assert "nothing to commit" in xet("cp", folder, "xet://alice/up").stderr
    (folder / "model.bin").write_bytes(LARGE + b"more")
    assert xet("tag", "xet://alice/up", "v1").code == 0
    assert xet("cp", folder, "xet://alice/up", "--delete").code == 0
    assert xet("diff", "xet://alice/up@v1", "xet://alice/up").code == 1
    assert xet("cat", "xet://alice/up@v1/model.bin").data == LARGE
    assert xet("mv", "xet://alice/up/sub", "xet://alice/up/moved").code == 0
    assert xet("rm", "-r", "xet://alice/up/moved").code == 0
    assert xet("branch", "xet://alice/up@v1", "dev").code == 0
    assert {one["name"] for one in xet("--json", "branch", "xet://alice/up").records} == {"main", "dev"}
    assert xet("cp", "xet://alice/up@v1", "xet://alice/copy").code == 0
    assert xet("cat", "xet://alice/copy/model.bin").data == LARGE
    assert xet("repo", "move", "alice/copy", "alice/moved").code == 0
    assert {one["name"] for one in xet("--json", "repo", "list", "alice").records} >= {"alice/up", "alice/moved"}
    assert xet("repo", "delete", "alice/moved").code == 0


def test_what_the_store_has_comes_back_whole_from_its_server(xet: Xet, hub: Hub, folder: Path, tmp_path: Path) -> None:
    """Modes and links that were committed into the store itself are told by a server of ours."""
    hub.xet("cp", str(folder), "xet://alice/whole")
    assert xet("cp", "xet://alice/whole", tmp_path / "out").code == 0
    assert os.access(tmp_path / "out" / "run", os.X_OK)
    assert os.readlink(tmp_path / "out" / "link") == "run"  # noqa: PTH115
    assert (tmp_path / "out" / "empty").is_dir()


def test_the_same_by_hf_locators(hub: Hub, alice: str, folder: Path, tmp_path: Path) -> None:
    """The store of the options and the Hub at once: a repository goes from one to the other."""
    xet = Xet(tmp_path / "here", HF_ENDPOINT=hub.endpoint, HF_TOKEN=alice)
    assert xet("cp", folder, "hf://alice/from-here").code == 0
    assert xet("cp", "hf://models/alice/from-here@main", "xet://mirror/copy").code == 0
    assert xet("cat", "xet://mirror/copy/model.bin").data == LARGE
    assert xet("cp", "xet://mirror/copy", "hf://datasets/alice/back", "--private").code == 0
    assert xet("--json", "repo", "info", "hf://datasets/alice/back").records[0]["private"] is True
    assert xet("cp", "hf://datasets/alice/back/model.bin", tmp_path / "model.bin").code == 0
    assert (tmp_path / "model.bin").read_bytes() == LARGE


def test_others_see_what_they_may(xet: Xet, hub: Hub, bob: str, folder: Path, tmp_path: Path) -> None:
    assert xet("cp", folder, "xet://alice/secret", "--private").code == 0
    assert xet("cp", folder, "xet://alice/open").code == 0
    for stranger in (Xet(tmp_path / "b", hub.endpoint, XET_TOKEN=bob), Xet(tmp_path / "c", hub.endpoint)):
        assert stranger("cp", "xet://alice/open", tmp_path / "out").code == 0
        assert stranger("ls", "xet://alice/secret").code in (3, 5)
        assert stranger("cp", "xet://alice/secret", tmp_path / "none").code in (3, 5)
        assert not (tmp_path / "none").exists()
        before = len(xet("log", "xet://alice/open").stdout.splitlines())
        assert stranger("cp", folder / "run", "xet://alice/open/new").code in (3, 5)
        assert stranger("rm", "xet://alice/open/run").code in (3, 5)
        assert stranger("repo", "delete", "alice/open").code in (3, 5)
        assert stranger("cp", folder, "xet://alice/another").code in (3, 5)
        assert len(xet("log", "xet://alice/open").stdout.splitlines()) == before
        assert "secret" not in stranger("repo", "list").stdout


def test_a_token_is_in_no_message(hub: Hub, tmp_path: Path, folder: Path) -> None:
    secret = "hf_notAtoken123456789"
    xet = Xet(tmp_path / "unused", hub.endpoint, XET_TOKEN=secret)
    for args in (("ls", "xet://alice/open"), ("cp", folder, "xet://alice/x"), ("repo", "create", "alice/x")):
        done = xet(*args)
        assert done.code == 5
        assert secret not in done.stderr + done.stdout


def test_a_token_of_the_hub_goes_to_no_other_server(hub: Hub, alice: str, tmp_path: Path, folder: Path) -> None:
    xet = Xet(tmp_path / "unused", hub.endpoint, HF_TOKEN=alice, HF_ENDPOINT="https://hub.invalid")
    assert xet("cp", folder, "xet://alice/leaked").code == 5, "it was not sent, so nothing is allowed"
    same = Xet(tmp_path / "unused", hub.endpoint, HF_TOKEN=alice, HF_ENDPOINT=hub.endpoint)
    assert same("cp", folder / "run", "xet://alice/not-leaked").code == 0


def test_ctrl_c_leaves_nothing_half(xet: Xet, hub: Hub, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.mkdir()
    for number in range(8):
        (big / f"{number}.bin").write_bytes(splitmix64(number, 8 << 20))
    xet("repo", "create", "alice/interrupted")
    running = subprocess.Popen(
        [*COMMAND, "cp", str(big), "xet://alice/interrupted", "--limit-rate", "8M", "--events"],
        env=xet.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert running.stderr is not None
        while b"xorb_stored" not in running.stderr.readline():
            assert running.poll() is None, "it ended before it was interrupted"
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
        assert running.returncode == 130
    finally:
        running.kill()
        running.communicate(timeout=60)
    assert len(xet("log", "xet://alice/interrupted").stdout.splitlines()) == 1
    assert xet("cp", big, "xet://alice/interrupted").code == 0
    out = tmp_path / "out"
    slow = subprocess.Popen(
        [*COMMAND, "cp", "xet://alice/interrupted", str(out), "--limit-rate", "8M", "--no-cache", "--events"],
        env=xet.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert slow.stderr is not None
        while b"range_fetched" not in slow.stderr.readline():
            assert slow.poll() is None, "it ended before it was interrupted"
        slow.send_signal(signal.SIGINT)
        slow.communicate(timeout=60)
        assert slow.returncode == 130
    finally:
        slow.kill()
        slow.communicate(timeout=60)
    for path in out.iterdir():
        assert path.name == ".gitattributes" or path.read_bytes() == (big / path.name).read_bytes()
