"""A store in the children of a process: each gets its own file's size and bytes, and none hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import xetstore
from tests.faults.fork_worker import content
from tests.support.hub_double import hub_double
from tests.support.live import ServerProcess

ROOT = Path(__file__).parents[2]
ROUNDS = 100
WORKER = "tests.faults.fork_worker"
PATIENCE_SECONDS = 280


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("served") / "store", "--auth", "none") as server:
        yield server


@pytest.fixture(params=["url", "directory"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "directory":
        return str(tmp_path / "store")
    served: ServerProcess = request.getfixturevalue("server")
    return served.url


def run(*arguments: object, **environment: str) -> None:
    """Run a module of this folder; nothing goes wrong in any of its children."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [], done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr


def test_forked_beside_busy_threads(where: str, tmp_path: Path) -> None:
    run(WORKER, "rounds", where, tmp_path, ROUNDS, 2)


def test_children_that_end_by_way_of_all_finalizers(where: str, tmp_path: Path) -> None:
    run(WORKER, "ending", where, tmp_path, 20)


def test_forked_with_a_repository_of_a_hub(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "store") as server, hub_double(server) as hub:
        hub.add("models", "ns/name", "main", "config.json", None, 10)
        run(WORKER, "rounds", "hf://models/ns/name", tmp_path, 16, 2, HF_ENDPOINT=hub.url)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pools_to_which_the_store_travels(where: str, tmp_path: Path, method: str) -> None:
    run(WORKER, "pooled", where, tmp_path, method, ROUNDS, 1)


def test_pools_that_inherit_the_store_forked_by_a_thread(where: str, tmp_path: Path) -> None:
    run(WORKER, "inherited", where, tmp_path, 30, 2)


def test_forked_during_the_first_open(where: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content(1, 1000))
    with xetstore.open(where, cache=False) as store:
        file = store.put(path).hash
    run("tests.faults.fork_first_open", where, file, 1000, 25)
