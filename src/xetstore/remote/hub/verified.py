"""Verified: bytes that a Hub sends of a file, against the SHA-256 of a large one or the id that git has for it."""

from __future__ import annotations

import hashlib

from xetstore.errors import HashMismatchError
from xetstore.records import RepoFile


class Verified:
    """The check of one file, part by part; a Hub that names neither digest is believed."""

    def __init__(self, file: RepoFile) -> None:
        self._file = file
        self._size = 0
        if file.sha256 is not None:
            self._expected, self._digest = file.sha256, hashlib.sha256()
        else:
            self._expected = file.oid
            self._digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)

    def update(self, part: bytes) -> None:
        """Add bytes. Raises HashMismatchError as soon as they are too many."""
        self._size += len(part)
        if self._size > self._file.size:
            raise HashMismatchError(self._file.path, expected=self._expected, actual="more bytes than it has")
        self._digest.update(part)

    def finish(self) -> None:
        """Raise HashMismatchError if they are not those of the file."""
        actual = self._digest.hexdigest()
        if self._size != self._file.size or (self._expected and actual != self._expected):
            raise HashMismatchError(self._file.path, expected=self._expected, actual=actual)
