"""A hub for tests: the names over a store of either engine, and the people who use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Any

import pytest

from tests.support import engines
from tests.support.live import LiveServer, Response, live_server
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


@dataclass(frozen=True)
class ServedHub:
    """A server over a hub in this process, with a user for each token: ``Alice``, ``bob`` and none."""

    server: LiveServer
    hub: EmbeddedHub
    tokens: Mapping[str | None, str | None]

    def ask(
        self,
        method: str,
        path: str,
        json: object = None,
        *,
        user: str | None = "Alice",
        body: bytes = b"",
        **headers: str,
    ) -> Response:
        """One request of a user; ``headers`` by names with underscores."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if json is not None:
            body, sent = dumps(json).encode(), {"Content-Type": "application/json", **sent}
        return self.server.request(method, path, headers=sent, body=body, token=self.tokens[user])

    def actor(self, user: str) -> Actor:
        """A user as the hub knows it."""
        token = self.tokens[user]
        assert token is not None
        return self.hub.accounts.authenticate(token)


@contextmanager
def served_hub(root: Path, **settings: Any) -> Iterator[ServedHub]:
    """A server over an empty store, with two users."""
    with EmbeddedCas.open(root) as cas, live_server(cas, **settings) as server:
        hub = server.site.hub
        assert hub is not None
        tokens: dict[str | None, str | None] = {None: None}
        for user in ("Alice", "bob"):
            hub.accounts.add_user(user)
            tokens[user] = hub.accounts.issue(user)
        yield ServedHub(server, hub, tokens)
