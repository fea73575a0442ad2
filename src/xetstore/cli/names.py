r"""Names of files on lines: escaped so that each stays on its line, disturbs no terminal, and reads back as it was.

A backslash is written ``\\``; ``\n``, ``\r`` and ``\t`` stand for what they do in C; ``\xNN`` is a byte, either a
control character or one that is not UTF-8; ``\uNNNN`` and ``\UNNNNNNNN`` are characters that cannot be seen, as U+202F.
"""

from __future__ import annotations

import codecs
import os
import re
from typing import Final

_SHORT: Final = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LONG: Final = {escape[1]: character for character, escape in _SHORT.items()}
_ESCAPE: Final = re.compile(r"\\(?:([\\nrt])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))?")
SHA256: Final = re.compile(r"[0-9a-f]{64}  ")
"""The text between a hash and a path in the lines of ``xet hash --sha256``."""

_BYTES: Final = 0xDC00
"""The characters by which Python keeps bytes of a name that are not UTF-8: 0x80 is U+DC80 (PEP 383)."""

PRINTED_ERRORS: Final = "xetstore.names"
"""The error handler of a stream that cannot write every character: what it cannot write is escaped too."""


def escaped(name: str) -> str:
    r"""A name in printable characters only, from which :func:`unescaped` makes the name again.

    >>> print(escaped("caf\u00e9\n\x1b[2J"), escaped(r"a\b"), escaped("\udcff\u202f"))
    café\n\x1b[2J a\\b \xff\u202f
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(character if _is_plain(character) else _escape(character) for character in name)


def unescaped(text: str) -> str:
    r"""The name that :func:`escaped` wrote. Raises ValueError for an escape that is none, and for no name.

    >>> unescaped(r"a\\b\n") == "a\\b\n", unescaped(r"caf\xc3\xa9")
    (True, 'café')
    """
    return name_of(_ESCAPE.sub(_meaning, text) if "\\" in text else text)


def name_of(text: str) -> str:
    """A name in the one form in which Python has it. Raises ValueError for a text that names no file."""
    if "\0" in text:
        raise ValueError("no name holds a NUL")
    return os.fsdecode(os.fsencode(text))


def entry_line(what: str, name: str) -> str:
    """A line of a list. The name does not look as if what is before it went on: a SHA-256 may stand there.

    >>> print(entry_line("f" * 64, "0" * 64 + "  name")[66:])
    0000000000000000000000000000000000000000000000000000000000000000\\x20 name
    """
    text = escaped(name)
    return f"{what}  {text[:64]}\\x20{text[65:]}" if SHA256.match(text) else f"{what}  {text}"


def printable(text: str) -> str:
    r"""A sentence that cannot disturb a terminal or a line-based reader, whatever names are in it.

    Its backslashes stay as they are: it is not read back.

    >>> print(printable("caf\u00e9\n\x1b[2J"))
    café\n\x1b[2J
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def _is_plain(character: str) -> bool:
    return character != "\\" and character.isprintable()


def _escape(character: str) -> str:
    number = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if number < 0x80 or _BYTES + 0x80 <= number <= _BYTES + 0xFF:
        return f"\\x{number & 0xFF:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _meaning(escape: re.Match[str]) -> str:
    short, byte, *numbers = escape.groups()
    if short is not None:
        return _LONG[short]
    if byte is not None:
        number = int(byte, 16)
        return chr(number if number < 0x80 else _BYTES + number)
    for digits in numbers:
        if digits is not None:
            return chr(int(digits, 16))
    raise ValueError("a backslash that starts no escape")


def _escape_unwritable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_escape, error.object[error.start : error.end])), error.end


codecs.register_error(PRINTED_ERRORS, _escape_unwritable)
