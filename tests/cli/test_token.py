"""``xet token``."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.runner import Xet
from xetstore.access.keys import Algorithm, KeyKind, KeyRing
from xetstore.access.tokens import Scope, TokenAuthority
from xetstore.blobs.keys import ACCESS_FOLDER
from xetstore.cli.main import cli
from xetstore.cli.parsed import parse_duration
from xetstore.errors import UnauthenticatedError, UsageError
from xetstore.extras import install_hint


@pytest.fixture
def served(xet: Xet, tmp_path: Path) -> Xet:
    """A store."""
    (tmp_path / "file").write_text("here")
    xet.put(tmp_path / "file")
    return xet


def keys_of(xet: Xet) -> KeyRing:
    return KeyRing.open(xet.store / ACCESS_FOLDER, create=False)


def authority_of(xet: Xet) -> TokenAuthority:
    return TokenAuthority(keys_of(xet))


def is_valid(xet: Xet, token: str) -> bool:
    try:
        authority_of(xet).verify(token)
    except UnauthenticatedError:
        return False
    return True


# issue


@pytest.mark.parametrize("scope", list(Scope))
def test_the_token_alone_is_printed(served: Xet, scope: Scope) -> None:
    ran = served("token", "issue", "--scope", scope.value, "--namespace", "team/models", "--ttl", "2h")
    assert (ran.code, ran.stderr) == (0, "")
    caller = authority_of(served).verify(ran.stdout.removesuffix("\n"))
    assert (caller.scope, caller.namespace) == (scope, "team/models")
    assert caller.expires_at is not None
    assert 7190 <= caller.expires_at - time.time() <= 7200


def test_json_has_the_documented_fields(served: Xet) -> None:
    ran = served("token", "issue", "--scope", "read", "--json")
    [record] = ran.records
    assert set(record) == {"token", "token_id", "expires_at", "scope", "namespace"}
    caller = authority_of(served).verify(record["token"])
    assert record["token_id"] == caller.token_id
    assert record["expires_at"] == caller.expires_at
    assert 890 <= record["expires_at"] - time.time() <= 900, "15 minutes, unless told otherwise"
    assert (record["scope"], record["namespace"]) == ("read", "default")


def test_the_first_token_makes_the_keys_and_nobody_else_may_read_them(served: Xet) -> None:
    served("token", "issue", "--scope", "read")
    folder = served.store / ACCESS_FOLDER
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "keys.json").stat().st_mode) == 0o600
    assert served("check", "--json").records[-1]["notes"] == [], "a check has nothing to say of them"


def test_options_may_stand_at_each_level(served: Xet, xet: Xet, tmp_path: Path) -> None:
    other = ["--store", str(tmp_path / "missing"), "--json"]
    for arguments in (
        [*other, "token", "issue", "--scope", "read"],
        ["token", *other, "issue", "--scope", "read"],
        ["token", "issue", "--scope", "read", *other],
    ):
        ran = served(*arguments)
        assert (ran.code, ran.errors[0]["code"]) == (3, "not_found")


@pytest.mark.parametrize("command", [["issue", "--scope", "read"], ["revoke", "ab" * 16], ["rotate"]])
def test_no_store_is_made(xet: Xet, command: list[str]) -> None:
    ran = xet("token", *command)
    assert (ran.code, ran.stdout) == (3, "")
    assert not xet.store.exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--scope", "root"],
        [],
        ["--scope", "read", "--ttl", "0"],
        ["--scope", "read", "--ttl", "401d"],
        ["--scope", "read", "--ttl", "soon"],
        ["--scope", "read", "--ttl", "-5m"],
        ["--scope", "read", "--namespace", "../x"],
        ["--scope", "read", "--namespace", ""],
    ],
)
def test_what_cannot_be_issued_is_a_usage_error(served: Xet, options: list[str]) -> None:
    ran = served("token", "issue", "--json", *options)
    assert (ran.code, ran.stdout, ran.errors[0]["code"]) == (2, "", "usage")


def test_time_spans_are_seconds_with_or_without_a_unit() -> None:
    texts = ("90", "90s", "15m", "12h", "30d", "0")
    assert [parse_duration(text) for text in texts] == [90, 90, 900, 43_200, 2_592_000, 0]
    for text in ("", "m", "1.5h", "1 h", "-1", "1w", "1H", "1h30m", "１", "9" * 10):
        with pytest.raises(UsageError):
            parse_duration(text)


# revoke


@pytest.mark.parametrize("by", ["token", "token_id"])
def test_a_revoked_token_is_no_longer_valid(served: Xet, by: str) -> None:
    [one], [two] = (served("token", "issue", "--scope", "read", "--json").records for _ in range(2))
    ran = served("token", "revoke", one[by])
    assert (ran.code, ran.stdout) == (0, f"{one['token_id']}\n")
    assert not is_valid(served, one["token"])
    assert is_valid(served, two["token"])
    assert served("token", "revoke", "--json", two[by]).records == [{"token_id": two["token_id"]}]
    assert not is_valid(served, two["token"])


def test_a_token_can_be_revoked_without_the_shell_seeing_it(served: Xet) -> None:
    token = served("token", "issue", "--scope", "read").stdout
    ran = CliRunner().invoke(cli, ["--store", str(served.store), "token", "revoke", "-"], input=f"  {token}\n")
    assert ran.exit_code == 0
    assert not is_valid(served, token.strip())


@pytest.mark.parametrize("text", ["garbage", "", "a.b.c", "\N{SNOWMAN}"])
def test_garbage_cannot_be_revoked(served: Xet, text: str) -> None:
    token = served("token", "issue", "--scope", "read").stdout.strip()
    for argument in (text, token[:-1]):
        ran = served("token", "revoke", "--json", argument)
        assert (ran.code, ran.stdout, ran.errors[0]["code"]) == (2, "", "usage")
        assert token[:-1] not in ran.stderr
    ran = served.process("token", "revoke", "-", input=b"\xff\xfe")
    assert ran.code == 2


def test_a_store_without_keys_has_nothing_to_revoke(served: Xet) -> None:
    assert served("token", "revoke", "ab" * 16).code == 3
    assert not (served.store / ACCESS_FOLDER).exists()


# The tokens of users


@pytest.fixture
def alice(xet: Xet) -> Xet:
    """A store with a user, and no keys."""
    xet("user", "add", "Alice")
    return xet


@pytest.mark.parametrize("scope", ["read", "write"])
def test_a_users_token_alone_is_printed_and_has_no_end(alice: Xet, scope: str) -> None:
    ran = alice("token", "issue", "--user", "alice", "--scope", scope)
    assert (ran.code, ran.stderr) == (0, "")
    assert re.fullmatch(r"hf_[A-Za-z]{34}\n", ran.stdout)
    [listed] = alice("token", "list", "--json").records
    assert (listed["user"], listed["scope"], listed["expires_at"]) == ("Alice", scope, None)
    assert not (alice.store / ACCESS_FOLDER).exists(), "no key is made for it"


def test_json_of_a_users_token_has_the_documented_fields(alice: Xet) -> None:
    [record] = alice(
        "token", "issue", "--user", "alice", "--scope", "read", "--ttl", "30d", "--name", "ci", "--json"
    ).records
    assert set(record) == {"token", "token_id", "expires_at", "scope", "user", "name"}
    assert 30 * 86_400 - 60 < record["expires_at"] - time.time() <= 30 * 86_400
    [listed] = alice("token", "list", "--json").records
    assert set(listed) == {"token_id", "expires_at", "scope", "user", "name", "created_at", "last_used_at"}
    assert {name: listed[name] for name in record.keys() - {"token"}} == {
        name: record[name] for name in record.keys() - {"token"}
    }


@pytest.mark.parametrize(
    "options",
    [
        ["--user", "alice", "--namespace", "default", "--scope", "read"],
        ["--user", "alice", "--scope", "admin"],
        ["--user", "alice", "--scope", "read", "--ttl", "0"],
        ["--user", "alice", "--scope", "read", "--name", "a\x1b[31m"],
        ["--user", "alice"],
        ["--user", "", "--name", "x"],
        ["--name", "laptop", "--scope", "read"],
    ],
)
def test_what_no_user_gets_is_a_usage_error(alice: Xet, options: list[str]) -> None:
    ran = alice("token", "issue", "--json", *options)
    assert (ran.code, ran.stdout, ran.errors[0]["code"]) == (2, "", "usage")
    none = alice("token", "list")
    assert (none.code, none.stdout) == (0, "")
    assert "no user has a token" in none.stderr


@pytest.mark.parametrize("by", ["token", "token_id"])
def test_a_users_token_is_revoked_by_itself_or_by_its_id(alice: Xet, by: str) -> None:
    issue = ("token", "issue", "--user", "alice", "--scope", "write", "--json")
    [one], [two] = alice(*issue).records, alice(*issue).records
    assert alice("token", "revoke", one[by]).stdout == f"{one['token_id']}\n"
    assert [record["token_id"] for record in alice("token", "list", "--json").records] == [two["token_id"]]
    ran = alice("token", "revoke", one[by], "--json")
    assert (ran.code, ran.errors[0]["code"]) == (3, "not_found")
    assert one["token"] not in ran.stderr


def test_no_token_is_printed_but_by_who_issues_it(alice: Xet) -> None:
    token = alice("token", "issue", "--user", "alice", "--scope", "write").stdout.strip()
    for command in (
        ["token", "list"],
        ["token", "list", "--user", token],
        ["user", "add", token],
        ["user", "remove", token],
        ["org", "create", token],
        ["org", "add", "acme", token, "--role", "read"],
        ["token", "issue", "--user", token, "--scope", "read"],
        ["token", "revoke", token[:-3]],
        ["token", "revoke", token],
        ["token", "revoke", token],
    ):
        for options in ([], ["--json"], ["--debug"]):
            ran = alice(*command, *options)
            assert token[3:20] not in ran.stdout + ran.stderr, command


# rotate


def test_a_rotation_leaves_older_tokens_their_overlap(served: Xet) -> None:
    old = served("token", "issue", "--scope", "read").stdout.strip()
    ran = served("token", "rotate", "--overlap", "1h")
    assert ran.code == 0
    assert ran.stdout.strip() == keys_of(served).signing_key(KeyKind.TOKEN).kid
    assert "UTC" in ran.stderr
    assert is_valid(served, old)
    assert is_valid(served, served("token", "issue", "--scope", "read").stdout.strip())


def test_a_rotation_without_overlap_ends_older_tokens(served: Xet) -> None:
    old = served("token", "issue", "--scope", "read").stdout.strip()
    url_key = keys_of(served).signing_key(KeyKind.URL).kid
    assert served("token", "rotate", "--overlap", "0").code == 0
    assert not is_valid(served, old)
    assert keys_of(served).signing_key(KeyKind.URL).kid == url_key


def test_the_key_of_urls_is_replaced_by_itself(served: Xet) -> None:
    token = served("token", "issue", "--scope", "read").stdout.strip()
    [record] = served("token", "rotate", "--urls", "--overlap", "0", "--json").records
    assert record["kind"] == "url"
    assert record["key_id"] == keys_of(served).signing_key(KeyKind.URL).kid
    assert is_valid(served, token)


def test_json_of_a_rotation_has_the_documented_fields(served: Xet) -> None:
    [record] = served("token", "rotate", "--algorithm", "hs256", "--json").records
    assert set(record) == {"key_id", "kind", "algorithm", "older_keys_end_at"}
    assert (record["kind"], record["algorithm"]) == ("token", "HS256")
    assert 86_390 <= record["older_keys_end_at"] - time.time() <= 86_400
    assert keys_of(served).signing_key(KeyKind.TOKEN).algorithm is Algorithm.HS256


def test_urls_are_signed_with_a_shared_secret_only(served: Xet) -> None:
    assert served("token", "rotate", "--urls", "--algorithm", "eddsa").code == 2
    assert served("token", "rotate", "--urls", "--algorithm", "hs256").code == 0


# What goes wrong


def test_keys_that_others_may_read_are_denied_with_the_remedy(served: Xet) -> None:
    served("token", "issue", "--scope", "read")
    (served.store / ACCESS_FOLDER / "keys.json").chmod(0o644)
    ran = served("token", "issue", "--scope", "read")
    assert (ran.code, ran.stdout) == (5, "")
    assert "chmod 600" in ran.stderr


def test_damaged_keys_are_one_sentence_and_a_hint(served: Xet) -> None:
    served("token", "issue", "--scope", "read")
    (served.store / ACCESS_FOLDER / "keys.json").write_text("{")
    ran = served.process("token", "issue", "--scope", "read")
    assert (ran.code, ran.stdout) == (4, "")
    assert [line.split(":")[0] for line in ran.stderr.splitlines()] == ["xet", "hint"]


def test_without_the_server_extra_it_says_what_to_install(served: Xet) -> None:
    for absent in ("jwt", "cryptography"):
        program = f"import sys; sys.modules[{absent!r}] = None; from xetstore.cli.main import run; run()"
        done = subprocess.run(
            [sys.executable, "-c", program, "token", "issue", "--scope", "read"],
            capture_output=True,
            env=served.environment,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert absent in done.stderr.splitlines()[0]
        assert done.stderr.splitlines()[1] == f"hint: {install_hint('server')}"


def test_help_loads_no_cryptography(served: Xet) -> None:
    program = "import sys, xetstore.cli.main; print(sorted({'jwt', 'cryptography', 'msgspec'} & sys.modules.keys()))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


def test_without_a_verb_it_prints_its_help(xet: Xet) -> None:
    ran = xet("token")
    assert (ran.code, ran.stdout, ran.stderr) == (0, xet("token", "--help").stdout, "")
    for verb in ("issue", "list", "revoke", "rotate"):
        assert verb in xet("token", "--help").stdout
        assert xet("token", verb, "--help").code == 0
