"""The user's defaults: variables of the environment, and ``config.toml``. An option of a command comes before both.

A file is read where it is first needed, and a mistake in it is told with its line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

from xetstore.errors import AccessDeniedError, UsageError, kind_of
from xetstore.limits import MIN_MEMORY_BYTES
from xetstore.platform.homes import expanded, user_folder
from xetstore.sizes import parse_size, size_text

MAX_FILE_BYTES: Final = 64 << 10
"""The longest file: what is longer is something else."""


class Given(NamedTuple):
    """A value, and the place that it is from, as a sentence names it."""

    value: Any
    source: str


class Setting(NamedTuple):
    """A default that the user may give in two ways. ``parse`` makes the value of a text or, in the file, a number."""

    key: str
    option: str
    variable: str
    meaning: str
    parse: Callable[[object], Any]


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return value


def _count(value: object) -> int:
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,9}", str(value)) or not int(str(value)):
        raise ValueError
    return int(str(value))


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError
    size = parse_size(str(value))
    if not size:
        raise ValueError
    return size


def _memory(value: object) -> int:
    if (size := _size(value)) < MIN_MEMORY_BYTES:
        raise ValueError
    return size


SETTINGS: Final = (
    Setting("store", "--store", "XET_STORE", "a text, a store as --store takes it", _text),
    Setting("token_file", "--token-file", "XET_TOKEN_FILE", "a text, the path of a file", _text),
    Setting("jobs", "--jobs", "XET_JOBS", "a whole number from 1 on", _count),
    Setting(
        "max_memory", "--max-memory", "XET_MAX_MEMORY", f"a size of at least {size_text(MIN_MEMORY_BYTES)}", _memory
    ),
    Setting("limit_rate", "--limit-rate", "XET_LIMIT_RATE", "a size, such as 500k, 10M or 2GiB", _size),
)
"""All that can be given as a default. In the environment a token itself can be given too, as XET_TOKEN."""


class Defaults:
    """The defaults of one command line."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    @cached_property
    def path(self) -> Path | None:
        """The path of the file, which need not be there; None for a user without a home."""
        try:
            return user_folder("config", "xet", "") / "config.toml"
        except UsageError:
            return None

    @cached_property
    def file(self) -> dict[str, Given]:
        """The settings of the file by their keys. Raises UsageError for a mistake, and what reading it raises."""
        return {} if self.path is None else read_config(self.path)

    def get(self, key: str) -> Given | None:
        """A default: of the environment, else of the file. Raises UsageError for what is none."""
        setting = next(each for each in SETTINGS if each.key == key)
        if not (text := self._environment.get(setting.variable, "")):
            return self.file.get(key)
        try:
            return Given(setting.parse(text), setting.variable)
        except ValueError:
            raise UsageError(
                f"{setting.variable} is {text[:80]!r}", hint=f"{setting.option} takes {setting.meaning}"
            ) from None


def read_config(path: Path) -> dict[str, Given]:
    """The settings of a file by their keys; none where it is not there. Raises UsageError with the line of a mistake.

    A relative path in it starts at its folder.
    """
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
        text = data.decode() if len(data) <= MAX_FILE_BYTES else "="
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise kind_of(error)(f"{path} cannot be read: {reason}", hint="it holds defaults of xet: mend it") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(f"line {line} of {path} is not UTF-8", hint="mend or remove the file") from None
    import tomllib

    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at (?:line (\d+)|end of document)", str(error))
        line = int(where[1]) if where and where[1] else text.count("\n") + 1
        raise UsageError(
            f"line {line} of {path} is not TOML: {str(error).partition(' (at')[0]}",
            hint='a line is KEY = VALUE, for example store = "/data/xet"',
        ) from None
    return {key: _setting(path, text, key, value) for key, value in given.items()}


def _setting(path: Path, text: str, key: str, value: object) -> Given:
    """A setting of a file, checked."""
    source = f"line {_line_of(key, text)} of {path}"
    setting = next((each for each in SETTINGS if each.key == key), None)
    if setting is None:
        keys = [each.key for each in SETTINGS]
        close = get_close_matches(key, keys, 1)
        hint = f"do you mean {close[0]}?" if close else f"there are {', '.join(keys)}"
        raise UsageError(f"{source}: there is no setting {key[:80]!r}", hint=hint)
    try:
        parsed = setting.parse(value)
    except ValueError:
        raise UsageError(f"{source}: {key} is {setting.meaning}, and not {str(value)[:80]!r}") from None
    if key == "store":
        _refuse_address(parsed, source)
    is_path = key == "token_file" or (key == "store" and "://" not in parsed)
    return Given(str(path.parent / expanded(parsed, key)) if is_path else parsed, source)


def _refuse_address(text: str, source: str) -> None:
    from xetstore.opening import refuse_address

    try:
        refuse_address(text)
    except UsageError as error:
        raise UsageError(f"{source}: {error}", hint=error.hint) from None


def _line_of(key: str, text: str) -> int:
    """The number of the line at which a key of the file stands, or its table."""
    pattern = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[\]=.]""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def require_private(given: Given) -> Path:
    """The path of a token file that ``config.toml`` names. Raises AccessDeniedError if others may read it."""
    path = Path(given.value)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise kind_of(error)(f"{given.source}: the token file {path} cannot be read: {reason}") from None
    if os.name == "posix" and mode & 0o077:
        raise AccessDeniedError(
            f"{given.source}: others than its owner may read or write the token file {path}"
            f" (its mode is {mode & 0o777:03o})",
            hint=f"chmod 600 {path}; if it has been read, replace the token",
        )
    return path
