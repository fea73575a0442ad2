"""`xet rm HASH` and `xet undelete`, over a directory and over a server: what goes, what comes back, what is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.runner import Xet
from tests.support.live import live_server
from tests.support.scripted import reply, scripted
from xetstore.cas import EmbeddedCas
from xetstore.hub.buckets import Bucket, DropFile, PutFile
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub
from xetstore.testing import make_sample, random_bytes, upload

UNKNOWN = "ab" * 32


@pytest.fixture(params=["directory", "server"])
def xet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Xet]:
    if request.param == "directory":
        yield Xet(tmp_path / "store")
    else:
        with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas) as live:
            yield Xet(tmp_path / "store", live.url, XET_TOKEN=live.token("write"))


@pytest.fixture
def hashes(xet: Xet, tmp_path: Path) -> list[str]:
    """Two files that are stored."""
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    ran = xet("put", *paths, "--json")
    return [record["hash"] for record in ran.records if "path" in record]


def test_files_go_and_come_back(xet: Xet, hashes: list[str], tmp_path: Path) -> None:
    assert len(hashes) == 2
    ran = xet("rm", *hashes, "--json")
    assert ran.code == 0
    assert [record["hash"] for record in ran.records] == hashes
    for record in ran.records:
        assert set(record) == {"hash", "size", "deleted_at", "until"}
        assert (record["size"], record["until"] - record["deleted_at"]) == (1000, pytest.approx(7 * 24 * 3600))
    assert xet("stat", hashes[0]).code == 3
    ran = xet("undelete", "--list", "--json")
    assert sorted(record["hash"] for record in ran.records) == sorted(hashes)
    ran = xet("undelete", hashes[1], "--json")
    assert (ran.code, ran.records) == (0, [{"hash": hashes[1], "size": 1000}])
    assert xet("get", hashes[1], "-o", tmp_path / "copy").code == 0
    assert (tmp_path / "copy").read_bytes() == b"b" * 1000
    assert [record["hash"] for record in xet("undelete", "--list", "--json").records] == hashes[:1]


def test_lines_for_people(xet: Xet, hashes: list[str]) -> None:
    ran = xet("rm", hashes[0])
    assert (ran.code, ran.stderr) == (0, "1 file deleted: xet undelete gives it back\n")
    line = ran.stdout
    assert line.startswith(f"{hashes[0]}            1,000  until 20")
    assert line.endswith(" UTC\n")
    assert xet("undelete", "--list").stdout == line
    ran = xet("undelete", hashes[0])
    assert (ran.stdout, ran.stderr) == (f"{hashes[0]}            1,000\n", "1 file given back\n")
    ran = xet("undelete", "--list")
    assert (ran.code, ran.stdout, ran.stderr) == (0, "", "")


def test_a_dry_run_deletes_nothing(xet: Xet, hashes: list[str]) -> None:
    ran = xet("rm", "--dry-run", *hashes)
    assert (ran.code, len(ran.stdout.splitlines()), ran.stderr) == (0, 2, "2 files would go: a dry run\n")
    assert xet("stat", hashes[0]).code == 0
    assert xet("rm", "--dry-run", UNKNOWN).code == 3


def test_where_one_is_not_there_none_goes(xet: Xet, hashes: list[str]) -> None:
    for verb in ("rm", "undelete"):
        ran = xet(verb, *hashes, UNKNOWN, "--json")
        assert (ran.code, ran.stdout) == (3, "")
        assert UNKNOWN in ran.errors[0]["message"]
    assert xet("stat", hashes[0]).code == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["rm"], "missing argument"),
        (["rm", "xyz"], "not a hash"),
        (["rm", UNKNOWN, "xet://alice/bert@main/a"], "hashes and names"),
        (["rm", "-r", UNKNOWN], "--recursive is for names"),
        (["rm", "-m", "gone", UNKNOWN], "--message is for names"),
        (["undelete"], "--list"),
        (["undelete", "--list", UNKNOWN], "--list"),
        (["undelete", "xyz"], "not a hash"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, args: list[str], words: str) -> None:
    ran = Xet(tmp_path / "store")(*args)
    assert ran.code == 2
    assert words in ran.stderr.lower() or words in ran.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_that_cannot_delete_is_told_by_one_sentence(tmp_path: Path, status: int) -> None:
    with scripted(lambda connection, seen: reply(status, b"")(connection, seen)) as server:
        for args in (["rm", UNKNOWN], ["undelete", UNKNOWN], ["undelete", "--list"], ["rm", "--dry-run", UNKNOWN]):
            ran = Xet(tmp_path / "store", server.url, XET_TOKEN="t")(*args)
            assert ran.code == 2
            said, hint = ran.stderr.splitlines()
            assert "does not delete files by their hashes" in said
            assert hint.startswith("hint: ")


def test_names_are_given_back(tmp_path: Path) -> None:
    xet = Xet(tmp_path / "store")
    assert xet("repo", "create", "alice/bert").code == 0
    assert xet("branch", "xet://alice/bert", "dev").code == 0
    assert xet("branch", "xet://alice/bert", "-d", "dev").code == 0
    [told] = xet("undelete", "--list", "xet://alice/bert", "--json").records
    assert (told["kind"], told["name"]) == ("branch", "dev")
    assert xet("undelete", "--list", "xet://alice/bert").stdout.startswith("until 2")
    ran = xet("undelete", "xet://alice/bert@main2")
    assert (ran.code, "no branch or tag 'main2' of alice/bert was deleted" in ran.stderr) == (3, True)
    [told] = xet("undelete", "xet://alice/bert@dev", "--json").records
    assert told["ref"] == "refs/heads/dev"
    assert xet("repo", "delete", "alice/bert").code == 0
    assert " repository " in xet("undelete", "--list", "xet://alice/bert").stdout
    assert xet("repo", "create", "alice/bert").code == 0
    ran = xet("undelete", "xet://alice/bert")
    assert ran.code != 0
    assert "--to" in ran.stderr
    assert xet("undelete", "xet://alice/bert", "--to", "alice/again", "--json").records == [{"name": "alice/again"}]
    assert xet("undelete", "xet://alice/bert").code == 3


@pytest.mark.parametrize("place", ["directory", "server"])
def test_a_bucket_and_its_files_are_given_back(tmp_path: Path, place: str) -> None:
    with EmbeddedCas.open(tmp_path / "store") as cas:
        hub = EmbeddedHub(cas)
        bucket = Bucket(hub.create(LOCAL, RepositoryName(Kind.BUCKETS, "alice", "box")))
        view = cas.in_namespace(bucket.repository.row.namespace)
        bucket.change([PutFile("logs/a", upload(view, make_sample(random_bytes(2000, 1))))])
        bucket.change([DropFile("logs/a")])
        with ExitStack() as stack:
            xet = Xet(tmp_path / "store")
            if place == "server":
                live = stack.enter_context(live_server(cas))
                xet = Xet(tmp_path / "store", live.url, XET_TOKEN=live.token("admin"))
            [listed] = xet("undelete", "--list", "xet://buckets/alice/box", "--json").records
            assert (listed["kind"], listed["name"], listed["size"]) == ("file", "logs/a", 2000)
            assert xet("undelete", "xet://buckets/alice/box/logs", "--json").records == [{"path": "logs/a"}]
            hub.delete(LOCAL, Kind.BUCKETS, "alice/box")
            assert xet("undelete", "xet://buckets/alice/box").stdout == "xet://buckets/alice/box\n"
