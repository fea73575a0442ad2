"""Tokens: who may do what until when, and everything that must not pass for a token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
import stat
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from xetstore.access import tokens as module
from xetstore.access.keys import Algorithm, KeyKind, KeyRing, make_keys
from xetstore.access.secrets import FileSecrets, locked
from xetstore.access.table_secrets import TableSecrets
from xetstore.access.tokens import (
    LEEWAY_SECONDS,
    MAX_TOKEN_BYTES,
    MAX_TTL_SECONDS,
    Caller,
    Scope,
    TokenAuthority,
    check_namespace,
)
from xetstore.database.sqlite import SqliteDatabase
from xetstore.errors import AccessDeniedError, StorageFullError, UnauthenticatedError, UnavailableError, UsageError
from xetstore.testing import FakeClock

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All that is not about the files themselves is so wherever keys and revocations are kept."""
    if "kept_in" in metafunc.fixturenames:
        is_about_files = not {"revoked", "on_files"}.isdisjoint(metafunc.fixturenames)
        metafunc.parametrize("kept_in", ["files"] if is_about_files else ["files", "table"])


@pytest.fixture
def on_files() -> None:
    """The test is about the folder."""


@pytest.fixture
def keys(kept_in: str, tmp_path: Path, clock: FakeClock) -> Iterator[KeyRing]:
    if kept_in == "files":
        yield KeyRing.open(tmp_path / "access", clock=clock)
        return
    with closing(SqliteDatabase.in_memory()) as database:
        kept = TableSecrets(database)
        make_keys(kept, int(clock()))
        yield KeyRing(kept, clock)


@pytest.fixture
def authority(keys: KeyRing) -> TokenAuthority:
    return TokenAuthority(keys)


def folder_of(keys: KeyRing) -> Path:
    assert isinstance(keys.secrets, FileSecrets)
    return keys.secrets.folder


@pytest.fixture
def revoked(keys: KeyRing) -> Path:
    return folder_of(keys) / "revoked"


@pytest.fixture(params=list(Algorithm), ids=str)
def algorithm(request: pytest.FixtureRequest, keys: KeyRing) -> Algorithm:
    """Each algorithm in turn, of the key that signs."""
    chosen = Algorithm(request.param)
    keys.rotate(KeyKind.TOKEN, chosen)
    return chosen


def issue(authority: TokenAuthority, **changed: Any) -> str:
    return authority.issue(**{"scope": Scope.WRITE, "namespace": "team/models", "ttl_seconds": 900, **changed})


def forge(keys: KeyRing, header: dict[str, Any] | None = None, **changed: Any) -> str:
    """What the store's own key signs, with other claims or header fields than the store would; None: left out."""
    key = keys.signing_key(KeyKind.TOKEN)
    now = int(keys.clock())
    claims = {
        "iss": "xetstore",
        "sub": "",
        "jti": "ab" * 16,
        "iat": now,
        "nbf": now,
        "exp": now + 900,
        "scope": "read",
        "namespace": "default",
        **changed,
    }
    payload = json.dumps({name: value for name, value in claims.items() if value is not None}).encode()
    return jwt.PyJWS().encode(
        payload, key.signing, algorithm=key.algorithm.value, headers={"kid": key.kid, **(header or {})}
    )


def b64(data: bytes | dict[str, Any]) -> str:
    raw = json.dumps(data).encode() if isinstance(data, dict) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def payload_of(token: str) -> str:
    return token.split(".")[1]


def refused(authority: TokenAuthority, token: str, match: str = "not valid") -> None:
    with pytest.raises(UnauthenticatedError, match=match) as caught:
        authority.verify(token)
    told = "".join(traceback.format_exception(caught.value)) + str(caught.value.hint)
    assert not token or len(token) < 8 or token not in told


# What a token says


def test_a_token_stands_for_its_caller(authority: TokenAuthority, algorithm: Algorithm, clock: FakeClock) -> None:
    token = issue(authority, subject="ci", repo="datasets/x", revision="main")
    caller = authority.verify(token)
    assert caller == Caller(
        namespace="team/models",
        scope=Scope.WRITE,
        token_id=caller.token_id,
        subject="ci",
        repo="datasets/x",
        revision="main",
        expires_at=int(clock()) + 900,
    )
    assert authority.verify(token) == caller


def test_a_token_is_a_jwt_that_names_its_key(authority: TokenAuthority, keys: KeyRing, algorithm: Algorithm) -> None:
    key = keys.signing_key(KeyKind.TOKEN)
    token = issue(authority)
    assert jwt.get_unverified_header(token) == {"alg": algorithm.value, "kid": key.kid, "typ": "JWT"}
    options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    claims = jwt.decode(token, key.verifying, algorithms=[algorithm.value], issuer="xetstore", options=options)
    assert set(claims) == {"iss", "sub", "jti", "iat", "nbf", "exp", "scope", "namespace"}


def test_every_token_has_an_id_of_its_own(authority: TokenAuthority) -> None:
    ids = {authority.verify(issue(authority)).token_id for _ in range(50)}
    assert len(ids) == 50
    assert {len(token_id) for token_id in ids} == {32}


@pytest.mark.parametrize("ttl", [0, -1, MAX_TTL_SECONDS + 1])
def test_a_lifetime_that_cannot_be_is_refused(authority: TokenAuthority, ttl: int) -> None:
    with pytest.raises(UsageError):
        issue(authority, ttl_seconds=ttl)


def test_claims_that_make_a_token_too_long_or_are_not_unicode_are_refused(authority: TokenAuthority) -> None:
    for subject in ("x" * MAX_TOKEN_BYTES, "\udc80"):
        with pytest.raises(UsageError):
            issue(authority, subject=subject)


@pytest.mark.parametrize("namespace", ["a", "default", "team/models", "A.b-c_d/9", "x" * 255, "0"])
def test_a_namespace_is_letters_digits_and_little_else(authority: TokenAuthority, namespace: str) -> None:
    assert check_namespace(namespace) == namespace
    assert authority.verify(issue(authority, namespace=namespace)).namespace == namespace


@pytest.mark.parametrize(
    "namespace", ["", "/a", ".a", "-a", "a..b", "a/../b", "..", "a b", "a\n", "ä", "a\0", "x" * 256, "a%2f", "a\\b"]
)
def test_anything_else_is_no_namespace_for_issuer_and_verifier(
    authority: TokenAuthority, keys: KeyRing, namespace: str
) -> None:
    with pytest.raises(UsageError):
        issue(authority, namespace=namespace)
    refused(authority, forge(keys, namespace=namespace))


# Scopes


def test_each_scope_includes_the_one_before() -> None:
    ordered = [Scope.READ, Scope.WRITE, Scope.ADMIN]
    for i, left in enumerate(ordered):
        for j, right in enumerate(ordered):
            assert left.includes(right) is (i >= j)
            assert ((left >= right), (left > right), (left <= right), (left < right)) == (i >= j, i > j, i <= j, i < j)
    assert sorted([Scope.ADMIN, Scope.WRITE, Scope.READ]) == ordered
    assert max(Scope) is Scope.ADMIN


def test_a_scope_does_not_compare_with_text_by_the_alphabet() -> None:
    for compare in (Scope.ADMIN.includes, Scope.ADMIN.__ge__, Scope.ADMIN.__gt__, Scope.READ.__le__, Scope.READ.__lt__):
        with pytest.raises(TypeError):
            compare("write")  # type: ignore[arg-type]


@pytest.mark.parametrize("scope", ["Read", "", "read write", "root", 1, ["admin"], {"read": True}])
def test_a_scope_that_is_none_is_refused(authority: TokenAuthority, keys: KeyRing, scope: object) -> None:
    refused(authority, forge(keys, scope=scope))


# Time


def test_a_token_ends_on_the_second_it_says(authority: TokenAuthority, clock: FakeClock) -> None:
    token = issue(authority, ttl_seconds=60)
    clock.advance(59)
    authority.verify(token)
    clock.advance(1)
    refused(authority, token, "expired")


def test_a_token_of_a_clock_ahead_of_ours_is_taken_within_the_leeway(authority: TokenAuthority, keys: KeyRing) -> None:
    now = int(keys.clock())
    assert authority.verify(forge(keys, nbf=now + LEEWAY_SECONDS))
    refused(authority, forge(keys, nbf=now + LEEWAY_SECONDS + 1), "not valid yet")
    assert LEEWAY_SECONDS <= 30


def test_the_authority_may_have_a_clock_of_its_own(keys: KeyRing, authority: TokenAuthority, clock: FakeClock) -> None:
    late = TokenAuthority(keys, clock=lambda: clock() + 1000)
    refused(late, issue(authority), "expired")


# Forgeries


def test_alg_none_is_refused(authority: TokenAuthority, keys: KeyRing, algorithm: Algorithm) -> None:
    payload = payload_of(issue(authority))
    for name in ("none", "None", "NONE", "nOnE", ""):
        for kid in (keys.signing_key(KeyKind.TOKEN).kid, None):
            head = b64({"alg": name, "typ": "JWT"} | ({"kid": kid} if kid else {}))
            for signature in ("", "AA", b64(bytes(64))):
                refused(authority, f"{head}.{payload}.{signature}")
            refused(authority, f"{head}.{payload}")


def test_a_public_key_is_no_hmac_secret(authority: TokenAuthority, keys: KeyRing) -> None:
    key = keys.signing_key(KeyKind.TOKEN)
    public = key.verifying
    assert isinstance(public, Ed25519PublicKey)
    payload = payload_of(issue(authority))
    for secret in (
        public.public_bytes_raw(),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        b"",
    ):
        text = f"{b64({'alg': 'HS256', 'kid': key.kid})}.{payload}"
        refused(authority, f"{text}.{b64(hmac.digest(secret, text.encode(), 'sha256'))}")


@pytest.mark.parametrize("name", ["HS256", "EdDSA", "HS512", "ES256", "RS256", "Ed25519", ["EdDSA"], None, 1])
def test_the_key_decides_on_the_algorithm(authority: TokenAuthority, keys: KeyRing, name: object) -> None:
    payload = payload_of(issue(authority))
    for algorithm in Algorithm:
        key = keys.rotate(KeyKind.TOKEN, algorithm)
        if name == algorithm.value:
            continue
        text = f"{b64({'alg': name, 'kid': key.kid})}.{payload}"
        for signature in (
            hmac.digest(key.secret, text.encode(), "sha256"),
            Ed25519PrivateKey.from_private_bytes(key.secret).sign(text.encode()),
        ):
            refused(authority, f"{text}.{b64(signature)}")


def test_a_key_for_urls_signs_no_tokens(authority: TokenAuthority, keys: KeyRing) -> None:
    url = keys.signing_key(KeyKind.URL)
    text = f"{b64({'alg': 'HS256', 'kid': url.kid})}.{payload_of(issue(authority))}"
    refused(authority, f"{text}.{b64(hmac.digest(url.secret, text.encode(), 'sha256'))}")


@pytest.mark.parametrize("kid", ["0" * 16, "", "../keys", None, 7, ["x"], {"a": 1}])
def test_a_key_that_is_not_ours_is_refused(authority: TokenAuthority, keys: KeyRing, kid: object) -> None:
    key = Ed25519PrivateKey.generate()
    text = f"{b64({'alg': 'EdDSA', 'kid': kid})}.{payload_of(issue(authority))}"
    refused(authority, f"{text}.{b64(key.sign(text.encode()))}")
    bare = f"{b64({'alg': 'EdDSA'})}.{payload_of(issue(authority))}"
    ours = keys.signing_key(KeyKind.TOKEN).signing
    assert isinstance(ours, Ed25519PrivateKey)
    refused(authority, f"{bare}.{b64(ours.sign(bare.encode()))}")


def test_a_token_of_another_store_is_refused(authority: TokenAuthority, tmp_path: Path) -> None:
    refused(authority, issue(TokenAuthority(KeyRing.open(tmp_path / "other"))))


def test_headers_that_change_the_meaning_are_refused(authority: TokenAuthority, keys: KeyRing) -> None:
    refused(authority, forge(keys, header={"crit": ["exp"], "exp": 1}))
    refused(authority, forge(keys, header={"crit": ["b64"], "b64": True, "x": 1}) + ".")
    authority.verify(forge(keys, header={"jku": "https://example.org", "jwk": {}}))  # they are not looked at


def test_no_changed_character_of_a_signature_passes(authority: TokenAuthority, algorithm: Algorithm) -> None:
    token = issue(authority)
    start = token.rindex(".") + 1
    for i in range(start, len(token)):
        at = ALPHABET.index(token[i])
        # The last character carries bits that stand for nothing: flip each of them too.
        for other in {ALPHABET[at ^ 1 << bit] for bit in range(6)} | set("=+/ .\n"):
            refused(authority, token[:i] + other + token[i + 1 :])
    authority.verify(token)


def test_no_other_changed_character_passes(authority: TokenAuthority) -> None:
    token = issue(authority)
    for i in range(token.rindex(".") + 1):
        other = "A" if token[i] != "A" else "B"
        refused(authority, token[:i] + other + token[i + 1 :])


def test_a_truncated_or_padded_token_is_refused(authority: TokenAuthority, algorithm: Algorithm) -> None:
    token = issue(authority)
    for end in range(len(token)):
        refused(authority, token[:end])
    for padded in (token + "=", token + "==", token + "\n", " " + token, token + "." + token, token + "A", token + "."):
        refused(authority, padded)


def test_a_token_longer_than_8_kib_is_refused_unread(authority: TokenAuthority, keys: KeyRing) -> None:
    head = {"alg": "EdDSA", "kid": keys.signing_key(KeyKind.TOKEN).kid}
    refused(authority, f"{b64(head)}.{b64(bytes(MAX_TOKEN_BYTES))}.AA", "too long")
    refused(authority, forge(keys, more="x" * MAX_TOKEN_BYTES), "too long")


@pytest.mark.parametrize("claim", ["iss", "sub", "jti", "iat", "nbf", "exp", "scope", "namespace"])
def test_a_missing_claim_is_refused(authority: TokenAuthority, keys: KeyRing, claim: str) -> None:
    authority.verify(forge(keys))
    refused(authority, forge(keys, **{claim: None}))


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("iss", "another"),
        ("sub", 7),
        ("jti", "short"),
        ("jti", "AB" * 16),
        ("jti", "ab" * 16 + "\n"),
        ("exp", "9999999999"),
        ("exp", 1e300),
        ("exp", True),
        ("exp", 10**30),
        ("exp", 0),
        ("nbf", 0),  # it would live longer than any token may
        ("nbf", "0"),
        ("iat", []),
        ("namespace", ["default"]),
        ("repo", 1),
    ],
)
def test_a_claim_of_the_wrong_form_is_refused(authority: TokenAuthority, keys: KeyRing, claim: str, value: Any) -> None:
    refused(authority, forge(keys, **{claim: value}))


def test_claims_that_we_do_not_know_are_ignored(authority: TokenAuthority, keys: KeyRing) -> None:
    assert authority.verify(forge(keys, aud="somebody", more={"deep": [1, 2, 3]})).namespace == "default"


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 5000, b'{"a":' * 1000])
def test_a_signed_payload_that_is_no_object_is_refused(
    authority: TokenAuthority, keys: KeyRing, payload: bytes
) -> None:
    key = keys.signing_key(KeyKind.TOKEN)
    refused(authority, jwt.PyJWS().encode(payload, key.signing, algorithm="EdDSA", headers={"kid": key.kid}))


@pytest.mark.parametrize("header", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 5000, b'{"kid":' * 600, b'"kid"'])
def test_a_header_that_is_no_object_is_refused(authority: TokenAuthority, header: bytes) -> None:
    refused(authority, f"{b64(header)}.{payload_of(issue(authority))}.{b64(bytes(64))}")


@given(
    st.one_of(
        st.text(max_size=200),
        st.text(alphabet=ALPHABET + ".=", max_size=200),
        st.tuples(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80)).map(
            lambda parts: ".".join(b64(part) for part in parts)
        ),
        st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "typ"]), st.text(max_size=9), max_size=5).map(
            lambda header: f"{b64(header)}.e30.AAAA"
        ),
    )
)
def test_any_text_is_a_token_or_refused(shared: TokenAuthority, text: str) -> None:
    with pytest.raises(UnauthenticatedError):
        shared.verify(text)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> TokenAuthority:
    return TokenAuthority(KeyRing.open(tmp_path_factory.mktemp("store") / "access"))


# Rotation


def test_a_token_of_a_replaced_key_is_good_until_the_overlap_is_over(
    authority: TokenAuthority, keys: KeyRing, clock: FakeClock
) -> None:
    old = issue(authority, ttl_seconds=10_000)
    keys.rotate(KeyKind.TOKEN, Algorithm.HS256, overlap_seconds=600)
    new = issue(authority, ttl_seconds=10_000)
    clock.advance(599)
    assert authority.verify(old)
    assert authority.verify(new)
    clock.advance(1)
    refused(authority, old)
    assert authority.verify(new)


def test_a_rotation_without_overlap_ends_a_token_that_was_just_verified(
    authority: TokenAuthority, keys: KeyRing, on_files: None
) -> None:
    token = issue(authority)
    authority.verify(token)
    KeyRing.open(folder_of(keys), clock=keys.clock).rotate(KeyKind.TOKEN, overlap_seconds=0)  # by another process
    refused(authority, token)


# Revocation


@pytest.mark.parametrize("by_id", [False, True], ids=["token", "id"])
def test_a_revoked_token_is_refused_by_every_authority_at_once(
    authority: TokenAuthority, keys: KeyRing, revoked: Path, by_id: bool, on_files: None
) -> None:
    other = TokenAuthority(KeyRing.open(folder_of(keys), clock=keys.clock))
    token, untouched = issue(authority), issue(authority)
    caller = other.verify(token)
    assert authority.revoke(caller.token_id if by_id else token) == caller.token_id
    for which in (authority, other, TokenAuthority(keys)):
        refused(which, token, "revoked")
        which.verify(untouched)
    assert stat.S_IMODE(revoked.stat().st_mode) == 0o600
    assert token not in revoked.read_text()


def test_revoking_twice_is_revoking_once(authority: TokenAuthority, revoked: Path) -> None:
    token = issue(authority)
    for _ in range(3):
        token_id = authority.revoke(token)
    authority.revoke(token_id)
    refused(authority, token, "revoked")
    assert len(revoked.read_text().splitlines()) == 1


def test_a_revocation_outlives_every_rotation(authority: TokenAuthority, keys: KeyRing) -> None:
    token = issue(authority)
    authority.revoke(token)
    keys.rotate(KeyKind.TOKEN, overlap_seconds=1000)
    refused(authority, token, "revoked")


@pytest.mark.parametrize("garbage", ["", "garbage", "a.b.c", "ab" * 15, "AB" * 16, "ab" * 16 + "\n", "x" * 10_000])
def test_revoking_garbage_is_an_error(authority: TokenAuthority, revoked: Path, garbage: str) -> None:
    with pytest.raises(UsageError) as caught:
        authority.revoke(garbage)
    assert not garbage or garbage not in str(caught.value)
    assert not revoked.exists()


def test_a_token_that_is_not_ours_or_was_cut_off_cannot_be_revoked(authority: TokenAuthority, tmp_path: Path) -> None:
    for token in (issue(TokenAuthority(KeyRing.open(tmp_path / "other"))), issue(authority)[:-1]):
        with pytest.raises(UsageError) as caught:
            authority.revoke(token)
        assert token not in "".join(traceback.format_exception(caught.value))


def test_entries_of_expired_tokens_go(authority: TokenAuthority, revoked: Path, clock: FakeClock) -> None:
    short, long = issue(authority, ttl_seconds=100), issue(authority, ttl_seconds=1000)
    authority.revoke(short)
    authority.revoke(long)
    clock.advance(100)
    last = issue(authority)
    authority.revoke(last)
    assert len(revoked.read_text().splitlines()) == 2
    for token in (long, last):
        refused(authority, token, "revoked")
    refused(authority, short, "expired")


def test_an_id_revoked_without_its_token_is_kept_as_long_as_any_token_lives(
    authority: TokenAuthority, clock: FakeClock
) -> None:
    token = issue(authority, ttl_seconds=MAX_TTL_SECONDS)
    authority.revoke(authority.verify(token).token_id)
    clock.advance(MAX_TTL_SECONDS - 1)
    authority.revoke("cd" * 16)
    refused(authority, token, "revoked")


@pytest.mark.parametrize("cut", [1, 2, 5, 10, 11])
def test_a_torn_last_line_hides_nothing(authority: TokenAuthority, revoked: Path, clock: FakeClock, cut: int) -> None:
    first, torn = issue(authority), issue(authority)
    authority.revoke(first)
    authority.revoke(torn)
    revoked.write_bytes(revoked.read_bytes()[:-cut])
    refused(authority, first, "revoked")
    refused(authority, torn, "revoked")  # its id is whole, whatever became of the time behind it
    last = issue(authority)
    authority.revoke(last)
    for token in (first, torn, last):
        refused(authority, token, "revoked")
    clock.advance(1)
    authority.revoke("cd" * 16)
    assert len(revoked.read_text().splitlines()) == 4


def test_a_torn_line_without_a_whole_id_is_nobodys(authority: TokenAuthority, revoked: Path) -> None:
    first, torn = issue(authority), issue(authority)
    authority.revoke(first)
    authority.revoke(torn)
    revoked.write_bytes(revoked.read_bytes()[:-30])
    refused(authority, first, "revoked")
    authority.verify(torn)
    authority.revoke(torn)
    refused(authority, torn, "revoked")


def put_away(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"garbage\n" + path.read_bytes()),
        lambda path: path.write_bytes(b"\xff\xfe\n"),
        lambda path: path.write_bytes(b"\n"),
        lambda path: path.chmod(0o644),
        put_away,
    ],
    ids=["garbage line", "binary", "empty line", "readable by others", "a directory"],
)
def test_while_it_is_unknown_what_is_revoked_nothing_is_valid(
    authority: TokenAuthority, keys: KeyRing, revoked: Path, spoil: Callable[[Path], object]
) -> None:
    token = issue(authority)
    authority.verify(token)
    authority.revoke(issue(authority))
    spoil(revoked)
    for which in (TokenAuthority(keys), TokenAuthority(keys)):
        for _ in range(2):
            with pytest.raises(UnavailableError, match="revoked"):
                which.verify(token)


def test_a_list_that_others_may_read_is_not_changed_and_what_to_do_is_said(
    authority: TokenAuthority, revoked: Path
) -> None:
    authority.revoke(issue(authority))
    revoked.chmod(0o644)
    with pytest.raises(AccessDeniedError, match="others than its owner") as caught:
        authority.revoke(issue(authority))
    assert "chmod 600" in (caught.value.hint or "")


def test_a_list_that_cannot_be_looked_at_is_not_an_empty_one(
    authority: TokenAuthority, keys: KeyRing, on_files: None
) -> None:
    token = issue(authority)
    real = os.stat

    def failing(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("revoked"):
            raise PermissionError(13, "Permission denied")
        return real(path, **options)

    with mock.patch.object(os, "stat", failing), pytest.raises(UnavailableError):
        authority.verify(token)
    authority.verify(token)


def test_a_revocation_that_could_not_be_written_is_not_acknowledged(authority: TokenAuthority, revoked: Path) -> None:
    first, second = issue(authority), issue(authority)
    authority.revoke(first)
    before = revoked.read_bytes()
    with mock.patch.object(os, "fsync", side_effect=OSError(28, "No space left")), pytest.raises(StorageFullError):
        authority.revoke(second)
    assert revoked.read_bytes() == before
    refused(authority, first, "revoked")


def test_revocations_at_once_are_all_kept(authority: TokenAuthority, keys: KeyRing) -> None:
    tokens = [issue(authority) for _ in range(12)]
    threads = [threading.Thread(target=TokenAuthority(keys).revoke, args=(token,)) for token in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for token in tokens:
        refused(authority, token, "revoked")


def test_verifying_needs_no_lock(authority: TokenAuthority, keys: KeyRing, on_files: None) -> None:
    token = issue(authority)
    with locked(folder_of(keys)):
        assert authority.verify(token)


# What is remembered


def test_remembered_tokens_are_bounded_and_not_readable(
    authority: TokenAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED_TOKENS", 5)
    tokens = [issue(authority) for _ in range(12)]
    for _ in range(2):
        for token in tokens:
            authority.verify(token)
    remembered = authority._remembered
    assert len(remembered) == 5
    assert set(remembered) == {hashlib.sha256(token.encode()).digest() for token in tokens[-5:]}


def test_a_remembered_token_still_expires_and_can_be_revoked(authority: TokenAuthority, clock: FakeClock) -> None:
    first, second = issue(authority), issue(authority)
    for _ in range(3):
        authority.verify(first)
        authority.verify(second)
    authority.revoke(first)
    refused(authority, first, "revoked")
    clock.advance(900)
    refused(authority, second, "expired")


# Secrets


def test_no_token_or_secret_is_in_a_repr_an_error_or_a_log_line(
    authority: TokenAuthority, keys: KeyRing, clock: FakeClock, caplog: pytest.LogCaptureFixture, on_files: None
) -> None:
    caplog.set_level(logging.DEBUG)
    token = issue(authority, ttl_seconds=10)
    caller = authority.verify(token)
    texts = [repr(authority), str(authority), repr(caller), repr(vars(authority)), repr(vars(authority._revocations))]
    clock.advance(10)
    for bad in (token, token[:-2] + "AA", token + "x", "." + token):
        for call in (authority.verify, authority.revoke):
            try:
                call(bad)
            except (UnauthenticatedError, UsageError) as error:
                texts += traceback.format_exception(error)
                texts.append(str(error.hint))
    told = "".join(texts) + caplog.text
    secret = json.loads((folder_of(keys) / "keys.json").read_text())["keys"][0]["secret"]
    for hidden in (token, *token.split("."), secret, repr(keys.signing_key(KeyKind.TOKEN).secret)[2:-1]):
        assert hidden not in told
