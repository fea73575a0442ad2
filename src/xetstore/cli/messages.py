"""Messages: every failure as one sentence, with a hint that speaks of the command that was typed."""

from __future__ import annotations

import errno
import os
import re
from difflib import get_close_matches
from typing import Final

import click

from xetstore.errors import UnavailableError, UsageError, XetError, kind_of
from xetstore.platform.threads import refusal

_HINTS: Final[dict[int, str]] = {
    errno.EISDIR: "name a file, not a directory",
    errno.ENOTDIR: "a part of the path is a file, not a directory",
    errno.ENAMETOOLONG: "a system takes no longer one: go into a folder nearer to it, and name it from there",
    errno.ELOOP: "a link leads back to itself",
    errno.EROFS: "the file system is mounted read-only",
    errno.ENOSPC: "make room and run the same command again",
    errno.EDQUOT: "make room within your quota and run the same command again",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}


_OF_THE_HUB: Final = (
    (re.compile(r"Invalid rev id: (.*)", re.DOTALL), "there is no branch, tag or commit {!r}"),
    (re.compile(r"Entry not found: (.*)", re.DOTALL), "there is no file or folder {!r} at this revision"),
    (re.compile(r"A (\w+ repository called .* already exists)", re.DOTALL), "a {}"),
    (re.compile(r"(Repository not found)"), "there is no such repository"),
)


def as_xet_error(error: Exception) -> XetError:
    """Any exception as one that has a sentence, a hint and an exit code."""
    if isinstance(error, XetError):
        return _in_our_words(error)
    if isinstance(error, click.ClickException):
        return _usage_error(error)
    if isinstance(error, OSError) and error.errno is not None:
        # Not os.strerror: the library may have said it better.
        reason = error.strerror or os.strerror(error.errno)
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else None
        if name is not None and reason == os.strerror(errno.ENOENT):
            return kind_of(error)(f"{name} does not exist")
        where = "" if name is None else f"{name}: "
        return kind_of(error)(f"{where}{reason}", hint=_HINTS.get(error.errno))
    if isinstance(error, RuntimeError) and (refused := refusal(error)) is not None:
        return refused
    if isinstance(error, MemoryError):
        return UnavailableError("out of memory")
    return XetError(
        f"unexpected {type(error).__name__}: {error}", hint="run it again with --debug, and report the traceback"
    )


def _usage_error(error: click.ClickException) -> UsageError:
    context: click.Context | None = getattr(error, "ctx", None)
    command = "xet" if context is None else context.command_path
    if not isinstance(error, click.NoSuchOption):
        return UsageError(" ".join(error.format_message().split()).rstrip("."), hint=f"{command} --help says how")
    parameters = () if context is None else context.command.get_params(context)
    options = [name for each in parameters for name in (*each.opts, *each.secondary_opts) if name.startswith("-")]
    close = get_close_matches(error.option_name, options, 1, 0.75)
    meant = f"do you mean {close[0]}? " if close else ""
    return UsageError(f"{command} has no option {error.option_name[:80]}", hint=f"{meant}{command} --help lists them")


def _in_our_words(error: XetError) -> XetError:
    """An error as it is, but for those whose sentences are made for the Hub's own clients."""
    for pattern, words in _OF_THE_HUB:
        if (found := pattern.fullmatch(str(error))) is not None:
            error.args = (words.format(found[1]),)
    return error
