"""Parsed: the type of an argument, by the function that parses it; and functions for those of several commands."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

from xetstore.errors import UsageError

_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Parsed(click.ParamType):  # type: ignore[type-arg]  # older ones are not generic
    """An argument's type: what a function makes of a text. Its UsageError is reported as it is, hint and all."""

    def __init__(self, parse: Callable[[str], object]) -> None:
        self.name = parse.__name__
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> object:  # noqa: ARG002
        """Parse the text. click's own type of a function would make another error of a ValueError."""
        return self._parse(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        """Names in the store, where one may be meant."""
        from xetstore.cli.completion import complete_name

        return complete_name(ctx, param, incomplete)


def parse_duration(text: str) -> int:
    """An option's type: a time span in seconds.

    >>> [parse_duration(text) for text in ("90", "90s", "15m", "12h", "30d")]
    [90, 90, 900, 43200, 2592000]
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{text[:80]!r} is not a time span", hint="a time span is 90 or 90s, 15m, 12h, 30d")
    return int(match[1]) * _SECONDS[match[2]]
