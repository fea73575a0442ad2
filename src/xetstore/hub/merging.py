"""Differences of two revisions of a repository, and one brought into the other."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from xetstore.hub.objects import TreeItem
from xetstore.hub.queries import HubReader, Revision
from xetstore.hub.trees import TreeReader

Change: TypeAlias = tuple[TreeItem | None, TreeItem | None]
"""The file at a path before and after; None where there is none."""

_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")

MAX_FILES: Final = 200
"""Files of a difference that are shown in words."""
MAX_LINES: Final = 500
"""Lines of a file that are compared one by one; the time it takes may grow with their square."""
MAX_BYTES: Final = 64 << 10
"""Bytes of such a file."""
MAX_COMPARED: Final = 40
"""Such files of one difference."""
MAX_ALL_LINES: Final = 4000
"""Lines of all of them: it is a second of work at worst."""


def merge_base(reader: HubReader, repository_id: int, one: Revision, other: Revision) -> Revision | None:
    """The newest revision that is among the first parents of both; None where they have none in common."""
    lines = dict(reader.lines(repository_id, other))
    for line, last in reader.lines(repository_id, one):
        if line in lines:
            return reader.revision_at(repository_id, line, min(last, lines[line]))
    return None


def differences(trees: TreeReader, before: bytes, after: bytes) -> dict[str, Change]:
    """The files in which two root trees differ, by path. Folders that are the same are not read; a level is one query.

    What is a file in one and a folder in the other is a file that goes, and others that come.
    """
    found: dict[str, Change] = {}
    level: list[tuple[str, bytes | None, bytes | None]] = [("", before, after)] if before != after else []
    while level:
        read = trees.trees({oid for _, *pair in level for oid in pair if oid is not None})
        deeper: list[tuple[str, bytes | None, bytes | None]] = []
        for prefix, old_oid, new_oid in level:
            old = read[old_oid] if old_oid is not None else {}
            new = read[new_oid] if new_oid is not None else {}
            for name in sorted(old.keys() | new.keys()):
                was, now = old.get(name), new.get(name)
                if was == now:
                    continue
                below = _folder(was), _folder(now)
                if below != (None, None):
                    deeper.append((f"{prefix}{name}/", *below))
                files = _file(was), _file(now)
                if files[0] != files[1]:
                    found[prefix + name] = files
        level = deeper
    return dict(sorted(found.items()))


def conflicts(ours: Mapping[str, Change], theirs: Mapping[str, Change]) -> list[str]:
    """The paths that two sides changed to different things: a path itself, or a file where the other has a folder."""
    found = {path for path in theirs.keys() & ours.keys() if ours[path][1] != theirs[path][1]}
    for one, other in ((ours, theirs), (theirs, ours)):
        made = {path for path, (_, after) in one.items() if after is not None}
        for path, (_, after) in other.items():
            if after is not None:
                found |= made.intersection(_above(path))
    return sorted(found)


def in_words(reader: HubReader, repository_id: int, changes: Mapping[str, Change]) -> str:
    """Differences as `git diff` shows them, at most :data:`MAX_FILES`; the lines of small text files, and of others
    that they differ.
    """
    shown = dict(list(changes.items())[:MAX_FILES])
    oids = {item.oid for change in shown.values() for item in change if item is not None}
    small = {oid for oid, row in reader.blobs(repository_id, oids).items() if row.size <= MAX_BYTES}
    compared = [path for path, change in shown.items() if all(item is None or item.oid in small for item in change)]
    read = {item.oid for path in compared[:MAX_COMPARED] for item in shown[path] if item is not None}
    texts = {oid: _lines(content) for oid, _, content in reader.objects(repository_id, read)}
    left = MAX_ALL_LINES
    words: list[str] = []
    for path, (before, after) in shown.items():
        sides = _side(before, texts), _side(after, texts)
        if sides[0] is not None and sides[1] is not None:
            left -= len(sides[0]) + len(sides[1])
        words += _file_in_words(path, (before, after), sides if left >= 0 else (None, None))
    return "".join(words)


def _side(item: TreeItem | None, texts: Mapping[bytes, list[str] | None]) -> list[str] | None:
    """The lines of one side of a difference; None if they are not compared."""
    return [] if item is None else texts.get(item.oid)


def _file_in_words(path: str, change: Change, sides: tuple[list[str] | None, list[str] | None]) -> Iterator[str]:
    before, after = change
    yield f"diff --git a/{path} b/{path}\n"
    if before is None and after is not None:
        yield f"new file mode {after.mode:06o}\n"
    elif after is None and before is not None:
        yield f"deleted file mode {before.mode:06o}\n"
    yield f"index {_short(before)}..{_short(after)}\n"
    names = "/dev/null" if before is None else f"a/{path}", "/dev/null" if after is None else f"b/{path}"
    if sides[0] is None or sides[1] is None:
        yield f"Binary files {names[0]} and {names[1]} differ\n"
        return
    for line in difflib.unified_diff(sides[0], sides[1], *names):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _lines(data: bytes) -> list[str] | None:
    """The lines of a text; None for what is none, or too long to be compared."""
    if b"\0" in data:
        return None
    try:
        lines = _LINE.findall(data.decode())
    except UnicodeDecodeError:
        return None
    return lines if len(lines) <= MAX_LINES else None


def _folder(item: TreeItem | None) -> bytes | None:
    return item.oid if item is not None and item.is_folder else None


def _file(item: TreeItem | None) -> TreeItem | None:
    return None if item is None or item.is_folder else item


def _short(item: TreeItem | None) -> str:
    return "0" * 7 if item is None else item.oid.hex()[:7]


def _above(path: str) -> Iterator[str]:
    """The folders that a path is in."""
    while path := path.rpartition("/")[0]:
        yield path
