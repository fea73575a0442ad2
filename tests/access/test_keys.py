"""The key ring: made once, private, replaced with an overlap, and never shown."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from xetstore.access import secrets as private_module
from xetstore.access.keys import MAX_OVERLAP_SECONDS, STALE_SECONDS, Algorithm, Key, KeyKind, KeyRing
from xetstore.access.secrets import FileSecrets, locked, replace_file
from xetstore.errors import (
    AccessDeniedError,
    DamagedError,
    IntegrityError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
    UsageError,
)
from xetstore.testing import FakeClock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "access"


@pytest.fixture
def ring(folder: Path, clock: FakeClock) -> KeyRing:
    return KeyRing.open(folder, clock=clock)


def stored(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "keys.json").read_text())
    return content


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = stored(folder)
    edit(content)
    (folder / "keys.json").write_text(json.dumps(content))


# Made once, and private


def test_the_first_opening_makes_a_key_of_each_kind(ring: KeyRing, clock: FakeClock) -> None:
    token, url = ring.signing_key(KeyKind.TOKEN), ring.signing_key(KeyKind.URL)
    assert (token.algorithm, url.algorithm) == (Algorithm.EDDSA, Algorithm.HS256)
    assert token.created_at == url.created_at == int(clock())
    assert len({token.kid, url.kid, token.secret, url.secret}) == 4


def test_the_second_opening_finds_the_same_keys(ring: KeyRing, folder: Path) -> None:
    again = KeyRing.open(folder, create=False)
    for kind in KeyKind:
        assert again.signing_key(kind).secret == ring.signing_key(kind).secret


def test_keys_are_not_made_where_they_are_only_to_be_read(folder: Path) -> None:
    with pytest.raises(NotFoundError):
        KeyRing.open(folder, create=False)
    assert not folder.exists()


def test_keys_are_not_made_without_a_store(folder: Path) -> None:
    with pytest.raises(NotFoundError):
        KeyRing.open(folder / "below" / "access")


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_nobody_but_the_owner_can_read_the_keys_whatever_the_umask(folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        ring = KeyRing.open(folder)
        ring.rotate(KeyKind.TOKEN)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "keys.json").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["keys.json"]


def test_the_keys_are_private_before_there_is_a_byte_in_their_file(folder: Path) -> None:
    modes = []
    real = os.open

    def watched(path: Any, flags: int, mode: int = 0o777) -> int:
        descriptor = real(path, flags, mode)
        if flags & os.O_CREAT:
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    before = os.umask(0)
    try:
        with mock.patch.object(os, "open", watched):
            KeyRing.open(folder)
    finally:
        os.umask(before)
    assert modes == [0o600]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o644])
def test_keys_that_others_may_read_or_write_are_refused(ring: KeyRing, folder: Path, mode: int) -> None:
    (folder / "keys.json").chmod(mode)
    with pytest.raises(AccessDeniedError) as caught:
        KeyRing.open(folder)
    assert caught.value.hint is not None
    assert "chmod 600 access/keys.json" in caught.value.hint


def test_keys_that_others_may_read_meanwhile_are_refused_with_what_to_do(ring: KeyRing, folder: Path) -> None:
    path = folder / "keys.json"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    path.chmod(0o644)
    uses: list[Callable[[], Key]] = [partial(ring.signing_key, KeyKind.TOKEN), partial(ring.rotate, KeyKind.TOKEN)]
    for use in uses:
        with pytest.raises(AccessDeniedError, match="others than its owner") as caught:
            use()
        assert "chmod 600 access/keys.json" in (caught.value.hint or "")


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_may_write_to_is_refused_before_keys_are_put_into_it(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(AccessDeniedError) as caught:
        KeyRing.open(folder)
    assert "chmod 700" in (caught.value.hint or "")
    assert list(folder.iterdir()) == []


START = """
import sys, time
from pathlib import Path
from xetstore.access.keys import KeyKind, KeyRing
go = Path(sys.argv[2])
print("ready", flush=True)
while not go.exists():
    time.sleep(0.001)
ring = KeyRing.open(Path(sys.argv[1]))
print(*(ring.signing_key(kind).kid for kind in KeyKind))
"""


def test_processes_that_start_at_once_agree_on_the_keys(folder: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    processes = [
        subprocess.Popen([sys.executable, "-c", START, folder, go], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    go.touch()
    answers = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    ring = KeyRing.open(folder, create=False)
    assert answers == {" ".join(ring.signing_key(kind).kid for kind in KeyKind) + "\n"}


def test_a_folder_without_keys_gets_them(folder: Path) -> None:
    folder.mkdir(0o700)
    (folder / "keys.json.new").write_text("what a process that died here has left")
    assert KeyRing.open(folder).signing_key(KeyKind.TOKEN)
    assert [path.name for path in folder.iterdir()] == ["keys.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only the superuser can write for others")
def test_what_the_superuser_writes_belongs_to_the_owner_of_the_store(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    os.chown(root, 1234, 2345)
    ring = KeyRing.open(root / "access")
    ring.rotate(KeyKind.URL)
    for path in (root / "access", root / "access" / "keys.json"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


# Rotation


@pytest.mark.parametrize("kind", KeyKind)
def test_a_replaced_key_verifies_until_the_overlap_is_over(ring: KeyRing, clock: FakeClock, kind: KeyKind) -> None:
    old, other = ring.signing_key(kind), ring.signing_key(next(k for k in KeyKind if k is not kind))
    new = ring.rotate(kind, overlap_seconds=100)
    assert ring.signing_key(kind).kid == new.kid != old.kid
    clock.advance(99)
    found = ring.verifying_key(kind, old.kid)
    assert found is not None
    assert found.secret == old.secret
    clock.advance(1)
    assert ring.verifying_key(kind, old.kid) is None
    assert ring.verifying_key(kind, new.kid) is not None
    assert ring.signing_key(other.kind).kid == other.kid, "the other kind stays"


def test_a_retired_key_is_dropped_at_the_next_rotation(ring: KeyRing, clock: FakeClock, folder: Path) -> None:
    first = ring.signing_key(KeyKind.TOKEN).kid
    second = ring.rotate(KeyKind.TOKEN, overlap_seconds=100).kid
    clock.advance(50)
    third = ring.rotate(KeyKind.TOKEN, overlap_seconds=100).kid
    assert {first, second, third} <= {key["kid"] for key in stored(folder)["keys"]}
    clock.advance(60)  # the first one's overlap is over, the second one's not
    fourth = ring.rotate(KeyKind.URL).kid
    left = {key["kid"] for key in stored(folder)["keys"]}
    assert first not in left
    assert {second, third, fourth} <= left


def test_without_an_overlap_every_older_key_ends_at_once(ring: KeyRing, folder: Path) -> None:
    first = ring.signing_key(KeyKind.TOKEN).kid
    second = ring.rotate(KeyKind.TOKEN, overlap_seconds=1000).kid
    third = ring.rotate(KeyKind.TOKEN, overlap_seconds=0).kid
    assert [ring.verifying_key(KeyKind.TOKEN, kid) is not None for kid in (first, second, third)] == [
        False,
        False,
        True,
    ]
    assert len(stored(folder)["keys"]) == 2, "nor do they lie about"


def test_a_later_rotation_never_lengthens_the_life_of_an_older_key(ring: KeyRing, clock: FakeClock) -> None:
    first = ring.signing_key(KeyKind.TOKEN).kid
    ring.rotate(KeyKind.TOKEN, overlap_seconds=10)
    ring.rotate(KeyKind.TOKEN, overlap_seconds=1000)
    clock.advance(10)
    assert ring.verifying_key(KeyKind.TOKEN, first) is None


def test_a_rotation_keeps_the_algorithm_unless_told_otherwise(ring: KeyRing) -> None:
    assert ring.rotate(KeyKind.TOKEN).algorithm is Algorithm.EDDSA
    assert ring.rotate(KeyKind.TOKEN, Algorithm.HS256).algorithm is Algorithm.HS256
    assert ring.rotate(KeyKind.TOKEN).algorithm is Algorithm.HS256
    assert ring.rotate(KeyKind.URL).algorithm is Algorithm.HS256


@pytest.mark.parametrize("overlap", [-1, MAX_OVERLAP_SECONDS + 1])
def test_an_impossible_rotation_is_refused(ring: KeyRing, folder: Path, overlap: int) -> None:
    before = stored(folder)
    with pytest.raises(UsageError):
        ring.rotate(KeyKind.TOKEN, overlap_seconds=overlap)
    with pytest.raises(UsageError):
        ring.rotate(KeyKind.URL, Algorithm.EDDSA)
    assert stored(folder) == before


def test_a_rotation_is_seen_at_once_by_rings_that_are_open(ring: KeyRing, folder: Path, clock: FakeClock) -> None:
    other = KeyRing.open(folder, clock=clock)
    old = ring.signing_key(KeyKind.TOKEN).kid
    for _ in range(20):
        new = other.rotate(KeyKind.TOKEN, overlap_seconds=0).kid
        assert ring.signing_key(KeyKind.TOKEN).kid == new
        assert ring.verifying_key(KeyKind.TOKEN, old) is None
        old = new


def test_rotations_at_once_lose_no_key(ring: KeyRing, folder: Path) -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.append(KeyRing.open(folder).rotate(KeyKind.TOKEN).kid)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    for kid in made:
        assert ring.verifying_key(KeyKind.TOKEN, kid) is not None


def test_a_key_of_one_kind_is_none_of_the_other(ring: KeyRing) -> None:
    assert ring.verifying_key(KeyKind.TOKEN, ring.signing_key(KeyKind.URL).kid) is None
    assert ring.verifying_key(KeyKind.URL, ring.signing_key(KeyKind.TOKEN).kid) is None


def test_an_unchanged_ring_gives_the_same_key_object(ring: KeyRing) -> None:
    key = ring.signing_key(KeyKind.TOKEN)
    assert ring.verifying_key(KeyKind.TOKEN, key.kid) is key


# Durability


def test_a_file_is_whole_and_durable_before_it_replaces_the_old_one(folder: Path) -> None:
    folder.mkdir()
    calls: list[str] = []

    def watch(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def watched(*args: Any) -> Any:
            kind = ""
            if name == "fsync":
                kind = " folder" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else " file"
            calls.append(name + kind)
            return real(*args)

        return watched

    with mock.patch.object(os, "fsync", watch("fsync")), mock.patch.object(os, "replace", watch("replace")):
        replace_file(folder / "file", b"new")
    assert calls == ["fsync file", "replace", "fsync folder"]
    assert (folder / "file").read_bytes() == b"new"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_rotation_that_fails_changes_nothing(ring: KeyRing, folder: Path, step: str) -> None:
    before = (folder / "keys.json").read_bytes()
    failing = mock.Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    with mock.patch.object(os, step, failing), pytest.raises(StorageFullError):
        ring.rotate(KeyKind.TOKEN)
    assert (folder / "keys.json").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["keys.json"]
    assert ring.rotate(KeyKind.TOKEN).kid == ring.signing_key(KeyKind.TOKEN).kid


def test_a_folder_that_stays_locked_is_not_waited_for_without_end(ring: KeyRing, folder: Path) -> None:
    with locked(folder), mock.patch.object(private_module, "LOCK_SECONDS", 0.02), pytest.raises(UnavailableError):
        ring.rotate(KeyKind.TOKEN)


# Damage


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"version": 1}',
        b'{"version": "1", "keys": []}',
        b'{"version": 1, "keys": []}',
        b'{"version": 1, "keys": [{}]}',
    ],
)
def test_broken_keys_are_damage_and_say_what_to_do(ring: KeyRing, folder: Path, content: bytes) -> None:
    (folder / "keys.json").write_bytes(content)
    with pytest.raises(DamagedError) as caught:
        KeyRing.open(folder)
    assert isinstance(caught.value, IntegrityError)
    assert caught.value.hint
    with pytest.raises(DamagedError):
        ring.signing_key(KeyKind.TOKEN)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kid", ""),
        ("kid", "a&b"),
        ("kid", "a\n"),
        ("kid", 1),
        ("kind", "other"),
        ("algorithm", "none"),
        ("algorithm", "RS256"),
        ("secret", "QUJD"),
        ("secret", "?"),
        ("secret", None),
        ("created_at", "now"),
        ("retired_at", 1),  # of the only key of its kind
    ],
)
def test_a_key_that_makes_no_sense_is_damage(ring: KeyRing, folder: Path, field: str, value: object) -> None:
    change(folder, lambda content: content["keys"][0].update({field: value}))
    with pytest.raises(DamagedError):
        KeyRing.open(folder)


def test_two_keys_of_one_name_or_a_url_key_with_a_public_half_are_damage(ring: KeyRing, folder: Path) -> None:
    change(folder, lambda content: content["keys"].append(content["keys"][0]))
    with pytest.raises(DamagedError):
        KeyRing.open(folder)
    change(folder, lambda content: content["keys"].pop())
    change(folder, lambda content: content["keys"][1].update(algorithm="EdDSA"))
    with pytest.raises(DamagedError):
        KeyRing.open(folder)


def test_keys_that_newer_code_wrote_are_left_alone(ring: KeyRing, folder: Path) -> None:
    content = '{"version": 2, "keys": "of another form"}'
    (folder / "keys.json").write_text(content)
    with pytest.raises(UsageError, match="format 2"):
        KeyRing.open(folder)
    with pytest.raises(UnavailableError):
        ring.signing_key(KeyKind.TOKEN)
    assert (folder / "keys.json").read_text() == content


def test_keys_that_are_gone_sign_and_verify_nothing_until_they_are_back(ring: KeyRing, folder: Path) -> None:
    kid = ring.signing_key(KeyKind.TOKEN).kid
    (folder / "keys.json").rename(folder / "away")
    with pytest.raises(UnavailableError):
        ring.verifying_key(KeyKind.TOKEN, kid)
    with pytest.raises(UnavailableError):
        ring.signing_key(KeyKind.TOKEN)
    (folder / "away").rename(folder / "keys.json")
    assert ring.verifying_key(KeyKind.TOKEN, kid) is not None


# Secrets


def secrets_of(folder: Path) -> list[str]:
    return [key["secret"] for key in stored(folder)["keys"]]


def test_no_repr_shows_a_secret(ring: KeyRing, folder: Path) -> None:
    key = ring.signing_key(KeyKind.TOKEN)
    shown = repr([ring, str(ring), key, str(key), f"{key!s}", vars(ring), ring.verifying_key(KeyKind.TOKEN, key.kid)])
    assert isinstance(key, Key)
    for secret in secrets_of(folder):
        assert secret not in shown
    assert repr(key.secret)[2:-1] not in shown


def test_no_error_or_log_line_shows_a_secret(ring: KeyRing, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    known = secrets_of(folder)
    texts = []
    whole = (folder / "keys.json").read_text()
    for field, value in (("secret", known[0] + "*"), ("secret", known[0][:8]), ("kind", "x"), ("created_at", known[0])):
        content = json.loads(whole)
        content["keys"][0][field] = value
        (folder / "keys.json").write_text(json.dumps(content))
        with pytest.raises(DamagedError) as caught:
            KeyRing.open(folder)
        texts.append(f"{caught.value} {caught.value.hint} {caught.value!r}")
    for secret in known:
        assert secret[:8] not in " ".join(texts) + caplog.text


class SecretsThatMayBeAway:
    """Secrets of a database, as far as it does not answer."""

    def __init__(self, inner: FileSecrets) -> None:
        self.inner = inner
        self.is_away = False

    def version(self, name: str) -> tuple[int, ...] | None:
        if self.is_away:
            raise UnavailableError("the index does not answer")
        return self.inner.version(name)

    def read(self, name: str) -> tuple[bytes, tuple[int, ...]] | None:
        return self.inner.read(name)

    def change(self, name: str, edit: Callable[[bytes | None], bytes | None]) -> None:
        self.inner.change(name, edit)

    def clock(self) -> float:
        return self.inner.clock()

    def followed(self) -> AbstractContextManager[None]:
        return self.inner.followed()

    def label(self, name: str) -> str:
        return self.inner.label(name)


def test_keys_of_urls_serve_for_some_minutes_while_it_cannot_be_known_if_they_are_current(tmp_path: Path) -> None:
    now = 1_000_000.0
    secrets = SecretsThatMayBeAway(FileSecrets.open(tmp_path / "access", create=True))
    keys = KeyRing.of(secrets, clock=lambda: now)
    url, token = keys.signing_key(KeyKind.URL), keys.signing_key(KeyKind.TOKEN)
    secrets.is_away = True
    now += STALE_SECONDS - 1
    assert keys.verifying_key(KeyKind.URL, url.kid) is url
    with pytest.raises(UnavailableError):
        keys.verifying_key(KeyKind.TOKEN, token.kid)  # a token may have been revoked meanwhile
    with pytest.raises(UnavailableError):
        keys.signing_key(KeyKind.URL)
    now += 1
    with pytest.raises(UnavailableError):
        keys.verifying_key(KeyKind.URL, url.kid)
    secrets.is_away = False
    assert keys.verifying_key(KeyKind.URL, url.kid) is url
