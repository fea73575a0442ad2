"""A trial of a wheel: installed in a new environment, away from the checkout, and used as its users would."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

SECONDS: Final = 600
"""The time that one step may take: packages are fetched."""

_SMOKE: Final = Path(__file__).with_name("smoke.py")


def try_wheel(wheel: Path, python: str = sys.executable) -> Path:
    """Install a wheel with its server and all else, and run ``smoke.py`` with it. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory(prefix="xetstore-trial-") as place:
        folder = Path(place)
        installed = install(f"xetstore[all] @ {wheel.absolute().as_uri()}", folder / "venv", python)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XET"))}
        words = [str(installed), "-I", str(_SMOKE), str(folder / "work")]
        subprocess.run(words, cwd=folder, env=clean, check=True, timeout=SECONDS)
    return wheel


def install(requirement: str, venv: Path, python: str = sys.executable) -> Path:
    """Install into a new environment; the path of its Python."""
    subprocess.run([python, "-m", "venv", str(venv)], check=True, timeout=SECONDS)
    installed = venv / ("Scripts" if os.name == "nt" else "bin") / "python"
    words = [str(installed), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
    subprocess.run(words, check=True, timeout=SECONDS)
    return installed
