"""The user's home: where it is, and that there may be none, as for a uid without an entry in the list of users."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from xetstore.errors import UsageError, WrongTypeError


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


def user_folder(find: Callable[[], Path], hint: str) -> Path:
    """A folder of the user's, as a function of platformdirs finds it. Raises UsageError where there is no home."""
    try:
        folder = find()
    except RuntimeError:
        folder = Path("~")
    if not folder.is_absolute():  # as some versions have it
        raise UsageError("this user has no home directory", hint=hint)
    return folder
