""".gitattributes: which files of a repository are large files, by their path and size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Self

from xetstore.hub.patterns import Patterns

FILE: Final = ".gitattributes"
MAX_REGULAR_BYTES: Final = 10 << 20
"""Longer files are large ones, whatever their path: git would keep each version of them whole."""
MAX_LINES: Final = 2000
MAX_CHARS: Final = 256 << 10
"""Lines and characters behind these do not count."""

MOST_ADDED: Final = 200
"""Paths that one commit adds each as a line of its own; of more than that, names with the same ending share a line."""

LARGE: Final = "filter=lfs diff=lfs merge=lfs -text"
"""The attributes of a large file, as git-lfs writes them."""

_SPECIAL: Final = re.compile(r"[\\*?\[\]]")
_ATTRIBUTE: Final = re.compile(r"[-!]?[A-Za-z0-9_.][A-Za-z0-9_.-]*(=.*)?")
_LINE: Final = re.compile(r'[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^ \t]+))[ \t]+(.*)')


class Attributes:
    """The rules of one .gitattributes. The last pattern that matches a path decides.

    >>> rules = Attributes.parse("*.png filter=lfs\\nsmall.png -filter")
    >>> rules.is_large("a/b.png"), rules.is_large("small.png"), rules.is_large("b.bin")
    (True, False, False)
    """

    def __init__(self, rules: Sequence[tuple[str, bool]]) -> None:
        self._are_large = [is_large for _, is_large in rules]
        self._patterns = Patterns([pattern for pattern, _ in rules])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a file. Lines that say nothing of LFS, or nothing at all, do not count."""
        rules = []
        for line in text.split("\n", MAX_LINES)[:MAX_LINES]:
            found = _LINE.fullmatch(line.rstrip("\r \t"))
            if found is None or line.lstrip(" \t").startswith(("#", "[attr]", "!")):
                continue
            pattern = found[2] if found[1] is None else re.sub(r"\\(.)", r"\1", found[1])
            attributes = found[3].split()
            if not all(_ATTRIBUTE.fullmatch(attribute) for attribute in attributes):
                continue  # git takes no part of such a line
            for attribute in attributes:
                name, _, value = attribute.partition("=")
                if name.lstrip("-!") == "filter" and not pattern.endswith("/"):
                    rules.append((pattern, name == "filter" and value == "lfs"))
        return cls(rules)

    def names_large(self, path: str) -> bool:
        """True if the path alone makes it a large file."""
        last = self._patterns.last_match(path)
        return last is not None and self._are_large[last]

    def is_large(self, path: str, size: int = 1) -> bool:
        """True if a file of ``size`` bytes is a large one. An empty one never is, because clients say so themselves."""
        return size > 0 and (size > MAX_REGULAR_BYTES or self.names_large(path))


def attributes_of(text: str) -> Attributes:
    """The rules of a text, or of the start of a long one, which is read once."""
    return _read(text[:MAX_CHARS])


@lru_cache(64)
def _read(text: str) -> Attributes:
    return Attributes.parse(text)


def with_large(text: str, paths: Sequence[str]) -> str:
    """The file with lines for those of these paths that it does not make large files yet, so that git clients agree.

    >>> with_large("*.bin filter=lfs", ["a.bin", "notes 1.txt"]).splitlines()[1]
    '"/notes 1.txt" filter=lfs diff=lfs merge=lfs -text'
    """
    rules = attributes_of(text)
    missing = [path for path in dict.fromkeys(paths) if not rules.names_large(path)]
    if not missing or text.count("\n") > MAX_LINES - MOST_ADDED:
        return text
    patterns = dict.fromkeys(map(_pattern_of_all if len(missing) > MOST_ADDED else _pattern_of, missing))
    lines = "".join(f"{_quoted(pattern)} {LARGE}\n" for pattern in [*patterns][:MOST_ADDED])
    return text + "\n" * (text != "" and not text.endswith("\n")) + lines


def _pattern_of(path: str) -> str:
    """The pattern that means one path and no other."""
    text = _SPECIAL.sub(r"\\\g<0>", path)
    return text if "/" in text else f"/{text}"


def _pattern_of_all(path: str) -> str:
    """The pattern of all files that end as this one does."""
    _, dot, ending = path.rpartition("/")[2].rpartition(".")
    return "*." + _SPECIAL.sub(r"\\\g<0>", ending) if dot and ending else _pattern_of(path)


def _quoted(pattern: str) -> str:
    if re.search(r"[ \t\"\\]", pattern) or pattern.startswith(("#", "!", "[")):
        escaped = pattern.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return pattern
