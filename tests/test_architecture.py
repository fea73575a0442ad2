"""docs/architecture.md is the code as it is: folders, names, floors, and the calls of a real get and put in order.

And docs/glossary.md has the words that are used.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import BuiltinFunctionType, FrameType
from typing import Any

import pytest

import xetstore
from tests.support.strategies import splitmix64
from xetstore import _kernel, interfaces

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "xetstore"
TEXT = (ROOT / "docs" / "architecture.md").read_text()
SECTIONS = {part.split("\n", 1)[0]: part for part in TEXT.split("\n## ")[1:]}
NAME = re.compile(r"`([a-z_]+(?:/[a-z_0-9]+)*:[A-Za-z_]+(?:\.[A-Za-z_]+)*)`")
"""A function or class of the code: `module:name`."""


def table_paths() -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", SECTIONS["The tree"], flags=re.MULTILINE)


def test_every_folder_and_every_module_at_the_top_has_its_line() -> None:
    folders = {
        f"{path.relative_to(PACKAGE)}/"
        for path in PACKAGE.rglob("*")
        if path.is_dir() and any(path.glob("*.py")) and path.name != "__pycache__"
    }
    modules = {path.name for path in PACKAGE.glob("*.py*")}
    assert folders | modules <= set(table_paths())


@pytest.mark.parametrize("path", table_paths())
def test_a_path_of_the_tree_is_there(path: str) -> None:
    found = PACKAGE / path if (PACKAGE / path).exists() else ROOT / path
    assert found.is_dir() if path.endswith("/") else found.is_file()


def test_every_path_that_a_sentence_names_is_there() -> None:
    for path in re.findall(r"`([a-z_]+(?:/[a-z_]*)*(?:/|\.pyi?))`", TEXT):
        assert (PACKAGE / path).exists() or (ROOT / path).exists(), path


@pytest.mark.parametrize("name", sorted(set(NAME.findall(TEXT))))
def test_a_function_that_is_named_is_there(name: str) -> None:
    module, _, attributes = name.partition(":")
    found = importlib.import_module(f"xetstore.{module.replace('/', '.')}")
    for attribute in attributes.split("."):
        found = getattr(found, attribute)


@pytest.mark.parametrize(
    ("section", "within"), [("The floors", None), ("The rooms of the server", ["xetstore.server"])]
)
def test_the_floors_are_those_that_are_checked(section: str, within: list[str] | None) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    checked = [contract for contract in contracts if contract["type"] == "layers"]
    [layers] = [contract["layers"] for contract in checked if contract.get("containers") == within]
    [shown] = re.findall(r"^```text\n(.*?)^```$", SECTIONS[section], flags=re.MULTILINE | re.DOTALL)
    assert shown.splitlines() == [layer.replace("xetstore.", "") for layer in layers]


@pytest.mark.parametrize("seam", ["Cas", "BlobStore"])
def test_a_seam_has_the_verbs_that_are_listed(seam: str) -> None:
    verbs = {name for name in vars(getattr(interfaces, seam)) if not name.startswith("_")}
    [item] = re.findall(rf"^- `interfaces:{seam}` (.*?)(?=^- |\Z)", SECTIONS["The seams"], re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`([a-z_]+)`", item)) == verbs


# The two ways


def named_in(section: str) -> list[str]:
    return NAME.findall(SECTIONS[section])


def calls_of(work: Callable[[], object]) -> list[str]:
    """The functions of the package that the work calls, each once, in the order of their first calls."""
    calls: dict[str, None] = {}
    kernel = [value for value in vars(_kernel).values() if isinstance(value, BuiltinFunctionType)]
    package = f"{PACKAGE}/"

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(package):
            module = frame.f_code.co_filename.removeprefix(package).removesuffix(".py")
            calls.setdefault(f"{module}:{frame.f_code.co_qualname}")
        elif event == "c_call" and argument in kernel:
            calls.setdefault(f"_kernel:{argument.__name__}")

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return list(calls)


@pytest.mark.parametrize("section", ["Down: `Store.get`", "Up: `Store.put`"])
def test_a_way_is_what_is_really_called_in_this_order(section: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(splitmix64(5, 3_000_000))
    with xetstore.open(tmp_path / "store") as store:
        if section.startswith("Up"):
            calls = calls_of(lambda: store.put(source))
        else:
            info = store.put(source)
            calls = calls_of(lambda: store.get(info.hash, tmp_path / "copy"))
    named = named_in(section)
    assert len(named) > 15
    missing = [name for name in named if name not in calls]
    assert not missing, "these are named, and not called"
    assert named == sorted(named, key=calls.index), "these are called in another order"


# The glossary

GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
WORDS = re.findall(
    r"^\| ([a-zA-Z, ]+?) \| (.*?) \| (.*?) ?\| (.*?) ?\|$", GLOSSARY.replace("\n| Word ", "\n"), flags=re.MULTILINE
)


def documents() -> dict[str, str]:
    """Everything that is written for readers, the glossary aside: documents without their code, and docstrings."""
    texts = {
        str(path.relative_to(ROOT)): re.sub(
            r"^```.*?^```$|`[^`\n]+`", "", path.read_text(), flags=re.MULTILINE | re.DOTALL
        )
        for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
        if path.name != "glossary.md"
    }
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        docstrings = (
            ast.get_docstring(node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        )
        texts[str(path.relative_to(ROOT))] = "\n".join(filter(None, docstrings))
    return texts


def says(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}s?\b", text, flags=re.IGNORECASE) is not None


def test_the_words_of_the_glossary_are_used() -> None:
    everything = "\n".join(documents().values())
    assert len(WORDS) > 40
    for word in (word for words, *_ in WORDS for word in words.split(", ")):
        assert says(everything, word), word


def test_no_other_word_is_used_for_the_same() -> None:
    others = [other for _, _, others, _ in WORDS for other in others.split(", ") if other]
    assert len(others) > 15
    assert not [(name, other) for name, text in documents().items() for other in others if says(text, other)]


@pytest.mark.parametrize("name", sorted(set(NAME.findall(GLOSSARY))))
def test_a_name_of_the_glossary_is_there(name: str) -> None:
    test_a_function_that_is_named_is_there(name)
