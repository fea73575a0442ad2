"""The site of the documents can be built, and without a warning: no link or name in it leads nowhere."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(
    importlib.util.find_spec("zensical") is None, reason="the site needs its tools: pip install --group docs"
)
def test_the_site_is_built_without_a_warning() -> None:
    for command in (
        [sys.executable, "docs/site.py"],
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"],
    ):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (ROOT / "docs-out" / "site" / "index.html").is_file()
