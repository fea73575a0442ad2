"""``xet copy-store``: a backup, the way back, and how it says what it could not copy."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.runner import COMMAND, Ran, Xet, flip_byte
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas, verify_invariants

FILES = {f"file{i}": splitmix64(40 + i, 300_000 + i) for i in range(3)}


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return tmp_path / "backup"


@pytest.fixture
def hashes(xet: Xet, tmp_path: Path) -> dict[str, str]:
    """The hashes of stored files, by their names."""
    found = {}
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
        [record] = xet("put", "--json", tmp_path / name).records
        found[name] = record["hash"]
    return found


def identify(store: Path) -> None:
    """Give a store an id, as new ones have."""
    with EmbeddedCas.open(store) as cas:
        cas.index.change(lambda writer: writer.set_store_id("ab" * 16))
        with cas.index.snapshot() as reader:
            if reader.store_id() == "ab" * 16:
                cas.blobs.put_new(f"stores/{'ab' * 16}", [b"x"])


def summary(ran: Ran) -> dict[str, object]:
    return dict(ran.records[-1])


def test_a_store_is_copied_removed_and_copied_back(
    xet: Xet, tmp_path: Path, backup: Path, hashes: dict[str, str]
) -> None:
    ran = xet("copy-store", xet.store, backup)
    assert (ran.code, ran.stdout) == (0, "copied: 3 xorbs (879.0 KiB), 3 files, 3 grants, 3 shards\n")
    xet.store.rename(tmp_path / "gone")
    assert xet("copy-store", backup, xet.store).code == 0
    for name, data in FILES.items():
        assert xet("cat", hashes[name]).data == data
    assert xet("check", "--read-data").code == 0
    with EmbeddedCas.open(backup) as cas:
        verify_invariants(cas)


def test_a_second_copy_says_that_there_is_nothing_to_do(xet: Xet, backup: Path, hashes: dict[str, str]) -> None:
    identify(xet.store)
    first = summary(xet("copy-store", "--json", xet.store, backup))
    assert first == {
        "xorbs": 3,
        "bytes": first["bytes"],
        "files": 3,
        "shards": 3,
        "grants": 3,
        "holders": 3,
        "accounts": 0,
        "tokens": 0,
        "repositories": 0,
        "git_objects": 0,
        "problems": 0,
        "compared": 9,
        "compared_all": True,
        "dry_run": False,
    }
    again = summary(xet("copy-store", "--json", xet.store, backup))
    assert {name: again[name] for name in ("xorbs", "bytes", "files", "shards", "grants", "holders")} == dict.fromkeys(
        ("xorbs", "bytes", "files", "shards", "grants", "holders"), 0
    )
    assert again["compared_all"]
    assert not summary(xet("copy-store", "--json", "--since-last", xet.store, backup))["compared_all"]


def test_names_come_along_and_are_told(xet: Xet, backup: Path, tmp_path: Path) -> None:
    for command in (("user", "add", "alice"), ("repo", "create", "alice/bert")):
        assert xet(*command).code == 0
    (tmp_path / "a.txt").write_text("one")
    assert xet("cp", tmp_path / "a.txt", "xet://alice/bert/").code == 0
    token = xet("token", "issue", "--scope", "write", "--user", "alice").stdout.strip()
    ran = xet("copy-store", "--dry-run", "--secrets", xet.store, backup)
    assert ran.stdout.endswith("names: 1 account, 1 token, 1 repository, 6 git objects\n")
    ran = xet("copy-store", "--secrets", xet.store, backup)
    assert ran.stdout.endswith("names: 1 account, 1 token, 1 repository, 6 git objects\n")
    assert Xet(backup)("cat", "xet://alice/bert/a.txt").data == b"one"
    assert token.startswith("hf_")
    assert "names" not in xet("copy-store", xet.store, backup).stdout
    assert "1 repository" in Xet(backup)("check").stdout
    assert summary(Xet(backup)("check", "--json"))["repositories"] == 1
    xet("cp", tmp_path / "a.txt", "xet://alice/bert/theirs.txt")
    Xet(backup)("cp", tmp_path / "a.txt", "xet://alice/bert/mine.txt")
    ran = xet("copy-store", "--json", xet.store, backup)
    assert ran.code == 4
    assert (ran.records[0]["object"], summary(ran)["problems"]) == ("repository models/alice/bert", 1)
    assert "delete or move what" in ran.stderr


def test_a_dry_run_makes_no_store(xet: Xet, backup: Path, hashes: dict[str, str]) -> None:
    told = summary(xet("copy-store", "--json", "--dry-run", xet.store, backup))
    assert not backup.exists()
    done = summary(xet("copy-store", "--json", xet.store, backup))
    assert {**told, "dry_run": False} == done
    ran = xet("copy-store", "--dry-run", xet.store, backup)
    assert ran.stdout == "to copy: 0 xorbs (0 B), 0 files, 0 grants, 0 shards\n"


def test_damage_is_told_and_the_rest_is_copied(xet: Xet, backup: Path, hashes: dict[str, str]) -> None:
    bad = xet.xorbs()[0]
    flip_byte(bad, 1000)
    ran = xet("copy-store", "--json", xet.store, backup)
    assert ran.code == 4
    problem, report = ran.records
    assert problem["object"] == f"xorb {bad.name[:64]}"
    [lost] = problem["files"]
    assert (report["problems"], report["files"], report["xorbs"]) == (1, 2, 2)
    assert [error["code"] for error in ran.errors] == ["integrity"]
    kept = [name for name, file in hashes.items() if file != lost]
    other = Xet(backup)
    for name in kept:
        assert other("cat", hashes[name]).data == FILES[name]
    assert other("cat", lost).code == 3
    assert "put the files that are named again" in xet("copy-store", xet.store, backup).stderr


def test_secrets_come_along_where_that_is_asked_for(xet: Xet, backup: Path, hashes: dict[str, str]) -> None:
    token = xet("token", "issue", "--scope", "write").stdout.strip()
    assert token
    assert xet("copy-store", xet.store, backup).code == 0
    assert not (backup / "access").exists()
    assert xet("copy-store", "--secrets", xet.store, backup).code == 0
    for name in ("keys.json",):
        copied = backup / "access" / name
        assert copied.read_bytes() == (xet.store / "access" / name).read_bytes()
        assert copied.stat().st_mode & 0o777 == 0o600
    Xet(backup)("token", "rotate")
    ran = xet("copy-store", "--secrets", xet.store, backup)
    assert ran.code == 2
    assert "access/keys.json of the target is its own" in ran.stderr


@pytest.mark.parametrize(
    ("source", "target", "code", "said"),
    [
        ("nothing", "backup", 3, "there is no store in"),
        ("store", "store", 2, "are one store"),
        ("store", "https://xet.example", 2, "is a server"),
        ("http://xet.example", "backup", 2, "is a server"),
        ("store", "file0", 2, "is a file"),
        ("file0", "backup", 2, "is a file, and no store file"),
    ],
)
def test_places_that_are_no_stores_are_refused(
    xet: Xet, tmp_path: Path, hashes: dict[str, str], source: str, target: str, code: int, said: str
) -> None:
    places = [text if "://" in text else tmp_path / text for text in (source, target)]
    for options in ((), ("--dry-run",)):
        ran = xet("copy-store", *options, *places)
        if options and target == "file0":
            continue
        assert ran.code == code, ran.stderr
        assert said in ran.stderr
    assert not (tmp_path / "backup").exists() or source == "file0"


def test_ctrl_c_says_how_to_go_on(xet: Xet, tmp_path: Path, backup: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for i in range(60):
        (many / str(i)).write_bytes(splitmix64(i, 1_000_000))
        assert xet("put", many / str(i)).code == 0
    process = subprocess.Popen(
        [*COMMAND, "copy-store", "--jobs", "1", str(xet.store), str(backup)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=xet.environment,
    )
    try:
        until = time.monotonic() + 60
        while not list(backup.glob("xorbs/??/*")) and time.monotonic() < until:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    if process.returncode == 0:
        pytest.skip("the copy was quicker than the signal")
    assert process.returncode == 130
    assert "run the same command again" in stderr
    assert list((backup / "tmp").iterdir()) == []
    with EmbeddedCas.open(backup) as cas:
        verify_invariants(cas)
        assert cas.totals().xorbs < 60
    assert xet("copy-store", xet.store, backup).code == 0
    assert json.loads(xet("stat", "--json", "--store", backup).stdout)["files"] == 60
