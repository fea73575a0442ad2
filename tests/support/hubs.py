"""A hub for tests: the names over a store of either engine, and the people who use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import engines
from xetstore.access.scope import Scope
from xetstore.cas import EmbeddedCas
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.repository import Repository
from xetstore.hub.rights import Actor
from xetstore.hub.service import EmbeddedHub
from xetstore.protocol.hashes import Hash
from xetstore.testing import FakeClock
from xetstore.testing.samples import make_sample, random_bytes, upload

ALICE = Actor(name="Alice", scope=Scope.WRITE, user_id=1)
BOB = Actor(name="bob", scope=Scope.WRITE, user_id=2)
BOB_READING = Actor(name="bob", scope=Scope.READ, user_id=2)


@contextmanager
def opened_hub(engine: str, root: Path, request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[EmbeddedHub]:
    """A hub with the accounts of Alice and Bob, over a store whose index is in a database of the engine."""
    if engine == engines.SQLITE:
        cas = EmbeddedCas.open(root, clock=clock)
    else:
        cas = engines.open_on_postgres(root, request.getfixturevalue("postgres_url"), clock=clock)
    with cas:
        hub = EmbeddedHub(cas)
        for actor in (ALICE, BOB):
            hub.accounts.add_user(actor.name or "")
        yield hub


def create(
    hub: EmbeddedHub, name: str, kind: Kind = Kind.MODELS, actor: Actor = ALICE, *, visibility: str | None = None
) -> Repository:
    """A new repository of ``actor``."""
    return hub.create(actor, RepositoryName.parse(name, kind), visibility=visibility)


def uploaded(repository: Repository, size: int = 1000, seed: int = 1) -> Hash:
    """A new file of the store, uploaded with the token of a repository."""
    return upload(repository.cas, make_sample(random_bytes(size, seed)))
