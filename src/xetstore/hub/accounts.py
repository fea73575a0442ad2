"""Accounts: users, organizations and their members, and the tokens by which users are known.

A token is 34 random letters behind ``hf_``, as the Hub's are, so that its clients take it, and programs that look for
leaked secrets know it. Its SHA-256 alone is stored, and it is looked up by that: no comparison takes longer the more of
a guess is right, and nothing that is stored can be used as a token.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

from xetstore.access.scope import OF_A_USER, Scope
from xetstore.cas.index import Index
from xetstore.errors import (
    AccessDeniedError,
    ExistsError,
    NotFoundError,
    StorageFullError,
    UnauthenticatedError,
    UnavailableError,
    UsageError,
)
from xetstore.hub.names import SET_ASIDE, check_account_name
from xetstore.hub.queries.accounts import Account, AccountChanges, AccountKind, AccountQueries, Membership, TokenRow
from xetstore.hub.rights import Actor, Role
from xetstore.platform import forks

TOKEN_PREFIX: Final = OF_A_USER
REMEMBERED_SECONDS: Final = 5.0
"""Time that a token is taken to be as it was. Changes made in this process count at once."""
REMEMBERED_TOKENS: Final = 4096
USE_SECONDS: Final = 60.0
"""The last use of a token is noted at most once in this time."""
MAX_TTL_SECONDS: Final = 36_500 * 86_400
MAX_TEXT: Final = 255
"""Characters of the full name of an account, and of the name of a token."""
PAGE_ROWS: Final = 1000

NOT_ACCOUNTS: Final = frozenset(("admin", "default", "local", SET_ASIDE))
"""The holder of the admin token, the namespace of a bare CAS, the caller where no tokens are asked for, and the owner
of what a copy of a store has set aside: a user of such a name would have all that.
"""

_LETTERS: Final = 34
_TOKEN: Final = re.compile(r"hf_[A-Za-z0-9]{32,128}")
_LIKE_A_TOKEN: Final = re.compile(r"hf_[A-Za-z0-9]{16,}")
_TOKEN_ID: Final = re.compile(r"[0-9a-f]{16}")
_LARGEST_ID: Final = 2**53 - 1  # JSON has it as it is

T = TypeVar("T")


class _Remembered(NamedTuple):
    asked_at: float
    actor: Actor


class Accounts:
    """The accounts of a store. Thread-safe; several processes may have those of one store.

    Names are told apart without regard to case, and shown as they were given. ``clock`` is in unix seconds.

    >>> from xetstore.hub.tables import MIGRATIONS
    >>> index = Index.in_memory()
    >>> index.migrate(MIGRATIONS)
    >>> accounts = Accounts(index)
    >>> accounts.add_user("DVUser").name
    'DVUser'
    >>> accounts.authenticate(accounts.issue("dvuser")).name
    'DVUser'
    """

    def __init__(self, index: Index, clock: Callable[[], float] | None = None) -> None:
        self._index = index
        self._clock = clock or index.clock
        self._lock = forks.lock()
        # By SHA-256, so that no token can be read out of this table.
        self._remembered: dict[bytes, _Remembered] = {}
        self._changes = 0

    # Users and organizations

    def add_user(self, name: str, fullname: str | None = None) -> Account:
        """Add a user. Raises ExistsError if an account has the name, UsageError for what is no name."""
        return self._add(name, AccountKind.USER, fullname)

    def add_org(self, name: str, fullname: str | None = None) -> Account:
        """Add an organization. Raises ExistsError if an account has the name, UsageError for what is no name."""
        return self._add(name, AccountKind.ORG, fullname)

    def account(self, name: str, kind: AccountKind | None = None) -> Account:
        """The account of that name. Raises NotFoundError if there is none, or none of that kind."""
        with self._index.snapshot() as reader:
            return require_account(AccountQueries(reader.connection), name, kind)

    def list(self, kind: AccountKind, after: str = "", limit: int = PAGE_ROWS) -> Sequence[Account]:
        """At most ``limit`` accounts of a kind, by name, behind the one of that name."""
        with self._index.snapshot() as reader:
            return AccountQueries(reader.connection).accounts(kind, after, limit)

    def remove(self, name: str, kind: AccountKind | None = None) -> Account:
        """Remove an account, with its tokens and memberships. Raises UsageError as long as it has a repository."""

        def work(changes: AccountChanges) -> Account:
            account = require_account(changes, name, kind)
            # First this, for which one who is creating a repository there must be done; then a look at what there is.
            changes.remove(account.id)
            if (repository := changes.first_repository(account.name)) is not None:
                raise UsageError(
                    f"{account.name} has repositories: {repository} is one",
                    hint="delete them, or move them to another account",
                )
            return account

        return self._change(work)

    # Members

    def add_member(self, org: str, user: str, role: Role) -> Membership:
        """Make a user a member of an organization, or give a member another role."""

        def work(changes: AccountChanges) -> Membership:
            organization = require_account(changes, org, AccountKind.ORG, keep=True)
            member = require_account(changes, user, AccountKind.USER, keep=True)
            changes.set_member(organization.id, member.id, role)
            return Membership(member, role)

        return self._change(work)

    def remove_member(self, org: str, user: str) -> None:
        """End a membership. Raises NotFoundError if there is none."""

        def work(changes: AccountChanges) -> None:
            organization = require_account(changes, org, AccountKind.ORG)
            member = require_account(changes, user, AccountKind.USER)
            if not changes.remove_member(organization.id, member.id):
                raise NotFoundError(f"{member.name} is no member of {organization.name}")

        self._change(work)

    def members(self, org: str, after: str = "", limit: int = PAGE_ROWS) -> Sequence[Membership]:
        """At most ``limit`` members of an organization, by name, behind the one of that name."""
        with self._index.snapshot() as reader:
            queries = AccountQueries(reader.connection)
            return queries.members_of(require_account(queries, org, AccountKind.ORG).id, after, limit)

    def orgs_of(self, user: str) -> Sequence[Membership]:
        """The organizations of a user, by name, with the role that it has in each."""
        with self._index.snapshot() as reader:
            queries = AccountQueries(reader.connection)
            return queries.orgs_of(require_account(queries, user, AccountKind.USER).id)

    # Tokens

    def issue(self, user: str, *, scope: Scope = Scope.WRITE, name: str = "", ttl_seconds: int | None = None) -> str:
        """A new token of a user; without ``ttl_seconds`` it has no end. Without a name it has its id for one."""
        if scope is Scope.ADMIN:
            raise UsageError("a user's token is one to read or to write", hint="xet token admin prints the admin's")
        if ttl_seconds is not None and not 0 < ttl_seconds <= MAX_TTL_SECONDS:
            raise UsageError(
                f"a token cannot live for {ttl_seconds} seconds",
                hint=f"from 1 second to {MAX_TTL_SECONDS // 86400} days are possible; without a span it has no end",
            )
        _check_text(name, "name of a token")
        token = TOKEN_PREFIX + "".join(secrets.choice(string.ascii_letters) for _ in range(_LETTERS))
        token_id, now = secrets.token_hex(8), self._clock()
        expires_at = None if ttl_seconds is None else now + ttl_seconds

        def work(changes: AccountChanges) -> None:
            account = require_account(changes, user, AccountKind.USER, keep=True)
            row = TokenRow(token_id, account.name, name or token_id, scope, now, None, expires_at)
            changes.add_token(row, account.id, _digest(token))

        self._change(work)
        return token

    def authenticate(self, token: str) -> Actor:
        """The caller whose token this is. UnauthenticatedError, which never quotes it, if it is not valid now."""
        digest, now = _digest(token), self._clock()
        actor = self._known(digest, now)
        if actor is None:
            actor = self._look_up(digest, now)
        if actor.expires_at is not None and now >= actor.expires_at:
            raise UnauthenticatedError("the token has expired", hint="ask for a new one")
        return actor

    def remembered(self, token: str) -> Actor | None:
        """The caller whose token this is, where the database need not be asked: for an event loop."""
        try:
            digest, now = _digest(token), self._clock()
        except UnauthenticatedError:
            return None
        actor = self._known(digest, now)
        return None if actor is None or (actor.expires_at is not None and now >= actor.expires_at) else actor

    def tokens(
        self, user: str | None = None, after: TokenRow | None = None, limit: int = PAGE_ROWS
    ) -> Sequence[TokenRow]:
        """At most ``limit`` tokens, of a user or of all, the oldest first, behind that one."""
        with self._index.snapshot() as reader:
            queries = AccountQueries(reader.connection)
            number = None if user is None else require_account(queries, user, AccountKind.USER).id
            return queries.tokens(number, after, limit)

    def token(self, token: str) -> TokenRow:
        """All that is known of a token. UnauthenticatedError if there is none like it."""
        with self._index.snapshot() as reader:
            found = AccountQueries(reader.connection).by_digest(_digest(token))
        if found is None:
            raise _invalid()
        return found[0]

    def revoke(self, token_or_id: str) -> str:
        """Make a token invalid from now on, durably; returns its id. Raises NotFoundError if there is none like it."""

        def work(changes: AccountChanges) -> str:
            token_id: str | None = token_or_id
            if not _TOKEN_ID.fullmatch(token_or_id):
                token_id = changes.token_id(_digest(token_or_id)) if is_user_token(token_or_id) else None
            if token_id is None or not changes.remove_token(token_id):
                raise NotFoundError("no user has that token", hint="xet token list names those that there are")
            return token_id

        return self._change(work)

    # Within

    def _add(self, name: str, kind: AccountKind, fullname: str | None) -> Account:
        if check_account_name(_not_a_token(name)).lower() in NOT_ACCOUNTS:
            raise UsageError(f"{name} is the name of a caller without an account")
        _check_text(fullname or "", "full name")
        account = Account(1 + secrets.randbelow(_LARGEST_ID), name, kind, fullname or None, self._clock())

        def work(changes: AccountChanges) -> None:
            if not changes.add(account):
                taken = changes.account(name)
                shown = name if taken is None else taken.name
                raise ExistsError(f"there is an account called {shown}", hint="users and organizations share names")

        self._change(work)
        return account

    def _change(self, work: Callable[[AccountChanges], T]) -> T:
        try:
            return self._index.change(lambda writer: work(AccountChanges(writer.connection)))
        finally:
            with self._lock:
                self._changes += 1
                self._remembered.clear()

    def _known(self, digest: bytes, now: float) -> Actor | None:
        known = self._remembered.get(digest)
        return known.actor if known is not None and 0 <= now - known.asked_at < REMEMBERED_SECONDS else None

    def _look_up(self, digest: bytes, now: float) -> Actor:
        changes = self._changes
        with self._index.snapshot() as reader:
            found = AccountQueries(reader.connection).by_digest(digest)
        if found is None:
            raise _invalid()
        token, account, orgs = found
        actor = Actor(
            name=account.name,
            scope=token.scope,
            user_id=account.id,
            orgs=orgs,
            fullname=account.fullname,
            created_at=account.created_at,
            token_id=token.id,
            token_name=token.name,
            token_created_at=token.created_at,
            expires_at=token.expires_at,
        )
        with self._lock:
            if changes == self._changes:  # or it may be what was true before a change of this process
                self._remembered.pop(digest, None)
                while len(self._remembered) >= REMEMBERED_TOKENS:
                    del self._remembered[next(iter(self._remembered))]
                self._remembered[digest] = _Remembered(now, actor)
        self._note_use(token, now)
        return actor

    def _note_use(self, token: TokenRow, now: float) -> None:
        """Note it unless it was noted a short time ago, or the database is busy."""
        before = now - USE_SECONDS
        is_noted = token.last_used_at is not None and token.last_used_at > before
        is_over = token.expires_at is not None and now >= token.expires_at
        if is_noted or is_over or not self._index.is_writable:
            return
        with suppress(UnavailableError, StorageFullError, AccessDeniedError):
            self._index.change(
                lambda writer: AccountChanges(writer.connection).note_use(token.id, now, before), patience_seconds=0
            )


def is_user_token(text: str) -> bool:
    """True if a text has the form of a user's token.

    >>> is_user_token("eyJhbGciOiJFZERTQSJ9.e30.c2ln")
    False
    """
    return _TOKEN.fullmatch(text) is not None


def is_user_token_id(text: str) -> bool:
    """True if a text has the form of the id of a user's token.

    >>> is_user_token_id("0123456789abcdef")
    True
    """
    return _TOKEN_ID.fullmatch(text) is not None


def _digest(token: str) -> bytes:
    if not is_user_token(token):
        raise _invalid()
    return hashlib.sha256(token.encode("ascii")).digest()


def _invalid() -> UnauthenticatedError:
    return UnauthenticatedError("the token is not valid", hint="ask for a new one")


def require_account(queries: AccountQueries, name: str, kind: AccountKind | None, *, keep: bool = False) -> Account:
    """The account of that name. Raises NotFoundError if there is none, or none of that kind.

    With ``keep`` it is not removed before the transaction ends.
    """
    account = queries.account(_not_a_token(name), keep=keep)
    if account is None or kind not in (None, account.kind):
        word = {None: "account", AccountKind.USER: "user", AccountKind.ORG: "organization"}[kind]
        raise NotFoundError(f"there is no {word} called {name[:100]!r}")
    return account


def _not_a_token(name: str) -> str:
    """The name, unless it is a token given in its place: errors quote names."""
    if _LIKE_A_TOKEN.match(name):
        raise UsageError("that is a token, where the name of an account belongs")
    return name


def _check_text(text: str, what: str) -> None:
    if len(text) > MAX_TEXT or not text.isprintable():
        raise UsageError(f"the {what} is at most {MAX_TEXT} characters on one line")
