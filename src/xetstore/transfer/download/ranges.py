"""Several ranges of files into memory: near ones become one, and some dozens come by one request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from xetstore.errors import InterruptedCallError, XetError
from xetstore.interfaces import MANY_RANGES, FileSpan
from xetstore.platform.threads import Threads
from xetstore.transfer.waiting import result_of

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.reconstruction import Reconstruction
    from xetstore.transfer.download.downloader import Downloader

GAP_BYTES: Final = 64 << 10
"""Ranges that are no farther apart become one: the chunk between them comes with either."""

GROUPS: Final = 4
"""The groups into which ranges are parted, at the least: one connection would bring all of them slower."""

LEAST_GROUP_BYTES: Final = 1 << 20
"""A smaller part of them is not worth a request of its own."""

MOST_JOINED_BYTES: Final = 8 << 20
"""Near ranges become no longer one."""

Answer = memoryview | XetError
"""The bytes of a range, or what is wrong with it."""


class _Joined(NamedTuple):
    """Bytes ``[start, end)`` of a file, and the numbers of the ranges that lie in them."""

    file: Hash
    start: int
    end: int
    numbers: tuple[int, ...]


class RangeReader:
    """Reads ranges by one downloader. Each is verified as a stream of it is."""

    def __init__(self, downloader: Downloader, sizes: Callable[[Hash], int | None] = lambda _: None) -> None:
        self._downloader = downloader
        self._sizes = sizes

    def read(self, spans: Sequence[FileSpan]) -> list[Answer]:
        """The bytes of each range, in order, cut off at the end of its file; an error takes the place of those that
        could not be read. Raises InterruptedCallError.
        """
        answers: list[Answer] = [memoryview(b"")] * len(spans)
        groups = self._groups(_joined(spans))

        def read(group: Sequence[_Joined]) -> None:
            for joined, data in zip(group, self._read_group(group), strict=True):
                if isinstance(data, XetError) and len(joined.numbers) > 1:
                    for number in joined.numbers:  # some of them may be there
                        answers[number] = self._read_one(*spans[number], None)
                    continue
                for number in joined.numbers:
                    _, start, end = spans[number]
                    part = data if isinstance(data, XetError) else data[start - joined.start : end - joined.start]
                    answers[number] = part

        if len(groups) == 1:
            read(groups[0])
        elif groups:
            with Threads(min(self._downloader.groups_at_a_time, len(groups)), "ranges") as threads:
                reads = [threads.submit(read, group) for group in groups]
                try:
                    for one in reads:
                        result_of(one)
                except BaseException:
                    threads.shutdown(wait=False, cancel_futures=True)
                    self._downloader.interrupt()
                    raise
        return answers

    def _groups(self, joined: Sequence[_Joined]) -> list[list[_Joined]]:
        """Parts of these ranges, each for one request; each range alone where requests cost nothing."""
        most = self._downloader.inline_bytes
        if not most:
            return [[one] for one in joined]
        total = sum(one.end - one.start for one in joined)
        most = min(most, max(LEAST_GROUP_BYTES, total // GROUPS))
        groups: list[list[_Joined]] = []
        left = 0
        for one in joined:
            length = one.end - one.start
            if not groups or length > left or len(groups[-1]) == MANY_RANGES:
                groups.append([])
                left = most
            groups[-1].append(one)
            left -= length
        return groups

    def _read_group(self, group: Sequence[_Joined]) -> list[Answer]:
        told: Sequence[Reconstruction | None] = [None] * len(group)
        if len(group) > 1:
            try:
                told = self._downloader.ask([(one.file, one.start, one.end) for one in group]) or told
            except InterruptedCallError:
                raise
            except XetError:
                pass  # asked for by itself, each of them says why
        return [self._read_one(one.file, one.start, one.end, answer) for one, answer in zip(group, told, strict=True)]

    def _read_one(self, file: Hash, start: int, end: int, told: Reconstruction | None) -> Answer:
        try:
            parts = list(self._downloader.stream(file, start, end, size=self._sizes(file), told=told))
        except InterruptedCallError:
            raise
        except XetError as error:
            return error
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _joined(spans: Iterable[FileSpan]) -> list[_Joined]:
    """Ranges of each file in order, near ones joined."""
    joined: list[_Joined] = []
    for number, (file, start, end) in sorted(enumerate(spans), key=lambda one: (one[1][0].digest, *one[1][1:])):
        last = joined[-1] if joined else None
        if last is None or last.file != file or start > last.end + GAP_BYTES:
            is_near = False
        else:
            is_near = start < last.end or max(end, last.end) - last.start <= MOST_JOINED_BYTES
        if last is not None and is_near:
            joined[-1] = _Joined(file, last.start, max(end, last.end), (*last.numbers, number))
        else:
            joined.append(_Joined(file, start, end, (number,)))
    return joined
