""".gitignore: which files of a folder a client leaves out when it uploads that."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Self

from xetstore.errors import UsageError
from xetstore.hub.patterns import MAX_ODD, MAX_ODD_CHARS, MAX_PATTERN_CHARS, Patterns, is_odd

FILE: Final = ".gitignore"
MAX_LINES: Final = 2000
MAX_CHARS: Final = 256 << 10
"""Lines and characters behind these do not count."""
MAX_DEPTH: Final = 64
"""Folders of a path that are looked at."""


class Ignore:
    """The rules of one .gitignore. The last pattern that matches a path decides.

    >>> rules = Ignore.parse("*.log\\n!keep.log\\n/build/\\n")
    >>> rules.ignores("a/x.log"), rules.ignores("keep.log"), rules.ignores("build/a"), rules.ignores("build")
    (True, False, True, False)
    """

    def __init__(self, lines: Sequence[str]) -> None:
        bare = [line.removeprefix("!") for line in lines]
        self._of_folders = Patterns(bare), [not line.startswith("!") for line in lines]
        kept = [
            (pattern, not line.startswith("!"))
            for pattern, line in zip(bare, lines, strict=True)
            if pattern[-1:] != "/"
        ]
        self._of_files = Patterns([pattern for pattern, _ in kept]), [ignores for _, ignores in kept]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a file."""
        lines = [_without_blanks(line.removesuffix("\r")) for line in text.split("\n", MAX_LINES)[:MAX_LINES]]
        return cls([line for line in lines if line and not line.startswith("#")])

    def leaves_out(self, path: str, *, is_folder: bool) -> bool:
        """True if a file, or a folder, is left out for itself. The folders that it is in are not looked at."""
        return _says(self._of_folders if is_folder else self._of_files, path)

    def ignores(self, path: str) -> bool:
        """True if a file is left out: it, or a folder that it is in. Nothing in such a folder is taken back in."""
        at = path.find("/")
        for _ in range(MAX_DEPTH):
            if at < 0:
                break
            if _says(self._of_folders, path[:at]):
                return True
            at = path.find("/", at + 1)
        return _says(self._of_files, path)


def excluding(patterns: Sequence[str]) -> Ignore:
    """The rules of patterns that a user gives, as lines of a .gitignore. UsageError for those that match nothing.

    >>> excluding(["*.tmp", "!keep.tmp", "/build/"]).leaves_out("build", is_folder=True)
    True
    """
    odd = [pattern for pattern in patterns if is_odd(pattern.removeprefix("!"))]
    for pattern in patterns:
        if len(pattern) > MAX_PATTERN_CHARS or not all(pattern.removeprefix("!").strip("/").split("/")):
            raise UsageError(
                f"{pattern[:80]!r} is a pattern that matches nothing", hint="for example *.tmp, build/ or /data/*.bin"
            )
    if len(odd) > MAX_ODD or sum(map(len, odd)) > MAX_ODD_CHARS:
        raise UsageError(
            f"these are more patterns than count: at most {MAX_ODD}, with {MAX_ODD_CHARS} characters",
            hint="names, and endings such as *.tmp, are not counted",
        )
    return Ignore(patterns)


def _says(rules: tuple[Patterns, list[bool]], path: str) -> bool:
    patterns, ignores = rules
    last = patterns.last_match(path)
    return last is not None and ignores[last]


def ignore_of(text: str) -> Ignore:
    """The rules of a text, or of the start of a long one, which is read once."""
    return _read(text[:MAX_CHARS])


@lru_cache(64)
def _read(text: str) -> Ignore:
    return Ignore.parse(text)


def _without_blanks(line: str) -> str:
    """A line without blanks at its end, unless a backslash keeps one."""
    text = line.rstrip(" \t")
    if text.endswith("\\") and len(text) < len(line):
        return text[:-1] + line[len(text)]
    return text
