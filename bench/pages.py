"""Pages with tables that a benchmark writes, each between `<!-- NAME -->` and `<!-- end -->`; their words stay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def fill(page: Path, tables: Mapping[str, str]) -> None:
    """Replace the tables of these names. Nothing is written unless the page has a place for each."""
    text = page.read_text()
    for name, table in tables.items():
        head, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, tail = rest.partition("<!-- end -->\n")
        if not end:
            raise SystemExit(f"{page.name} has no place for the table {name}")
        text = head + mark + table + end + tail
    page.write_text(text)
