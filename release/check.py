"""``make release-check``: everything that a release needs, and no release.

Each step says what it did and how long that took; the first one that fails ends it. What it makes is in ``dist/``: the
wheel of this system, the sdist, and the list of licences.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from release.inspection import faults
from release.trial import SECONDS, install, try_wheel
from release.wheels import DIST, ROOT, TOOLS, build, environment, here

_VERSION: Final = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?")
# Beginnings of the secrets that services give out, and of private keys.
_SECRETS: Final = (
    r"hf_[A-Za-z0-9]{34}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|pypi-AgEI[A-Za-z0-9_-]{20}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----$"
)

_MADE_UP: Final = "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"
"""The token of an example."""


class Refused(Exception):  # noqa: N818  # it is the outcome of a step, and shown as that
    """A step found something that a release must not have."""


def versions() -> dict[str, str]:
    """The version, by the file that says it."""
    kernel = tomllib.loads((ROOT / "kernel" / "Cargo.toml").read_text())["package"]["version"]
    lock = tomllib.loads((ROOT / "kernel" / "Cargo.lock").read_text())["package"]
    said = re.search(r'__version__: Final = "(.+)"', (ROOT / "src" / "xetstore" / "version.py").read_text())
    return {
        "kernel/Cargo.toml": kernel,
        "kernel/Cargo.lock": next(one["version"] for one in lock if one["name"] == "xetstore-kernel"),
        "src/xetstore/version.py": said.group(1) if said else "",
        "the installed package": metadata.version("xetstore"),
    }


def same_version() -> str:
    """One version everywhere, and an entry of the changelog for it."""
    found = versions()
    if len({*found.values()}) != 1 or not _VERSION.fullmatch(next(iter(found.values()))):
        raise Refused(f"the versions differ: {found}")
    [version] = {*found.values()}
    if not re.search(rf"^## \[({re.escape(version)}|Unreleased)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE):
        raise Refused(f"CHANGELOG.md has no entry for {version}")
    return version


def clean() -> str:
    """Git has every file, and no change is left out."""
    if said := _run("git", "status", "--porcelain"):
        raise Refused(f"git knows nothing of: {' '.join(said.split())[:300]}")
    return _run("git", "rev-parse", "--short", "HEAD").strip()


def no_secrets() -> str:
    """No file of git has what looks like a secret, but the made-up ones of tests."""
    ran = subprocess.run(
        ["git", "grep", "-I", "-o", "-E", _SECRETS, "--", ".", ":!tests"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in ran.stdout.splitlines() if not line.endswith(_MADE_UP)]
    if lines or ran.returncode > 1:
        raise Refused(f"there may be a secret in {', '.join(line.partition(':')[0] for line in lines)}{ran.stderr}")
    return "none"


def wheel() -> str:
    """The wheel of this system: equal to a second one, sound inside, installed and used."""
    DIST.mkdir(exist_ok=True)
    made = build(here(), DIST)
    with tempfile.TemporaryDirectory() as place:
        again = build(here(), Path(place), cargo_folder=Path(place) / "cargo")
        if again.read_bytes() != made.read_bytes():
            raise Refused(f"a second build of {made.name} differs from the first")
    if found := faults(made, ROOT):
        raise Refused("; ".join(found))
    try_wheel(made)
    return f"{made.name}, {made.stat().st_size:,} bytes, twice the same"


def sdist() -> str:
    """The sdist: equal to a second one; with tests and documents; a wheel is built from it, and its tests collect."""
    made = _sdist(DIST)
    with tempfile.TemporaryDirectory() as place:
        if _sdist(Path(place)).read_bytes() != made.read_bytes():
            raise Refused(f"a second build of {made.name} differs from the first")
        with tarfile.open(made) as archive:
            archive.extractall(place, filter="data")
        inside = Path(place) / made.name.removesuffix(".tar.gz")
        for path in ("LICENSE", "README.md", "CHANGELOG.md", "docs", "tests", "examples", "kernel/Cargo.lock"):
            if not (inside / path).exists():
                raise Refused(f"{path} is not in the sdist")
        python = install(str(inside), Path(place) / "venv")
        _run(python, "-m", "pip", "install", "--quiet", "pip>=25.1")  # the first that knows groups
        words = ["-m", "pip", "install", "--quiet", f"{inside}[all]", "--group", f"{inside / 'pyproject.toml'}:dev"]
        _run(python, *words)
        told = _run(python, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", cwd=inside)
    return f"{made.name}, {made.stat().st_size:,} bytes, {told.splitlines()[-1].strip('= ')}"


def described() -> str:
    """The metadata are valid, and a page of an index can show them."""
    made = [str(path) for path in sorted(DIST.iterdir()) if path.name.startswith("xetstore-") and path.suffix != ".txt"]
    _run(TOOLS / "twine", "check", "--strict", *made)
    return f"{len(made)} files"


def licences() -> str:
    """The licences of all that comes with the package, in dist/licences.txt."""
    rust = json.loads(
        _run(
            *("cargo", "metadata", "--format-version", "1", "--locked"),
            *("--filter-platform", here().triple, "--manifest-path", "kernel/Cargo.toml"),
        )
    )
    lines = [_line("Rust", one["name"], one["version"], one["license"]) for one in rust["packages"]]
    with tempfile.TemporaryDirectory() as place:
        [built] = DIST.glob(
            f"xetstore-{same_version()}-*{'manylinux' if sys.platform == 'linux' else ''}*{_MACHINE}*.whl"
        )
        python = install(f"xetstore[all] @ {built.as_uri()}", Path(place))
        lines += [_line("Python", *one) for one in json.loads(_run(python, "-c", _INSTALLED))]
    unknown = [line for line in lines if line.endswith("\t")]
    if unknown:
        raise Refused(f"these say no licence: {unknown}")
    (DIST / "licences.txt").write_text("\n".join(sorted(lines)) + "\n")
    return f"{len(lines)} packages"


def documents() -> str:
    """The site is built without a warning."""
    _run("make", "docs")
    return "docs-out/site"


_MACHINE: Final = here().triple.partition("-")[0]
_INSTALLED: Final = """
import importlib.metadata as m, json
def licence(one):
    told = one.get("License-Expression") or ""
    kinds = [c.rpartition(" :: ")[2] for c in one.get_all("Classifier") or () if c.startswith("License ::")]
    return told or ", ".join(kinds) or (one.get("License") or "").partition("\\n")[0]
found = [one for one in m.distributions() if one.name not in ("pip", "setuptools")]
print(json.dumps([(one.name, one.version, licence(one.metadata)) for one in found]))
"""

STEPS: Final[tuple[Callable[[], str], ...]] = (
    same_version,
    clean,
    no_secrets,
    wheel,
    sdist,
    described,
    licences,
    documents,
    clean,
)


def _sdist(to: Path) -> Path:
    _run(TOOLS / "maturin", "sdist", "--out", to, env=environment())
    [made] = to.glob(f"xetstore-{versions()['kernel/Cargo.toml']}.tar.gz")
    return made


def _line(language: str, name: str, version: str, licence: str | None) -> str:
    return f"{language}\t{name}\t{version}\t{licence or ''}"


def _run(*words: Any, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    ran = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if ran.returncode:
        raise Refused(f"{' '.join(map(str, words))[:200]}: {(ran.stdout + ran.stderr)[-2000:]}")
    return ran.stdout


def main() -> int:
    """Do all steps; the exit code."""
    shutil.rmtree(DIST, ignore_errors=True)
    for step in STEPS:
        started = time.monotonic()
        try:
            told = step()
        except (Refused, subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"{step.__name__}: {error}")
            return 1
        print(f"{step.__name__.replace('_', ' ')}: {told} ({time.monotonic() - started:.0f} s)", flush=True)
    print("all is ready for a release, and nothing was released")
    return 0


if __name__ == "__main__":
    sys.exit(main())
