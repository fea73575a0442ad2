"""``--namespace``: the files of any namespace, for who owns the directory."""

from __future__ import annotations

from pathlib import Path

import pytest

import xetstore
from tests.cli.runner import Xet
from tests.support.live import live_server
from tests.support.strategies import splitmix64
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import NotFoundError, UsageError
from xetstore.testing import make_sample, upload

TEAM, OWN = splitmix64(31, 300_000), splitmix64(32, 200_000)


@pytest.fixture
def files(xet: Xet, tmp_path: Path) -> dict[str, str]:
    """A file of each kind of namespace, by its hash."""
    (tmp_path / "own").write_bytes(OWN)
    (tmp_path / "model.bin").write_bytes(TEAM[:250_000])
    own = xet.put(tmp_path / "own")
    assert xet("cp", tmp_path / "model.bin", "xet://alice/bert/model.bin").code == 0
    team = make_sample(TEAM)
    with EmbeddedCas.open(xet.store) as cas:
        upload(cas.in_namespace("team/models"), team)
    return {
        "default": own,
        "team/models": str(team.file.hash),
        "alice/bert": str(make_sample(TEAM[:250_000]).file.hash),
    }


@pytest.fixture(params=["default", "team/models", "alice/bert", "models/alice/bert"])
def named(request: pytest.FixtureRequest, files: dict[str, str]) -> tuple[str, str]:
    return request.param, files[request.param.removeprefix("models/")]


def test_a_namespace_is_listed_told_and_got(xet: Xet, named: tuple[str, str], tmp_path: Path) -> None:
    namespace, file = named
    [listed] = xet("ls", "--json", "--namespace", namespace).records
    assert listed["hash"] == file
    [told] = xet("stat", "--json", file, "--namespace", namespace).records
    assert (told["hash"], told["size"]) == (file, listed["size"])
    assert xet("get", file, "-o", tmp_path / "copy", "--namespace", namespace).code == 0
    assert (tmp_path / "copy").stat().st_size == listed["size"]
    (tmp_path / "list").write_text(f"{file}  listed\n")
    assert xet("get", "--list", tmp_path / "list", "-o", tmp_path, "--namespace", namespace).code == 0
    assert (tmp_path / "listed").read_bytes() == (tmp_path / "copy").read_bytes()
    assert xet("inspect", "--json", file, "--namespace", namespace).records[0]["hash"] == file
    [usage] = xet("stat", "--json", "--namespace", namespace).records
    assert (usage["files"], usage["logical_bytes"]) == (1, listed["size"])
    assert usage["name"].removeprefix("models/") == namespace.removeprefix("models/")


def test_a_file_of_another_namespace_is_not_there_without_it(xet: Xet, files: dict[str, str], tmp_path: Path) -> None:
    for namespace, file in files.items():
        for other in {None, *files} - {namespace, None if namespace == "default" else namespace}:
            options = () if other is None else ("--namespace", other)
            assert xet("stat", file, *options).code == 3
            assert xet("get", file, "-o", tmp_path / "copy", *options).code == 3
    assert not (tmp_path / "copy").exists()


def test_a_namespace_without_files_is_said_to_have_none(xet: Xet, files: dict[str, str]) -> None:
    ran = xet("ls", "--namespace", "team/typo")
    assert (ran.code, ran.stdout) == (0, "")
    assert "xet stat --by namespace" in ran.stderr
    assert xet("stat", "--namespace", "team/typo").code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "xet://alice/bert"),
        ("stat", "xet://alice/bert/model.bin"),
        ("get", "xet://alice/bert/model.bin", "-o", "out"),
        ("stat", "--by", "namespace"),
    ],
)
def test_names_say_themselves_whose_they_are(xet: Xet, files: dict[str, str], arguments: tuple[str, ...]) -> None:
    ran = xet(*arguments, "--namespace", "team/models")
    assert ran.code == 2
    assert "--namespace" in ran.stderr


def test_a_server_shows_no_namespace_but_that_of_the_token(xet: Xet, files: dict[str, str], tmp_path: Path) -> None:
    with EmbeddedCas.open(xet.store) as cas, live_server(cas, auth="none") as server:
        remote = Xet(tmp_path / "nowhere", server.url)
        for arguments in (
            ("ls",),
            ("stat", files["team/models"]),
            ("get", files["team/models"], "-o", tmp_path / "no"),
        ):
            ran = remote(*arguments, "--namespace", "team/models")
            assert ran.code == 2, arguments
        with xetstore.open(server.url) as store, pytest.raises(UsageError):
            store.in_namespace("team/models")
    with xetstore.open(xet.store) as store:
        assert store.in_namespace("team/models").read(files["team/models"]) == TEAM
        with pytest.raises(NotFoundError):
            store.read(files["team/models"])
