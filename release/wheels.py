"""``make wheels``: a wheel for each system, in dist/; each is inspected, and tried where it can be installed.

    python -m release.wheels [TARGET…]

Wheels for other systems are linked by Zig, which brings their C libraries: nothing else is needed but rustup.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from release.inspection import faults
from release.trial import try_wheel

ROOT: Final = Path(__file__).parents[1]
DIST: Final = ROOT / "dist"
TOOLS: Final = ROOT / ".cache" / "release" / "bin"


@dataclass(frozen=True)
class Target:
    """A system: its name in Rust, the platform tag of its wheels (as maturin's --compatibility), and who can run it."""

    triple: str
    compatibility: str
    runs: tuple[str, str] | None = None
    """System and machine, as Python's ``platform`` has them, where a wheel is tried."""


TARGETS: Final = (
    Target("x86_64-unknown-linux-gnu", "manylinux2014", ("Linux", "x86_64")),
    Target("aarch64-unknown-linux-gnu", "manylinux2014", ("Linux", "aarch64")),
    Target("x86_64-unknown-linux-musl", "musllinux_1_2"),
    Target("aarch64-unknown-linux-musl", "musllinux_1_2"),
    Target("x86_64-apple-darwin", "off", ("Darwin", "x86_64")),
    Target("aarch64-apple-darwin", "off", ("Darwin", "arm64")),
    # None for Windows: crc-fast is a library of its own too, which cannot be linked with the names of ours.
)


def here() -> Target:
    """The target of this machine."""
    return next(one for one in TARGETS if one.runs == (platform.system(), platform.machine()))


def environment() -> dict[str, str]:
    """Variables with which two builds of one commit are equal, and have no path of this machine in them."""
    cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    moved = {ROOT: "/xetstore", cargo: "/cargo"}
    moved |= dict.fromkeys((cargo / "registry" / "src").glob("*"), "/cargo")  # the last that fits counts
    flags = [f"--remap-path-prefix={path}={name}" for path, name in moved.items()]
    at = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    return {
        **os.environ,
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags),
        "PATH": f"{TOOLS}{os.pathsep}{os.environ['PATH']}",
        "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", at),
    }


def build(target: Target, to: Path, *, cargo_folder: Path | None = None) -> Path:
    """Build the wheel of a target into a folder; its path."""
    subprocess.run(["rustup", "target", "add", target.triple], check=True, stdout=subprocess.DEVNULL)
    before = set(to.glob("*.whl"))
    command: list[str | Path] = [TOOLS / "maturin", "build", "--release", "--strip", "--locked", "--quiet", "--zig"]
    command += ["--target", target.triple, "--compatibility", target.compatibility, "--out", to]
    built = environment()
    if cargo_folder is not None:
        built["CARGO_TARGET_DIR"] = str(cargo_folder)
    subprocess.run(command, cwd=ROOT, env=built, check=True)
    made = [*(set(to.glob("*.whl")) - before), *sorted(to.glob("*.whl"), key=lambda path: -path.stat().st_mtime)]
    return made[0]


def main(names: list[str]) -> int:
    """Build, inspect and try; the exit code."""
    DIST.mkdir(exist_ok=True)
    failed = 0
    for target in [one for one in TARGETS if not names or one.triple in names]:
        try:
            wheel = build(target, DIST)
            found = faults(wheel, ROOT)
            tried = "not run: it is for another system"
            if not found and target == here():
                try_wheel(wheel)
                tried = "installed and run"
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            found, tried, wheel = [str(error)], "", Path(target.triple)
        failed += bool(found)
        print(f"{wheel.name}: {'; '.join(found) or tried}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
