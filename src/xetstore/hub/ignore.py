""".gitignore: which files of a folder a client leaves out when it uploads that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from xetstore.hub.patterns import compile_pattern

FILE: Final = ".gitignore"
MAX_LINES: Final = 2000
MAX_CHARS: Final = 256 << 10
"""Lines and characters behind these do not count."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """The rules of one .gitignore: patterns in order, if each of them ignores, and if it is about folders only.

    >>> rules = Ignore.parse("*.log\\n!keep.log\\n/build/\\n")
    >>> rules.ignores("a/x.log"), rules.ignores("keep.log"), rules.ignores("build/a"), rules.ignores("build")
    (True, False, True, False)
    """

    rules: tuple[tuple[re.Pattern[str], bool, bool], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a file."""
        rules = []
        for line in text.split("\n", MAX_LINES)[:MAX_LINES]:
            pattern = _without_blanks(line.removesuffix("\r"))
            if not pattern or pattern.startswith("#"):
                continue
            ignores = not pattern.startswith("!")
            pattern = pattern.removeprefix("!")
            rules.append((compile_pattern(pattern), ignores, pattern.endswith("/")))
        return cls(tuple(rules))

    def ignores(self, path: str) -> bool:
        """True if a file is left out: it, or a folder that it is in. Nothing in such a folder is taken back in."""
        at = path.find("/")
        while at >= 0:
            if self._says(path[:at], is_folder=True):
                return True
            at = path.find("/", at + 1)
        return self._says(path, is_folder=False)

    def _says(self, path: str, *, is_folder: bool) -> bool:
        for pattern, ignores, for_folders in reversed(self.rules):
            if (is_folder or not for_folders) and pattern.match(path):
                return ignores
        return False


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
