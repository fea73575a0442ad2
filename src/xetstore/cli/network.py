"""The options for stores over a network: tokens, plain HTTP, limits, the cache."""

from __future__ import annotations

import os
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
    from xetstore.cli.config import Defaults
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

    def opening(self, defaults: Defaults, where: Path | str) -> dict[str, Any]:
        """As arguments of ``open_store``, for a store at ``where``. Raises UsageError for limits that cannot be kept,
        and for a bad token.
        """
        from xetstore.limits import Limits

        limits = {key: getattr(self, key) or _default(defaults, key) for key in ("max_memory", "limit_rate", "jobs")}
        return {
            "token": self.token(defaults, where),
            "limits": Limits(max_memory=limits["max_memory"], rate=limits["limit_rate"], jobs=limits["jobs"]),
            "cache": False if self.no_cache else None,
            "allow_http": self.allow_http,
        }

    def token(self, defaults: Defaults, where: Path | str) -> str | FileToken | None:
        """The token for a store; None leaves it to the environment, which the library reads."""
        if self.token_file == "-":  # stdin, and no token
            return sys.stdin.buffer.read(_LONGEST_INPUT).decode("ascii", "replace").strip()
        if self.token_file is not None:
            from xetstore.remote.tokens import FileToken

            return FileToken(Path(self.token_file), "--token-file")
        return _token_of_config(defaults, where) if isinstance(where, str) else None


def _default(defaults: Defaults, key: str) -> int | None:
    given = defaults.get(key)
    return None if given is None else given.value


def _token_of_config(defaults: Defaults, where: str) -> FileToken | None:
    """The token that the user's file has for a server: for the one that the file names, and without one for any. No
    Hub gets it by an ``hf://`` name, and a variable of the environment comes before it.
    """
    from xetstore.opening import scheme_of

    if scheme_of(where) not in ("http", "https"):
        return None
    from xetstore.cli.config import require_private
    from xetstore.remote.network import origin_of
    from xetstore.remote.tokens import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, FileToken

    given, store = defaults.file.get("token_file"), defaults.file.get("store")
    if given is None or os.environ.get(TOKEN_VARIABLE) or os.environ.get(TOKEN_FILE_VARIABLE):
        return None
    try:
        if store is not None and origin_of(store.value) != origin_of(where):
            return None
    except UsageError:  # one of them is no URL of a server; opening says so of this one
        return None
    return FileToken(require_private(given), given.source)


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
