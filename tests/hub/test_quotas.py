"""Quotas of owners: their repositories count, whichever they have now."""

from __future__ import annotations

import threading

import pytest

from tests.support import engines
from xetstore.cas import EmbeddedCas
from xetstore.cas.index import Writer
from xetstore.cas.quotas import differences, quotas
from xetstore.errors import QuotaExceededError
from xetstore.hub.arrivals import arrive
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.queries import HubWriter
from xetstore.hub.quotas import recount, remove_quota, set_quota
from xetstore.hub.repository import Repository
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub
from xetstore.testing import random_bytes

ENGINES = engines.BOTH
SIZE = 50_000


@pytest.fixture
def hub(cas: EmbeddedCas) -> EmbeddedHub:
    return EmbeddedHub(cas)


def new(hub: EmbeddedHub, name: str, *seeds: int) -> Repository:
    """A new model with a file for each seed."""
    repository = hub.create(LOCAL, RepositoryName.parse(name, Kind.MODELS))
    for seed in seeds:
        arrive(repository.cas, random_bytes(SIZE, seed))
    return repository


def used(hub: EmbeddedHub) -> dict[str, int]:
    """The files that count towards each quota; all numbers are right."""
    assert not [*differences(hub.cas)]
    return {quota.name: quota.used_files for quota in quotas(hub.cas)}


def test_all_repositories_of_an_owner_count(hub: EmbeddedHub) -> None:
    one = new(hub, "Alice/one", 1, 2)
    new(hub, "bob/other", 1)
    set_quota(hub.cas, "alice", max_bytes=5 * SIZE, max_files=None)
    set_quota(hub.cas, "bob", max_bytes=None, max_files=2)
    set_quota(hub.cas, "alice/one", max_bytes=None, max_files=3)
    two = new(hub, "Alice/two", 2, 3)
    assert used(hub) == {"alice": 4, "bob": 1, "models/Alice/one": 2}
    arrive(two.cas, random_bytes(SIZE, 4))
    with pytest.raises(QuotaExceededError, match="the quota of alice is exceeded"):
        arrive(one.cas, random_bytes(SIZE, 5))
    with pytest.raises(QuotaExceededError, match="the quota of bob"):
        hub.move(LOCAL, Kind.MODELS, "alice/one", RepositoryName.parse("bob/one", Kind.MODELS))
    assert used(hub) == {"alice": 5, "bob": 1, "models/Alice/one": 2}
    set_quota(hub.cas, "bob", max_bytes=None, max_files=9)
    hub.move(LOCAL, Kind.MODELS, "alice/one", RepositoryName.parse("bob/one", Kind.MODELS))
    assert used(hub) == {"alice": 3, "bob": 3, "models/Alice/one": 2}
    hub.move(LOCAL, Kind.MODELS, "bob/one", RepositoryName.parse("bob/same", Kind.MODELS))
    hub.delete(LOCAL, Kind.MODELS, "alice/two")
    assert used(hub) == {"alice": 0, "bob": 3, "models/Alice/one": 2}
    remove_quota(hub.cas, "bob/same")
    assert used(hub) == {"alice": 0, "bob": 3}


def test_a_recount_looks_up_who_owns_what(hub: EmbeddedHub) -> None:
    """As after the index was made anew, from a snapshot in which no use is."""
    new(hub, "alice/one", 1, 2)
    set_quota(hub.cas, "alice", max_bytes=3 * SIZE, max_files=None)
    hub.cas.index.change(lambda writer: writer.connection.change("DELETE FROM quota_namespace"))
    hub.cas.index.change(lambda writer: writer.connection.change("UPDATE quota SET used_bytes = 0, used_files = 0"))
    assert [(one.name, one.noted, one.counted) for one in recount(hub.cas)] == [("alice", (0, 0), (2 * SIZE, 2))]
    assert recount(hub.cas) == []
    assert used(hub) == {"alice": 2}


def test_a_repository_that_is_made_meanwhile_counts(hub: EmbeddedHub) -> None:
    """Of a quota that is set while a repository is made: either sees the other."""
    reached, go_on = threading.Event(), threading.Event()

    def create() -> None:
        def make(writer: HubWriter, _: Writer) -> None:
            name = RepositoryName.parse("alice/late", Kind.MODELS)
            writer.add_repository(name, visibility="public", sdk=None, creator="a", now=1.0)
            reached.set()
            go_on.wait(20)

        hub.change(make)

    threads = [
        threading.Thread(target=create),
        threading.Thread(target=set_quota, args=(hub.cas, "alice"), kwargs={"max_bytes": SIZE, "max_files": None}),
    ]
    threads[0].start()
    assert reached.wait(20)
    threads[1].start()
    threads[1].join(0.3)
    go_on.set()
    for thread in threads:
        thread.join()
    late = hub.repository(LOCAL, Kind.MODELS, "alice/late")
    arrive(late.cas, random_bytes(SIZE, 1))
    with pytest.raises(QuotaExceededError):
        arrive(late.cas, random_bytes(SIZE, 2))
    assert used(hub) == {"alice": 1}
