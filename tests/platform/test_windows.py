"""Windows, as far as that can be said without one: its calls are taken away or given, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.servers import Server


def test_files_are_put_and_got_without_what_windows_lacks(tmp_path: Path) -> None:
    with Server(tmp_path / "served", ("--workers", "1")) as server:
        ran = subprocess.run(
            [sys.executable, "-m", "tests.platform.as_windows", str(tmp_path), server.endpoint, server.token()[0]],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=Path(__file__).parents[2],
        )
    assert ran.stdout == "right\n", ran.stderr[-3000:]
