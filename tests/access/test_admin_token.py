"""The token of a store's admin: kept while it is valid, issued anew after, and for its owner alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from xetstore.access.admin_token import provide_admin_token
from xetstore.access.keys import KeyRing
from xetstore.access.secrets import ADMIN_TOKEN, FileSecrets
from xetstore.access.tokens import Scope, TokenAuthority
from xetstore.errors import AccessDeniedError


def test_it_is_kept_while_it_is_valid_and_issued_anew_after(tmp_path: Path) -> None:
    now = 1_000_000_000.0
    secrets = FileSecrets.open(tmp_path / "access", create=True)
    authority = TokenAuthority(KeyRing.of(secrets, clock=lambda: now))
    first = provide_admin_token(secrets, authority)
    path = tmp_path / "access" / ADMIN_TOKEN
    assert path.read_text() == first + "\n"
    assert authority.verify(first).scope is Scope.ADMIN
    assert provide_admin_token(secrets, authority) == first
    now += 364 * 86400
    assert provide_admin_token(secrets, authority) == first
    seen = {first}
    for spoil in (
        lambda: None,  # time has passed
        lambda: authority.revoke(path.read_text().strip()),
        path.unlink,
        lambda: path.write_bytes(b"\xff\n"),
        lambda: path.write_text(authority.issue(scope=Scope.WRITE, namespace="default")),
    ):
        now += 2 * 86400
        spoil()
        token = provide_admin_token(secrets, authority)
        assert path.read_text() == token + "\n"
        assert authority.verify(token).scope is Scope.ADMIN
        assert token not in seen
        seen.add(token)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_one_that_others_may_read_is_refused(tmp_path: Path) -> None:
    secrets = FileSecrets.open(tmp_path / "access", create=True)
    authority = TokenAuthority(KeyRing.of(secrets))
    provide_admin_token(secrets, authority)
    (tmp_path / "access" / ADMIN_TOKEN).chmod(0o644)
    with pytest.raises(AccessDeniedError, match="others than its owner may read") as caught:
        provide_admin_token(secrets, authority)
    assert "chmod 600" in (caught.value.hint or "")
