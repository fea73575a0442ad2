"""Gather the sources of the site in docs-out/source: the documents as they lie, so that links between them hold."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "docs-out" / "source"
PAGES = ("*.md", "LICENSE", "docs/**/*.md", "bench/*.md", "bench/*.svg", "deploy/*", "examples/*")


def gather() -> None:
    """Copy what the site is made of; what was there before goes."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for pattern in PAGES:
        for page in ROOT.glob(pattern):
            if page.is_file():
                copy = SOURCE / page.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(page, copy)


if __name__ == "__main__":
    gather()
