"""Repositories and the accounts that own them, on both engines."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support import engines
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.index import Index
from xetstore.errors import ExistsError, ForbiddenError, RepositoryNotFoundError, UsageError, XetError
from xetstore.hub.duplicates import duplicate
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.queries.accounts import AccountQueries
from xetstore.hub.rights import LOCAL, Actor, Right, Role
from xetstore.hub.service import EmbeddedHub

ENGINES = engines.BOTH


@pytest.fixture
def hub(opening: engines.Opening) -> Iterator[EmbeddedHub]:
    with closing(EmbeddedCas(MemoryBlobStore(), Index(opening()))) as cas:
        hub = EmbeddedHub(cas)
        hub.accounts.add_user("Alice")
        hub.accounts.add_org("Acme")
        hub.accounts.add_member("acme", "alice", Role.ADMIN)
        yield hub


def actor(hub: EmbeddedHub, name: str) -> Actor:
    return hub.accounts.authenticate(hub.accounts.issue(name))


def model(owner: str, name: str = "bert") -> RepositoryName:
    return RepositoryName(Kind.MODELS, owner, name)


def test_a_repository_shows_its_owner_as_the_account_is_called(hub: EmbeddedHub) -> None:
    alice = actor(hub, "alice")
    assert hub.create(alice, model("aLICE")).row.name.id == "Alice/bert"
    with pytest.raises(ExistsError):
        hub.create(alice, model("alice", "BERT"))
    moved = hub.move(alice, Kind.MODELS, "ALICE/bert", model("ACME", "Bert"))
    assert moved.row.name.id == "Acme/Bert"
    assert hub.repository(alice, Kind.MODELS, "alice/bert").row.name.id == "Acme/Bert"
    assert duplicate(moved, model("acME", "copy")).row.name.id == "Acme/copy"


def test_the_admin_names_owners_without_an_account_and_others_do_not(hub: EmbeddedHub) -> None:
    alice = actor(hub, "alice")
    hub.create(LOCAL, model("Bob"))
    for owner in ("bob", "carol"):
        with pytest.raises(ForbiddenError):
            hub.create(alice, model(owner, "other"))
        with pytest.raises((ForbiddenError, RepositoryNotFoundError)):
            hub.move(alice, Kind.MODELS, "bob/bert", model("alice"))
    hub.accounts.add_user("bob")
    assert hub.repository(actor(hub, "bob"), Kind.MODELS, "bob/bert").right is Right.ADMIN


def test_one_who_was_removed_a_moment_ago_leaves_no_repository_to_the_next(hub: EmbeddedHub) -> None:
    """A server remembers a token for some seconds."""
    alice = actor(hub, "alice")
    public = hub.create(LOCAL, model("other"))
    hub.accounts.remove("alice")
    with pytest.raises(ForbiddenError):
        hub.create(alice, model("alice"))
    with pytest.raises(ForbiddenError):
        duplicate(hub.repository(alice, Kind.MODELS, public.row.name.id), model("alice"))
    hub.accounts.add_user("alice")
    with pytest.raises(RepositoryNotFoundError):
        hub.repository(LOCAL, Kind.MODELS, "alice/bert")


def test_an_account_and_its_first_repository_at_once(hub: EmbeddedHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account is removed while the repository is being created: it is kept until that is done."""
    alice, ends = actor(hub, "alice"), list[object]()

    def remove() -> None:
        try:
            ends.append(hub.accounts.remove("alice"))
        except XetError as error:
            ends.append(error)

    removing = threading.Thread(target=remove)
    usual = AccountQueries.account

    def account(queries: AccountQueries, name: str, *, keep: bool = False) -> object:
        found = usual(queries, name, keep=keep)
        if keep and not removing.ident:
            removing.start()
            removing.join(0.3)
            assert ends == [], "it waits"
        return found

    monkeypatch.setattr(AccountQueries, "account", account)
    hub.create(alice, model("alice"))
    removing.join()
    assert [type(end) for end in ends] == [UsageError]
    assert hub.repository(alice, Kind.MODELS, "alice/bert").right is Right.ADMIN
