"""A commit that is killed at any moment: all of it is there, or nothing, its refs and its grants together."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import Worker, moments
from xetstore.cas.check import check
from xetstore.cas.service import EmbeddedCas
from xetstore.hub.check import verify_names
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub

POINTS = 100
FILES = 60


def call(store: Path, text: str) -> dict[str, Any]:
    return {"call": "commit", "store": str(store), "count": FILES, "text": text}


@pytest.fixture
def store(scratch: Path) -> Path:
    with EmbeddedCas.open(scratch / "store") as cas:
        EmbeddedHub(cas).create(LOCAL, RepositoryName(Kind.MODELS, "alice", "bert"))
    return scratch / "store"


def expect_whole(root: Path, before: int) -> tuple[int, str]:
    """Nothing is wrong, and the tip has all files of its commit. The length of the history, and the tip's title."""
    with EmbeddedCas.open(root) as cas:
        hub = EmbeddedHub(cas)
        assert verify_names(hub) == []
        repository = hub.repository(LOCAL, Kind.MODELS, "alice/bert")
        tip = repository.revision()
        assert before <= tip.number <= before + 1
        entries = {entry.path: entry for entry in repository.entries(tip, recursive=True) if not entry.is_folder}
        if tip.number > 1:
            assert len(entries) == FILES + 2
            assert repository.blob(entries["d1/1.txt"]) == f"{tip.title} 1".encode()
            large = entries["large.bin"]
            assert large.file is not None
            assert repository.cas.stat(large.file).size == large.size
        return tip.number, tip.title


def test_a_commit_killed_at_any_moment_is_made_whole_or_not_at_all(worker: Worker, store: Path) -> None:
    clean = store.with_name("clean")
    shutil.copytree(store, clean)
    length, killed = 1, 0
    for number, moment in enumerate(moments(worker, POINTS, call(clean, "first"), call(clean, "second"))):
        text = f"commit {number}"
        ended = worker.run(**call(store, text), kill_after=1.1 * moment)
        assert ended.code == 0 or ended.was_killed
        killed += ended.was_killed
        before = length
        length, title = expect_whole(store, before)
        if any("commit" in told for told in ended.told):  # acknowledged
            assert (length, title) == (before + 1, text)
    assert killed > POINTS / 4
    assert length > 1
    with EmbeddedCas.open(store) as cas:
        assert check(cas, read_data=True).problems == ()
