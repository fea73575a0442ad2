"""``xet org``."""

from __future__ import annotations

import pytest

from tests.cli.runner import Xet


@pytest.fixture
def acme(xet: Xet) -> Xet:
    """A store with an organization and two users."""
    xet("org", "create", "Acme", "--fullname", "Acme Inc.")
    for name in ("alice", "Bob"):
        xet("user", "add", name)
    return xet


def test_members_come_have_roles_and_go(acme: Xet) -> None:
    assert acme("org", "add", "acme", "bob", "--role", "read", "--json").records == [{"user": "Bob", "role": "read"}]
    acme("org", "add", "acme", "alice", "--role", "admin")
    acme("org", "add", "acme", "bob", "--role", "write")
    assert acme("org", "list", "acme").stdout == "admin  alice\nwrite  Bob\n"
    assert acme("org", "list", "acme", "--json").records[1] == {"user": "Bob", "role": "write"}
    assert acme("org", "remove", "ACME", "BOB").stdout == "Bob\n"
    assert acme("org", "list", "acme").stdout == "admin  alice\n"
    assert acme("org", "remove", "acme", "bob").code == 3


def test_organizations_are_listed_and_deleted_without_their_members(acme: Xet) -> None:
    acme("org", "add", "acme", "bob", "--role", "read")
    assert acme("org", "list").stdout[10:] == "  Acme  Acme Inc.\n"
    [record] = acme("org", "list", "--json").records
    assert set(record) == {"name", "fullname", "created_at"}
    assert acme("org", "delete", "bob").code == 3
    assert acme("user", "remove", "acme").code == 3
    assert acme("org", "delete", "acme").stdout == "Acme\n"
    assert acme("org", "list").stdout == ""
    assert len(acme("user", "list").stdout.splitlines()) == 2


def test_a_role_is_needed_and_is_one_of_three(acme: Xet) -> None:
    assert acme("org", "add", "acme", "bob").code == 2
    assert acme("org", "add", "acme", "bob", "--role", "owner").code == 2
    assert acme("org", "list", "acme").stdout == ""
