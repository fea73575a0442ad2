"""What a release would say of itself, and what the inspection of a wheel finds. Building is `make release-check`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from release import check, inspection, wheels

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_there_is_one_version_with_an_entry_in_the_changelog() -> None:
    assert check.same_version() == check.versions()["kernel/Cargo.toml"]


def test_all_is_every_extra() -> None:
    extras = dict(PROJECT["project"]["optional-dependencies"])
    [everything] = extras.pop("all")
    assert everything == f"xetstore[{','.join(sorted(extras))}]"


@pytest.mark.parametrize("document", ["README.md", "docs/systems.md"])
def test_extras_that_are_named_exist(document: str) -> None:
    named = re.findall(r"(?:\.|xetstore)\[([a-z0-9,]+)\]", (ROOT / document).read_text())
    assert {name for one in named for name in one.split(",")} <= set(PROJECT["project"]["optional-dependencies"])


def test_the_readme_installs_from_a_clone_until_there_is_a_release() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
    installed = re.findall(r"pip install (?:'([^']+)'|(\S+))", (ROOT / "README.md").read_text())
    assert installed
    assert all("".join(one).startswith(".[") for one in installed)


def test_wheels_are_for_two_systems_and_two_machines() -> None:
    triples = {target.triple for target in wheels.TARGETS}
    assert len(triples) == len(wheels.TARGETS)
    assert {triple.split("-")[2] for triple in triples} == {"linux", "darwin"}
    assert {triple.partition("-")[0] for triple in triples} == {"x86_64", "aarch64"}
    tags = {target.compatibility for target in wheels.TARGETS if "linux" in target.triple}
    assert tags == {"manylinux2014", "musllinux_1_2"}


def test_no_secret_is_in_a_file_of_git() -> None:
    assert check.no_secrets() == "none"


@pytest.mark.parametrize("data", [b"x/work/y", b"/root/.cargo/a.rs", b"index.crates.io-1949", b"/home/me/x"])
def test_a_path_of_the_machine_in_a_kernel_is_found(data: bytes) -> None:
    assert inspection._paths("xetstore/_kernel.abi3.so", data, Path("/work"))
    assert not inspection._paths("xetstore/_kernel.abi3.so", b"/cargo/pyo3-0.30.1/src/lib.rs", Path("/work"))


def test_a_wheel_lacks_nothing_and_has_nothing_else() -> None:
    package = [f"xetstore/{path.name}" for path in (ROOT / "src" / "xetstore").glob("*.py")]
    found = " ".join(inspection._contents([*package, "xetstore/notes.txt"], ROOT))
    assert "is missing" in found
    assert "xetstore/notes.txt does not belong there" in found
    assert "no licence" in found


def test_a_file_that_differs_from_its_record_is_found(tmp_path: Path) -> None:
    wheel = tmp_path / "wheel.whl"
    with ZipFile(wheel, "w") as archive:
        archive.writestr("xetstore/a.py", b"changed")
        archive.writestr("xetstore/b.py", b"")
        archive.writestr("x.dist-info/RECORD", "xetstore/a.py,sha256=AAAA,7\nx.dist-info/RECORD,,\n")
    with ZipFile(wheel) as archive:
        found = inspection._record(archive, archive.namelist())
    assert found == ["xetstore/b.py is not recorded", "xetstore/a.py has another hash than its record"]


def test_a_kernel_for_macos_is_signed_or_not() -> None:
    header = b"\xcf\xfa\xed\xfe" + bytes(12) + (2).to_bytes(4, "little") + bytes(12)
    other = (0x19).to_bytes(4, "little") + (16).to_bytes(4, "little") + bytes(8)
    signature = (0x1D).to_bytes(4, "little") + (16).to_bytes(4, "little") + bytes(8)
    assert inspection._is_signed(header + other + signature)
    assert not inspection._is_signed(header + other + other)
