"""The token of a store's admin: one that may do everything, kept among its secrets for those who may read them."""

from __future__ import annotations

from typing import Final

from xetstore.access.secrets import ADMIN_TOKEN, Secrets
from xetstore.access.tenant import DEFAULT_NAMESPACE
from xetstore.access.tokens import Scope, TokenAuthority
from xetstore.errors import UnauthenticatedError

ADMIN_TTL_SECONDS: Final = 365 * 24 * 3600


def provide_admin_token(secrets: Secrets, authority: TokenAuthority) -> str:
    """The token of the admin. One that is missing or no longer valid is issued, and kept.

    Raises what :class:`~xetstore.access.secrets.Secrets` raises: AccessDeniedError if others may read it.
    """
    token = ""

    def edit(data: bytes | None) -> bytes | None:
        nonlocal token
        if data is not None:
            token = data.decode("ascii", "replace").strip()
            if _is_admin_token(token, authority):
                return None
        token = authority.issue(
            scope=Scope.ADMIN, namespace=DEFAULT_NAMESPACE, ttl_seconds=ADMIN_TTL_SECONDS, subject="admin"
        )
        return token.encode() + b"\n"

    secrets.change(ADMIN_TOKEN, edit)
    return token


def _is_admin_token(token: str, authority: TokenAuthority) -> bool:
    try:
        return authority.verify(token).scope is Scope.ADMIN
    except UnauthenticatedError:
        return False
