"""Accounts, members of organizations, and the tokens of users."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from xetstore.access.scope import Scope
from xetstore.cas.index.queries.rows import Questions
from xetstore.database.connection import Row
from xetstore.errors import UsageError
from xetstore.hub.names import account_key, is_account_name
from xetstore.hub.rights import Role


class AccountKind(StrEnum):
    """A kind of account."""

    USER = "user"
    ORG = "org"


@dataclass(frozen=True, slots=True)
class Account:
    """A user or an organization. ``created_at`` is in unix seconds."""

    id: int
    name: str
    kind: AccountKind
    fullname: str | None
    created_at: float


@dataclass(frozen=True, slots=True)
class Membership:
    """An account and its role: a member of an organization, or an organization of a member."""

    account: Account
    role: Role


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A user's token, of which only the digest is kept. Times are in unix seconds."""

    id: str
    user: str
    name: str
    scope: Scope
    created_at: float
    last_used_at: float | None
    expires_at: float | None


ACCOUNT: Final = "account.id, account.name, account.kind, account.fullname, account.created_at"
_TOKEN: Final = (
    "access_token.id, account.name, access_token.name, access_token.scope, access_token.created_at, "
    "access_token.last_used_at, access_token.expires_at"
)
_BY_NAME: Final = f"SELECT {ACCOUNT} FROM account WHERE name_key = :name_key"
_PAGE: Final = f"""
SELECT {ACCOUNT} FROM account WHERE kind = :kind AND name_key > :after ORDER BY name_key LIMIT :limit
"""
_ORGS_OF: Final = f"""
SELECT {ACCOUNT}, member.role FROM member JOIN account ON account.id = member.org_id
WHERE member.user_id = :user_id ORDER BY account.name_key
"""
_MEMBERS_OF: Final = f"""
SELECT {ACCOUNT}, member.role FROM member JOIN account ON account.id = member.user_id
WHERE member.org_id = :org_id AND account.name_key > :after ORDER BY account.name_key LIMIT :limit
"""
# A row for each organization of the user, or one without.
_BY_DIGEST: Final = f"""
SELECT {_TOKEN}, {ACCOUNT}, org.name_key, member.role
FROM access_token
JOIN account ON account.id = access_token.user_id
LEFT JOIN member ON member.user_id = account.id
LEFT JOIN account AS org ON org.id = member.org_id
WHERE access_token.digest = :digest
"""
_TOKENS: Final = f"""
SELECT {_TOKEN} FROM access_token JOIN account ON account.id = access_token.user_id
WHERE access_token.user_id = :user_id AND (access_token.created_at, access_token.id) > (:after, :after_id)
ORDER BY access_token.created_at, access_token.id LIMIT :limit
"""
_ALL_TOKENS: Final = f"""
SELECT {_TOKEN} FROM access_token JOIN account ON account.id = access_token.user_id
WHERE (access_token.created_at, access_token.id) > (:after, :after_id)
ORDER BY access_token.created_at, access_token.id LIMIT :limit
"""
_OWNS: Final = "SELECT name FROM repository WHERE owner_key = :name_key LIMIT 1"

_ADD: Final = """
INSERT INTO account (id, name, name_key, kind, fullname, created_at)
VALUES (:id, :name, :name_key, :kind, :fullname, :now) ON CONFLICT (name_key) DO NOTHING
"""
_REMOVE: Final = "DELETE FROM account WHERE id = :id"
_SET_MEMBER: Final = """
INSERT INTO member (org_id, user_id, role) VALUES (:org_id, :user_id, :role)
ON CONFLICT (org_id, user_id) DO UPDATE SET role = excluded.role
"""
_REMOVE_MEMBER: Final = "DELETE FROM member WHERE org_id = :org_id AND user_id = :user_id"
_ADD_TOKEN: Final = """
INSERT INTO access_token (id, user_id, name, digest, scope, created_at, expires_at)
VALUES (:id, :user_id, :name, :digest, :scope, :now, :expires_at)
"""
_NOTE_USE: Final = """
UPDATE access_token SET last_used_at = :now WHERE id = :id AND (last_used_at IS NULL OR last_used_at <= :before)
"""
_TOKEN_ID: Final = "SELECT id FROM access_token WHERE digest = :digest"
_REMOVE_TOKEN: Final = "DELETE FROM access_token WHERE id = :id"


def account_of(row: Row) -> Account:
    """An account from the five columns of one."""
    number, name, kind, fullname, created_at = row
    return Account(number, name, AccountKind(kind), fullname, created_at)


def token_of(row: Row) -> TokenRow:
    """A token from the seven columns of one."""
    token_id, user, name, scope, created_at, last_used_at, expires_at = row
    return TokenRow(token_id, user, name, Scope(scope), created_at, last_used_at, expires_at)


def _behind(name: str) -> str:
    """The key of the name behind which a page begins."""
    if name and not is_account_name(name):
        raise UsageError("a page begins behind the name of an account")
    return account_key(name)


class AccountQueries(Questions):
    """Questions about accounts."""

    def account(self, name: str, *, keep: bool = False) -> Account | None:
        """The account of that name, in any case. With ``keep`` it is not removed before the transaction ends: for
        changes that give it something.
        """
        if not is_account_name(name):  # which a database may refuse to look for
            return None
        statement = f"{_BY_NAME} FOR KEY SHARE" if keep else _BY_NAME
        row = self.connection.row(statement, {"name_key": account_key(name)})
        return None if row is None else account_of(row)

    def accounts(self, kind: AccountKind, after: str, limit: int) -> list[Account]:
        """At most ``limit`` accounts of a kind, by name, behind the one of that name."""
        values = {"kind": kind.value, "after": _behind(after), "limit": limit}
        return [account_of(row) for row in self.connection.rows(_PAGE, values)]

    def orgs_of(self, user_id: int) -> list[Membership]:
        """The organizations of a user, by name, with the role that it has in each."""
        rows = self.connection.rows(_ORGS_OF, {"user_id": user_id})
        return [Membership(account_of(row[:5]), Role(row[5])) for row in rows]

    def members_of(self, org_id: int, after: str, limit: int) -> list[Membership]:
        """At most ``limit`` members of an organization, by name, behind the one of that name."""
        rows = self.connection.rows(_MEMBERS_OF, {"org_id": org_id, "after": _behind(after), "limit": limit})
        return [Membership(account_of(row[:5]), Role(row[5])) for row in rows]

    def by_digest(self, digest: bytes) -> tuple[TokenRow, Account, dict[str, Role]] | None:
        """The token with that digest, its user, and the roles of that by organization, in lower case."""
        rows = list(self.connection.rows(_BY_DIGEST, {"digest": digest}))
        if not rows:
            return None
        roles = {org: Role(role) for *_, org, role in rows if org is not None}
        return token_of(rows[0][:7]), account_of(rows[0][7:12]), roles

    def tokens(self, user_id: int | None, after: TokenRow | None, limit: int) -> list[TokenRow]:
        """At most ``limit`` tokens, of a user or of all, the oldest first, behind that one."""
        behind = {"after": -1.0, "after_id": ""} if after is None else {"after": after.created_at, "after_id": after.id}
        if user_id is None:
            rows = self.connection.rows(_ALL_TOKENS, {**behind, "limit": limit})
        else:
            rows = self.connection.rows(_TOKENS, {**behind, "user_id": user_id, "limit": limit})
        return [token_of(row) for row in rows]

    def token_id(self, digest: bytes) -> str | None:
        """The id of the token with that digest."""
        token_id: str | None = self.connection.value(_TOKEN_ID, {"digest": digest})
        return token_id

    def first_repository(self, name: str) -> str | None:
        """The name of one of the repositories of an account; None if it has none."""
        repository: str | None = self.connection.value(_OWNS, {"name_key": account_key(name)})
        return repository


class AccountChanges(AccountQueries):
    """Changes of accounts, in a transaction."""

    def add(self, account: Account) -> bool:
        """Add an account; False if the name is taken, in whatever case."""
        values = {"id": account.id, "name": account.name, "name_key": account_key(account.name)}
        more = {"kind": account.kind.value, "fullname": account.fullname, "now": account.created_at}
        return self.connection.change(_ADD, {**values, **more}) == 1

    def remove(self, number: int) -> bool:
        """Remove an account, with its tokens and memberships; False if it is gone already."""
        return self.connection.change(_REMOVE, {"id": number}) == 1

    def set_member(self, org_id: int, user_id: int, role: Role) -> None:
        """Make a user a member, or give a member another role."""
        self.connection.change(_SET_MEMBER, {"org_id": org_id, "user_id": user_id, "role": role.value})

    def remove_member(self, org_id: int, user_id: int) -> bool:
        """End a membership; False if there is none."""
        return self.connection.change(_REMOVE_MEMBER, {"org_id": org_id, "user_id": user_id}) == 1

    def add_token(self, token: TokenRow, user_id: int, digest: bytes) -> None:
        """Add a token that was not used yet."""
        self.connection.change(
            _ADD_TOKEN,
            {
                "id": token.id,
                "user_id": user_id,
                "name": token.name,
                "digest": digest,
                "scope": token.scope.value,
                "now": token.created_at,
                "expires_at": token.expires_at,
            },
        )

    def note_use(self, token_id: str, now: float, before: float) -> None:
        """Note that a token was used, unless a use after ``before`` is noted."""
        self.connection.change(_NOTE_USE, {"id": token_id, "now": now, "before": before})

    def remove_token(self, token_id: str) -> bool:
        """Remove a token; False if there is none of that id."""
        return self.connection.change(_REMOVE_TOKEN, {"id": token_id}) == 1
