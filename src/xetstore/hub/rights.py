"""Rights: a caller as the hub knows it, and the right that it has at a repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, Protocol

from xetstore.access.scope import Scope
from xetstore.errors import ForbiddenError
from xetstore.hub.names import account_key

PUBLIC: Final = "public"
PRIVATE: Final = "private"


class Right(IntEnum):
    """A right at a repository; each includes those before it.

    SEE: know of it, read its description and its list of files. READ: its files, and propose changes to it. WRITE:
    commit, and change its refs. ADMIN: its settings, its name, its end.

    >>> Right.READ < Right.WRITE
    True
    """

    SEE = 1
    READ = 2
    WRITE = 3
    ADMIN = 4


class Role(StrEnum):
    """The role of a member of an organization."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    @property
    def right(self) -> Right:
        """The right that it gives at each repository of the organization."""
        return Right[self.name]


class Owned(Protocol):
    """All that decides on rights at a repository."""

    @property
    def owner_key(self) -> str:
        """The name of its owner, in lower case."""

    @property
    def visibility(self) -> str:
        """:data:`PUBLIC`; by any other word it is private."""

    @property
    def gated(self) -> str | None:
        """``auto`` or ``manual`` if its files are for those alone who asked and were accepted; else None."""


@dataclass(frozen=True, slots=True)
class Actor:
    """A caller: the user whose token it has, or none. Times are in unix seconds.

    ``orgs``: its role in each organization, by the name of that in lower case. ``is_admin`` may do everything.
    ``token_id``, ``token_name``, ``token_created_at`` and ``expires_at`` are those of its token; the last one is None
    where it has no end.
    """

    name: str | None = None
    scope: Scope = Scope.READ
    user_id: int | None = None
    orgs: Mapping[str, Role] = field(default_factory=dict, hash=False)
    is_admin: bool = False
    fullname: str | None = None
    created_at: float | None = None
    token_id: str = ""
    token_name: str = ""
    token_created_at: float | None = None
    expires_at: float | None = None

    @property
    def is_known(self) -> bool:
        """True if it is a user, or the admin."""
        return self.is_admin or self.name is not None

    @property
    def author(self) -> str:
        """The name under which its changes are noted."""
        return self.name or "admin"

    @property
    def may_propose(self) -> bool:
        """True if it may open pull requests and discussions where it may read."""
        return self.is_known and self.scope.includes(Scope.WRITE)


ANONYMOUS: Final = Actor()
"""The caller without a token."""

LOCAL: Final = Actor(name="local", scope=Scope.ADMIN, is_admin=True)
"""The caller of a server that asks for no token, and of a store that was opened in this process."""


def require_proposer(actor: Actor) -> None:
    """Raise ForbiddenError unless the token of an actor is good for changes at all."""
    if not actor.may_propose:
        raise ForbiddenError("this needs a token with scope write")


def right_in(actor: Actor, owner: str) -> Right | None:
    """The right at everything that an account has, by the name of that; None if it has none but those of strangers.

    With WRITE, repositories may be created there.

    >>> right_in(Actor(name="Alice", scope=Scope.WRITE), "alice")
    <Right.ADMIN: 4>
    """
    if actor.is_admin:
        return Right.ADMIN
    owner = account_key(owner)
    if actor.name is not None and account_key(actor.name) == owner:
        right = Right.ADMIN
    elif (role := actor.orgs.get(owner)) is not None:
        right = role.right
    else:
        return None
    return right if actor.scope.includes(Scope.WRITE) else min(right, Right.READ)


def right_of(
    actor: Actor, repository: Owned, *, is_accepted: bool = False, anonymous_reads: bool = True
) -> Right | None:
    """The right at a repository; None if it is for this caller as if it were missing.

    ``is_accepted``: the caller asked for its files, and was accepted. ``anonymous_reads``: what is public is so for
    callers without a token too.
    """
    right = right_in(actor, repository.owner_key)
    if right is not None:
        return right
    if repository.visibility != PUBLIC or not (actor.is_known or anonymous_reads):
        return None
    return Right.SEE if repository.gated and not is_accepted else Right.READ
