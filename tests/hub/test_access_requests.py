"""Requests for the files of gated repositories, on both engines."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support import engines
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.index import Index
from xetstore.errors import GatedError, NotFoundError, RepositoryNotFoundError, UsageError
from xetstore.hub.access_requests import AccessRequest, AccessRequests, Status
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.rights import ANONYMOUS, Actor, Right
from xetstore.hub.service import EmbeddedHub
from xetstore.testing import FakeClock

ENGINES = engines.BOTH
BERT = RepositoryName(Kind.MODELS, "alice", "bert")


@pytest.fixture
def hub(opening: engines.Opening, clock: FakeClock) -> Iterator[EmbeddedHub]:
    """The names of a store with three users, of whom alice has a model."""
    with closing(EmbeddedCas(MemoryBlobStore(), Index(opening()), clock=clock)) as cas:
        hub = EmbeddedHub(cas)
        for name in ("alice", "Bob", "carol"):
            hub.accounts.add_user(name)
        hub.create(actor(hub, "alice"), BERT)
        yield hub


@pytest.fixture
def requests(hub: EmbeddedHub, clock: FakeClock) -> AccessRequests:
    return AccessRequests(hub.cas.index, clock)


def actor(hub: EmbeddedHub, name: str) -> Actor:
    return hub.accounts.authenticate(hub.accounts.issue(name))


def gate(hub: EmbeddedHub, gated: str | bool) -> int:
    """Set the gate of the model; its id."""
    return hub.update(actor(hub, "alice"), Kind.MODELS, BERT.id, gated=gated).row.id


def may_read(hub: EmbeddedHub, caller: Actor) -> bool:
    assert hub.repository(caller, Kind.MODELS, BERT.id).right >= Right.SEE
    try:
        hub.repository(caller, Kind.MODELS, BERT.id, Right.READ)
    except GatedError:
        return False
    return True


def names(requests: AccessRequests, number: int, status: Status) -> list[str]:
    return [request.account.name for request in requests.list(number, status)]


def test_the_files_of_a_gated_repository_are_for_its_owner_and_the_accepted(
    hub: EmbeddedHub, requests: AccessRequests, clock: FakeClock
) -> None:
    number = gate(hub, "manual")
    alice, bob, carol = (actor(hub, name) for name in ("alice", "bob", "carol"))
    assert [may_read(hub, caller) for caller in (alice, bob, ANONYMOUS)] == [True, False, False]
    assert requests.ask(number, "bob") is Status.PENDING
    asked_at = clock()
    clock.advance(5)
    assert requests.ask(number, "BOB") is Status.PENDING
    [request] = requests.list(number, Status.PENDING)
    assert (request.account.name, request.asked_at) == ("Bob", asked_at)
    assert not may_read(hub, bob)
    requests.decide(number, "bob", Status.ACCEPTED)
    assert [may_read(hub, caller) for caller in (bob, carol, ANONYMOUS)] == [True, False, False]
    assert [names(requests, number, status) for status in Status] == [[], ["Bob"], []]
    requests.decide(number, "bob", Status.REJECTED)
    assert not may_read(hub, bob)
    assert requests.ask(number, "bob") is Status.REJECTED, "who was rejected does not get in by asking again"
    gate(hub, "auto")
    assert requests.ask(number, "bob") is Status.REJECTED
    requests.decide(number, "bob", Status.PENDING)
    assert requests.ask(number, "bob") is Status.ACCEPTED
    gate(hub, False)
    assert may_read(hub, ANONYMOUS)


def test_who_asks_an_open_gate_is_accepted_at_once(hub: EmbeddedHub, requests: AccessRequests) -> None:
    number = gate(hub, "auto")
    assert not may_read(hub, actor(hub, "carol"))
    assert requests.ask(number, "carol") is Status.ACCEPTED
    assert requests.status(number, hub.accounts.account("carol").id) is Status.ACCEPTED
    assert may_read(hub, actor(hub, "carol"))


def test_a_user_is_let_in_without_a_request(hub: EmbeddedHub, requests: AccessRequests) -> None:
    number = gate(hub, "manual")
    for status in (Status.REJECTED, Status.PENDING):
        with pytest.raises(NotFoundError):
            requests.decide(number, "bob", status)
    with pytest.raises(NotFoundError):
        requests.decide(number, "bob", Status.ACCEPTED, has_asked=True)
    requests.decide(number, "bob", Status.ACCEPTED)
    assert may_read(hub, actor(hub, "bob"))


def test_nothing_is_asked_where_there_is_nothing_to_ask_for(hub: EmbeddedHub, requests: AccessRequests) -> None:
    number = gate(hub, False)
    with pytest.raises(UsageError):
        requests.ask(number, "bob")
    with pytest.raises(RepositoryNotFoundError):
        requests.ask(number + 1, "bob")
    with pytest.raises(RepositoryNotFoundError):
        requests.decide(number + 1, "bob", Status.ACCEPTED)
    gate(hub, "manual")
    for user in ("nobody", "\0", "\ud800"):
        with pytest.raises(NotFoundError):
            requests.ask(number, user)


def test_requests_go_with_the_user_and_with_the_repository(hub: EmbeddedHub, requests: AccessRequests) -> None:
    number = gate(hub, "auto")
    for user in ("bob", "carol"):
        requests.ask(number, user)
    hub.accounts.remove("bob")
    hub.accounts.add_user("bob")
    assert names(requests, number, Status.ACCEPTED) == ["carol"]
    assert not may_read(hub, actor(hub, "bob"))
    hub.delete(actor(hub, "alice"), Kind.MODELS, BERT.id)
    hub.create(actor(hub, "alice"), BERT)
    again = gate(hub, "auto")
    assert names(requests, again, Status.ACCEPTED) == []
    assert not may_read(hub, actor(hub, "carol"))


def test_the_accepted_of_one_repository_are_strangers_at_another(hub: EmbeddedHub, requests: AccessRequests) -> None:
    number = gate(hub, "manual")
    other = RepositoryName(Kind.DATASETS, "alice", "bert")
    hub.create(actor(hub, "alice"), other)
    hub.update(actor(hub, "alice"), Kind.DATASETS, other.id, gated="manual")
    requests.decide(number, "bob", Status.ACCEPTED)
    with pytest.raises(GatedError):
        hub.repository(actor(hub, "bob"), Kind.DATASETS, other.id, Right.READ)


def test_a_list_comes_in_pages_the_oldest_first(hub: EmbeddedHub, requests: AccessRequests, clock: FakeClock) -> None:
    number = gate(hub, "auto")
    for name in ("carol", "Bob"):
        requests.ask(number, name)
        clock.advance(1)
    hub.accounts.add_user("dave")
    for name in ("alice", "dave"):  # at one time
        requests.ask(number, name)
    found: list[AccessRequest] = []
    while page := requests.list(number, Status.ACCEPTED, after=found[-1].place if found else None, limit=1):
        found += page
    names = [request.account.name for request in found]
    assert names[:2] == ["carol", "Bob"]
    assert sorted(names[2:]) == ["alice", "dave"]


def test_requests_at_once_are_one(hub: EmbeddedHub, requests: AccessRequests) -> None:
    number = gate(hub, "manual")
    start, answers = threading.Barrier(4), list[Status]()

    def ask() -> None:
        start.wait()
        answers.append(requests.ask(number, "bob"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [Status.PENDING] * 4
    assert names(requests, number, Status.PENDING) == ["Bob"]
