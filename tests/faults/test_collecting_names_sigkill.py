"""A collection of names that is killed at any moment: all that is named is whole, and the next one goes on with it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.support import rot
from tests.support.process import Worker, moments
from xetstore.cas.check import check
from xetstore.cas.service import EmbeddedCas
from xetstore.hub.check import verify_names
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.operations import AddFile, AddPointer, Delete
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub
from xetstore.testing.samples import make_sample, random_bytes, upload

pytestmark = pytest.mark.slow

POINTS = 50
GC = ("gc", "--grace", "0s", "--undelete", "0s", "--store")


def litter(root: Path, number: int) -> None:
    """A squashed history, and a deleted repository, beside one that stays."""
    with EmbeddedCas.open(root) as cas:
        hub = EmbeddedHub(cas)
        for name in ("alice/bert", f"alice/gone{number}"):
            try:
                repository = hub.repository(LOCAL, Kind.MODELS, name)
            except FileNotFoundError:
                repository = hub.create(LOCAL, RepositoryName.parse(name, Kind.MODELS))
            data = random_bytes(20_000, 2 * number)
            upload(repository.cas, make_sample(data))
            pointer = AddPointer("large.bin", hashlib.sha256(data).digest())
            files = [AddFile(f"{number}/{each}", b"%d" % each) for each in range(30)]
            repository.commit("main", [pointer, *files], f"commit {number}")
            repository.commit("main", [Delete(str(number)), AddFile("kept", b"%d" % number)], f"and {number}")
        hub.repository(LOCAL, Kind.MODELS, "alice/bert").squash("main", f"all up to {number}")
        hub.delete(LOCAL, Kind.MODELS, f"alice/gone{number}")


def test_a_collection_killed_at_any_moment_is_gone_on_with(worker: Worker, scratch: Path) -> None:
    store = scratch / "store"
    litter(store, 0)
    gc: dict[str, Any] = {"call": "cli", "arguments": [*GC, str(store)]}
    killed = 0
    for number, moment in enumerate(moments(worker, POINTS, gc), 1):
        litter(store, number)
        ended = worker.run(**gc, kill_after=moment)
        killed += ended.was_killed
        with EmbeddedCas.open(store) as cas:
            hub = EmbeddedHub(cas)
            assert verify_names(hub) == []
            repository = hub.repository(LOCAL, Kind.MODELS, "alice/bert")
            assert repository.blob(repository.entry(repository.revision(), "kept")) == b"%d" % number
        rot.end_leases(store)  # the next runner need not wait for that of the one that is dead
    assert killed > POINTS / 4
    for _ in range(3):
        assert worker.run(**gc).code == 0
    with EmbeddedCas.open(store) as cas:
        hub = EmbeddedHub(cas)
        assert check(cas, read_data=True).problems == ()
        with hub.snapshot() as reader:
            count = reader.connection.value
            assert count("SELECT count(*) FROM repository") == 1
            assert count("SELECT count(*) FROM file_grant") == 1
            assert count("SELECT count(*) FROM git_object WHERE kind = 1") == 1
