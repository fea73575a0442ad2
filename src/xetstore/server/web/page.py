"""The status page as HTML: plain, readable without scripts, and with nothing loaded from anywhere."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Final

from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.records import Totals
    from xetstore.server.ops.holdings import Disk, NamespaceSize

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}"
    "body{color:#222;background:#fff}"
    "h1{font-size:1.5rem;margin-bottom:.25rem}h2{font-size:1.2rem;margin:2rem 0 .5rem}p{margin:.25rem 0 1rem}"
    "h3{font-size:1rem;margin:.75rem 0 .25rem}pre{margin:0;padding:.5rem .75rem;overflow-x:auto;background:#f3f3f3}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem 0;border-bottom:1px solid #ddd}"
    "th{font-weight:normal;overflow-wrap:anywhere}td{text-align:right;white-space:nowrap;padding-left:1rem}td{font-variant-numeric:tabular-nums}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}a{color:#8bf}pre{background:#262626}th,td{border-color:#444}}"
)
_STYLE_HASH: Final = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

CONTENT_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The rights of a browser with the page: show it, in this style."""


@dataclass(frozen=True, slots=True)
class Insight:
    """The state of the store, for those who may see it. Times are unix seconds, None of what never was.

    ``totals`` is None while they are counted for the first time, ``namespaces`` for a viewer who may not see them.
    """

    uptime_seconds: float
    totals: Totals | None
    disks: Mapping[str, Disk]
    damaged: int
    last_check: float | None
    oldest_check: float | None
    last_collection: float | None
    namespaces: Sequence[NamespaceSize] | None


def render(version: str, insight: Insight | None, ways: Sequence[tuple[str, str]]) -> str:
    """The page: version, state, and ``ways`` to connect, each a name and lines. Without ``insight`` it says that a
    store is here, and no more.
    """
    uptime = "" if insight is None else f", up for {uptime_text(insight.uptime_seconds)}"
    links = "" if insight is None else ' · <a href="metrics">metrics</a>'
    connect = "".join(f"<h3>{escape(name)}</h3>\n<pre>{escape(lines)}</pre>\n" for name, lines in ways)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>xetstore</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>xetstore</h1>\n<p>Version {escape(version)}{escape(uptime)}. A Xet store: files as deduplicated,"
        " verified chunks.</p>\n"
        + ("" if insight is None else _table(_rows(insight)) + _namespaces(insight.namespaces))
        + (f"<h2>Connect</h2>\n{connect}" if ways else "")
        + f'<p><a href="openapi.json">openapi.json</a>{links}</p>\n</body>\n</html>\n'
    )


def _table(rows: Iterable[tuple[str, str]]) -> str:
    lines = (f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>\n' for name, value in rows)
    return f"<table>\n{''.join(lines)}</table>\n"


def _namespaces(sizes: Sequence[NamespaceSize] | None) -> str:
    if not sizes:
        return ""
    return "<h2>Namespaces</h2>\n" + _table(
        (each.name, f"{each.files:,} files, {size_text(each.logical_bytes)}") for each in sizes
    )


def uptime_text(seconds: float) -> str:
    """A time span in its two largest units.

    >>> uptime_text(59), uptime_text(3700), uptime_text(200_000)
    ('59 s', '1 h 1 min', '2 d 7 h')
    """
    whole = int(seconds)
    units = (("d", whole // 86400), ("h", whole // 3600 % 24), ("min", whole // 60 % 60), ("s", whole % 60))
    first = next((place for place, (_, count) in enumerate(units) if count), 3)
    return " ".join(f"{count} {unit}" for unit, count in units[first : first + 2])


def _rows(insight: Insight) -> list[tuple[str, str]]:
    rows = [("Files", "are being counted")] if insight.totals is None else _sums(insight.totals)
    for part, disk in insight.disks.items():
        rows.append((f"Free disk for the {part}", f"{size_text(disk.free_bytes)} of {size_text(disk.size_bytes)}"))
    damaged = "none" if not insight.damaged else f"{insight.damaged:,}: xet check names them"
    return [
        *rows,
        ("Damaged objects", damaged),
        ("Last check", _time(insight.last_check)),
        ("All objects checked since", _time(insight.oldest_check)),
        ("Last collection", _time(insight.last_collection)),
    ]


def _sums(totals: Totals) -> list[tuple[str, str]]:
    return [
        ("Files", f"{totals.files:,}"),
        ("Logical size of all files", size_text(totals.logical_bytes)),
        ("Unique, after deduplication", size_text(totals.unique_bytes)),
        ("Stored, after compression", size_text(totals.stored_bytes)),
        ("Deduplication saved", _saved(totals.logical_bytes, totals.unique_bytes)),
        ("Compression saved", _saved(totals.unique_bytes, totals.stored_bytes)),
        ("Xorbs", f"{totals.xorbs:,}"),
        ("Chunks", f"{totals.chunks:,}"),
    ]


def _time(seconds: float | None) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC" if seconds else "never"


def _saved(before: int, after: int) -> str:
    return f"{size_text(before - after)} ({1 - after / before:.1%})" if after < before else "nothing"
