"""Inspection of a wheel: its names and tags, what is in it, and what its kernel asks of a system."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Final
from zipfile import ZipFile

_NAME: Final = re.compile(r"xetstore-(?P<version>[0-9][0-9a-z.]*)-cp311-abi3-(?P<platforms>[a-z0-9_.]+)\.whl")
_KERNEL: Final = re.compile(r"xetstore/_kernel\.(abi3\.so|pyd)")
_HOSTS: Final = re.compile(rb"index\.crates\.io|/root/|/home/|/Users/|/tmp/|\.cargo/registry")
# The load command of a signature, without which macOS on ARM starts no code.
_SIGNATURE: Final = (0x1D).to_bytes(4, "little")
_MACH_O: Final = b"\xcf\xfa\xed\xfe"


def metadata(wheel: Path) -> Message:
    """The fields of a wheel's METADATA."""
    with ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return HeaderParser().parsestr(archive.read(name).decode())


def faults(wheel: Path, root: Path) -> list[str]:
    """Everything that is wrong with a wheel that was built in ``root``, in short sentences; empty if nothing is."""
    found = []
    named = _NAME.fullmatch(wheel.name)
    if named is None:
        return [f"the name {wheel.name} is not that of a wheel for every Python from 3.11 on"]
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        found += _contents(names, root)
        found += _record(archive, names)
        for name in names:
            found += _paths(name, archive.read(name), root)
        kernels = [name for name in names if _KERNEL.fullmatch(name)]
        if len(kernels) != 1:
            found.append(f"it has {len(kernels)} kernels")
        elif wheel.name.endswith("_arm64.whl") and not _is_signed(archive.read(kernels[0])):
            found.append("its kernel has no signature, without which macOS on ARM starts no code")
    if metadata(wheel)["Version"] != named["version"]:
        found.append("its version is not that of its name")
    return found + _abi(wheel) + (_glibc(wheel) if "manylinux" in wheel.name else [])


def _contents(names: list[str], root: Path) -> list[str]:
    """Every file of the package that git has is there, and nothing else."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "src/xetstore"], cwd=root, check=True, capture_output=True, text=True
    ).stdout
    wanted = {path.removeprefix("src/") for path in listed.split("\0") if path}
    has = {name for name in names if ".dist-info/" not in name and not _KERNEL.fullmatch(name)}
    found = [f"{name} is missing" for name in sorted(wanted - has)[:5]]
    found += [f"{name} does not belong there" for name in sorted(has - wanted)[:5]]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        found.append("it has no licence")
    return found


def _record(archive: ZipFile, names: list[str]) -> list[str]:
    """The hashes that an installer compares are right."""
    [record] = [name for name in names if name.endswith(".dist-info/RECORD")]
    rows = {row[0]: row[1] for row in csv.reader(archive.read(record).decode().splitlines())}
    found = [f"{name} is not recorded" for name in names if name not in rows]
    for name, told in rows.items():
        if name != record:
            digest = base64.urlsafe_b64encode(hashlib.sha256(archive.read(name)).digest()).rstrip(b"=").decode()
            if told != f"sha256={digest}":
                found.append(f"{name} has another hash than its record")
    return found


def _paths(name: str, data: bytes, root: Path) -> list[str]:
    """No path of the machine that built it, and no host of a registry, is in a file that was made by the build."""
    if not (_KERNEL.fullmatch(name) or ".dist-info/" in name) or name.endswith(".dist-info/METADATA"):
        return []
    own = [path for path in (os.fsencode(root), os.fsencode(Path.home())) if path in data]
    match = _HOSTS.search(data)
    return [f"{name} has {(own[0] if own else match.group()).decode()!r} in it"] if own or match else []  # type: ignore[union-attr]


def _is_signed(kernel: bytes) -> bool:
    if not kernel.startswith(_MACH_O):
        return False
    count, at = int.from_bytes(kernel[16:20], "little"), 32
    for _ in range(count):
        if kernel[at : at + 4] == _SIGNATURE:
            return True
        at += int.from_bytes(kernel[at + 4 : at + 8], "little")
    return False


def _abi(wheel: Path) -> list[str]:
    """Only names of the stable ABI are used of Python."""
    ran = _tool("abi3audit", "--strict", wheel)
    return [] if ran.returncode == 0 else [f"abi3audit: {ran.stderr.strip()[-300:]}"]


def _glibc(wheel: Path) -> list[str]:
    """The symbols that are used of glibc are those of the tag."""
    ran = _tool("auditwheel", "show", wheel)
    said = " ".join(ran.stdout.split())
    wanted = "manylinux_2_17_" + wheel.name.removesuffix(".whl").rpartition("manylinux_2_17_")[2]
    return [] if f'"{wanted}"' in said else [f"auditwheel: {(said or ran.stderr)[-300:]}"]


def _tool(name: str, *words: object) -> subprocess.CompletedProcess[str]:
    tool = Path(__file__).parents[1] / ".cache" / "release" / "bin" / name
    with tempfile.TemporaryDirectory() as elsewhere:
        return subprocess.run(
            [str(tool), *map(str, words)], capture_output=True, text=True, timeout=300, check=False, cwd=elsewhere
        )


if __name__ == "__main__":
    for given in sys.argv[1:]:
        told = faults(Path(given).absolute(), Path(__file__).parents[1])
        print(f"{given}: {'; '.join(told) or 'nothing is wrong'}")
