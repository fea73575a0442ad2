"""Older versions of hf_xet, each in a folder of its own: run this file to install them where the tests look."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

VERSIONS = ("1.1.3", "1.1.10", "1.2.0")
"""The first has routes of its own (/xorb/), the last is the newest that knows neither /v1 nor an answer of /v2."""

FOLDER = Path(__file__).with_name(".old")
COMMAND = "python tests/interop/old_clients.py"


def path_of(version: str) -> Path:
    """Where a version is; whether it is, is another question."""
    return FOLDER / version


def install() -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    for version in VERSIONS:
        if not path_of(version).is_dir():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*command, "--target", str(path_of(version)), f"hf_xet=={version}"], check=True)


if __name__ == "__main__":
    install()
