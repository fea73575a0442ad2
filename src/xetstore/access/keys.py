"""KeyRing: the keys that sign a store's tokens and URLs, and how they are replaced without a gap.

They are one document of its :class:`~xetstore.access.secrets.Secrets`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Self

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from xetstore.access.secrets import KEYS, FileSecrets, Secrets, Version
from xetstore.errors import DamagedError, NotFoundError, UnavailableError, UsageError
from xetstore.platform import forks

OVERLAP_SECONDS: Final = 24 * 3600
"""Seconds for which a replaced key still verifies, unless the caller of :meth:`KeyRing.rotate` says otherwise."""

MAX_OVERLAP_SECONDS: Final = 400 * 24 * 3600
"""The longest overlap: no token lives longer."""

STALE_SECONDS: Final = 900
"""The time for which keys of URLs serve while it cannot be known if they are current; a URL lives as long."""

_FORMAT_VERSION: Final = 1
_SECRET_BYTES: Final = 32


class KeyKind(StrEnum):
    """The purpose of a key. A key of one kind never verifies what the other signs."""

    TOKEN = "token"
    URL = "url"


class Algorithm(StrEnum):
    """The algorithm of a key, by its name in JWT headers. URL keys are HS256: HMAC with SHA-256."""

    EDDSA = "EdDSA"
    HS256 = "HS256"


class Key(msgspec.Struct, frozen=True, dict=True, eq=False):
    """One key. Times are unix seconds; from ``retired_at`` on it verifies nothing, None: it signs what is new.

    ``secret`` is 32 random bytes: the HMAC secret, or the seed of the Ed25519 key. No ``repr`` shows it.
    """

    kid: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z")]
    kind: KeyKind
    algorithm: Algorithm
    created_at: int
    retired_at: int | None
    secret: Annotated[bytes, msgspec.Meta(min_length=_SECRET_BYTES, max_length=_SECRET_BYTES)]

    def __post_init__(self) -> None:
        if self.kind is KeyKind.URL and self.algorithm is not Algorithm.HS256:
            raise ValueError("a key for URLs is HS256")

    @cached_property
    def signing(self) -> Ed25519PrivateKey | bytes:
        """The key that signs."""
        if self.algorithm is Algorithm.HS256:
            return self.secret
        return Ed25519PrivateKey.from_private_bytes(self.secret)

    @cached_property
    def verifying(self) -> Ed25519PublicKey | bytes:
        """The key that verifies: the public key, where there is one."""
        signing = self.signing
        return signing if isinstance(signing, bytes) else signing.public_key()

    def __repr__(self) -> str:
        return f"Key(kid={self.kid!r}, kind={self.kind.value!r}, retired_at={self.retired_at})"


class _Format(msgspec.Struct):
    version: int


class _File(msgspec.Struct):
    version: int
    keys: list[Key]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The keys of one version of the document. ``signing`` has a key of each kind."""

    version: Version
    keys: Mapping[str, Key]
    signing: Mapping[KeyKind, Key]


class KeyRing:
    """The keys of one store. Thread-safe, and safe between processes: what one changes, all others see at once.

    ``clock`` gives unix seconds. Every method raises AccessDeniedError if the
    keys cannot be read or others may read them, DamagedError if they make no sense, and UnavailableError if they
    are gone: without keys nothing is verified.

    >>> import pathlib, tempfile
    >>> keys = KeyRing.open(pathlib.Path(tempfile.mkdtemp(), "access"))
    >>> old = keys.signing_key(KeyKind.TOKEN)
    >>> new = keys.rotate(KeyKind.TOKEN, overlap_seconds=60)
    >>> keys.signing_key(KeyKind.TOKEN).kid == new.kid, keys.verifying_key(KeyKind.TOKEN, old.kid) is not None
    (True, True)
    """

    def __init__(self, secrets: Secrets, clock: Callable[[], float] = time.time) -> None:
        self.secrets = secrets
        self.clock = clock
        self._lock = forks.lock()
        self._loaded = self._load()
        self._current_at = clock()

    @classmethod
    def open(cls, folder: Path, *, create: bool = True, clock: Callable[[], float] = time.time) -> Self:
        """The keys in the access folder of a store. With ``create``, a folder without keys gets one of each kind.

        The directory above must be there. Raises NotFoundError if there are no keys and none are to be created,
        and UsageError if newer code wrote them. Processes that open the same folder at once agree on the keys.
        """
        return cls.of(FileSecrets.open(folder, create=create), create=create, clock=clock)

    @classmethod
    def of(cls, secrets: Secrets, *, create: bool = True, clock: Callable[[], float] = time.time) -> Self:
        """The keys among the secrets of a store; the same as :meth:`open`, wherever they are kept."""
        if create:
            make_keys(secrets, int(clock()))
        return cls(secrets, clock)

    def signing_key(self, kind: KeyKind) -> Key:
        """The key that signs now."""
        return self._current().signing[kind]

    def verifying_key(self, kind: KeyKind, kid: str) -> Key | None:
        """The key of this kind and name, unless it is retired. The same object until the file changes.

        For URLs, which live for minutes, the keys that were current :data:`STALE_SECONDS` ago still serve where the
        place of the keys does not answer: a rotation does not reach this process meanwhile.
        """
        key = self._current(STALE_SECONDS if kind is KeyKind.URL else 0).keys.get(kid)
        if key is None or key.kind is not kind:
            return None
        return key if key.retired_at is None or self.clock() < key.retired_at else None

    def rotate(self, kind: KeyKind, algorithm: Algorithm | None = None, overlap_seconds: int = OVERLAP_SECONDS) -> Key:
        """Sign with a new key from now on; returns it. Without ``algorithm``, it is the one used before.

        Older keys of the kind verify for ``overlap_seconds`` more, or less where an earlier rotation said so: what
        they signed ends with them, however long it was to live. 0 ends it now, for a key that got into wrong
        hands. Raises UsageError for an overlap or an algorithm that cannot be.
        """
        if not 0 <= overlap_seconds <= MAX_OVERLAP_SECONDS:
            raise UsageError(f"the overlap must be from 0 to {MAX_OVERLAP_SECONDS} seconds")
        if kind is KeyKind.URL and algorithm is Algorithm.EDDSA:
            raise UsageError("URLs are signed with HS256 only")
        now = int(self.clock())
        new: Key

        def edit(data: bytes | None) -> bytes:
            nonlocal new
            keys, signing = self._parse(data)
            new = _new_key(kind, algorithm or signing[kind].algorithm, now)
            older = [_retired(key, now + overlap_seconds) if key.kind is kind else key for key in keys.values()]
            return _packed([*(key for key in older if key.retired_at is None or key.retired_at > now), new])

        self.secrets.change(KEYS, edit)
        return new

    def __repr__(self) -> str:
        return f"KeyRing({self.secrets!r})"

    def _current(self, stale_seconds: float = 0) -> _Loaded:
        loaded = self._loaded
        try:
            version = self.secrets.version(KEYS)
        except UnavailableError:
            if self.clock() - self._current_at >= stale_seconds:
                raise
            return loaded
        try:
            if version != loaded.version:
                with self._lock:
                    self._loaded = loaded = self._load()
            self._current_at = self.clock()
        except (NotFoundError, UsageError) as error:
            raise UnavailableError(f"the keys of the store can no longer be used: {error}") from error
        return loaded

    def _load(self) -> _Loaded:
        found = self.secrets.read(KEYS)
        data, version = (None, ()) if found is None else found
        return _Loaded(version, *self._parse(data))

    def _parse(self, data: bytes | None) -> tuple[dict[str, Key], dict[KeyKind, Key]]:
        """The keys of a document by name, and of each kind the one that signs."""
        if data is None:
            raise NotFoundError("the store has no keys yet", hint="issue a token, or start a server, to create them")
        label = self.secrets.label(KEYS)
        try:
            version = msgspec.json.decode(data, type=_Format).version
            if version != _FORMAT_VERSION:
                raise UsageError(
                    f"{label} has format {version}; this xetstore knows format {_FORMAT_VERSION}",
                    hint="use the xetstore that wrote it, or a newer one",
                )
            keys = msgspec.json.decode(data, type=_File).keys
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _damaged(label, str(error)) from None
        # The last one wins: rotation appends.
        signing = {key.kind: key for key in keys if key.retired_at is None}
        named = {key.kid: key for key in keys}
        if len(named) != len(keys) or set(signing) != set(KeyKind):
            raise _damaged(label, "a key is missing or there twice")
        return named, signing


def make_keys(kept: Secrets, now: int) -> None:
    """A key of each kind for a store that has none. Of several processes that make some at once, one does."""
    first = [_new_key(KeyKind.TOKEN, Algorithm.EDDSA, now), _new_key(KeyKind.URL, Algorithm.HS256, now)]
    if kept.version(KEYS) is None:
        kept.change(KEYS, lambda data: _packed(first) if data is None else None)


def _new_key(kind: KeyKind, algorithm: Algorithm, now: int) -> Key:
    return Key(secrets.token_hex(8), kind, algorithm, now, None, secrets.token_bytes(_SECRET_BYTES))


def _retired(key: Key, end: int) -> Key:
    return msgspec.structs.replace(key, retired_at=end if key.retired_at is None else min(key.retired_at, end))


def _packed(keys: list[Key]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(_File(_FORMAT_VERSION, keys)), indent=2) + b"\n"


def _damaged(label: str, reason: str) -> DamagedError:
    return DamagedError(
        f"{label} is damaged: {reason}",
        hint="put it back from a backup; or remove it to start with new keys, which ends all tokens and signed URLs",
    )
