"""The right of every kind of caller at every kind of repository."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from xetstore.access.scope import Scope
from xetstore.hub.rights import ANONYMOUS, LOCAL, PRIVATE, PUBLIC, Actor, Right, Role, right_in, right_of


@dataclass(frozen=True)
class Row:
    owner_key: str
    visibility: str
    gated: str | None = None


ROWS = {
    "public": Row("acme", PUBLIC),
    "gated": Row("acme", PUBLIC, "manual"),
    "private": Row("acme", PRIVATE),
    "private gated": Row("acme", PRIVATE, "auto"),
}
REPOSITORIES = tuple(ROWS)


def member(role: Role | None, scope: Scope) -> Actor:
    return Actor(name="Alice", scope=scope, user_id=1, orgs={} if role is None else {"acme": role, "other": Role.ADMIN})


ACTORS = {
    "anonymous": ANONYMOUS,
    "stranger": member(None, Scope.READ),
    "stranger writing": member(None, Scope.WRITE),
    "other": Actor(name="Bob", scope=Scope.WRITE, orgs={"other": Role.ADMIN, "acme2": Role.ADMIN, "acm": Role.ADMIN}),
    "reader": member(Role.READ, Scope.WRITE),
    "writer": member(Role.WRITE, Scope.WRITE),
    "admin": member(Role.ADMIN, Scope.WRITE),
    "reader reading": member(Role.READ, Scope.READ),
    "writer reading": member(Role.WRITE, Scope.READ),
    "admin reading": member(Role.ADMIN, Scope.READ),
    "owner": Actor(name="Acme", scope=Scope.WRITE, user_id=2),
    "owner reading": Actor(name="Acme", scope=Scope.READ, user_id=2),
    "local": LOCAL,
    "admin of the store": Actor(name="admin", scope=Scope.ADMIN, is_admin=True),
}

STRANGER = (Right.READ, Right.SEE, None, None)
READER = (Right.READ,) * 4
WRITER = (Right.WRITE,) * 4
ADMIN = (Right.ADMIN,) * 4
TABLE = {
    "anonymous": STRANGER,
    "stranger": STRANGER,
    "stranger writing": STRANGER,
    "other": STRANGER,
    "reader": READER,
    "writer": WRITER,
    "admin": ADMIN,
    "reader reading": READER,
    "writer reading": READER,
    "admin reading": READER,
    "owner": ADMIN,
    "owner reading": READER,
    "local": ADMIN,
    "admin of the store": ADMIN,
}


@pytest.mark.parametrize("actor", ACTORS)
def test_the_right_of_each_caller_at_each_repository(actor: str) -> None:
    assert tuple(right_of(ACTORS[actor], ROWS[name]) for name in REPOSITORIES) == TABLE[actor]


@pytest.mark.parametrize("actor", ACTORS)
def test_one_who_was_accepted_reads_what_is_gated_and_nothing_that_is_private(actor: str) -> None:
    accepted = tuple(right_of(ACTORS[actor], ROWS[name], is_accepted=True) for name in REPOSITORIES)
    assert accepted == ((Right.READ, Right.READ, None, None) if TABLE[actor] is STRANGER else TABLE[actor])


@pytest.mark.parametrize("actor", ACTORS)
def test_a_server_may_ask_everyone_for_a_token(actor: str) -> None:
    rights = tuple(right_of(ACTORS[actor], ROWS[name], anonymous_reads=False) for name in REPOSITORIES)
    assert rights == ((None,) * 4 if actor == "anonymous" else TABLE[actor])


def test_a_word_that_is_unknown_makes_nothing_public() -> None:
    assert right_of(ANONYMOUS, Row("acme", "protected")) is None


def test_an_organization_is_told_from_one_that_is_called_alike_in_another_case_never() -> None:
    assert right_in(member(Role.WRITE, Scope.WRITE), "ACME") is Right.WRITE
    assert right_in(Actor(name="DVUser", scope=Scope.WRITE), "dvuser") is Right.ADMIN
    assert right_in(ANONYMOUS, "none") is None


def test_changes_are_proposed_by_users_with_a_token_to_write() -> None:
    proposers = {name for name, actor in ACTORS.items() if actor.may_propose}
    assert proposers == {name for name in ACTORS if "reading" not in name} - {"anonymous", "stranger"}
