"""Messages: one sentence, and a hint of the command that was typed, whatever a newcomer types."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import pytest

from tests.cli.runner import Ran, Xet
from tests.cli.test_help import PATHS, context_of, names_of_commands
from tests.support.scripted import reply, scripted
from xetstore.cli.main import cli

LEAVES = [path for path in PATHS if not isinstance(context_of(path).command, click.Group)]
HASH = "ab" * 32


def each(paths: list[tuple[str, ...]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: " ".join(("xet", *path)))


def told(ran: Ran) -> tuple[str, str]:
    """The sentence and the hint of a failure."""
    lines = ran.stderr.splitlines()
    assert ran.code not in (0, 1), ran
    assert "Traceback" not in ran.stderr
    assert "unexpected" not in ran.stderr
    message = next(line for line in lines if line.startswith("xet: ") and not line.startswith("xet: warning"))
    return message.removeprefix("xet: "), next((line[6:] for line in lines if line.startswith("hint: ")), "")


@each([path for path in PATHS if path not in (("help",), ("completion",))])
def test_a_wrong_option_is_answered_with_the_right_one(xet: Xet, path: tuple[str, ...]) -> None:
    command = " ".join(("xet", *path))
    assert told(xet(*path, "--jsno")) == (
        f"{command} has no option --jsno",
        f"do you mean --json? {command} --help lists them",
    )
    assert told(xet(*path, "--qqq")) == (f"{command} has no option --qqq", f"{command} --help lists them")


@each([path for path in LEAVES if any(each.required for each in context_of(path).command.params)])
def test_what_is_missing_is_told_of_the_command_that_was_typed(xet: Xet, path: tuple[str, ...]) -> None:
    message, hint = told(xet(*path))
    assert message.startswith("Missing ")
    assert hint == f"{' '.join(('xet', *path))} --help says how"


@each([path for path in PATHS if path not in (("help",), ("completion",), ("serve",))])
def test_an_option_without_its_value_is_told_of_the_command_that_was_typed(xet: Xet, path: tuple[str, ...]) -> None:
    values = [
        each.opts[0]
        for each in context_of(path).command.params
        if isinstance(each, click.Option) and not each.is_flag and not each.count
    ]
    for option in values:
        message, hint = told(xet(*path, option))
        assert message == f"Option '{option}' requires an argument"
        assert hint == f"{' '.join(('xet', *path))} --help says how"


def arguments_of(path: tuple[str, ...]) -> list[str]:
    """The example in the help of a command."""
    epilog = context_of(path).command.epilog or ""
    return shlex.split(epilog.replace("HASH", HASH).partition(" > ")[0])[2:]


STORES = {
    "missing": "{}/missing",
    "no store": "{}/filled",
    "a file": "{}/filled/file",
    "no scheme": "localhost:8080",
    "no slashes": "https:xet.example",
    "another scheme": "ftp://xet.example",
    "no host": "https://",
}
NEED_NO_STORE = {("diff",), ("inspect",), ("estimate",)}
MAKE_A_STORE = {
    ("put",),
    ("cp",),
    ("repo", "create"),
    ("user", "add"),
    ("org", "create"),
    ("token", "issue"),
    ("token", "admin"),
    ("token", "rotate"),
}


@each([path for path in LEAVES if path not in (("serve",), ("help",), ("completion",), ("copy-store",), ("hash",))])
def test_a_wrong_store_is_one_sentence_of_every_command(
    xet: Xet, tmp_path: Path, path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "file").write_text("here")
    for name in ("models", "ckpt"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("here")
    for name in ("old.bin", "new.bin", "model.safetensors"):
        (tmp_path / name).write_text("here")
    for kind, where in STORES.items():
        ran = xet(*arguments_of(path), "--store", where.format(tmp_path))
        if path not in NEED_NO_STORE and (kind != "missing" or path not in MAKE_A_STORE):
            message, _ = told(ran)
            assert {name for name, _ in names_of_commands(message)} <= {path[0]}, message
    assert not (tmp_path / "localhost:8080").exists()


SENTENCES = [
    ("get abc -o x", "'abc' is too short for a hash", "xet://OWNER/NAME@REVISION/PATH"),
    ("get model.bin -o x", "'model.bin' is not a hash", "64 hexadecimal digits"),
    (
        "get alice/bert/model.bin -o x",
        "'alice/bert/model.bin' is not a hash",
        "do you mean xet://alice/bert/model.bin?",
    ),
    ("get missing/x -o x", "'missing/x' is not a hash", "64 hexadecimal digits"),
    (f"get {HASH} -o", "Option '-o' requires an argument", "xet get --help says how"),
    (f"get {HASH} -o missing/x", "the directory of missing/x does not exist", ""),
    ("get --list missing -o x", "missing does not exist", ""),
    ("put missing", "missing does not exist", ""),
    ("hash missing", "missing does not exist", ""),
    ("estimate missing", "missing does not exist", ""),
    ("diff missing missing", "missing does not exist", ""),
    ("inspect missing", "missing does not exist", ""),
    ("inspect file", "no file of tensors", ""),
    ("ls xet://", "'xet://' names no repository", "xet repo list lists what is there"),
    ("find xet://alice", "'xet://alice' names no repository", "xet repo list alice lists those of this owner"),
    ("cp missing xet://alice/bert", "missing does not exist", ""),
    ("put file --limit-rate 0", "0 bytes per second is no rate", ""),
    ("put file --max-memory 0", "0 B of memory are not enough", "128.0 MiB"),
    ("put file --store localhost:80", "looks like a server", "do you mean http://localhost:80?"),
    ("ls --store https:/xet.example", "looks like a server", "do you mean http://xet.example?"),
    ("cat xet://alice", "'xet://alice' names no repository", "for example xet://alice/bert@main/config.json"),
    ("cat xet://alice/bert@none/x", "there is no branch, tag or commit 'none'", ""),
    ("cat xet://alice/none/x", "there is no repository alice/none", ""),
    ("ls xet://alice/bert/none", "there is no file or folder 'none' at this revision", ""),
    ("log alice/bert@none", "there is no branch, tag or commit 'none'", ""),
    ("log file", "'file' names no repository", "for example xet://alice/bert"),
    ("mv alice/bert/x xet://alice/bert/y", "names no repository", "do you mean xet://alice/bert/x?"),
    ("mv xet://alice/bert/none xet://alice/bert/y", "there is no file or folder 'none' at this revision", ""),
    ("branch alice/bert -d none", "there is no branch, tag or commit 'none'", ""),
    ("repo create bert", "'bert' names no repository", "for example alice/bert"),
    ("repo move alice/none alice/x", "there is no repository alice/none", ""),
    ("repo info alice/none", "there is no repository alice/none", ""),
]


@pytest.mark.parametrize(("line", "message", "hint"), SENTENCES, ids=[line for line, *_ in SENTENCES])
def test_what_a_newcomer_types_is_answered(
    xet: Xet, tmp_path: Path, line: str, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("here")
    xet("repo", "create", "alice/bert")
    said = told(xet(*shlex.split(line)))
    assert message in said[0]
    assert hint in said[1]


def test_a_repository_may_be_named_without_its_scheme_where_nothing_else_is_meant(xet: Xet) -> None:
    assert xet("repo", "create", "alice/bert").code == 0
    for line in ("log alice/bert", "branch alice/bert", "branch alice/bert@main next", "tag alice/bert@next v1"):
        assert xet(*line.split()).code == 0, line
    assert "v1" in xet("tag", "alice/bert").stdout


@pytest.mark.parametrize(
    "line", ["ls", "stat", "log alice/bert", "check", "gc", "token list", "user list", "quota list"]
)
def test_a_default_store_that_is_not_there_is_told_as_one(xet: Xet, tmp_path: Path, line: str) -> None:
    xet.variables |= {"XET_STORE": "", "XDG_DATA_HOME": str(tmp_path / "data")}
    message, hint = told(xet(*line.split()))
    assert message == f"there is no store in {tmp_path / 'data' / 'xetstore'}"
    assert hint == "no store is named, and this is the default: --store or XET_STORE names another"


@pytest.mark.parametrize("line", ["log alice/bert", "ls xet://alice/bert", "repo list", "repo create alice/bert"])
def test_a_server_without_names_is_not_called_the_hub(tmp_path: Path, line: str) -> None:
    with scripted(reply(404)) as server:
        message, hint = told(Xet(tmp_path / "store", server.url)(*line.split()))
    assert message.startswith("the server was to ")
    assert "hf://" not in message
    assert "XET_TOKEN" in hint
    assert "a server that speaks no Hub API has no names" in hint


def test_all_commands_are_looked_at() -> None:
    assert {path[0] for path in LEAVES} == set(cli.commands)


def test_a_folder_where_a_file_belongs_is_named_with_what_to_do(xet: Xet, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "one").write_text("1")
    assert xet("cp", folder, "xet://alice/x").code == 0
    to_folder = xet("get", "xet://alice/x/one", "-o", folder)
    assert f"{folder} is a directory" in to_folder.stderr
    assert f"hint: give the name of a file, such as {folder / 'copy'}" in to_folder.stderr
    assert "xet cp gets all of it" in xet("get", "xet://alice/x", "-o", tmp_path / "x").stderr
    assert "xet://alice/x is a repository, and no file" in xet("cat", "xet://alice/x").stderr
    assert "hf://models/" in xet("get", "https://huggingface.co/a/b/c", "-o", tmp_path / "x").stderr
