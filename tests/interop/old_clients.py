"""Older versions of hf_xet and huggingface_hub, each in a folder of its own: run this file to install them where the
tests look.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

VERSIONS = ("1.1.3", "1.1.10", "1.2.0")
"""The first has routes of its own (/xorb/), the last is the newest that knows neither /v1 nor an answer of /v2."""
HUBS = {"0.36.2": ("1.1.3", "1.2.0"), "1.33.0": ("1.6.0",)}
"""Versions of huggingface_hub, each with those of hf_xet that it is tested with. 1.33.0 takes none before 1.6.0."""

FOLDER = Path(__file__).with_name(".old")
COMMAND = "python tests/interop/old_clients.py"


def path_of(version: str) -> Path:
    """Where a version of hf_xet is; whether it is, is another question."""
    return FOLDER / version


def hub_path_of(version: str) -> Path:
    """Where a version of huggingface_hub is, with all that it needs: its hf_xet is the one of today."""
    return FOLDER / f"huggingface_hub-{version}"


def install() -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    for version in {*VERSIONS, *itertools.chain(*HUBS.values())}:
        _install(path_of(version), f"hf_xet=={version}", "--no-deps")
    for version in HUBS:
        _install(hub_path_of(version), f"huggingface_hub=={version}")


def _install(folder: Path, requirement: str, *options: str) -> None:
    if not folder.is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *options]
        subprocess.run([*command, "--target", str(folder), requirement], check=True)


if __name__ == "__main__":
    install()
