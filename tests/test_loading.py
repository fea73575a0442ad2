"""What is loaded for what: each way in loads few packages, and not much more of our own than it uses.

How long that takes is no test's business: `make bench` measures it, see bench/start.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.strategies import splitmix64
from xetstore.loading import lazily

_PROGRAM: Final = """
import json, sys
before = set(sys.modules)
try:
    {}
except SystemExit as end:
    assert not end.code, end.code
print("\\0" + json.dumps(sorted(set(sys.modules) - before)))
"""

_LARGE: Final = {"asyncio", "configparser", "email", "http", "importlib.metadata", "multiprocessing", "ssl", "xml"}
"""Parts of the standard library that are large, and that none of these needs."""


@dataclass(frozen=True)
class Budget:
    """A way in: a program, the modules of ours that it may load at most, and the packages of others."""

    name: str
    program: str
    most: int
    packages: frozenset[str]


def _xet(*words: str) -> str:
    return f"sys.argv = {['xet', '--store', 'store', *words]}; from xetstore.cli.main import run; run()"


_LIBRARY: Final = frozenset({"msgspec", "typing_extensions"})
_COMMAND: Final = frozenset({"click"})
_BOTH: Final = _LIBRARY | _COMMAND

BUDGETS: Final = (
    Budget("import xetstore", "import xetstore", 6, frozenset()),
    Budget("xet --version", _xet("--version"), 24, _COMMAND),
    Budget("xet help", _xet("help"), 28, _COMMAND),
    Budget("open", "import xetstore; xetstore.open('store')", 72, frozenset()),
    Budget("put and get", "import xetstore as x; s = x.open('new'); s.get(s.put('file').hash, 'out')", 170, _LIBRARY),
    Budget("xet put", _xet("put", "file"), 155, _BOTH),
    Budget("xet get", _xet("get", "HASH", "-o", "out"), 160, _BOTH),
    Budget("xet ls", _xet("ls"), 120, _BOTH),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file, a store that has it, and its hash."""
    folder = tmp_path_factory.mktemp("loading")
    (folder / "file").write_bytes(splitmix64(5, 100_000))
    code = "import xetstore; print(xetstore.open('store').put('file').hash)"
    (folder / "hash").write_text(subprocess.check_output([sys.executable, "-c", code], text=True, cwd=folder).strip())
    return folder


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: budget.name)
def test_what_is_loaded_is_within_its_budget(budget: Budget, folder: Path) -> None:
    program = _PROGRAM.format(budget.program.replace("HASH", (folder / "hash").read_text()))
    printed = subprocess.check_output([sys.executable, "-c", program], text=True, cwd=folder, timeout=120)
    loaded = json.loads(printed.rpartition("\0")[2])
    packages = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"xetstore"}
    assert packages <= budget.packages
    assert not _LARGE.intersection(loaded)
    own = [name for name in loaded if name.partition(".")[0] == "xetstore"]
    assert len(own) <= budget.most, f"{len(own)}: {own}"


def test_a_server_has_loaded_what_a_store_does_before_its_first_request(folder: Path) -> None:
    program = """
import sys, xetstore.server.run
before = set(sys.modules)
import xetstore
with xetstore.open("served") as store:
    file = store.put("file")
    store.get(file, "got")
    store.delete(file)
    store.undelete(file)
print(*(name for name in sys.modules if name not in before))
"""
    printed = subprocess.check_output([sys.executable, "-c", program], text=True, cwd=folder, timeout=120)
    assert not [name for name in printed.split() if name.startswith(("xetstore.cas", "xetstore.protocol"))]


def test_a_name_is_loaded_when_it_is_asked_for_and_found_at_once_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    package = type(sys)("package")
    monkeypatch.setitem(sys.modules, "package", package)
    package.__dict__["__getattr__"] = lazily("package", {"loads": "json", "other": "json:dumps"})
    assert (package.loads, package.other) == (json.loads, json.dumps)
    assert package.__dict__.keys() >= {"loads", "other"}
    with pytest.raises(AttributeError, match="'package' has no attribute 'dumps'"):
        _ = package.dumps
