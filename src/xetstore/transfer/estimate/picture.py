"""The picture of an estimate as SVG: a strip for each file, each part of it in the colour of where it is known from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from html import escape
from itertools import groupby
from typing import Final, NamedTuple

from xetstore.sizes import size_text


class Kind(StrEnum):
    """The origin of bytes of a file: nowhere, earlier in it, another of the files, the store."""

    NEW = "new"
    REPEATED = "repeated"
    SHARED = "shared"
    STORED = "stored"


# Distinguishable for the colour-blind too.
COLOURS: Final = {
    Kind.NEW: "#d55e00",
    Kind.REPEATED: "#56b4e9",
    Kind.SHARED: "#0072b2",
    Kind.STORED: "#009e73",
}
MOST_STRIPS: Final = 500

_MEANINGS: Final = {
    Kind.NEW: "new",
    Kind.REPEATED: "seen before in this file",
    Kind.SHARED: "in another of the files",
    Kind.STORED: "in the store",
}
_NOT_IN_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WIDTH: Final = 1000
_MARGIN: Final = 10
_BAR: Final = 22
_ROW: Final = 52


class Strip(NamedTuple):
    """A file: its name, its size and how much of it is new, in bytes, and a kind for each of equal parts of it."""

    name: str
    size: int
    new_bytes: int
    picture: Sequence[Kind]


def draw_svg(strips: Sequence[Strip], total: str, nbytes: Mapping[Kind, int]) -> str:
    """A document with a strip for each of the first 500 files; the rest is counted.

    ``total`` is its first line; ``nbytes`` are the bytes of each kind in all files, which the legend tells.
    """
    shapes = [_text(_MARGIN, 22, total, weight="bold"), _legend(36, nbytes)]
    top = 66
    for strip in strips[:MOST_STRIPS]:
        shapes.append(_text(_MARGIN, top + 14, _shortened(strip.name)))
        note = f"{size_text(strip.size)}, {size_text(strip.new_bytes)} new"
        shapes.append(_text(_MARGIN + _WIDTH, top + 14, note, anchor="end"))
        shapes += _bar(strip, top + 20)
        top += _ROW
    if len(strips) > MOST_STRIPS:
        shapes.append(_text(_MARGIN, top + 14, f"and {len(strips) - MOST_STRIPS} more files"))
        top += _ROW // 2
    width, height = _WIDTH + 2 * _MARGIN, top + _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="13"><title>What an upload would save</title>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(shapes)}</svg>\n'
    )


def _legend(top: int, nbytes: Mapping[Kind, int]) -> str:
    shapes = []
    for i, (kind, meaning) in enumerate(_MEANINGS.items()):
        left = _MARGIN + i * 255
        shapes.append(
            _rect(left, top, 14, 14, COLOURS[kind]) + _text(left + 20, top + 12, f"{size_text(nbytes[kind])} {meaning}")
        )
    return "".join(shapes)


def _bar(strip: Strip, top: int) -> list[str]:
    if not strip.picture:
        return [_rect(_MARGIN, top, _WIDTH, _BAR, "#eeeeee")]
    shapes = []
    cell = _WIDTH / len(strip.picture)
    at = 0
    for kind, cells in groupby(strip.picture):
        count = sum(1 for _ in cells)
        shapes.append(_rect(_MARGIN + at * cell, top, count * cell, _BAR, COLOURS[kind]))
        at += count
    return shapes


def _shortened(name: str) -> str:
    return name if len(name) <= 100 else f"…{name[-99:]}"


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.2f}" y="{y:g}" width="{width:.2f}" height="{height:g}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    # A file name may hold what no XML document may.
    shown = escape(_NOT_IN_XML.sub("\ufffd", text))
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-weight="{weight}">{shown}</text>'
