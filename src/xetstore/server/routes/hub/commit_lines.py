"""The body of a commit: a line of JSON for its message, and one for each operation, read as they are needed.

Bounds are those of one request: lines, bytes of a line, and operations. What an operation does to a repository is for
the hub to say; a path is checked there.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final, Literal

import msgspec

from xetstore.errors import TooLargeError, UnprocessableError, UsageError

MAX_LINE_BYTES: Final = 64 << 20
"""The longest line: a file of 48 MB in base64. Larger files come by Xet or LFS."""
MAX_OPERATIONS: Final = 100_000
MAX_MESSAGE_CHARS: Final = 64 << 10
"""The longest title, and the longest description."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Header:
    """The message of a commit, and the revision that the client takes for the branch's last; None if any will do."""

    title: str
    description: str = ""
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class RegularFile:
    """A file that is in the body. ``old_path`` is removed, if it is given."""

    path: str
    data: bytes
    old_path: str | None = None


@dataclass(frozen=True, slots=True)
class LargeFile:
    """A file that was uploaded before, named by its SHA-256. ``size`` is None where the client does not say it."""

    path: str
    sha256: bytes
    size: int | None = None
    old_path: str | None = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """A file or a folder to delete; a folder for certain if ``is_folder``."""

    path: str
    is_folder: bool


Line = Header | RegularFile | LargeFile | Deletion


class _Keyed(msgspec.Struct, frozen=True):
    key: str
    value: msgspec.Raw


class _HeaderValue(msgspec.Struct, frozen=True, rename="camel"):
    summary: str
    description: str | None = None
    parent_commit: str | None = None


class _FileValue(msgspec.Struct, frozen=True, rename="camel"):
    path: str
    content: str
    encoding: Literal["base64", "utf-8"] = "utf-8"
    old_path: str | None = None


class _LargeValue(msgspec.Struct, frozen=True, rename="camel"):
    path: str
    oid: str
    algo: str = "sha256"
    size: int | None = None
    old_path: str | None = None


class _PathValue(msgspec.Struct, frozen=True):
    path: str


def lines_of(body: IO[bytes], *, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """The lines of a body, the header first. Raises UsageError, UnprocessableError and TooLargeError.

    The last line may lack its line break, and empty ones are passed over.
    """
    number = operations = 0
    has_header = False
    while data := body.readline(max_line_bytes + 1):
        number += 1
        if len(data) > max_line_bytes:
            raise TooLargeError(
                f"line {number} of the commit is longer than {max_line_bytes} bytes",
                hint="send large files by Xet or by LFS",
            )
        if not data.strip():
            continue
        line = _line(data, number)
        if isinstance(line, Header) is has_header:
            raise UsageError("the first line of a commit is its header, and no other is")
        has_header = True
        operations += not isinstance(line, Header)
        if operations > MAX_OPERATIONS:
            raise UnprocessableError(
                f"a commit takes at most {MAX_OPERATIONS} operations", hint="make several commits of it"
            )
        yield line
    if not has_header:
        raise UsageError("the commit has no header", hint='as in {"key": "header", "value": {"summary": "…"}}')


def large_files_of(body: IO[bytes], *, max_line_bytes: int = MAX_LINE_BYTES) -> dict[bytes, int | None]:
    """The SHA-256 that a body names, and the size that it gives each. Lines that are none are left to `lines_of`."""
    found: dict[bytes, int | None] = {}
    while (data := body.readline(max_line_bytes + 1)) and len(data) <= max_line_bytes and len(found) < MAX_OPERATIONS:
        with suppress(msgspec.MsgspecError, ValueError, RecursionError):
            keyed = msgspec.json.decode(data, type=_Keyed)
            if keyed.key == "lfsFile":
                line = _large(msgspec.json.decode(keyed.value, type=_LargeValue))
                found[line.sha256] = line.size
    return found


def _line(data: bytes, number: int) -> Line:
    try:
        keyed = msgspec.json.decode(data, type=_Keyed)
        match keyed.key:
            case "header":
                return _header(msgspec.json.decode(keyed.value, type=_HeaderValue))
            case "file":
                return _file(msgspec.json.decode(keyed.value, type=_FileValue))
            case "lfsFile":
                return _large(msgspec.json.decode(keyed.value, type=_LargeValue))
            case "deletedFile" | "deletedFolder":
                path = msgspec.json.decode(keyed.value, type=_PathValue).path
                is_folder = keyed.key == "deletedFolder" or path.endswith("/")
                return Deletion(path.removesuffix("/"), is_folder)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"line {number} of the commit: {str(error)[:300]}") from None
    raise UsageError(f"line {number} of the commit: {keyed.key[:80]!r} is no operation")


def _header(value: _HeaderValue) -> Header:
    title, description = value.summary, value.description or ""
    if max(len(title), len(description)) > MAX_MESSAGE_CHARS:
        raise UnprocessableError(f"a message has at most {MAX_MESSAGE_CHARS} characters")
    if "\0" in title or "\0" in description:
        raise UnprocessableError("a message holds no NUL")
    return Header(title, description, value.parent_commit or None)


def _file(value: _FileValue) -> RegularFile:
    is_base64 = value.encoding == "base64"
    data = b64decode(value.content, validate=True) if is_base64 else value.content.encode()
    return RegularFile(value.path, data, _other(value.old_path, value.path))


def _large(value: _LargeValue) -> LargeFile:
    if value.algo.lower().replace("-", "") != "sha256" or not _SHA256.fullmatch(value.oid):
        raise UnprocessableError(
            f"{value.oid[:80]!r} is not a SHA-256 ({value.path[:200]})", hint="it has 64 hexadecimal digits"
        )
    if value.size is not None and value.size < 0:
        raise UnprocessableError("a size is not negative")
    return LargeFile(value.path, bytes.fromhex(value.oid), value.size, _other(value.old_path, value.path))


def _other(old: str | None, path: str) -> str | None:
    return None if old == path else old
