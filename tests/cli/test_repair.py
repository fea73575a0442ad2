"""``xet repair``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.runner import COMMAND, Xet, flip_byte
from tests.support.hub_double import hub_double
from tests.support.live import live_server
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas
from xetstore.protocol.hashes import Hash

DATA = splitmix64(5, 500_000)


@pytest.fixture(autouse=True)
def _stored(xet: Xet, tmp_path: Path) -> None:
    (tmp_path / "original").write_bytes(DATA)
    xet.put(tmp_path / "original")
    shutil.copytree(xet.store, tmp_path / "copy")


def test_a_sound_store_has_nothing_to_repair(xet: Xet) -> None:
    ran = xet("repair", "--yes")
    assert (ran.code, ran.stdout) == (0, "nothing to repair\n")


def test_without_yes_it_says_what_it_would_do_and_does_nothing(xet: Xet, tmp_path: Path) -> None:
    [xorb] = xet.xorbs()
    flip_byte(xorb, 123_456)
    before = {path: path.read_bytes() for path in xet.store.rglob("*") if path.is_file() and "index" not in path.name}
    for options in ((), ("--yes", "--dry-run")):
        ran = xet("repair", "--read-data", "--from", tmp_path / "copy", *options)
        assert ran.code == 4
        assert f"to repair: xorb {xorb.name[:64]}: made whole from {tmp_path / 'copy'}" in ran.stdout
        assert "--yes" in ran.stderr
    now = {path: path.read_bytes() for path in xet.store.rglob("*") if path.is_file() and "index" not in path.name}
    assert now == before


@pytest.mark.parametrize("is_bare", [False, True])
def test_it_mends_from_a_directory_and_sets_aside_what_was_damaged(xet: Xet, tmp_path: Path, is_bare: bool) -> None:
    """A copy of the objects alone is enough."""
    if is_bare:
        for path in (tmp_path / "copy").iterdir():
            if path.name != "xorbs":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    [xorb] = xet.xorbs()
    flip_byte(xorb, 123_456)
    damaged = xorb.read_bytes()
    *records, summary = xet("repair", "--yes", "--read-data", "--from", tmp_path / "copy", "--json").records
    assert [set(record) for record in records] == [{"object", "repaired"}, {"quarantined"}]
    assert summary == {"repaired": 1, "quarantined": 1, "left": 0, "hurt": 0, "notes": [], "dry_run": False}
    assert xet("check", "--read-data").code == 0
    xet("get", xet("hash", "--json", tmp_path / "original").records[0]["hash"], "-o", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA
    [listed] = xet("repair", "--list-quarantine", "--json").records
    assert listed["object"] == records[1]["quarantined"]
    assert (xet.store / listed["object"]).read_bytes() == damaged
    ran = xet("repair", "--empty-quarantine")
    assert (ran.code, listed["object"] in ran.stdout) == (0, True)
    assert "1 object would be removed: the same command with --yes does it" in ran.stderr
    assert (xet.store / listed["object"]).exists()
    assert xet("repair", "--empty-quarantine", "--yes", "--json").records == [{"removed": 1, "bytes": len(damaged)}]
    assert not (xet.store / listed["object"]).exists()
    emptied = xet("repair", "--list-quarantine")
    assert (emptied.stdout, emptied.stderr) == ("", "the quarantine is empty\n")


def test_what_is_lost_is_named_with_its_bytes(xet: Xet, tmp_path: Path) -> None:
    assert xet("cp", tmp_path / "original", "xet://alice/bert/model.bin").code == 0
    [xorb] = xet.xorbs()
    flip_byte(xorb, 123_456)
    ran = xet("repair", "--yes", "--read-data", "--json")
    assert ran.code == 4
    assert "stays damaged" in xet("repair").stderr, "because --yes would do nothing"
    [hurt] = [record for record in ran.records if "lost" in record]
    [[start, end]] = hurt["lost"]
    assert 0 <= start < 123_456 < end <= len(DATA)
    assert hurt["names"] == ["xet://alice/bert@main/model.bin"]
    assert xet("cat", hurt["file"], "--range", f"{end}:").data == DATA[end:]
    assert xet("cat", hurt["file"], "--range", f":{start}").data == DATA[:start]
    assert f"lost {start}:{end}  xet://alice/bert@main/model.bin" in xet("repair", "--yes").stdout
    xet.put(tmp_path / "original")
    assert xet("check", "--read-data").code == 0
    assert xet("repair", "--yes").code == 0


def test_it_makes_a_lost_mark_anew(xet: Xet) -> None:
    (xet.store / "format").unlink()
    assert xet("check").code == 3
    ran = xet("repair")
    assert (ran.code, ran.stdout) == (4, "to repair: format: made anew: the index says that this is a store\n")
    assert xet("repair", "--yes").code == 0
    assert xet("check").code == 0


def test_a_line_of_the_log_is_a_warning_of_the_command(xet: Xet, tmp_path: Path) -> None:
    """With ``--json`` each line of stderr is an object."""
    [xorb] = xet.xorbs()
    flip_byte(xorb, 123_456)
    name = xet("hash", "--json", tmp_path / "original").records[0]["hash"]
    environment = {**os.environ, **xet.environment}
    ran = subprocess.run([*COMMAND, "cat", name, "--json"], capture_output=True, env=environment, check=False)
    told = [json.loads(line) for line in ran.stderr.splitlines()]
    assert ran.returncode == 4
    assert "is damaged" in " ".join(each.get("warning", "") for each in told)


def test_two_things_at_once_are_refused(xet: Xet) -> None:
    assert xet("repair", "--list-quarantine", "--empty-quarantine").code == 2


@pytest.mark.parametrize("place", ["a server", "a Hub"])
def test_it_mends_from_a_server_that_has_the_file_in_other_xorbs(
    xet: Xet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "before").write_bytes(splitmix64(6, 300_000))
    with EmbeddedCas.open(tmp_path / "served") as cas, live_server(cas) as live, hub_double(live) as hub:
        served = Xet(tmp_path / "served", live.url, XET_TOKEN=live.token("write"))
        records = served("put", "--json", tmp_path / "before", tmp_path / "original").records  # into one xorb
        hub.add("models", "alice/bert", "main", "model.bin", Hash.parse(records[1]["hash"]), len(DATA))
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", "")
        monkeypatch.setenv("HF_TOKEN_PATH", "/nonexistent")
        (tmp_path / "token").write_text(live.token("read"))
        origin = live.url if place == "a server" else "hf://models/alice/bert"
        token = ("--token-file", tmp_path / "token") if place == "a server" else ()
        [xorb] = xet.xorbs()
        xorb.unlink()
        ran = xet("repair", "--yes", "--from", origin, *token)
        assert (ran.code, ran.stderr) == (0, "")
        assert "made whole from" in ran.stdout
    assert xet("check", "--read-data").code == 0
