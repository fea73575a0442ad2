"""``xet user``, and the store of accounts in every kind of store."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.runner import COMMAND, Xet
from tests.support.cluster import write_store_file
from tests.support.postgres import PostgresServer
from tests.support.seaweed import Seaweed
from xetstore.cas import EmbeddedCas
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub


@pytest.fixture(params=["directory", "store file", "bucket and database"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Xet]:
    """The command with a store of each kind, of which nothing is there yet."""
    if request.param == "directory":
        yield Xet(tmp_path / "store")
    elif request.param == "store file":
        (tmp_path / "store.toml").write_text(f'objects = "{tmp_path}/objects"\nindex = "{tmp_path}/index.sqlite3"\n')
        yield Xet(tmp_path / "store.toml")
    else:
        seaweed: Seaweed = request.getfixturevalue("seaweed")
        postgres: PostgresServer = request.getfixturevalue("postgres")
        with postgres.database() as url:
            write_store_file(tmp_path / "store.toml", objects=seaweed.prefix(), index=url, s3=seaweed.options)
            yield Xet(tmp_path / "store.toml")


def test_users_organizations_and_tokens_in_every_store(anywhere: Xet) -> None:
    assert anywhere("user", "add", "DVUser", "--fullname", "D. V.").stdout == "DVUser\n"
    assert anywhere("user", "add", "julien-c").stdout == "julien-c\n"
    assert anywhere("org", "create", "acme").stdout == "acme\n"
    assert anywhere("org", "add", "ACME", "dvuser", "--role", "write").stdout == "write  DVUser\n"
    assert [line[10:] for line in anywhere("user", "list").stdout.splitlines()] == ["  DVUser  D. V.", "  julien-c"]
    ran = anywhere("token", "issue", "--user", "dvuser", "--scope", "write", "--name", "laptop")
    assert (ran.code, ran.stderr, ran.stdout[:3], len(ran.stdout)) == (0, "", "hf_", 38)
    token = ran.stdout.strip()
    with EmbeddedCas.open(anywhere.store, create=False) as cas:
        assert EmbeddedHub(cas).accounts.authenticate(token).orgs.keys() == {"acme"}
    [listed] = anywhere("token", "list", "--json").records
    assert listed["last_used_at"] is not None
    assert anywhere("token", "revoke", "-", stdin=token).stdout == f"{listed['token_id']}\n"
    assert anywhere("token", "list").stdout == ""
    assert anywhere("user", "remove", "DVUSER").stdout == "DVUser\n"
    assert [record["name"] for record in anywhere("user", "list", "--json").records] == ["julien-c"]


def test_json_has_the_documented_fields(xet: Xet) -> None:
    [added] = xet("user", "add", "Alice", "--fullname", "Alice A.", "--json").records
    assert set(added) == {"name", "fullname", "created_at"}
    assert xet("user", "list", "--json").records == [added]
    assert xet("user", "remove", "alice", "--json").records == [added]


def test_only_what_adds_an_account_makes_a_store(xet: Xet) -> None:
    for command in (
        ["user", "list"],
        ["user", "remove", "a"],
        ["org", "list"],
        ["org", "add", "a", "b", "--role", "read"],
        ["token", "list"],
        ["token", "issue", "--user", "a", "--scope", "read"],
        ["token", "revoke", "hf_" + "a" * 34],
        ["token", "revoke", "0" * 16],
    ):
        ran = xet(*command, "--json")
        assert (ran.code, ran.stdout, ran.errors[0]["code"]) == (3, "", "not_found")
        assert not xet.store.exists()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["user", "add", "ALICE"], "exists"),
        (["org", "create", "Alice"], "exists"),
        (["user", "add", "api"], "usage"),
        (["user", "add", "a--b"], "usage"),
        (["user", "add", "\u0430lice"], "usage"),
        (["user", "add", "bob", "--fullname", "a\nb"], "usage"),
        (["user", "remove", "bob"], "not_found"),
        (["org", "add", "acme", "alice", "--role", "read"], "not_found"),
        (["org", "list", "alice"], "not_found"),
        (["token", "issue", "--user", "bob", "--scope", "read"], "not_found"),
        (["token", "list", "--user", "bob"], "not_found"),
        (["user"], "usage"),
        (["org"], "usage"),
    ],
)
def test_what_goes_wrong_has_its_exit_code(xet: Xet, command: list[str], code: str) -> None:
    xet("user", "add", "alice")
    ran = xet(*command, "--json")
    assert (ran.code, ran.stdout) == ({"usage": 2, "not_found": 3, "exists": 1}[code], "")
    assert ran.errors[0]["code"] == code


def test_a_user_who_has_a_repository_stays(xet: Xet) -> None:
    xet("user", "add", "alice")
    with EmbeddedCas.open(xet.store) as cas:
        EmbeddedHub(cas).create(LOCAL, RepositoryName(Kind.BUCKETS, "Alice", "pictures"))
    ran = xet("user", "remove", "alice")
    assert (ran.code, ran.stdout) == (2, "")
    assert "xet: alice has repositories: pictures is one\n" in ran.stderr
    assert len(xet("user", "list").stdout.splitlines()) == 1


def test_one_of_two_processes_adds_a_name_to_a_store_that_both_make(xet: Xet) -> None:
    many = [
        subprocess.Popen(
            [*COMMAND, "user", "add", name, "--json"],
            env=xet.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("alice", "ALICE", "Alice")
    ]
    ends = []
    for one in many:
        out, err = one.communicate(timeout=60)
        ends.append((one.returncode, '"code": "exists"' in err, bool(out)))
    assert sorted(ends) == [(0, False, True), (1, True, False), (1, True, False)]
    assert len(xet("user", "list").stdout.splitlines()) == 1


def test_a_server_has_no_accounts_to_be_changed_from_here(xet: Xet) -> None:
    ran = xet("user", "list", "--store", "http://127.0.0.1:1")
    assert (ran.code, ran.stdout) == (2, "")
    assert "the store is a URL" in ran.stderr
