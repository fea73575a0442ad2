"""The SHA-256 of stored files, computed here from their bytes before a pointer is committed with one.

A shard brings the SHA-256 of a file as its uploader's word. git-lfs, caches and other readers build on it, so it is
computed once, from verified bytes, and remembered for all namespaces. The work on one file is shared by all callers of
this process that wait for it. It goes on when they give up, so the next attempt finds it done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from types import MappingProxyType
from typing import Final

from xetstore.cas import EmbeddedCas
from xetstore.errors import DamagedError, IntegrityError, UnprocessableError
from xetstore.platform import forks
from xetstore.platform.threads import Threads
from xetstore.protocol.hashes import Hash
from xetstore.records import FileRecord
from xetstore.transfer.download.context import DownloadOptions
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.waiting import TICK_SECONDS

AT_A_TIME: Final = 2
"""Files that this process reads at a time, whoever waits for them. Each takes some tens of MiB of memory."""
WINDOW_BYTES: Final = 8 << 20
"""Bytes of a file that are hashed at a time, while as many are read."""

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
        waiting: dict[bytes, tuple[FileRecord, Future[bytes]]] = {}
        for sha256, files in list(candidates.items()):
            record, is_checked = files.pop(0)
            if is_checked:
                found[sha256] = record
            else:
                waiting[sha256] = record, _FLIGHTS.begin(cas, record.hash)
            if is_checked or not files:
                del candidates[sha256]
        while wait([future for _, future in waiting.values()], TICK_SECONDS).not_done:
            on_wait()
        for sha256, (record, future) in waiting.items():
            try:
                is_right = future.result() == sha256
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
        self._under_way: dict[tuple[int, Hash], Future[bytes]] = {}

    def begin(self, cas: EmbeddedCas, file: Hash) -> Future[bytes]:
        """The SHA-256 of a file of the namespace of ``cas``, once it is computed and remembered."""
        key = id(cas.index), file  # the index lives as long as the work, which holds it
        with self._lock:
            if (under_way := self._under_way.get(key)) is None:
                under_way = self._under_way[key] = self._threads.submit(self._run, cas, file)
            return under_way

    def _run(self, cas: EmbeddedCas, file: Hash) -> bytes:
        try:
            with cas.index.snapshot() as reader:
                record = reader.file_records([file]).get(file)
            if record is not None and record.sha256 is not None:  # since the caller looked, perhaps by another process
                return bytes.fromhex(record.sha256)
            sha256 = _compute(cas, file)
            cas.index.change(lambda writer: writer.note_sha256(file, sha256))
            return sha256
        finally:
            with self._lock:
                self._under_way.pop((id(cas.index), file), None)


_FLIGHTS: Final = _Flights()


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
