"""The folder of a cache: new files under temporary names, and the cap, which processes keep together.

The file ``level`` has how many bytes the folder holds at most: those that a look at the whole folder found, and those
that processes were allowed to write since. So a program that starts does not look, and the cap is one for all.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xetstore.platform import forks
from xetstore.platform.descriptors import CREATE, WRITE, write_at, write_parts
from xetstore.platform.files import replace
from xetstore.platform.locks import Lock, open_for_lock, try_lock, unlock

if TYPE_CHECKING:
    from typing_extensions import Buffer

FULL: Final = 15 / 16
"""Filled to this part of the cap the folder is emptied to :data:`EMPTIED`."""

EMPTIED: Final = 7 / 8
SHARE: Final = 1 / 32
"""The part of the cap that a process is allowed to write before it asks again."""
LITTER_SECONDS: Final = 3600
"""A temporary file older than this is of a process that was killed."""

_TEMPORARY: Final = "tmp"
_LEVEL: Final = "level"
_LEVEL_BYTES: Final = 20
_BLOCK_BYTES: Final = 4096
_RENAMES: Final = 50
_TAG: Final = b"Signature: 8a477f597d28d172789f06886806bc55\n# A cache of xetstore: no need to back it up.\n"
_FANOUT: Final = re.compile(r"[0-9a-f]{2}")
_GROUP: Final = re.compile(r"[0-9a-f]{62}")


class CacheFolder:
    """Files ``ab/cdef…/NAME`` in groups of 64 hexadecimal digits, at most ``max_bytes`` of them.

    ``is_entry`` tells names that the cache gives from others, which are the first to go. Thread-safe, and safe between
    processes.
    """

    def __init__(self, path: Path, max_bytes: int, is_entry: Callable[[str], bool]) -> None:
        self.path = path
        self._root = os.fspath(path)
        self._max_bytes = max_bytes
        self._is_entry = is_entry
        self._lock = forks.lock()
        # How much may be written before the folder is asked again.
        self._allowance = 0
        self._has_swept = False

    def of(self, group: str) -> str:
        """The folder of the entries of a group."""
        return f"{self._root}/{group[:2]}/{group[2:]}"

    def write(self, group: str, name: str, parts: Sequence[Buffer]) -> None:
        """Let a file of these parts appear at once. Raises OSError, leaving nothing."""
        folder = self.of(group)
        temporary = f"{self._root}/{_TEMPORARY}/{os.getpid()}-{secrets.token_hex(6)}"
        fd = self._create(temporary)
        try:
            try:
                write_parts(fd, parts)
            finally:
                os.close(fd)
            self._rename(temporary, folder, name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            raise

    def names(self, group: str) -> list[str]:
        """The names of the files of a group; none where there is no such folder, or it cannot be read."""
        try:
            return os.listdir(self.of(group))  # noqa: PTH208
        except OSError:
            return []

    def remove(self, group: str) -> None:
        """Remove all files of a group."""
        folder = self.of(group)
        for name in self.names(group):
            _remove_file(f"{folder}/{name}")
        _remove_folder(folder)

    def make_room(self, nbytes: int) -> bool:
        """True if ``nbytes`` may be written now. Looks at the whole folder where it may be full, and empties it.

        While one thread or process is looking, another that has to ask too writes nothing, rather than wait for it.
        """
        share = max(int(self._max_bytes * SHARE), nbytes)
        with contextlib.ExitStack() as looking:
            # Under one lock: a thread that asks meanwhile finds the allowance, and goes on writing.
            with self._lock:
                if nbytes <= self._allowance:
                    self._allowance -= nbytes
                    return True
                if not looking.enter_context(self._locked()):
                    return False
                self._allowance = share - nbytes
            if not self._has_swept:
                self._sweep()
            level = self._level()
            if level is None or level + share > self._max_bytes * FULL:
                self._sweep()
                level = self._total()
                if level + share > self._max_bytes * FULL:
                    level = self._evict(min(int(self._max_bytes * EMPTIED), self._max_bytes - nbytes))
            self._set_level(level + share)
            return True

    def _level(self) -> int | None:
        """The bytes that the folder holds at most; None where only a look can tell."""
        try:
            text = Path(self._root, _LEVEL).read_bytes()
        except OSError:
            return None
        return int(text) if len(text) == _LEVEL_BYTES and text.strip().isdigit() else None

    def _set_level(self, nbytes: int) -> None:
        # Written over in place, with the lock held. One that was cut short is as if there were none.
        with contextlib.suppress(OSError):
            fd = os.open(f"{self._root}/{_LEVEL}", WRITE, 0o600)
            try:
                write_at(fd, b"%*d\n" % (_LEVEL_BYTES - 1, nbytes), 0)
            finally:
                os.close(fd)

    def _create(self, path: str) -> int:
        try:
            return os.open(path, CREATE, 0o600)
        except FileNotFoundError:
            self._make()
            return os.open(path, CREATE, 0o600)

    def _make(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), (self.path / "CACHEDIR.TAG").open("xb") as tag:
            tag.write(_TAG)
        (self.path / _TEMPORARY).mkdir(mode=0o700, exist_ok=True)

    def _rename(self, temporary: str, folder: str, name: str) -> None:
        for attempt in range(_RENAMES):
            try:
                replace(temporary, f"{folder}/{name}")
            except FileNotFoundError:
                # No folder of this group yet, or it was empty and another process removed it: on a busy machine more
                # than once.
                if attempt == _RENAMES - 1:
                    raise
                Path(folder).parent.mkdir(mode=0o700, exist_ok=True)
                Path(folder).mkdir(mode=0o700, exist_ok=True)
            else:
                return

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Lock the folder. True if it is on us to look: not while another thread or process does."""
        try:
            fd = open_for_lock(self._root)
        except FileNotFoundError:
            self._make()
            fd = open_for_lock(self._root)
        try:
            try:
                # Without locks, two that evict at a time evict more than they need to.
                is_mine = try_lock(fd) is not Lock.TAKEN
            except OSError:
                is_mine = True
            try:
                yield is_mine
            finally:
                with contextlib.suppress(OSError):
                    unlock(fd)
        finally:
            os.close(fd)

    def _entries(self) -> Iterator[tuple[str, str, os.stat_result]]:
        """Folder, name and stat of every file where entries belong; folders that are empty are removed on the way."""
        for fanout in _names(self._root, _FANOUT):
            for group in _names(fanout, _GROUP):
                found = False
                with contextlib.suppress(OSError), os.scandir(group) as listing:
                    for entry in listing:
                        found = True
                        with contextlib.suppress(OSError):
                            yield group, entry.name, entry.stat(follow_symlinks=False)
                if not found:
                    _remove_folder(group)

    def _total(self) -> int:
        entries = sum(_on_disk(info) for _, _, info in self._entries())
        return entries + sum(_on_disk(info) for _, info in self._temporaries())

    def _temporaries(self) -> Iterator[tuple[str, os.stat_result]]:
        with contextlib.suppress(OSError), os.scandir(f"{self._root}/{_TEMPORARY}") as listing:
            for entry in listing:
                with contextlib.suppress(OSError):
                    yield entry.path, entry.stat(follow_symlinks=False)

    def _sweep(self) -> None:
        self._has_swept = True
        before = time.time() - LITTER_SECONDS
        for path, info in self._temporaries():
            if info.st_mtime < before:
                _remove_file(path)

    def _evict(self, target_bytes: int) -> int:
        """Remove what is none of ours, then the entries used least recently, until ``target_bytes`` are left.

        Returns how many are left.
        """
        total = 0
        by_age: list[tuple[int, int, str, str]] = []
        for folder, name, info in self._entries():
            size = _on_disk(info)
            total += size
            by_age.append((info.st_mtime_ns if self._is_entry(name) else 0, size, folder, name))
        by_age.sort()
        for _, size, folder, name in by_age:
            if total <= target_bytes:
                break
            _remove_file(f"{folder}/{name}")
            _remove_folder(folder)
            total -= size
        return total


def remove_if_same(path: str, identity: tuple[int, int]) -> None:
    """Remove a file, if it is still the one of this device and inode."""
    with contextlib.suppress(OSError):
        now = os.lstat(path)
        if (now.st_dev, now.st_ino) == identity:
            os.unlink(path)  # noqa: PTH108


def mark_used(path: str | int, used_at: float, seconds: float) -> None:
    """Let an entry, by its path or descriptor, be the one used last, unless that was said within ``seconds``."""
    if abs(time.time() - used_at) > seconds:
        with contextlib.suppress(OSError):
            os.utime(path)


def _names(folder: str, pattern: re.Pattern[str]) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder) if pattern.fullmatch(name)]  # noqa: PTH208
    except OSError:
        return []


def _on_disk(info: os.stat_result) -> int:
    return -(-info.st_size // _BLOCK_BYTES) * _BLOCK_BYTES


def _remove_file(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)  # noqa: PTH108


def _remove_folder(path: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(path)  # noqa: PTH106
