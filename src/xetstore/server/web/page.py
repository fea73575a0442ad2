"""The status page as HTML: plain, readable without scripts, and with nothing loaded from anywhere."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING, Final

from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.records import Totals

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:3rem auto;padding:0 1rem}"
    "body{color:#222;background:#fff}"
    "h1{font-size:1.5rem;margin-bottom:.25rem}p{margin:.25rem 0 1rem}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem 0;border-bottom:1px solid #ddd}"
    "th{font-weight:normal}td{text-align:right;font-variant-numeric:tabular-nums}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}a{color:#8bf}th,td{border-color:#444}}"
)
_STYLE_HASH: Final = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

CONTENT_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The rights of a browser with the page: show it, in this style."""


def render(version: str, uptime_seconds: float | None, totals: Totals | None) -> str:
    """The page. Without ``totals`` it says that a store is here, and no more."""
    rows = [] if totals is None else _rows(totals)
    uptime = "" if uptime_seconds is None else f", up for {uptime_text(uptime_seconds)}"
    table = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>\n' for name, value in rows)
    links = "" if totals is None else ' · <a href="metrics">metrics</a>'
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>xetstore</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>xetstore</h1>\n<p>Version {escape(version)}{escape(uptime)}. A Xet store: files as deduplicated,"
        " verified chunks.</p>\n"
        + (f"<table>\n{table}</table>\n" if table else "")
        + f'<p><a href="openapi.json">openapi.json</a>{links}</p>\n</body>\n</html>\n'
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


def _rows(totals: Totals) -> list[tuple[str, str]]:
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


def _saved(before: int, after: int) -> str:
    return f"{size_text(before - after)} ({1 - after / before:.1%})" if after < before else "nothing"
