"""The options for stores over a network: tokens, plain HTTP, limits, the cache."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from xetstore.cli.parsed import Parsed
from xetstore.errors import UsageError
from xetstore.sizes import parse_size

if TYPE_CHECKING:
    from xetstore.remote.tokens import FileToken

F = TypeVar("F", bound=Callable[..., Any])

_LONGEST_INPUT: Final = 1 << 17


@dataclass(slots=True)
class Network:
    """The values of these options. Tokens are no options: the command lines of a machine are there for all to read."""

    token_file: str | None = None
    allow_http: bool = False
    max_memory: int | None = None
    limit_rate: int | None = None
    jobs: int | None = None
    no_cache: bool = False

    def opening(self) -> dict[str, Any]:
        """As arguments of ``open_store``. Raises UsageError for limits that cannot be kept, and for a bad token."""
        from xetstore.limits import Limits

        return {
            "token": self.token(),
            "limits": Limits(max_memory=self.max_memory, rate=self.limit_rate, jobs=self.jobs),
            "cache": False if self.no_cache else None,
            "allow_http": self.allow_http,
        }

    def token(self) -> str | FileToken | None:
        """The token that ``--token-file`` gives; None leaves it to the environment."""
        if self.token_file is None:
            return None
        if self.token_file == "-":  # stdin, and no token
            return sys.stdin.buffer.read(_LONGEST_INPUT).decode("ascii", "replace").strip()
        from xetstore.remote.tokens import FileToken

        return FileToken(Path(self.token_file))


def parse_bytes(text: str) -> int:
    """An option's type: a size in bytes."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(str(error), hint="a size is a number of bytes, or 500k, 10M, 2GiB") from error


def _set(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value:
        assert parameter.name is not None
        setattr(context.obj.network, parameter.name, value)


def _option(name: str, help_text: str, **more: Any) -> Callable[[F], F]:
    return click.option(name, expose_value=False, callback=_set, help=help_text, **more)


_ACCESS: Final = (
    _option(
        "--token-file", "Read the token from FILE, or from stdin; else $XET_TOKEN, $XET_TOKEN_FILE.", metavar="FILE|-"
    ),
    _option("--allow-http", "Speak plain HTTP with other machines too.", is_flag=True),
)
_TRANSFER: Final = (
    _option("--max-memory", "Use no more memory than this.", type=Parsed(parse_bytes), metavar="SIZE"),
    _option(
        "--limit-rate", "Move no more bytes a second than this, each way.", type=Parsed(parse_bytes), metavar="SIZE"
    ),
    _option("--jobs", "Make no more than N requests at a time.", type=click.IntRange(min=1), metavar="N"),
    _option("--no-cache", "Neither use nor fill the cache.", is_flag=True),
)


def access_options(command: F) -> F:
    """Add ``--token-file`` and ``--allow-http``: for every command that may ask a server."""
    for option in reversed(_ACCESS):
        command = option(command)
    return command


def transfer_options(command: F) -> F:
    """Add the limits and the cache too: for every command that moves files."""
    for option in reversed(_TRANSFER):
        command = option(command)
    return access_options(command)
