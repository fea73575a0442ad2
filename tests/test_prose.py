"""How documents and docstrings are written, held by a budget for each habit that is to go. A budget may only fall."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = sorted((ROOT / "src").rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")])

DOCSTRINGS_THAT_OPEN_AS_A_QUESTION = 0
"""A docstring opens with a noun or an imperative, a predicate with "True if". Not with What, Whether, How, Who."""
PEOPLE_THAT_ARE_NOT_THERE = {"src": 0, "docs": 0}
"""The subject is a component: client, server, caller, reader. Not nobody, somebody, whoever."""
VAGUE_NUMBERS = {"src": 0, "docs": 0}
"""A bound is "at most N", not "so many"."""

SLACK = 6
"""So that branches can be merged without a conflict at these numbers, a count may be five below its budget."""
WHATS_IN_1000_WORDS = {"docstrings": 9.0, "documents": 4.3}
"""A noun says more than a clause with "what"."""


def docstrings() -> Iterator[tuple[str, str]]:
    """Every text that stands alone as a statement: of modules, classes and functions, and behind constants."""
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value.value


def lines_with(pattern: str, paths: list[Path]) -> list[str]:
    """Each occurrence as path:line: text."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for _ in re.finditer(pattern, line, flags=re.IGNORECASE)
    ]


def hold(found: list[str], budget: int) -> None:
    assert len(found) <= budget, "write these in another way:\n" + "\n".join(found)
    assert len(found) > budget - SLACK, f"there are only {len(found)} left: lower the budget, which may only fall"


def test_docstrings_open_with_a_noun_or_an_imperative() -> None:
    found = [
        f"{name}: {text.splitlines()[0]}"
        for name, text in docstrings()
        if re.match(r"(What|Whether|How|Where|Who|Whoever|Whose)\b", text)
    ]
    hold(found, DOCSTRINGS_THAT_OPEN_AS_A_QUESTION)


@pytest.mark.parametrize(("where", "paths"), [("src", CODE), ("docs", DOCUMENTS)])
def test_the_subject_is_a_component(where: str, paths: list[Path]) -> None:
    hold(lines_with(r"\b(nobody|somebody|whoever)\b", paths), PEOPLE_THAT_ARE_NOT_THERE[where])


@pytest.mark.parametrize(("where", "paths"), [("src", CODE), ("docs", DOCUMENTS)])
def test_a_bound_says_its_number(where: str, paths: list[Path]) -> None:
    hold(lines_with(r"\bso (many|much|long)\b(?! as)", paths), VAGUE_NUMBERS[where])


def test_nouns_are_called_by_their_names() -> None:
    texts = {
        "docstrings": " ".join(text for _, text in docstrings()),
        "documents": " ".join(path.read_text() for path in DOCUMENTS),
    }
    for name, text in texts.items():
        whats = len(re.findall(r"\bwhat\b", text, flags=re.IGNORECASE))
        assert 1000 * whats / len(text.split()) <= WHATS_IN_1000_WORDS[name], name
