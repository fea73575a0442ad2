"""Patterns of paths as git has them, in .gitattributes and .gitignore. Matching takes time linear in the path.

A pattern without a slash, but for one at its end, is about names at any depth; another one about whole paths. ``*`` is
anything but a slash, ``**`` between slashes any folders, ``?`` one character, ``[a-z]`` one of several.
A slash in brackets, which no file has, is the one thing that git reads otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

MAX_PATTERN_CHARS: Final = 512
"""Longer ones match nothing."""
MAX_ODD: Final = 100
"""Patterns of one file that are more than a path, a name, or the end of a name; further ones match nothing."""
MAX_ODD_CHARS: Final = 2048
"""Characters of these. Those behind match nothing, because each path is tried with all of them."""

_ODD: Final = re.compile(r"[*?\[\\]")
_CLASSES: Final = {
    "alpha": "A-Za-z",
    "digit": "0-9",
    "alnum": "A-Za-z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "space": r"\s",
    "blank": r" \t",
    "xdigit": "0-9A-Fa-f",
    "punct": r"!-/:-@\[-`{-~",
}
_NEVER: Final = re.compile(r"(?!)")


class Patterns:
    """The patterns of a file in order, to find the last one that matches a path.

    Most are a path, a name or an ending, and are looked up. What is left is tried, by one expression for all of them
    before one for each.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._known: dict[tuple[str, str], int] = {}
        self._odd: list[tuple[int, re.Pattern[str]]] = []
        left = MAX_ODD_CHARS
        for number, pattern in enumerate(patterns):
            key = _key(pattern)
            if key is not None:
                self._known[key] = number
            elif len(self._odd) < MAX_ODD and len(pattern) <= left:
                left -= len(pattern)
                self._odd.append((number, compile_pattern(pattern)))
        self._any = re.compile("|".join(f"(?:{each.pattern})" for _, each in self._odd) or "(?!)", re.DOTALL)

    def last_match(self, path: str) -> int | None:
        """The number of the last pattern that matches a path, which has no slash at its end; None if none does."""
        name = path.rpartition("/")[2]
        keys = [("path", path), ("name", name)]
        at = name.find(".")
        while at >= 0:
            keys.append(("end", name[at:]))
            at = name.find(".", at + 1)
        last = max((self._known.get(key, -1) for key in keys), default=-1)
        if self._odd and self._any.match(path):
            for number, pattern in reversed(self._odd):
                if number < last:
                    break
                if pattern.match(path):
                    return number
        return last if last >= 0 else None


def is_odd(pattern: str) -> bool:
    """True if a pattern is more than a path, a name or an ending, and so is one of those that count."""
    return _key(pattern) is None


def _key(pattern: str) -> tuple[str, str] | None:
    """The key by which a plain pattern is looked up; None for one that has to be tried."""
    text = pattern.removesuffix("/")
    if text.startswith("*.") and "/" not in text and not _ODD.search(text[2:]):
        return "end", text[1:]
    if not text or "//" in text or _ODD.search(text):
        return None
    return ("path", text.removeprefix("/")) if "/" in text else ("name", text)


@lru_cache(4096)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression for :meth:`re.Pattern.match`, of a path without a slash at its end.

    >>> bool(compile_pattern("*.bin").match("a/b.bin")), bool(compile_pattern("/*.bin").match("a/b.bin"))
    (True, False)
    >>> bool(compile_pattern("saved_model/**/*").match("saved_model/1/x"))
    True
    """
    if len(pattern) > MAX_PATTERN_CHARS:
        return _NEVER
    text = pattern.removesuffix("/")
    is_anchored = "/" in text
    segments = text.removeprefix("/").split("/")
    if not all(segments):
        return _NEVER
    if not is_anchored:
        segments.insert(0, "**")
    try:
        return re.compile(_translate(segments), re.DOTALL)
    except re.error:
        return _NEVER


def _translate(segments: list[str]) -> str:
    """Segments with ``**`` between them: each run of others is looked for at the first place where it fits.

    That is enough, because every run begins and ends at slashes; so nothing is tried twice (atomic groups).
    """
    runs: list[list[str]] = [[]]
    for segment in segments:
        if segment != "**":
            runs[-1].append(_segment(segment))
        elif len(runs) == 1 or runs[-1]:  # `**/**` is no more than one
            runs.append([])
    first, *rest = runs
    if not rest:
        return "/".join(first) + r"\Z"
    parts = ["".join(f"{segment}/" for segment in first)]
    *middle, last = rest
    for run in middle:
        parts.append(r"(?>(?:[^/]+/)*?" + "".join(f"{segment}/" for segment in run) + ")")
    if last:
        # The last run has to be at the end, whatever folders come before it.
        parts.append(r"(?:[^/]+/)*?" + "/".join(last) + r"\Z")
    else:
        parts.append(r".+\Z")  # `a/**` is all that is in a
    return "".join(parts)


def _segment(segment: str) -> str:
    """One segment, which must not reach over a slash. All of its ``*`` but the last take as little as they can."""
    pieces: list[str] = [""]
    at = 0
    while at < len(segment):
        char = segment[at]
        at += 1
        if char == "*":
            if pieces[-1] or len(pieces) == 1:
                pieces.append("")
        elif char == "?":
            pieces[-1] += "[^/]"
        elif char == "[":
            found, at = _bracket(segment, at)
            pieces[-1] += found
        else:
            if char == "\\" and at < len(segment):
                char = segment[at]
                at += 1
            pieces[-1] += re.escape(char)
    first, *rest = pieces
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>[^/]*?{piece})" for piece in middle) + f"[^/]*{last}(?=/|\\Z)"


def _bracket(text: str, at: int) -> tuple[str, int]:
    """The characters in brackets, from behind the first one on; and where they end. Left open, they match nothing."""
    negated = text[at : at + 1] in ("!", "^") and at < len(text)
    at += negated
    inside = ""
    last = ""  # the character that a dash behind it would make the first of a range
    is_first = True
    while at < len(text) and (is_first or text[at] != "]"):
        is_first = False
        if text.startswith("[:", at) and (end := text.find(":]", at + 2)) > 0:
            named = _CLASSES.get(text[at + 2 : end])
            if named is None:
                return "(?!)", len(text)
            inside, last, at = inside + named, "", end + 2
            continue
        is_range = bool(last) and text[at] == "-" and at + 1 < len(text) and text[at + 1] != "]"
        at += is_range
        at += text[at] == "\\" and at + 1 < len(text)
        char = text[at]
        at += 1
        if not is_range:
            inside, last = inside + re.escape(char), char
        elif last <= char:
            inside, last = f"{inside}-{re.escape(char)}", ""
        else:
            last = ""  # no character is in it
    if at >= len(text):
        return "(?!)", len(text)
    return f"(?!/)[{'^' if negated else ''}{inside}]", at + 1
