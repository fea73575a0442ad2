"""KeyRing: the keys that sign a store's tokens and URLs, where they lie, and how they are replaced without a gap.

They lie in ``<store>/access``, a folder that its owner alone may enter.
"""

# ruff: noqa: PTH102, PTH116  # the calls of `os`, in their order, are the promise

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Self

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from xetstore.access.private_files import (
    Stamp,
    access_error,
    give_to_owner_of,
    locked,
    read_private,
    replace_file,
    shown,
    stamp_of,
)
from xetstore.errors import (
    AccessDeniedError,
    DamagedError,
    NotFoundError,
    UnavailableError,
    UsageError,
    XetError,
)
from xetstore.platform import forks
from xetstore.platform.files import sync_folder

OVERLAP_SECONDS: Final = 24 * 3600
"""Seconds for which a replaced key still verifies, unless the caller of :meth:`KeyRing.rotate` says otherwise."""

MAX_OVERLAP_SECONDS: Final = 400 * 24 * 3600
"""The longest overlap: no token lives longer."""

_FILE: Final = "keys.json"
_FORMAT_VERSION: Final = 1
_SECRET_BYTES: Final = 32
_PRIVATE_FOLDER: Final = 0o700


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


class _Version(msgspec.Struct):
    version: int


class _File(msgspec.Struct):
    version: int
    keys: list[Key]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The content of keys.json when it had this stamp. ``signing`` has a key of each kind."""

    stamp: Stamp
    keys: Mapping[str, Key]
    signing: Mapping[KeyKind, Key]


class KeyRing:
    """The keys of one store. Thread-safe, and safe between processes: what one changes, all others see at once.

    ``folder`` is the access folder, ``clock`` gives unix seconds. Every method raises AccessDeniedError if the
    keys cannot be read or others may read them, DamagedError if they make no sense, and UnavailableError if they
    are gone: without keys nothing is verified.

    >>> import pathlib, tempfile
    >>> keys = KeyRing.open(pathlib.Path(tempfile.mkdtemp(), "access"))
    >>> old = keys.signing_key(KeyKind.TOKEN)
    >>> new = keys.rotate(KeyKind.TOKEN, overlap_seconds=60)
    >>> keys.signing_key(KeyKind.TOKEN).kid == new.kid, keys.verifying_key(KeyKind.TOKEN, old.kid) is not None
    (True, True)
    """

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self.folder = folder
        self.clock = clock
        self._path = folder / _FILE
        self._name = os.fspath(self._path)  # looked at for every URL that is signed
        self._lock = forks.lock()
        self._loaded = self._load()

    @classmethod
    def open(cls, folder: Path, *, create: bool = True, clock: Callable[[], float] = time.time) -> Self:
        """The keys in ``folder``. With ``create``, a folder without keys gets one of each kind.

        The directory above must be there. Raises NotFoundError if there are no keys and none are to be created,
        and UsageError if newer code wrote them. Processes that open the same folder at once agree on the keys.
        """
        try:
            if create and not folder.is_dir():
                _make_folder(folder)
            if folder.is_dir() and folder.stat().st_mode & 0o022:
                raise AccessDeniedError(
                    f"others may write to the folder {folder.name}, and so replace the keys in it",
                    hint=f"chmod 700 {folder.name}, in the store's directory",
                )
            if create and not (folder / _FILE).exists():
                _make_keys(folder, int(clock()))
        except XetError:
            raise
        except OSError as error:
            raise access_error(error, "the keys of the store cannot be created") from error
        return cls(folder, clock)

    def signing_key(self, kind: KeyKind) -> Key:
        """The key that signs now."""
        return self._current().signing[kind]

    def verifying_key(self, kind: KeyKind, kid: str) -> Key | None:
        """The key of this kind and name, unless it is retired. The same object until the file changes."""
        key = self._current().keys.get(kid)
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
        try:
            with locked(self.folder):
                loaded = self._load()
                now = int(self.clock())
                new = _new_key(kind, algorithm or loaded.signing[kind].algorithm, now)
                older = [
                    _retired(key, now + overlap_seconds) if key.kind is kind else key for key in loaded.keys.values()
                ]
                _write(self.folder, [*(key for key in older if key.retired_at is None or key.retired_at > now), new])
        except XetError:
            raise
        except OSError as error:
            raise access_error(error, "the keys of the store cannot be replaced") from error
        return new

    def __repr__(self) -> str:
        return f"KeyRing({str(self.folder)!r})"

    def _current(self) -> _Loaded:
        loaded = self._loaded
        try:
            if stamp_of(os.stat(self._name)) == loaded.stamp:
                return loaded
            with self._lock:
                self._loaded = loaded = self._load()
        except (NotFoundError, UsageError) as error:
            raise UnavailableError(f"the keys of the store can no longer be used: {error}") from error
        except XetError:
            raise
        except OSError as error:
            raise UnavailableError(f"the keys of the store cannot be read: {error.strerror}") from error
        return loaded

    def _load(self) -> _Loaded:
        try:
            found = read_private(self._path)
        except XetError:
            raise
        except OSError as error:
            raise access_error(error, "the keys of the store cannot be read") from error
        if found is None:
            raise NotFoundError("the store has no keys yet", hint="issue a token, or start a server, to create them")
        data, stamp = found
        keys = _parse(self._path, data)
        # The last one wins: rotation appends.
        signing = {key.kind: key for key in keys if key.retired_at is None}
        named = {key.kid: key for key in keys}
        if len(named) != len(keys) or set(signing) != set(KeyKind):
            raise _damaged(self._path, "a key is missing or there twice")
        return _Loaded(stamp, named, signing)


def _make_folder(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, _PRIVATE_FOLDER)
        give_to_owner_of(folder.parent, folder)
    sync_folder(folder.parent)


def _make_keys(folder: Path, now: int) -> None:
    with locked(folder):
        if not (folder / _FILE).exists():  # another process may have been first
            _write(folder, [_new_key(KeyKind.TOKEN, Algorithm.EDDSA, now), _new_key(KeyKind.URL, Algorithm.HS256, now)])


def _new_key(kind: KeyKind, algorithm: Algorithm, now: int) -> Key:
    return Key(secrets.token_hex(8), kind, algorithm, now, None, secrets.token_bytes(_SECRET_BYTES))


def _retired(key: Key, end: int) -> Key:
    return msgspec.structs.replace(key, retired_at=end if key.retired_at is None else min(key.retired_at, end))


def _write(folder: Path, keys: Sequence[Key]) -> None:
    data = msgspec.json.format(msgspec.json.encode(_File(_FORMAT_VERSION, list(keys))), indent=2)
    replace_file(folder / _FILE, data + b"\n")


def _parse(path: Path, data: bytes) -> list[Key]:
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version != _FORMAT_VERSION:
            raise UsageError(
                f"{shown(path)} has format {version}; this xetstore knows format {_FORMAT_VERSION}",
                hint="use the xetstore that wrote it, or a newer one",
            )
        return msgspec.json.decode(data, type=_File).keys
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, reason: str) -> DamagedError:
    return DamagedError(
        f"{shown(path)} is damaged: {reason}",
        hint="put it back from a backup; or remove it to start with new keys, which ends all tokens and signed URLs",
    )
