"""The SHA-256 of stored files, computed here from their bytes before a pointer is committed with one.

A shard brings the SHA-256 of a file as its uploader's word. git-lfs, caches and other readers build on it, so it is
computed once, from verified bytes, and remembered for all namespaces. The work on one file is shared by all callers of
this process that wait for it. It goes on when they give up, so the next attempt finds it done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from itertools import chain
from types import MappingProxyType
from typing import Final

from xetstore.cas import EmbeddedCas
from xetstore.errors import DamagedError, IntegrityError, UnprocessableError, XetError
from xetstore.interfaces import MANY_FILES
from xetstore.platform import forks
from xetstore.platform.threads import Threads
from xetstore.protocol.hashes import Hash
from xetstore.records import FileRecord
from xetstore.transfer.download.context import DownloadOptions
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.download.small_files import HELD_BYTES, SMALL_BYTES, load_small
from xetstore.transfer.waiting import TICK_SECONDS

AT_A_TIME: Final = 2
"""Files that this process reads at a time, whoever waits for them. Each takes some tens of MiB of memory."""
WINDOW_BYTES: Final = 8 << 20
"""Bytes of a file that are hashed at a time, while as many are read."""

GROUP_FILES: Final = 1024
GROUP_BYTES: Final = 64 << 20
"""Small files that are done one after the other, and noted together."""

_ANY_SIZES: Final[Mapping[bytes, int]] = MappingProxyType({})


def require_file(cas: EmbeddedCas, sha256: bytes, *, size: int | None = None) -> FileRecord:
    """As :func:`require_files`, for one."""
    return require_files(cas, [sha256], sizes={} if size is None else {sha256: size})[sha256]


def require_files(
    cas: EmbeddedCas,
    digests: Iterable[bytes],
    *,
    sizes: Mapping[bytes, int] = _ANY_SIZES,
    on_wait: Callable[[], None] = lambda: None,
) -> dict[bytes, FileRecord]:
    """The files of the namespace of ``cas`` with these SHA-256, 32 bytes each, which were computed from their bytes.

    What was not computed before is computed now. ``sizes`` in bytes are those that the caller was told: a file of
    another size is not looked at. ``on_wait`` is called some times a second meanwhile; what it raises ends the wait and
    not the work.

    Raises UnprocessableError with the SHA-256 in hex where no file of the namespace has it, whatever was claimed, and
    DamagedError where the stored bytes of one are damaged.
    """
    asked = list(dict.fromkeys(digests))
    with cas.index.snapshot() as reader:
        candidates = reader.claimed(cas.tenant.namespace, {sha256: sizes.get(sha256) for sha256 in asked})
    found: dict[bytes, FileRecord] = {}
    damage: DamagedError | None = None
    while candidates:
        tried: dict[bytes, FileRecord] = {}
        for sha256, files in list(candidates.items()):
            record, is_checked = files.pop(0)
            (found if is_checked else tried)[sha256] = record
            if is_checked or not files:
                del candidates[sha256]
        futures = _FLIGHTS.begin(cas, tried.values())
        while wait(futures.values(), TICK_SECONDS).not_done:
            on_wait()
        for sha256, record in tried.items():
            try:
                is_right = futures[record.hash].result() == sha256
            except DamagedError as error:
                damage = error
                continue
            if is_right:
                found[sha256] = record
                candidates.pop(sha256, None)
    missing = [sha256 for sha256 in asked if sha256 not in found]
    if missing and damage is not None:
        raise damage
    if missing:
        raise _lacking(missing)
    return {sha256: found[sha256] for sha256 in asked}


def _lacking(digests: list[bytes]) -> UnprocessableError:
    more = f", and {len(digests) - 1} more" if len(digests) > 1 else ""
    return UnprocessableError(
        f"the file {digests[0].hex()}{more} was not uploaded to this repository", hint="upload it before the commit"
    )


class _Flights:
    """Computations under way, by store and file. Thread-safe; in a child that was forked there is none."""

    def __init__(self) -> None:
        self._threads = Threads(AT_A_TIME, "sha256")
        self._lock = forks.lock()
        self._begin_anew()
        forks.renew(self, _Flights._begin_anew)

    def _begin_anew(self) -> None:
        # By the number of the index, which lives as long as the work: that holds it.
        self._under_way: dict[tuple[int, Hash], Future[bytes]] = {}

    def begin(self, cas: EmbeddedCas, records: Iterable[FileRecord]) -> dict[Hash, Future[bytes]]:
        """The SHA-256 of files of the namespace of ``cas``: each comes when it is computed and remembered."""
        number = id(cas.index)
        futures: dict[Hash, Future[bytes]] = {}
        new: list[FileRecord] = []
        with self._lock:
            for record in records:
                under_way = self._under_way.get((number, record.hash))
                if under_way is None:
                    under_way = self._under_way[number, record.hash] = Future()
                    new.append(record)
                futures[record.hash] = under_way
        groups = [*_groups(new)]
        for at, group in enumerate(groups):
            try:
                self._threads.submit(self._run, cas, group, {record.hash: futures[record.hash] for record in group})
            except XetError as error:
                for record in chain.from_iterable(groups[at:]):
                    self._end(cas, record.hash, futures[record.hash], error)
                break
        return futures

    def _run(self, cas: EmbeddedCas, group: Sequence[FileRecord], left: dict[Hash, Future[bytes]]) -> None:
        """Do a group. Whatever happens, each of its files is told how it went."""
        try:
            with cas.index.snapshot() as reader:
                records = reader.file_records(left)
            # Since the caller looked, another process may have been first.
            for file, record in records.items():
                if record.sha256 is not None:
                    self._end(cas, file, left.pop(file), bytes.fromhex(record.sha256))
            small = _compute_small(cas, [record for record in group if record.hash in left])
            for file, sha256 in _note(cas, small).items():
                self._end(cas, file, left.pop(file), sha256)
            while left:
                file, future = left.popitem()
                try:
                    outcome: bytes | BaseException = _note(cas, {file: _compute(cas, file)})[file]
                except BaseException as error:
                    outcome = error
                self._end(cas, file, future, outcome)
        except BaseException as error:
            for file, future in left.items():
                self._end(cas, file, future, error)
            raise

    def _end(self, cas: EmbeddedCas, file: Hash, future: Future[bytes], outcome: bytes | BaseException) -> None:
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
        with self._lock:
            self._under_way.pop((id(cas.index), file), None)


_FLIGHTS: Final = _Flights()


def _groups(records: Iterable[FileRecord]) -> Iterator[list[FileRecord]]:
    """Small files together, so that one transaction notes them; each of the others alone."""
    small: list[FileRecord] = []
    for record in records:
        if 0 < record.size <= SMALL_BYTES:
            small.append(record)
        else:
            yield [record]
    yield from _parts(small, GROUP_FILES, GROUP_BYTES)


def _parts(records: Iterable[FileRecord], most_files: int, most_bytes: int) -> Iterator[list[FileRecord]]:
    part: list[FileRecord] = []
    total = 0
    for record in records:
        if part and (len(part) == most_files or total + record.size > most_bytes):
            yield part
            part, total = [], 0
        part.append(record)
        total += record.size
    if part:
        yield part


def _compute_small(cas: EmbeddedCas, group: Sequence[FileRecord]) -> dict[Hash, bytes]:
    """The SHA-256 of those of these small files whose bytes come well together."""
    found: dict[Hash, bytes] = {}
    for part in _parts(group, MANY_FILES, HELD_BYTES) if len(group) > 1 else ():
        files = [record.hash for record in part]
        load_small(Downloader(cas), files, lambda file, data: found.update({file: hashlib.sha256(data).digest()}))
    return found


def _compute(cas: EmbeddedCas, file: Hash) -> bytes:
    """The SHA-256 of the stored bytes of a file, each of which is verified."""
    digest = hashlib.sha256()
    try:
        for data in Downloader(cas, DownloadOptions(workers=1)).stream(file, window_bytes=WINDOW_BYTES):
            digest.update(data)
    except DamagedError:
        raise
    except IntegrityError as error:
        raise DamagedError(str(error), hint=error.hint) from error
    return digest.digest()


def _note(cas: EmbeddedCas, computed: Mapping[Hash, bytes]) -> Mapping[Hash, bytes]:
    """Remember what was computed, for all namespaces and processes."""
    if computed:
        cas.index.change(lambda writer: writer.note_many(computed))
    return computed
