"""Places that cannot be read: each is reported, and the others are stored, estimated and hashed all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import xetstore
from tests.cli.runner import Ran, Xet
from tests.support import rights
from xetstore.cli.context import Settings
from xetstore.cli.local_files import LocalFiles
from xetstore.errors import XetError

VERBS = ["put", "estimate"]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A folder with a file at its start and one at its end."""
    folder = tmp_path / "top"
    (folder / "zz").mkdir(parents=True)
    (folder / "first").write_text("first")
    (folder / "zz" / "last").write_text("last")
    return folder


def told(ran: Ran, top: Path) -> list[str]:
    return [str(Path(record["path"]).relative_to(top)) for record in ran.records]


def made_below(folder: Path, names: Sequence[str]) -> int:
    """Folders in one another, made one by one: together their path may be too long. The last one, opened."""
    at = os.open(folder, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    return at


def write_in(folder: int, name: str) -> None:
    file = os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=folder)
    os.write(file, name.encode())
    os.close(file)
    os.close(folder)


@pytest.fixture
def deep(top: Path) -> Iterator[Path]:
    """A path that is longer than any call of the system takes, with a file at its end and one half way down."""
    names = ["n" * 50] * 200
    write_in(made_below(top, names), "out of reach")
    half = top.joinpath(*names[:40])
    (half / "half way").write_text("half way")
    yield half
    # pytest cannot remove it.
    subprocess.run(["rm", "-r", top / names[0]], check=True, timeout=60)


@pytest.mark.parametrize("verb", VERBS)
def test_a_path_that_is_too_long(xet: Xet, top: Path, deep: Path, verb: str) -> None:
    ran = xet.process(verb, "--json", top)
    assert told(ran, top) == ["first", str((deep / "half way").relative_to(top)), "zz/last"]
    assert [error["code"] for error in ran.errors] == ["usage"]
    assert "too long" in ran.errors[0]["message"]
    assert ran.code == 2


@pytest.mark.parametrize("verb", VERBS)
def test_more_folders_in_one_another_than_calls_in_python(xet: Xet, top: Path, verb: str) -> None:
    write_in(made_below(top, ["d"] * 1200), "far down")
    ran = xet.process(verb, "--json", top)
    subprocess.run(["rm", "-r", top / "d"], check=True, timeout=60)
    assert [path[-8:] for path in told(ran, top)] == ["first", "far down", "zz/last"]
    assert (ran.code, ran.errors) == (0, [])


@pytest.mark.parametrize("verb", VERBS)
def test_links_that_lead_nowhere_or_back(xet: Xet, top: Path, verb: str) -> None:
    (top / "loop").symlink_to("loop")
    (top / "one").symlink_to("two")
    (top / "two").symlink_to("one")
    (top / "broken").symlink_to("nothing")
    (top / "zz" / "up").symlink_to("..")
    (top / "long").symlink_to("n" * 300)
    ran = xet.process(verb, "--json", top)
    assert told(ran, top) == ["first", "zz/last"]
    errors = [error for error in ran.errors if "code" in error]
    assert [error["code"] for error in errors] == ["not_found", *["usage"] * 4]
    assert [error["warning"] for error in ran.errors if "warning" in error] == [
        f"{top / 'zz' / 'up'} is left out: it is a link to a directory"
    ]
    assert ran.code == 3


@pytest.mark.parametrize("verb", [*VERBS, "hash"])
def test_what_is_named_and_cannot_be_read(xet: Xet, top: Path, verb: str) -> None:
    (top / "loop").symlink_to("loop")
    odd = [top / "loop", top / ("n" * 300), Path("/proc/self/mem"), top / "first" / "below", top / ("n" * 5000)]
    ran = xet.process(verb, "--json", *odd, top / "first")
    assert told(ran, top) == ["first"]
    codes = ["usage", "usage", "error", "not_found", "usage"]
    if sys.platform != "linux":
        codes[2] = "not_found"
    assert [error["code"] for error in ran.errors] == codes
    assert ran.code == 2


def test_two_files_of_which_one_cannot_be_read(xet: Xet, top: Path) -> None:
    (top / "loop").symlink_to("loop")
    for odd in (top / "loop", top / ("n" * 300), top / ("n" * 5000), top / "missing"):
        for pair in ((odd, top / "first"), (top / "first", odd)):
            ran = xet.process("diff", "--json", *pair)
            assert (ran.records, len(ran.errors)) == ([], 1)
            assert ran.errors[0]["message"].startswith(str(odd))
            assert ran.code in (2, 3)


@pytest.mark.parametrize("verb", VERBS)
def test_places_that_this_user_may_not_read(xet: Xet, top: Path, tmp_path: Path, verb: str) -> None:
    for name in ("closed", "no way in", "no look"):
        (top / name / "sub").mkdir(parents=True)
        (top / name / "inside").write_text("inside")
    (top / "secret").write_text("secret")
    (top / "secret").chmod(0)
    (top / "closed").chmod(0)
    (top / "no way in").chmod(0o444)
    (top / "no look").chmod(0o311)
    ran = xet.process(
        verb, "--json", "top", "top/closed/inside", "top/closed/sub", cwd=tmp_path, preexec_fn=rights.give_up
    )
    for name in ("closed", "no way in", "no look", "secret"):
        (top / name).chmod(0o755)
    assert told(ran, Path("top")) == ["first", "zz/last"], ran.stderr
    assert {error["code"] for error in ran.errors} == {"denied"}
    named = sorted(error["message"].split(":")[0].split(" cannot")[0] for error in ran.errors)
    assert named == sorted(
        f"top/{name}"
        for name in (
            *("closed", "no look", "no way in/inside", "no way in/sub", "secret"),
            *("closed/inside", "closed/sub"),
        )
    )
    assert ran.code == 5


def test_what_vanishes_after_it_was_listed(top: Path, tmp_path: Path) -> None:
    (top / "gone").write_text("gone")
    files = list(LocalFiles(Settings(store=str(tmp_path / "store"))).of(top))
    (top / "gone").unlink()
    missed: list[tuple[Path, XetError]] = []
    with xetstore.open(tmp_path / "store") as store:
        stored = store.put_many(files, on_error=lambda *what: missed.append(what))
        estimated = store.estimate(files, on_error=lambda *what: missed.append(what))
    assert [report.path.name for report in stored] == [file.path.name for file in estimated.files] == ["first", "last"]
    assert [(path.name, error.code) for path, error in missed] == [("gone", "not_found")] * 2


@pytest.mark.parametrize("name", ["nul\0", "surrogate\ud800"])
def test_a_path_that_no_file_can_have(top: Path, tmp_path: Path, name: str) -> None:
    missed: list[str] = []
    with xetstore.open(tmp_path / "store") as store:
        stored = store.put_many([top / name, top / "first"], on_error=lambda _, error: missed.append(error.code))
        estimated = store.estimate([top / name, top / "first"], on_error=lambda _, error: missed.append(error.code))
    assert [report.path.name for report in stored] == [file.path.name for file in estimated.files] == ["first"]
    assert missed == ["usage", "usage"]


def test_a_folder_that_vanishes_after_it_was_listed(top: Path, tmp_path: Path) -> None:
    (top / "later").mkdir()
    settings = Settings(store=str(tmp_path / "store"))
    files = LocalFiles(settings).of(top)
    found = [next(files).name]
    (top / "later").rmdir()
    assert found + [file.name for file in files] == ["first", "last"]
    assert settings.exit_code == 3
