"""Looking into two local files, for the byte at which they start to differ."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self

from xetstore.errors import SourceChangedError
from xetstore.platform.descriptors import READ, read_at
from xetstore.transfer.scan import source_error

if TYPE_CHECKING:
    from xetstore.transfer.compare.versions import LocalVersion

_STEP_BYTES: Final = 1 << 18


class ByteEdges:
    """Two files that were compared by chunks, open for a closer look. A context manager.

    Raises SourceChangedError on leaving if one of them is not what it was when its chunks were read.
    """

    def __init__(self, old: LocalVersion, new: LocalVersion) -> None:
        self._versions = (old, new)
        self._fds: list[int] = []

    def __enter__(self) -> Self:
        for version in self._versions:
            try:
                self._fds.append(os.open(version.path, READ))
            except OSError as error:
                self._close()
                raise source_error(version.path, error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        after = [os.fstat(fd) for fd in self._fds]
        self._close()
        for version, info in zip(self._versions, after, strict=True):
            if kind is None and version.identity != (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns):
                raise SourceChangedError(f"{version.path} changed while it was read", hint="try again when it is still")

    def _close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def equal_at_ends(self, old: tuple[int, int], new: tuple[int, int]) -> tuple[int, int]:
        """Count the bytes of two ranges ``[start, end)`` that are equal from their starts on, and those of the rest
        before their ends.
        """
        most = min(old[1] - old[0], new[1] - new[0])
        ahead = 0
        while ahead < most:
            step = min(_STEP_BYTES, most - ahead)
            left, right = self._read(0, old[0] + ahead, step), self._read(1, new[0] + ahead, step)
            same = _common_prefix(left, right)
            ahead += same
            if same < step:
                break
        most -= ahead
        back = 0
        while back < most:
            step = min(_STEP_BYTES, most - back)
            left, right = self._read(0, old[1] - back - step, step), self._read(1, new[1] - back - step, step)
            same = _common_prefix(left[::-1], right[::-1])
            back += same
            if same < step:
                break
        return ahead, back

    def _read(self, which: int, offset: int, count: int) -> bytes:
        try:
            data = read_at(self._fds[which], count, offset)
        except OSError as error:
            raise source_error(self._versions[which].path, error) from error
        if len(data) < count:
            path = self._versions[which].path
            raise SourceChangedError(f"{path} changed while it was read", hint="try again when it is still")
        return data


def _common_prefix(left: bytes, right: bytes) -> int:
    """At how many bytes two strings of one length start to differ."""
    if left == right:
        return len(left)
    same, different = 0, len(left)
    while different - same > 1:
        middle = (same + different) // 2
        if left[same:middle] == right[same:middle]:
            same = middle
        else:
            different = middle
    return same
