"""The header of GGUF, versions 2 and 3: counts, metadata of typed values, a record for each tensor."""

from __future__ import annotations

import struct
from typing import Any, Final

from xetstore.errors import FormatError
from xetstore.tensors.dtypes import GGML
from xetstore.tensors.header import MAX_VALUES, Beginning, Entry, Header, in_order, shown, sized

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
ALIGNMENT_KEY: Final = "general.alignment"
ALIGNMENT: Final = 32
MAX_DIMENSIONS: Final = 4
MAX_NESTING: Final = 8

_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "?", 10: "Q", 11: "q", 12: "d"}
"""The kinds of values that are numbers, as `struct` has them."""


def parse(beginning: Beginning) -> Header:
    """The header of a file that begins with the magic bytes. FormatError where it breaks a rule."""
    return _Parser(beginning).parse()


class _Parser:
    """A place in the header, which goes on as it is read, and the values that it may still have."""

    def __init__(self, beginning: Beginning) -> None:
        self._beginning = beginning
        self._at = 0
        self._left = MAX_VALUES

    def parse(self) -> Header:
        self._take(len(MAGIC))
        version = self._number("I")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            kind = f"big-endian, version {swapped}" if swapped in VERSIONS else f"version {version}"
            raise FormatError("gguf.version", len(MAGIC), f"this GGUF is {kind}; read are 2 and 3, little-endian")
        count, pairs = self._number("Q"), self._number("Q")
        self._spend(count + pairs)
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key, value = self._text(), self._value(self._number("I"), 0)
            if key in metadata:
                raise FormatError("gguf.metadata", self._at, f"{shown(key)} is there twice")
            metadata[key] = value
        entries: dict[str, Entry] = {}
        for _ in range(count):
            entry = self._entry()
            if entry.name in entries:
                raise FormatError("gguf.tensor", self._at, f"{shown(entry.name)} is there twice")
            entries[entry.name] = entry
        return Header("gguf", self._placed(entries, metadata), metadata)

    def _placed(self, entries: dict[str, Entry], metadata: dict[str, Any]) -> tuple[Entry, ...]:
        """The entries, at their places in the file."""
        step = metadata.get(ALIGNMENT_KEY, ALIGNMENT)
        if type(step) is not int or step <= 0 or step & step - 1 or step > 1 << 30:
            raise FormatError("gguf.alignment", self._at, f"{ALIGNMENT_KEY} is no power of two")
        start = -(-self._at // step) * step
        for entry in entries.values():
            if entry.start % step:
                raise FormatError("gguf.tensor", self._at, f"{shown(entry.name)} is not aligned to {step}")
        placed = (Entry(e.name, e.dtype, e.shape, start + e.start, start + e.end) for e in entries.values())
        return in_order(placed, self._beginning.size, "gguf.tensor", self._at)

    def _entry(self) -> Entry:
        """A tensor, at its place behind the header."""
        name = self._text()
        dimensions = self._number("I")
        if dimensions > MAX_DIMENSIONS:
            raise FormatError("gguf.tensor", self._at, f"{shown(name)} has {dimensions} dimensions, more than 4")
        # The first of them is the dense one, unlike that of numpy.
        shape = tuple(reversed(struct.unpack(f"<{dimensions}Q", self._take(8 * dimensions))))
        kind, start = self._number("I"), self._number("Q")
        dtype = GGML.get(kind)
        if dtype is None:
            raise FormatError("gguf.type", self._at, f"the type of {shown(name)} is not known: {kind}")
        nbytes = sized(dtype, shape, "gguf.tensor", self._at, shown(name))
        if shape and shape[-1] % dtype.block:
            raise FormatError("gguf.tensor", self._at, f"a row of {shown(name)} is not whole blocks of {dtype.name}")
        return Entry(name, dtype, shape, start, start + nbytes)

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind != _ARRAY:
            raise FormatError("gguf.metadata", self._at, f"there is no kind {kind} of values")
        if depth == MAX_NESTING:
            raise FormatError("gguf.metadata", self._at, "arrays are nested too deeply")
        kind, count = self._number("I"), self._number("Q")
        self._spend(count)
        if kind in _NUMBERS:
            form = f"<{count}{_NUMBERS[kind]}"
            return list(struct.unpack(form, self._take(struct.calcsize(form))))
        return [self._value(kind, depth + 1) for _ in range(count)]

    def _spend(self, values: int) -> None:
        self._left -= values
        if self._left < 0:
            raise FormatError("gguf.count", self._at, f"there are more than {MAX_VALUES:,} values")

    def _text(self) -> str:
        at = self._at
        try:
            return str(self._take(self._number("Q")), "utf-8")
        except UnicodeDecodeError:
            raise FormatError("gguf.text", at, "a text is not UTF-8") from None

    def _number(self, form: str) -> Any:
        [value] = struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))
        return value

    def _take(self, nbytes: int) -> bytes:
        start, self._at = self._at, self._at + nbytes
        return bytes(self._beginning.upto(self._at, "gguf.header")[start : self._at])
