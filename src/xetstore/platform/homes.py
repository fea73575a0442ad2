"""The user's home and the folders in it; and that there may be none, as for a uid that no list of users has."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from xetstore.errors import UsageError, WrongTypeError

_OF_UNIX: Final = {"data": ".local/share", "config": ".config", "cache": ".cache"}
_OF_MACOS: Final = {
    "data": "Library/Application Support",
    "config": "Library/Application Support",
    "cache": "Library/Caches",
}


def expanded(path: Path | str, what: str) -> Path:
    """A path with ``~`` in its place. ``what`` names it in the UsageError that is raised where there is no home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f"{what} is {path}, and this user has no home directory", hint="set HOME, or give the path in full"
        ) from None


def local_path(given: str | os.PathLike[str], role: str = "a path") -> Path:
    """A path that a caller gives. In a text, ``~`` is the user's home, unless there is a file of that name.

    ``role`` names it in the UsageError that is raised where there is no home, or for another type.
    """
    if isinstance(given, Path):
        return given
    if not isinstance(given, str | os.PathLike):
        raise WrongTypeError.of(role, given, "a text or a pathlib.Path")
    text = os.fsdecode(given)
    if text.startswith("~") and isinstance(given, str) and not os.path.lexists(text):
        return expanded(text, role)
    return Path(text)


def user_folder(kind: str, name: str, hint: str) -> Path:
    """The folder of the user's for the ``data``, the ``config`` or the ``cache`` of a program of that name.

    Where XDG_DATA_HOME, XDG_CONFIG_HOME or XDG_CACHE_HOME says, if that is absolute, else where the system has them.
    Windows knows no such variables. Raises UsageError where there is no home.
    """
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", "")
        folder = (Path(local) if Path(local).is_absolute() else _home(hint) / "AppData" / "Local") / name
        return folder / "Cache" if kind == "cache" else folder
    named = os.environ.get(f"XDG_{kind.upper()}_HOME", "")
    if Path(named).is_absolute():
        return Path(named) / name
    return _home(hint) / (_OF_MACOS if sys.platform == "darwin" else _OF_UNIX)[kind] / name


def _home(hint: str) -> Path:
    try:
        home = Path.home()
    except RuntimeError:
        home = Path("~")
    if not home.is_absolute():  # HOME says something else
        raise UsageError("this user has no home directory", hint=hint)
    return home
