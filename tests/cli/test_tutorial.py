"""The tutorial and the guides: their commands run as they stand, and print what they say they do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import free_port

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {path.name: path for path in (DOCS / "tutorial.md", *(DOCS / "guide").glob("*.md"))}
MARK = "\x1e"


def blocks(page: str) -> list[tuple[str, str]]:
    """Fenced blocks in order: (language, content)."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGES[page].read_text(), re.MULTILINE | re.DOTALL)


def steps(page: str) -> Iterator[tuple[str, str]]:
    """Commands of a shell in order, each with what it prints. Python becomes a command, too."""
    for before, (language, content) in zip([("", ""), *blocks(page)], blocks(page), strict=False):
        if language == "console":
            for step in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
                command, _, printed = step.partition("\n")
                yield command, printed
        elif language == "text":
            assert before[0] == "python", "only programs have their output in a block of its own"
            yield f"python - <<'END'\n{before[1]}END", content


def matches(expected: str, printed: str) -> bool:
    """Whether the output is the expected one, where … is anything."""
    pattern = ".*".join(re.escape(part) for part in expected.split("…"))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


@pytest.mark.skipif(not all(map(shutil.which, ("bash", "seq", "sed", "dd"))), reason="needs a shell and its tools")
@pytest.mark.parametrize("page", [name for name in PAGES if list(steps(name))])
def test_a_page_is_true(page: str, tmp_path: Path) -> None:
    if page == "host-for-a-team.md" and not all(map(shutil.which, ("nginx", "openssl", "curl"))):
        pytest.skip("needs nginx, openssl and curl: apt-get install nginx openssl curl")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, arguments in (("xet", "-m xetstore"), ("python", ""), ("hf", "-m huggingface_hub.cli.hf")):
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (commands / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "HOME": str(tmp_path)}
    for name in ("XET_STORE", "XET_TOKEN", "XET_CACHE"):
        environment.pop(name, None)
    environment["XDG_CONFIG_HOME"] = str(tmp_path / "config")

    # As written but for the ports: those of a page may be in use.
    ports = {name: str(free_port()) for name in ("8080", "8443")}
    (tmp_path / "xetstore/deploy").mkdir(parents=True)
    for path in (DOCS.parent / "deploy").glob("nginx*.conf"):
        (tmp_path / "xetstore/deploy" / path.name).write_text(path.read_text().replace("8080", ports["8080"]))
    wanted = [(re.sub("8080|8443", lambda port: ports[port[0]], step), printed) for step, printed in steps(page)]
    script = "trap 'kill $(jobs -p) 2> /dev/null' EXIT\n"
    script += "".join(f"{step}\n(s=$?; printf '{MARK}'; exit $s)\n" for step, _ in wanted)
    done = subprocess.run(
        ["bash"],
        input=script,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    printed = done.stdout.split(MARK)
    assert len(printed) == len(wanted) + 1
    for (step, expected), actual in zip(wanted, printed, strict=False):
        assert matches(expected, actual), f"$ {step}\n{actual}"


def test_there_are_pages_to_run() -> None:
    assert len(list(steps("tutorial.md"))) > 20
    assert {name for name in PAGES if list(steps(name))} > {
        "get-started.md",
        "store-and-restore.md",
        "host-a-server.md",
    }


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_compiles(page: str) -> None:
    for language, content in blocks(page):
        if language == "python":
            compile(content, page, "exec")
