"""Parsed: the type of an argument, by the function that parses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


class Parsed(click.ParamType):  # type: ignore[type-arg]  # older ones are not generic
    """An argument's type: what a function makes of a text. Its UsageError is reported as it is, hint and all."""

    def __init__(self, parse: Callable[[str], object]) -> None:
        self.name = parse.__name__
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:  # noqa: ARG002
        """Parse the text. click's own type of a function would make another error of a ValueError."""
        return self._parse(value)
