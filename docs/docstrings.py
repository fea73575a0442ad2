"""Docstrings as Markdown, for the site: roles become code, doctests become fenced blocks."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":[a-z]+:`(?P<short>~?)(?P<path>[^`]+)`")
DOCTEST = re.compile(r"^>>> .*(?:\n(?!\n).+)*", re.MULTILINE)


def as_markdown(docstring: str) -> str:
    """Turn :class:`~package.Name` into `Name`, and an example that starts with >>> into a block."""
    docstring = ROLE.sub(
        lambda role: f"`{role['path'].rpartition('.')[2] if role['short'] else role['path']}`", docstring
    )
    return DOCTEST.sub(lambda example: f"```pycon\n{example[0]}\n```", docstring)


class Docstrings(griffe.Extension):
    """Rewrite each docstring before it is rendered."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Take an object as griffe has just read it."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
