"""RememberedFiles: files that were put, by what the system tells of them, so that an unchanged one is not read again.

A row is a statement about a file of this machine, and about no store: whether a store has the file for its caller, and
can read it, only that store says. The file is the same where its path, device, inode, size, time of change and time of
status change are. It is not remembered where one of the times is less than :data:`RACY_SECONDS` before it was read, or
later: the clocks of some file systems tick every two seconds, and what changes in the same tick looks the same.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from xetstore.batches import batches
from xetstore.events import Emit, ignore
from xetstore.protocol.hashes import Hash
from xetstore.records import FileInfo
from xetstore.transfer.upload.memory import BUSY_SECONDS, Memory
from xetstore.transfer.upload.memory_file import MemoryFile

RACY_SECONDS: Final = 3
MAX_BYTES: Final = 512 << 20
"""The largest size of the file, for some four million files; those that were put last longest ago are forgotten."""
DAY_SECONDS: Final = 24 * 3600

_Row: TypeAlias = tuple[object, object, object]
"""Its hash, SHA-256 and proof; nothing is certain of a file that others may have written."""
_NOTHING: Final[Mapping[int, _Row]] = MappingProxyType({})

_PROOF_BYTES: Final = 16
_DIGEST_BYTES: Final = 32
_NOTED_AGAIN_DAYS: Final = 7
_ROW_BYTES: Final = 150
_FORGOTTEN_SHARE: Final = 8
_BATCH: Final = 256
_LOOKED_UP: Final = MappingProxyType(
    {
        count: f"SELECT id, hash, sha256, proof, day FROM file WHERE id IN ({','.join('?' * count)})"
        for count in range(1, _BATCH + 1)
    }
)
_ADD: Final = "INSERT OR REPLACE INTO file (id, hash, sha256, proof, day) VALUES (?, ?, ?, ?, ?)"
_LOOKED_UP_ON: Final = "UPDATE file SET day = ? WHERE id = ?"
_FORGET: Final = "DELETE FROM file WHERE id IN (SELECT id FROM file ORDER BY day LIMIT ?)"


class RememberedFile(MemoryFile):
    """The SQLite file behind :class:`RememberedFiles`.

    ``id`` are eight bytes of the hash of the path, ``proof`` is over all that makes a row true, itself included, and
    ``day`` the last one on which the file was put, give or take a week, counted from 1970 on.
    """

    VERSION = 1
    SCHEMA = (
        "CREATE TABLE file (id INTEGER PRIMARY KEY, hash BLOB NOT NULL, sha256 BLOB NOT NULL, proof BLOB NOT NULL,"
        " day INTEGER NOT NULL)",
    )
    TABLES = ("file",)


class Sighting(NamedTuple):
    """A regular file as the system tells of it: the number and the name of its path, and the numbers of its status.
    ``looked_ns`` is when that was, in unix nanoseconds.
    """

    id: int
    name: bytes
    numbers: tuple[int, int, int, int, int]
    looked_ns: int

    @classmethod
    def of(cls, path: Path, status: os.stat_result, looked_ns: int, folder: str) -> Sighting:
        """That of the file at a path, which has this status. ``folder`` is the one that this process is in."""
        # Put together, not looked up: a path that is spelled otherwise is another one.
        name = os.fsencode(os.path.join(folder, path))  # noqa: PTH118
        number = int.from_bytes(blake2b(name, digest_size=8).digest(), "little", signed=True)
        return cls(number, name, _numbers(status), looked_ns)

    def again(self, status: os.stat_result, looked_ns: int) -> Sighting:
        """That of the same path later on. Itself, if the status is the same and tells as much."""
        numbers = _numbers(status)
        if numbers == self.numbers and not self.is_racy:
            return self
        return self._replace(numbers=numbers, looked_ns=looked_ns)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.numbers[2]

    @property
    def is_racy(self) -> bool:
        """True if what changed since may look the same."""
        return max(self.numbers[3:]) > self.looked_ns - RACY_SECONDS * 10**9

    def proof(self, digest: bytes, sha256: bytes) -> bytes:
        """The proof of a row about it."""
        identity = b"%s\0%d %d %d %d %d" % (self.name, *self.numbers)
        return blake2b(identity + digest + sha256, digest_size=_PROOF_BYTES).digest()


class RememberedFiles(Memory[RememberedFile]):
    """Files that were put from this machine, by whichever process. Nothing in here raises.

    ``path`` has to be in a folder of this user that no other one can write to: else nothing in it is believed.
    ``clock`` is in unix nanoseconds.
    """

    CONTENT = "what was put"

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = MAX_BYTES,
        busy_seconds: float = BUSY_SECONDS,
        clock: Callable[[], int] = time.time_ns,
        emit: Emit = ignore,
    ) -> None:
        super().__init__(path, max_bytes=max_bytes, busy_seconds=busy_seconds, emit=emit)
        self.clock = clock

    def look(self, files: Iterable[object]) -> list[Sighting | None]:
        """Look at files. None for what is no path of a regular file, or cannot be looked at: reading it says why."""
        folder = _folder()
        return [self._look(file, folder) if isinstance(file, Path) else None for file in files]

    def find(self, sightings: Sequence[Sighting | None]) -> list[FileInfo | None]:
        """The identity of each file that is as it was when it was put, else None."""
        ids = [one.id for one in sightings if one is not None]
        rows = self._attempt(lambda file: self._rows(file, ids), _NOTHING, create=False)
        return [None if one is None else _info(one, rows.get(one.id)) for one in sightings]

    def remember(self, files: Iterable[tuple[Sighting, FileInfo]]) -> None:
        """Remember files that were read and put: as they looked before, and still looked behind."""
        day = self._day()
        rows = [
            (one.id, digest := info.hash.digest, sha256, one.proof(digest, sha256), day)
            for one, info in files
            if info.sha256 is not None and not one.is_racy
            for sha256 in (bytes.fromhex(info.sha256),)
        ]
        if rows:
            self._attempt(lambda file: self._add(file, rows), None)

    def _open_file(self) -> RememberedFile:
        _require_own(self.path.parent)
        return RememberedFile(self.path, self._busy_seconds)

    def _look(self, path: Path, folder: str) -> Sighting | None:
        looked_ns = self.clock()
        try:
            status = os.stat(path)  # noqa: PTH116  # twice as fast
        except (OSError, ValueError):
            return None
        return Sighting.of(path, status, looked_ns, folder) if stat.S_ISREG(status.st_mode) else None

    def _rows(self, file: RememberedFile, ids: Sequence[int]) -> Mapping[int, _Row]:
        found: dict[int, _Row] = {}
        day = self._day()
        old = []
        for batch in batches(sorted(ids), _BATCH):
            for row in file.rows(_LOOKED_UP[len(batch)], batch):
                found[row[0]] = row[1], row[2], row[3]
                if row[4] < day - _NOTED_AGAIN_DAYS:
                    old.append((day, row[0]))
        if old:
            with file.transaction():
                file.change_many(_LOOKED_UP_ON, old)
        return found

    def _day(self) -> int:
        return self.clock() // 10**9 // DAY_SECONDS

    def _add(self, file: RememberedFile, rows: list[tuple[int, bytes, bytes, bytes, int]]) -> None:
        with file.transaction():
            if file.used_bytes() + len(rows) * _ROW_BYTES > self._max_bytes:
                most = self._max_bytes // _ROW_BYTES // _FORGOTTEN_SHARE
                file.change(_FORGET, (max(most, len(rows)),))
            file.change_many(_ADD, sorted(rows))


def _info(sighting: Sighting, row: _Row | None) -> FileInfo | None:
    """The identity of this file by its row; None if it is about another state of it, or makes no sense."""
    if row is None:
        return None
    digest, sha256, proof = row
    if not (isinstance(digest, bytes) and isinstance(sha256, bytes) and len(digest) == len(sha256) == _DIGEST_BYTES):
        return None
    if proof != sighting.proof(digest, sha256):
        return None
    return FileInfo(Hash(digest), sighting.size, sha256.hex())


def _numbers(status: os.stat_result) -> tuple[int, int, int, int, int]:
    """By which a version of a file is known: device, inode, size, time of change, time of status change."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _folder() -> str:
    """The folder that this process is in; where that is gone, relative paths lead nowhere."""
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return ""


def _require_own(folder: Path) -> None:
    """Raise PermissionError unless a folder is this user's, and no other one can write to it."""
    info = folder.lstat()
    if not hasattr(os, "geteuid"):
        return
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder} is no folder of this user's alone")
