"""Patterns of paths: git itself is asked, and no pattern takes long."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xetstore.hub.attributes import MAX_LINES, MAX_REGULAR_BYTES, MOST_ADDED, Attributes, with_large
from xetstore.hub.ignore import Ignore
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.new_repository import first_files
from xetstore.hub.patterns import Patterns, compile_pattern

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
ENVIRONMENT = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}

PATHS = [
    *("a", "b", "ab", "a.b", "a/b", "a/b/a", "b/a.b", "a/a/b", "b/b/b/a", ".a", "a/.b", "a-b", "[a]", "a/[b", "aab/b"),
    *("*", "a*b", "a/x/b", "a b", "A", "a/b.a/b", "0/a", "!a", "a]"),
]
patterns = st.text(alphabet="aab*?/[]!^-.\\0 ", min_size=1, max_size=9).filter(
    lambda pattern: "/" not in pattern.partition("[")[2]
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "-q", folder], check=True, env=ENVIRONMENT)
    return folder


def git_says(folder: Path, *command: str) -> list[str]:
    """What git answers about PATHS, in fields."""
    asked = "\0".join(PATHS) + "\0"
    done = subprocess.run(["git", "-C", folder, *command], input=asked.encode(), capture_output=True, env=ENVIRONMENT)
    assert b"fatal" not in done.stderr, done.stderr
    return done.stdout.decode().split("\0")[:-1]


@needs_git
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.tuples(patterns, st.sampled_from(("filter=lfs", "-filter", "filter=x"))), max_size=4))
def test_attributes_are_those_of_git(repository: Path, lines: list[tuple[str, str]]) -> None:
    text = "\n".join(f"{pattern.strip()} {said}" for pattern, said in lines)
    (repository / ".gitattributes").write_text(text)
    fields = git_says(repository, "check-attr", "-z", "--stdin", "filter")
    expected = {path for path, value in zip(fields[0::3], fields[2::3], strict=True) if value == "lfs"}
    rules = Attributes.parse(text)
    assert {path for path in PATHS if rules.names_large(path)} == expected, lines


@needs_git
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(patterns, max_size=4))
def test_what_is_ignored_is_what_git_ignores(repository: Path, lines: list[str]) -> None:
    text = "\n".join(lines)
    (repository / ".gitignore").write_text(text)
    (repository / ".gitattributes").unlink(missing_ok=True)
    expected = set(git_says(repository, "check-ignore", "-z", "--stdin", "--no-index"))
    rules = Ignore.parse(text)
    assert {path for path in PATHS if rules.ignores(path)} == expected, lines


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 200 + "b", "a*" * 200, "**/" * 200 + "b", "*a*/" * 100 + "b", "**/a*/" * 100, "a?*" * 100, "[a-z]*" * 100],
)
def test_no_pattern_takes_long(pattern: str) -> None:
    """Where each star could begin anywhere these would take longer than the world is old."""
    many = Patterns([pattern] * 10_000)
    for path in ("a" * 255, "/".join(["a" * 3] * 250), "a/" * 500 + "c"):
        compile_pattern(pattern).match(path)
        many.last_match(path)


def test_long_patterns_count_up_to_a_sum_of_their_characters() -> None:
    """Each of many is quick; a commit tries all of them with each of its paths."""
    few, many = (Patterns([f"{'?' * 400}{number:03}*" for number in range(count)]) for count in (5, 100))
    path = "a" * 400 + "099-x"
    assert few.last_match("a" * 400 + "004-x") == 4
    assert many.last_match(path) is None


def test_the_default_file_makes_large_files_by_name() -> None:
    files = first_files(RepositoryName(Kind.MODELS, "a", "b"), None)
    rules = Attributes.parse(files[".gitattributes"].decode())
    large = ("lfs.bin", "a/b.pkl", "x.parquet", "x.arrow", "x.safetensors", "x.pth", "x.h5", "x.onnx", "x.zip", "x.gz")
    for path in (*large, "x.tar.bz", "saved_model/1/variables", "events.out.tfevents.17", "saved_model/1/2/x"):
        assert rules.is_large(path, 15), path
        assert not rules.is_large(path, 0), path
    for path in ("a.txt", "README.md", "config.json", "train.py", "x.test", "x.text", ".gitattributes", "bin", "saved"):
        assert not rules.is_large(path, MAX_REGULAR_BYTES), path
        assert rules.is_large(path, MAX_REGULAR_BYTES + 1), path


def test_lines_without_an_end_and_quoted_ones() -> None:
    rules = Attributes.parse('"a \\"b\\".bin" filter=lfs\r\n# *.txt filter=lfs\n*.png filter=lfs -text')
    assert rules.names_large('a "b".bin')
    assert rules.names_large("x/y.png")
    assert not rules.names_large("a.txt")


@needs_git
def test_files_that_are_added_are_large_for_git_too_and_no_other(repository: Path) -> None:
    text = "*.bin filter=lfs\nodd.txt -filter"
    for _ in range(2):  # and once there is a line nothing is added
        text = with_large(text, [*PATHS, "odd.txt", "c.bin", 'x "y"/# z.txt', "#a", "!b", "[c", "a\tb", "back\\slash"])
    assert text.count("*.bin") == 1
    assert text.count("odd.txt") == 2
    (repository / ".gitattributes").write_text(text)
    fields = git_says(repository, "check-attr", "-z", "--stdin", "filter")
    assert {path for path, value in zip(fields[0::3], fields[2::3], strict=True) if value == "lfs"} == set(PATHS)
    assert not Attributes.parse(text).names_large("x/b")


def test_many_files_that_are_added_share_a_line() -> None:
    text = with_large("", [f"{number}.txt" for number in range(MOST_ADDED + 1)])
    assert text == "*.txt filter=lfs diff=lfs merge=lfs -text\n"
    long = "\n" * MAX_LINES
    assert with_large(long, ["a"]) == long
