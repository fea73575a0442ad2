"""Accounts, members and tokens, on both engines."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest

from tests.support import engines
from xetstore.access.scope import Scope
from xetstore.cas.index import Index, Writer
from xetstore.errors import (
    ExistsError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
    UsageError,
    XetError,
)
from xetstore.hub import accounts as module
from xetstore.hub.accounts import Accounts
from xetstore.hub.names import RESERVED
from xetstore.hub.queries.accounts import AccountKind, AccountQueries
from xetstore.hub.rights import Actor, Role, right_in
from xetstore.hub.tables import MIGRATIONS
from xetstore.testing import FakeClock

ENGINES = engines.BOTH
Another = Callable[[], Accounts]

ADD_REPOSITORY = """
INSERT INTO repository
    (id, kind, owner, owner_key, name, name_key, namespace, visibility, creator, created_at, updated_at)
VALUES (1, 'models', :owner, :key, 'bert', :id, :id, 'public', :owner, 1, 1)
"""


@pytest.fixture
def another(opening: engines.Opening, clock: FakeClock) -> Iterator[Another]:
    """Open the accounts of this test once more, as another process does."""
    with ExitStack() as opened:

        def open_them() -> Accounts:
            index = opened.enter_context(closing(Index(opening())))
            index.migrate(MIGRATIONS)
            return Accounts(index, clock)

        yield open_them


@pytest.fixture
def accounts(another: Another) -> Accounts:
    return another()


def names(accounts: Accounts, kind: AccountKind = AccountKind.USER) -> list[str]:
    return [account.name for account in accounts.list(kind)]


def index_of(accounts: Accounts) -> Index:
    return accounts._index


def is_valid(accounts: Accounts, token: str) -> bool:
    try:
        accounts.authenticate(token)
    except UnauthenticatedError:
        return False
    return True


# Names


def test_names_are_shown_as_they_were_given_and_found_in_any_case(accounts: Accounts, clock: FakeClock) -> None:
    added = accounts.add_user("DVUser", "D. V. User")
    assert accounts.account("dvUSER") == added
    assert (added.name, added.fullname, added.created_at) == ("DVUser", "D. V. User", clock())
    accounts.add_user("julien-c")
    accounts.add_org("Acme")
    assert names(accounts) == ["DVUser", "julien-c"]
    assert names(accounts, AccountKind.ORG) == ["Acme"]


def test_users_and_organizations_share_one_space_of_names(accounts: Accounts) -> None:
    accounts.add_user("Alice")
    for name in ("Alice", "alice", "ALICE"):
        for add in (accounts.add_user, accounts.add_org):
            with pytest.raises(ExistsError, match="called Alice"):
                add(name)
    assert names(accounts) == ["Alice"]


NO_NAMES = (
    *("", "-a", ".a", "a-", "a.", "a--b", "a..b", "a/b", "a b", "a\n", "a" * 97, "a\0"),
    *("\u0430lice", "al\u0131ce", "\u212aim", "\uff41lice", "alice\u200b", "\ud800", "\u0130stanbul"),
    *sorted(RESERVED),
    *(name.upper() for name in sorted(RESERVED)),
)


def test_what_is_no_name_or_looks_like_another_one_is_refused(accounts: Accounts) -> None:
    for name in NO_NAMES:
        for add in (accounts.add_user, accounts.add_org):
            with pytest.raises(UsageError):
                add(name)


@pytest.mark.parametrize("name", ["local", "Admin", "DEFAULT"])
def test_a_caller_without_an_account_gets_no_namesake(accounts: Accounts, name: str) -> None:
    for add in (accounts.add_user, accounts.add_org):
        with pytest.raises(UsageError):
            add(name)


def test_no_look_alike_finds_an_account(accounts: Accounts) -> None:
    accounts.add_user("kim")
    for name in ("\u212aim", "k\u0131m", "kim ", "kim\0", "\ud800", ""):
        with pytest.raises(NotFoundError):
            accounts.account(name)


def test_one_of_those_who_add_a_name_at_once_has_it(another: Another) -> None:
    many = [another() for _ in range(6)]
    start, ends = threading.Barrier(len(many)), list[str]()

    def add(number: int) -> None:
        start.wait()
        try:
            (many[number].add_org if number % 2 else many[number].add_user)(("alice", "Alice", "ALICE")[number % 3])
            ends.append("added")
        except XetError as error:
            ends.append(error.code)

    threads = [threading.Thread(target=add, args=[number]) for number in range(len(many))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["added"] + ["exists"] * 5


def test_a_list_comes_in_pages(accounts: Accounts) -> None:
    for name in ("b", "A", "c", "D"):
        accounts.add_user(name)
    accounts.add_org("AA")
    assert [account.name for account in accounts.list(AccountKind.USER, limit=3)] == ["A", "b", "c"]
    assert [account.name for account in accounts.list(AccountKind.USER, after="C")] == ["D"]
    for after in ("\0", "\ud800", "\u212aim"):
        with pytest.raises(UsageError):
            accounts.list(AccountKind.USER, after=after)


# Removal


def test_an_account_goes_with_its_tokens_and_memberships(accounts: Accounts) -> None:
    accounts.add_user("alice")
    accounts.add_org("acme")
    accounts.add_member("acme", "alice", Role.WRITE)
    token = accounts.issue("alice")
    accounts.remove("ALICE")
    assert not is_valid(accounts, token)
    assert accounts.members("acme") == []
    accounts.add_user("alice")
    assert accounts.tokens("alice") == []
    assert accounts.orgs_of("alice") == []
    assert not is_valid(accounts, token)


def test_an_id_is_not_given_again(accounts: Accounts) -> None:
    before = accounts.add_user("alice").id
    accounts.remove("alice")
    assert accounts.add_user("alice").id != before


@pytest.mark.parametrize("kind", AccountKind)
def test_an_account_with_a_repository_stays(accounts: Accounts, kind: AccountKind) -> None:
    (accounts.add_user if kind is AccountKind.USER else accounts.add_org)("Acme")
    values = {"owner": "Acme", "key": "acme", "id": "models/acme/bert"}
    index_of(accounts).change(lambda writer: writer.connection.change(ADD_REPOSITORY, values))
    with pytest.raises(UsageError, match="Acme has repositories: bert is one"):
        accounts.remove("acme")
    assert accounts.account("acme").kind is kind


def test_an_account_stays_if_a_repository_is_created_meanwhile(another: Another) -> None:
    """The creator keeps the account until it is done, and its repository is seen then."""
    accounts, other = another(), another()
    accounts.add_user("alice")
    ends: list[object] = []

    def remove() -> None:
        try:
            ends.append(other.remove("alice"))
        except XetError as error:
            ends.append(error)

    removing = threading.Thread(target=remove)

    def create(writer: Writer) -> None:
        assert AccountQueries(writer.connection).account("alice", keep=True) is not None
        removing.start()
        removing.join(0.3)
        assert ends == [], "it waits"
        values = {"owner": "alice", "key": "alice", "id": "models/alice/bert"}
        writer.connection.change(ADD_REPOSITORY, values)

    index_of(accounts).change(create)
    removing.join()
    assert [type(end) for end in ends] == [UsageError]
    assert names(accounts) == ["alice"]


@pytest.mark.parametrize("kind", [AccountKind.USER, AccountKind.ORG])
def test_a_user_is_not_removed_for_an_organization(accounts: Accounts, kind: AccountKind) -> None:
    accounts.add_user("alice")
    accounts.add_org("acme")
    for name in ("alice", "acme", "nobody"):
        if name == ("alice" if kind is AccountKind.USER else "acme"):
            continue
        with pytest.raises(NotFoundError, match=re.escape(f"called '{name}'")):
            accounts.remove(name, kind)


# Members


def test_members_have_the_role_that_they_were_given_last(accounts: Accounts) -> None:
    accounts.add_org("Acme", "Acme Inc.")
    accounts.add_user("Bob")
    accounts.add_user("alice")
    accounts.add_member("acme", "bob", Role.READ)
    accounts.add_member("ACME", "alice", Role.ADMIN)
    accounts.add_member("acme", "BOB", Role.WRITE)
    members = [(member.account.name, member.role) for member in accounts.members("acme")]
    assert members == [("alice", Role.ADMIN), ("Bob", Role.WRITE)]
    [org] = accounts.orgs_of("bob")
    assert (org.account.name, org.account.fullname, org.role) == ("Acme", "Acme Inc.", Role.WRITE)
    accounts.remove_member("acme", "bob")
    with pytest.raises(NotFoundError, match="Bob is no member of Acme"):
        accounts.remove_member("acme", "bob")
    assert accounts.orgs_of("bob") == []


@pytest.mark.parametrize(("org", "user"), [("alice", "bob"), ("acme", "other"), ("acme", "x"), ("x", "alice")])
def test_users_are_members_of_organizations_alone(accounts: Accounts, org: str, user: str) -> None:
    for name in ("alice", "bob"):
        accounts.add_user(name)
    for name in ("acme", "other"):
        accounts.add_org(name)
    with pytest.raises(NotFoundError):
        accounts.add_member(org, user, Role.READ)
    with pytest.raises(NotFoundError):
        accounts.remove_member(org, user)


# Tokens


def test_a_token_says_who_calls(accounts: Accounts, clock: FakeClock) -> None:
    user = accounts.add_user("Alice", "Alice A.")
    accounts.add_org("Acme")
    accounts.add_org("Beta")
    accounts.add_member("acme", "alice", Role.READ)
    accounts.add_member("beta", "alice", Role.ADMIN)
    clock.advance(5)
    token = accounts.issue("alice", scope=Scope.READ, name="laptop", ttl_seconds=60)
    assert re.fullmatch(r"hf_[A-Za-z]{34}", token)
    assert accounts.authenticate(token) == Actor(
        name="Alice",
        scope=Scope.READ,
        user_id=user.id,
        orgs={"acme": Role.READ, "beta": Role.ADMIN},
        fullname="Alice A.",
        created_at=user.created_at,
        token_id=accounts.token(token).id,
        token_name="laptop",
        token_created_at=clock(),
        expires_at=clock() + 60,
    )


def test_a_token_without_a_span_has_no_end_and_writes(accounts: Accounts, clock: FakeClock) -> None:
    accounts.add_user("alice")
    token = accounts.issue("alice")
    clock.advance(50 * 365 * 86_400)
    actor = accounts.authenticate(token)
    assert (actor.scope, actor.expires_at, actor.orgs) == (Scope.WRITE, None, {})
    assert right_in(actor, "alice") is Role.ADMIN.right


def test_a_token_ends_to_the_second(accounts: Accounts, clock: FakeClock) -> None:
    accounts.add_user("alice")
    token = accounts.issue("alice", ttl_seconds=3)
    clock.advance(2.5)
    assert is_valid(accounts, token)
    clock.advance(0.5)
    with pytest.raises(UnauthenticatedError, match="expired"):  # though it is remembered
        accounts.authenticate(token)
    assert accounts.remembered(token) is None
    clock.advance(100)
    assert not is_valid(accounts, token)


NO_TOKENS = (
    *("", "hf_", "hf_" + "a" * 34, "hf_" + "a" * 1_000_000, "hf_" + "\u00e9" * 34, "hf_" + "a" * 34 + "\n"),
    *("\ud800", "a.b.c"),
)


def test_what_is_no_token_is_refused_and_not_quoted(accounts: Accounts) -> None:
    for token in NO_TOKENS:
        with pytest.raises(UnauthenticatedError) as refused:
            accounts.authenticate(token)
        assert str(refused.value) == "the token is not valid"
        assert accounts.remembered(token) is None
        with pytest.raises(UnauthenticatedError):
            accounts.token(token)


def test_a_token_in_another_case_or_with_a_letter_more_is_none(accounts: Accounts) -> None:
    accounts.add_user("alice")
    token = accounts.issue("alice")
    for other in (token.swapcase(), "hf_" + token[3:].swapcase(), token + "a", token[:-1], token.removeprefix("hf_")):
        assert not is_valid(accounts, other)


def test_a_span_that_no_token_lives_is_refused(accounts: Accounts) -> None:
    accounts.add_user("alice")
    for ttl in (0, -1, module.MAX_TTL_SECONDS + 1):
        with pytest.raises(UsageError):
            accounts.issue("alice", ttl_seconds=ttl)
    assert accounts.tokens() == []


def test_no_users_token_is_an_admins(accounts: Accounts) -> None:
    accounts.add_user("alice")
    accounts.add_org("acme")
    with pytest.raises(UsageError):
        accounts.issue("alice", scope=Scope.ADMIN)
    for name in ("acme", "nobody"):
        with pytest.raises(NotFoundError):
            accounts.issue(name)


def test_texts_are_short_and_can_be_printed(accounts: Accounts) -> None:
    accounts.add_user("alice")
    for text in ("a" * 256, "a\nb", "\x1b[31m", "\ud800"):
        with pytest.raises(UsageError):
            accounts.add_user("bob", text)
        with pytest.raises(UsageError):
            accounts.issue("alice", name=text)


def test_tokens_are_listed_without_themselves(another: Another, clock: FakeClock) -> None:
    accounts = another()
    accounts.add_user("Alice")
    accounts.add_user("bob")
    texts = []
    for number in range(3):
        texts.append(accounts.issue("alice", name=f"n{number}"))
        clock.advance(1)
    texts.append(accounts.issue("bob"))
    rows = accounts.tokens("alice")
    assert [row.name for row in rows] == ["n0", "n1", "n2"]
    assert [row.user for row in accounts.tokens()] == ["Alice"] * 3 + ["bob"]
    assert [row.name for row in accounts.tokens("alice", after=rows[0], limit=1)] == ["n1"]
    assert [row.name for row in accounts.tokens(after=rows[2])] == [accounts.tokens("bob")[0].id]
    shown = repr(accounts.tokens()) + repr([accounts.authenticate(token) for token in texts]) + repr(vars(accounts))
    with index_of(accounts).snapshot() as reader:
        stored = repr([*reader.connection.rows("SELECT * FROM access_token")])
    assert not any(token[3:] in shown + stored for token in texts)


def test_a_revoked_token_is_none_at_once(accounts: Accounts) -> None:
    accounts.add_user("alice")
    first, second, third = (accounts.issue("alice") for _ in range(3))
    ids = {token: accounts.token(token).id for token in (first, second, third)}
    assert all(is_valid(accounts, token) for token in ids)
    assert accounts.revoke(first) == ids[first]
    assert accounts.revoke(ids[second]) == ids[second]
    assert [is_valid(accounts, token) for token in ids] == [False, False, True]
    for gone in (first, ids[second], "0" * 16, "hf_" + "a" * 34, "x", "", "\ud800"):
        with pytest.raises(NotFoundError) as refused:
            accounts.revoke(gone)
        assert "hf_" not in str(refused.value)


def test_a_token_in_the_place_of_a_name_is_not_quoted(accounts: Accounts) -> None:
    accounts.add_user("alice")
    token = accounts.issue("alice")
    calls: list[Callable[[], object]] = [
        lambda: accounts.add_user(token),
        lambda: accounts.add_org(token),
        lambda: accounts.account(token),
        lambda: accounts.remove(token),
        lambda: accounts.issue(token),
        lambda: accounts.tokens(token),
        lambda: accounts.members(token),
        lambda: accounts.add_member("x", token, Role.READ),
    ]
    for call in calls:
        with pytest.raises((UsageError, NotFoundError)) as refused:
            call()
        assert token[3:20] not in f"{refused.value} {refused.value.hint}"


# What is remembered


@pytest.mark.parametrize("change", ["revoke", "remove user", "add member", "remove member", "remove org"])
def test_a_change_counts_here_at_once_and_elsewhere_in_seconds(another: Another, clock: FakeClock, change: str) -> None:
    here, elsewhere = another(), another()
    here.add_user("alice")
    here.add_org("acme")
    if change != "add member":
        here.add_member("acme", "alice", Role.ADMIN)
    token = here.issue("alice")
    before = here.authenticate(token)
    assert elsewhere.authenticate(token) == before
    changes: dict[str, Callable[[], object]] = {
        "revoke": lambda: here.revoke(token),
        "remove user": lambda: here.remove("alice"),
        "add member": lambda: here.add_member("acme", "alice", Role.READ),
        "remove member": lambda: here.remove_member("acme", "alice"),
        "remove org": lambda: here.remove("acme"),
    }
    changes[change]()
    clock.advance(module.REMEMBERED_SECONDS - 0.001)

    def seen_by(accounts: Accounts) -> object:
        try:
            return accounts.authenticate(token).orgs
        except UnauthenticatedError:
            return "none"

    after = {"revoke": "none", "remove user": "none", "add member": {"acme": Role.READ}}.get(change, {})
    assert seen_by(here) == after
    assert seen_by(elsewhere) == before.orgs, "no query is made"
    clock.advance(0.001)
    assert seen_by(elsewhere) == after


def test_a_change_during_a_query_is_not_overlooked(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts.add_user("alice")
    token = accounts.issue("alice")
    usual = AccountQueries.by_digest

    def slow(queries: AccountQueries, digest: bytes) -> object:
        found = usual(queries, digest)
        revoking = threading.Thread(target=accounts.revoke, args=[token])
        revoking.start()
        revoking.join()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(AccountQueries, "by_digest", slow)
        accounts.authenticate(token)
    assert accounts.remembered(token) is None
    assert not is_valid(accounts, token)


def test_a_clock_that_is_set_back_prolongs_nothing(another: Another, clock: FakeClock) -> None:
    here, elsewhere = another(), another()
    here.add_user("alice")
    token = here.issue("alice")
    elsewhere.authenticate(token)
    here.revoke(token)
    clock.advance(-3600)
    assert not is_valid(elsewhere, token)


def test_wrong_tokens_are_not_remembered_and_right_ones_are_bounded(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10_000):
        assert not is_valid(accounts, f"hf_{number:034}")
    assert not accounts._remembered
    monkeypatch.setattr(module, "REMEMBERED_TOKENS", 3)
    accounts.add_user("alice")
    tokens = [accounts.issue("alice") for _ in range(5)]
    for token in tokens:
        assert is_valid(accounts, token)
    assert [accounts.remembered(token) is not None for token in tokens] == [False, False, True, True, True]


# The last use


def test_the_last_use_is_noted_once_a_minute(accounts: Accounts, clock: FakeClock) -> None:
    accounts.add_user("alice")
    token = accounts.issue("alice")
    assert accounts.token(token).last_used_at is None
    accounts.authenticate(token)
    first = clock()
    for _ in range(11):
        clock.advance(5)
        accounts.authenticate(token)
        assert accounts.token(token).last_used_at == first
    clock.advance(5)
    accounts.authenticate(token)
    assert accounts.token(token).last_used_at == first + 60


def test_a_busy_database_delays_and_fails_no_request(another: Another) -> None:
    accounts, other = another(), another()
    accounts.add_user("alice")
    token = accounts.issue("alice")
    with index_of(other).transaction() as writer:
        writer.connection.change("UPDATE access_token SET last_used_at = NULL")  # and keeps the row, and the file
        assert is_valid(accounts, token)
    assert accounts.token(token).last_used_at is None
    accounts._remembered.clear()
    accounts.authenticate(token)
    assert accounts.token(token).last_used_at is not None


def test_a_database_that_is_away_is_no_wrong_token(accounts: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts.add_user("alice")
    token = accounts.issue("alice")

    def away(_: Index) -> object:
        raise UnavailableError("the index does not answer")

    monkeypatch.setattr(Index, "snapshot", away)
    with pytest.raises(UnavailableError):
        accounts.authenticate(token)
