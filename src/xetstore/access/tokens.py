"""TokenAuthority: issues, verifies and revokes the tokens of a store, which say who is calling and with which rights.

A token is a JWT (RFC 7519). Its header names the key, and the key alone decides on the algorithm; what signs it is
secret to the store, so its holder is the caller it names until it expires, is revoked, or its key is retired.
All three bite at the next request, for only the signature of a token is remembered, never that it is welcome.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple

import jwt
import msgspec

from xetstore.access.keys import Algorithm, Key, KeyKind, KeyRing
from xetstore.access.scope import OF_A_USER
from xetstore.access.scope import Scope as Scope
from xetstore.access.secrets import REVOKED, Secrets, Version
from xetstore.errors import UnauthenticatedError, UnavailableError, UsageError, XetError
from xetstore.platform import forks

TTL_SECONDS: Final = 900
"""The life of a token unless its issuer says otherwise."""

MAX_TTL_SECONDS: Final = 400 * 24 * 3600
"""The longest a token may live."""

LEEWAY_SECONDS: Final = 30
"""The most that the issuer's clock may be ahead of ours. A token never lives longer for it."""

MAX_TOKEN_BYTES: Final = 8192
"""Longer ones are refused unread."""

REMEMBERED_TOKENS: Final = 10_000
"""Signatures known to be right. Verifying EdDSA takes 0.1 ms, and a busy client sends thousands of requests."""

_ISSUER: Final = "xetstore"
_TOKEN: Final = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.([A-Za-z0-9_-]+)")
_TOKEN_ID: Final = re.compile(r"[0-9a-f]{32}")
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,254}")
_ENTRY: Final = re.compile(r"([0-9a-f]{32}) ([0-9]{1,15})")
_CUT_ENTRY: Final = re.compile(r"([0-9a-f]{32})(?: [0-9]*)?")
_JWS: Final = jwt.PyJWS(algorithms=[algorithm.value for algorithm in Algorithm])


def check_namespace(namespace: str) -> str:
    """The namespace itself, if it is one; UsageError otherwise.

    A letter or digit, then up to 254 letters, digits, ``.``, ``_``, ``-`` and ``/``; ``..`` is nowhere in it.

    >>> check_namespace("datasets/squad")
    'datasets/squad'
    """
    if _NAMESPACE.fullmatch(namespace) is None or ".." in namespace:
        raise UsageError(
            f"{namespace[:80]!r} is not a namespace",
            hint="a namespace is up to 255 letters, digits, dots, dashes, underscores and slashes, without '..'",
        )
    return namespace


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a token stands for. ``expires_at`` is in unix seconds, None where there is no token.

    ``repo`` and ``revision`` narrow the token further, for servers that know of such things.
    """

    namespace: str
    scope: Scope
    token_id: str
    subject: str = ""
    repo: str | None = None
    revision: str | None = None
    expires_at: int | None = None


class _Header(msgspec.Struct, frozen=True):
    kid: str


class _Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    iss: Literal["xetstore"]
    sub: str
    jti: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    iat: int
    nbf: int
    exp: int
    scope: Scope
    namespace: str
    repo: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        check_namespace(self.namespace)
        if not 0 < self.exp - self.nbf <= MAX_TTL_SECONDS:  # revocations are forgotten after that time
            raise ValueError("no token lives that long")


class _Signed(NamedTuple):
    """A token whose signature is right, by this key."""

    key: Key
    not_before: int
    expires_at: int
    caller: Caller


class TokenAuthority:
    """Issues, verifies and revokes tokens with the keys of a store. Thread-safe; ``clock`` gives unix seconds.

    Every method raises what :class:`KeyRing` raises.

    >>> import pathlib, tempfile
    >>> authority = TokenAuthority(KeyRing.open(pathlib.Path(tempfile.mkdtemp(), "access")))
    >>> caller = authority.verify(authority.issue(scope=Scope.READ, namespace="team/models"))
    >>> caller.namespace, caller.scope.value
    ('team/models', 'read')
    """

    def __init__(self, keys: KeyRing, clock: Callable[[], float] | None = None) -> None:
        self._keys = keys
        self._clock = clock or keys.clock
        self._revocations = _Revocations(keys.secrets)
        # By SHA-256, so that no token can be read out of this table.
        self._remembered: dict[bytes, _Signed] = {}
        self._lock = forks.lock()

    def issue(
        self,
        *,
        scope: Scope,
        namespace: str,
        ttl_seconds: int = TTL_SECONDS,
        subject: str = "",
        repo: str | None = None,
        revision: str | None = None,
    ) -> str:
        """A new token. It ends after ``ttl_seconds``, or with its key, if that is retired by a rotation before.

        Raises UsageError for what is no namespace, for a lifetime that is not from 1 second to 400 days, and for
        claims that make the token longer than 8 KiB.
        """
        if not 0 < ttl_seconds <= MAX_TTL_SECONDS:
            raise UsageError(
                f"a token cannot live for {ttl_seconds} seconds",
                hint=f"from 1 second to {MAX_TTL_SECONDS // 86400} days are possible",
            )
        now = int(self._clock())
        claims = _Claims(
            iss=_ISSUER,
            sub=subject,
            jti=secrets.token_hex(16),
            iat=now,
            nbf=now,
            exp=now + ttl_seconds,
            scope=scope,
            namespace=namespace,
            repo=repo,
            revision=revision,
        )
        try:
            payload = msgspec.json.encode(claims)
        except UnicodeEncodeError:
            raise UsageError("the subject, repo and revision of a token must be Unicode") from None
        key = self._keys.signing_key(KeyKind.TOKEN)
        token = _JWS.encode(payload, key.signing, algorithm=key.algorithm.value, headers={"kid": key.kid})
        if len(token) > MAX_TOKEN_BYTES:
            raise UsageError("the subject, repo and revision of a token are too long")
        return token

    def verify(self, token: str) -> Caller:
        """Whom the token stands for. UnauthenticatedError, which never quotes it, if it is not valid now.

        UnavailableError if it cannot be known which tokens are revoked: then none is valid.
        """
        revoked = self._revocations.current()
        signed = self._signed(token)
        now = self._clock()
        if now < signed.not_before - LEEWAY_SECONDS:
            raise UnauthenticatedError("the token is not valid yet", hint="compare the clocks of client and server")
        if now >= signed.expires_at:
            raise UnauthenticatedError("the token has expired", hint="ask for a new one")
        if signed.caller.token_id in revoked:
            raise UnauthenticatedError("the token has been revoked", hint="ask for a new one")
        return signed.caller

    def recognise(self, token: str) -> Caller | None:
        """The same where no token is needed: None for what no key of this store has signed."""
        try:
            self._signed(token)
        except UnauthenticatedError:
            return None
        return self.verify(token)

    def revoke(self, token_or_id: str) -> str:
        """Make a token invalid from now on, durably; returns its id. Given an id, that is taken at its word.

        Raises UsageError for anything but an id or a token that a key of this store has signed.
        """
        now = int(self._clock())
        if _TOKEN_ID.fullmatch(token_or_id):
            token_id, until = token_or_id, now + MAX_TTL_SECONDS
        else:
            try:
                signed = self._signed(token_or_id)
            except UnauthenticatedError:
                raise UsageError(
                    "that is neither a token of this store nor the id of one",
                    hint="a token whose key has been retired, or that another store issued, is not valid here anyway",
                ) from None
            token_id, until = signed.caller.token_id, signed.expires_at
        self._revocations.add(token_id, until, now)
        return token_id

    def _signed(self, token: str) -> _Signed:
        if len(token) > MAX_TOKEN_BYTES:
            raise UnauthenticatedError("the token is too long")
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._remembered.get(digest)
        if known is not None and self._keys.verifying_key(KeyKind.TOKEN, known.key.kid) is known.key:
            return known
        signed = self._check_signature(token)
        with self._lock:
            while len(self._remembered) >= REMEMBERED_TOKENS:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[digest] = signed
        return signed

    def _check_signature(self, token: str) -> _Signed:
        invalid = UnauthenticatedError("the token is not valid", hint="ask for a new one")
        form = _TOKEN.fullmatch(token)
        if token.startswith(OF_A_USER):
            raise UnauthenticatedError(
                "the token is one of a user, for repositories, and files by their hashes take one of a namespace",
                hint="name the file in a repository, or ask for a token of a namespace",
            )
        if form is None or not _is_canonical(form[2]):
            raise invalid
        # What the libraries say may quote what was sent, and so must not be chained to what we say.
        try:
            header = msgspec.json.decode(_decode(form[1]), type=_Header)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise invalid from None
        key = self._keys.verifying_key(KeyKind.TOKEN, header.kid)
        if key is None:
            raise invalid
        try:
            payload = _JWS.decode(token, key.verifying, algorithms=[key.algorithm.value])
            claims = msgspec.json.decode(payload, type=_Claims)
        except (jwt.PyJWTError, msgspec.MsgspecError, ValueError, RecursionError, UsageError):
            raise invalid from None
        caller = Caller(
            namespace=claims.namespace,
            scope=claims.scope,
            token_id=claims.jti,
            subject=claims.sub,
            repo=claims.repo,
            revision=claims.revision,
            expires_at=claims.exp,
        )
        return _Signed(key, claims.nbf, claims.exp, caller)


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _is_canonical(text: str) -> bool:
    """True if base64url text is the only one for its bytes: a signature has one spelling, so a token has one."""
    try:
        return urlsafe_b64encode(_decode(text)).rstrip(b"=") == text.encode()
    except ValueError:
        return False


class _Revocations:
    """The document ``revoked``: a line ``ID EXPIRES_AT`` for each revoked token that would still be valid."""

    def __init__(self, kept: Secrets) -> None:
        self._kept = kept
        self._lock = forks.lock()
        self._loaded: tuple[Version | None, Mapping[str, int]] = (None, {})

    def current(self) -> Mapping[str, int]:
        """Ids of revoked tokens, and when each expires. UnavailableError if that cannot be known."""
        version, entries = self._loaded
        try:
            if self._kept.version(REVOKED) == version:
                return entries
            with self._lock:
                found = self._kept.read(REVOKED)
                self._loaded = (None, {}) if found is None else (found[1], self._parse(found[0]))
                return self._loaded[1]
        except XetError as error:
            raise UnavailableError(f"which tokens are revoked cannot be known: {error}", hint=error.hint) from error

    def add(self, token_id: str, until: int, now: int) -> None:
        """Add an entry, and drop those of tokens that have expired."""

        def edit(data: bytes | None) -> bytes:
            entries = self._parse(data or b"")
            entries[token_id] = max(until, entries.get(token_id, 0))
            lines = (f"{name} {min(end, now + MAX_TTL_SECONDS)}\n" for name, end in entries.items() if end > now)
            return "".join(lines).encode()

        self._kept.change(REVOKED, edit)

    def _parse(self, data: bytes) -> dict[str, int]:
        *lines, rest = data.decode("ascii", "replace").split("\n")
        entries = {}
        for number, line in enumerate(lines, 1):
            match = _ENTRY.fullmatch(line)
            if match is None:
                raise UnavailableError(
                    f"line {number} of {self._kept.label(REVOKED)} is damaged", hint="mend or remove that line"
                )
            entries[match[1]] = int(match[2])
        # A last line that was cut off may have lost digits of its time: it counts for as long as any token lives.
        if match := _CUT_ENTRY.fullmatch(rest):
            entries[match[1]] = 10**15
        return entries
