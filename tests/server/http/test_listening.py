"""One socket for all workers: who accepts a connection, and what counts as the load of a worker."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.support.live import PATIENCE_SECONDS, until
from xetstore.server.http.listening import SharedListening
from xetstore.server.http.sockets import listen
from xetstore.server.ops.shared import AWAY, Shared

Two = tuple[SharedListening, SharedListening]


@pytest.fixture
def shared() -> Iterator[tuple[Shared, Shared]]:
    created = Shared.create(2)
    assert created.descriptor is not None
    yield Shared(created.descriptor, 2, 0), Shared(created.descriptor, 2, 1)
    os.close(created.descriptor)


@pytest.fixture
def workers(shared: tuple[Shared, Shared]) -> Iterator[Two]:
    listening = listen("127.0.0.1", 0)
    with (
        SharedListening(os.dup(listening.fileno()), shared[0]) as first,
        SharedListening(listening.detach(), shared[1]) as second,
    ):
        yield first, second


@contextmanager
def one_waits(worker: SharedListening) -> Iterator[None]:
    """A client whose connection waits to be accepted."""
    with socket.create_connection(worker.getsockname(), timeout=PATIENCE_SECONDS):
        yield


def leaves_it(worker: SharedListening) -> bool:
    """True if a worker does not take the connection that waits."""
    try:
        worker.accept()[0].close()
    except BlockingIOError:
        return True
    return False


def test_the_load_is_what_was_accepted_and_not_closed(workers: Two, shared: tuple[Shared, Shared]) -> None:
    first, _ = workers
    assert (shared[0].load, shared[1].load) == (0, 0)
    with one_waits(first):
        accepted, _ = first.accept()
        assert shared[1].load_of_others() == 1
        accepted.close()
        accepted.close()
        assert shared[0].load == 0
    with one_waits(first):
        accepted, _ = first.accept()
        del accepted  # by asyncio, where it cannot make a connection of it
        assert shared[0].load == 0


def test_a_connection_is_left_to_the_worker_that_has_fewer(workers: Two, shared: tuple[Shared, Shared]) -> None:
    first, second = workers
    shared[0].load = 3
    with one_waits(first):
        assert leaves_it(first)
        assert not leaves_it(second)
    shared[1].load = 3
    with one_waits(first):
        assert not leaves_it(first), "they have the same"


def test_but_not_for_ever(workers: Two, shared: tuple[Shared, Shared]) -> None:
    first, _ = workers
    shared[0].load = 3
    with one_waits(first):
        assert leaves_it(first)
        until(lambda: not leaves_it(first))


def test_nor_to_one_that_is_away(workers: Two, shared: tuple[Shared, Shared]) -> None:
    first, _ = workers
    shared[0].load = 3
    shared[0].clear(1)
    assert shared[1].load == AWAY
    with one_waits(first), closing(first.accept()[0]):
        assert shared[0].load == 4
