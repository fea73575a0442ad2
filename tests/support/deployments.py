"""Deployments of a server, for tests of what is the same on each: one over a directory, and two replicas."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.cluster import write_store_file
from tests.support.live import LiveServer, live_server
from tests.support.postgres import PostgresServer
from tests.support.seaweed import Seaweed
from xetstore.access.keys import KeyRing
from xetstore.cas.service import EmbeddedCas

DIRECTORY: Final = "directory"
REPLICAS: Final = "replicas"
BOTH: Final = (DIRECTORY, REPLICAS)
"""As ``DEPLOYMENTS`` in a module of tests: each of its tests that has the fixture ``deployment``, by ``cas`` or
``server``, is run on both. One that looks into a server, or into its directory, has the fixture ``one_server`` beside
it, and is run on a directory alone."""


def deployments_of(metafunc: pytest.Metafunc) -> None:
    """Run a test on the deployments of its module; on a directory alone where it says nothing."""
    if "deployment" in metafunc.fixturenames:
        is_one = "one_server" in metafunc.fixturenames
        named = (DIRECTORY,) if is_one else getattr(metafunc.module, "DEPLOYMENTS", (DIRECTORY,))
        metafunc.parametrize("deployment", named, scope="module", indirect=True)


class Deployment:
    """One server over a directory."""

    @contextmanager
    def open(self, folder: Path) -> Iterator[EmbeddedCas]:
        """A new store, for which ``folder`` is that of its directory, or of its store file."""
        with EmbeddedCas.open(folder / "store") as cas:
            yield cas

    @contextmanager
    def serve(self, cas: EmbeddedCas, **settings: Any) -> Iterator[LiveServer]:
        """The servers over a store, with these settings, as one."""
        with live_server(cas, **settings) as server:
            yield server


@dataclass(frozen=True)
class Replicas(Deployment):
    """Two servers over one bucket and one database, each of which has opened the store for itself."""

    seaweed: Seaweed
    postgres: PostgresServer

    @contextmanager
    def open(self, folder: Path) -> Iterator[EmbeddedCas]:
        with self.postgres.database() as url:
            file = folder / "store.toml"
            write_store_file(file, objects=self.seaweed.prefix(), index=url, s3=self.seaweed.options)
            with EmbeddedCas.open(file) as cas:
                yield cas

    @contextmanager
    def serve(
        self, cas: EmbeddedCas, *, clock: Callable[[], float] = time.time, **settings: Any
    ) -> Iterator[LiveServer]:
        assert cas._opened is not None
        with ExitStack() as stack:
            running: list[LiveServer] = []
            for one in (cas, stack.enter_context(EmbeddedCas.open(cas._opened.parts))):
                secrets = one.secrets()
                keys = KeyRing.of(secrets, clock=clock)
                stack.enter_context(secrets.followed())
                running.append(stack.enter_context(live_server(one, keys=keys, clock=clock, **settings)))
                settings.setdefault("public_url", running[0].url)
            first, second = running
            yield Alternating(first.url, first.site, first.authority, first._server, (first, second))


@dataclass(frozen=True)
class Alternating(LiveServer):
    """Two servers, of which one and the other gets a request or a connection in turn. The rest is that of the first."""

    each: tuple[LiveServer, LiveServer]
    _turns: Iterator[int] = field(default_factory=itertools.count)

    def next_url(self) -> str:
        return self.each[next(self._turns) % 2].url
