"""The files that would leave a repository with a branch, a path or all of it."""

from __future__ import annotations

import hashlib

import pytest

from tests.support import engines
from xetstore.cas import EmbeddedCas
from xetstore.errors import EntryNotFoundError, RepositoryNotFoundError, UsageError
from xetstore.hub.arrivals import arrive
from xetstore.hub.buckets import Bucket, PutFile
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.operations import AddPointer, Operation
from xetstore.hub.repository import Repository
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub
from xetstore.hub.usage import Doomed, files_behind, names_of_namespaces
from xetstore.protocol.hashes import Hash
from xetstore.records import RepositoryId
from xetstore.testing import random_bytes

ENGINES = engines.BOTH
MODEL = RepositoryId("models", "alice/bert")
BUCKET = RepositoryId("buckets", "alice/data")


@pytest.fixture
def hub(cas: EmbeddedCas) -> EmbeddedHub:
    return EmbeddedHub(cas)


def commit(repository: Repository, branch: str, **files: int) -> dict[str, Hash]:
    """Commit a large file of random bytes at each path, by its seed; their hashes."""
    operations: list[Operation] = []
    stored = {}
    for path, seed in files.items():
        data = random_bytes(50_000, seed)
        stored[path] = arrive(repository.cas, data).file
        operations.append(AddPointer(path, hashlib.sha256(data).digest(), len(data)))
    repository.commit(branch, operations, "more")
    return stored


def test_a_branch_takes_what_no_other_one_has(hub: EmbeddedHub) -> None:
    repository = hub.create(LOCAL, RepositoryName.parse(MODEL.name, Kind.MODELS))
    first = commit(repository, "main", a=1, b=2)
    repository.create_branch("dev", "main")
    dev = commit(repository, "dev", c=3, b=4)
    later = commit(repository, "dev", c=5)
    commit(repository, "main", d=4)

    def found(*names: Doomed) -> tuple[set[Hash], set[str]]:
        files, namespaces = files_behind(hub, names)
        return files.get(repository.row.namespace, set()), namespaces

    assert found(Doomed(MODEL, "dev", "")) == ({dev["c"], later["c"]}, set()), "b=4 is d of main"
    assert found(Doomed(MODEL, "main", "")) == (set(), set()), "dev has it too, but d, which is dev's b"
    both = found(Doomed(MODEL, "dev", ""), Doomed(MODEL, "main", ""))
    assert both == ({*first.values(), *dev.values(), *later.values()}, set())
    assert found(Doomed(MODEL, "dev", "b")) == ({dev["b"]}, set())
    assert found(Doomed(MODEL, None, "")) == (set(), {repository.row.namespace})
    with pytest.raises(UsageError, match="no branch or tag"):
        found(Doomed(MODEL, repository.revision("dev").id, ""))
    with pytest.raises(EntryNotFoundError):
        found(Doomed(MODEL, "main", "nothing"))
    with pytest.raises(RepositoryNotFoundError):
        found(Doomed(RepositoryId("models", "alice/other"), None, ""))
    assert names_of_namespaces(hub, [repository.row.namespace, "default"]) == {repository.row.namespace: MODEL}


def test_a_path_of_a_bucket_takes_what_is_at_no_other(hub: EmbeddedHub) -> None:
    bucket = Bucket(hub.create(LOCAL, RepositoryName.parse(BUCKET.name, Kind.BUCKETS)))
    one, two = (arrive(bucket.cas, random_bytes(50_000, seed)).file for seed in (1, 2))
    places = {"logs/a": one, "logs/b": two, "logs.txt": one}
    assert not bucket.change([PutFile(path, file) for path, file in places.items()])

    def found(*paths: str) -> set[Hash]:
        files, _ = files_behind(hub, [Doomed(BUCKET, None, path) for path in paths])
        return files[bucket.row.namespace]

    assert found("logs/a") == set()
    assert found("logs") == {two}
    assert found("logs", "logs.txt") == {one, two}
    with pytest.raises(EntryNotFoundError):
        found("log")
