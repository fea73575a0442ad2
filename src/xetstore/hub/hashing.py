"""Hashing: the SHA-256 of stored files computed in the background, each by one thread of this process, for all callers.

Small files are read together, and noted in one transaction. A caller has at most half of the threads, because a file
may be as large as it likes at no cost: made of one chunk over and over. It is the caller that counts and not the owner
of the repository, because strangers propose changes to that.
"""

from __future__ import annotations

import atexit
import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from xetstore.batches import sized_batches
from xetstore.cancellation import Cancellation
from xetstore.cas import EmbeddedCas
from xetstore.errors import DamagedError, IntegrityError, XetError
from xetstore.interfaces import MANY_FILES
from xetstore.platform import forks
from xetstore.platform.threads import Threads
from xetstore.protocol.hashes import Hash
from xetstore.records import FileRecord
from xetstore.transfer.download.context import DownloadOptions
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.download.small_files import HELD_BYTES, SMALL_BYTES, load_small

AT_A_TIME: Final = 4
"""Files that this process reads at a time. Each takes some 30 MiB of memory."""
EACH_AT_A_TIME: Final = AT_A_TIME // 2
"""Those of one caller."""
WINDOW_BYTES: Final = 8 << 20
"""Bytes of a file that are hashed at a time, while as many are read."""
GROUP_FILES: Final = 1024
GROUP_BYTES: Final = 64 << 20
"""Small files that are done one after the other, and noted together."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Files that one thread does, and where it tells how each went."""

    cas: EmbeddedCas
    records: Sequence[FileRecord]
    outcomes: dict[Hash, Future[bytes]]
    caller: str


class Hashing:
    """Computations that wait or are under way, by store and file. Thread-safe; a child that was forked has none.

    What is under way when the program ends is given up.
    """

    def __init__(self) -> None:
        self._threads = Threads(AT_A_TIME, "sha256")
        self._lock = forks.lock()
        self._begin_anew()
        forks.renew(self, Hashing._begin_anew)

    def _begin_anew(self) -> None:
        # By the number of the index, which lives as long as the work: that holds it.
        self._outcomes: dict[tuple[int, Hash], Future[bytes]] = {}
        self._waiting: dict[str, deque[_Group]] = {}
        self._running: Counter[str] = Counter()
        self._call = Cancellation()

    def begin(
        self, cas: EmbeddedCas, records: Iterable[FileRecord], caller: str | None = None
    ) -> dict[Hash, Future[bytes]]:
        """The SHA-256 of files of the namespace of ``cas``: each comes when it is computed and remembered.

        The work counts for ``caller``, an account; of namespace `models/alice/bert` that is `alice` if none is named.
        DamagedError where the stored bytes are damaged. Waits for nothing.
        """
        namespace = cas.tenant.namespace
        caller = caller or (namespace.split("/", 2)[1:2] or [namespace])[0]
        outcomes: dict[Hash, Future[bytes]] = {}
        new: list[FileRecord] = []
        with self._lock:
            for record in records:
                key = id(cas.index), record.hash
                if key not in self._outcomes:
                    self._outcomes[key] = Future()
                    new.append(record)
                outcomes[record.hash] = self._outcomes[key]
            for part in _groups(new):
                group = _Group(cas, part, {record.hash: outcomes[record.hash] for record in part}, caller)
                self._waiting.setdefault(caller, deque()).append(group)
        self._start()
        return outcomes

    def stop(self) -> None:
        """Give up what is under way, and what waits."""
        self._call.cancel()

    def _start(self) -> None:
        """Let threads do what waits, as many as there may be."""
        while (group := self._next()) is not None:
            try:
                self._threads.submit(self._do, group)
            except (XetError, RuntimeError) as error:
                self._ended(group, error)

    def _next(self) -> _Group | None:
        with self._lock:
            free = [caller for caller in self._waiting if self._running[caller] < EACH_AT_A_TIME]
            if not free or self._running.total() >= AT_A_TIME:
                return None
            caller = min(free, key=self._running.__getitem__)
            groups = self._waiting.pop(caller)
            group = groups.popleft()
            if groups:
                self._waiting[caller] = groups  # behind the other callers
            self._running[caller] += 1
            return group

    def _do(self, group: _Group) -> None:
        """Do a group. Whatever happens, each of its files is told how it went."""
        failure: BaseException | None = None
        try:
            self._hash(group)
        except BaseException as error:
            failure = error
        self._ended(group, failure)
        self._start()

    def _ended(self, group: _Group, failure: BaseException | None) -> None:
        for file, outcome in group.outcomes.items():
            if failure is not None and not outcome.done():
                self._tell(group, file, failure)
        with self._lock:
            self._running[group.caller] -= 1
            self._running += Counter()  # without those that have none

    def _hash(self, group: _Group) -> None:
        cas, left = group.cas, {record.hash: record for record in group.records}
        self._call.check()
        with cas.index.snapshot() as reader:
            records = reader.file_records(left)
        for file, record in records.items():
            if record.sha256 is not None:  # since the caller looked, perhaps by another process
                del left[file]
                self._tell(group, file, bytes.fromhex(record.sha256))
        for file, sha256 in _noted(cas, self._together(cas, [*left.values()])).items():
            del left[file]
            self._tell(group, file, sha256)
        for file in left:
            try:
                sha256 = _noted(cas, {file: self._alone(cas, file)})[file]
            except XetError as error:
                self._tell(group, file, error)
            else:
                self._tell(group, file, sha256)

    def _tell(self, group: _Group, file: Hash, outcome: bytes | BaseException) -> None:
        if isinstance(outcome, BaseException):
            group.outcomes[file].set_exception(outcome)
        else:
            group.outcomes[file].set_result(outcome)
        with self._lock:
            self._outcomes.pop((id(group.cas.index), file), None)

    def _together(self, cas: EmbeddedCas, records: Sequence[FileRecord]) -> dict[Hash, bytes]:
        """The SHA-256 of those of these small files whose bytes come well together."""
        computed: dict[Hash, bytes] = {}
        for part in _parts(records, MANY_FILES, HELD_BYTES) if len(records) > 1 else ():
            load_small(
                Downloader(cas, cancellation=self._call),
                [record.hash for record in part],
                lambda file, data: computed.update({file: hashlib.sha256(data).digest()}),
            )
        return computed

    def _alone(self, cas: EmbeddedCas, file: Hash) -> bytes:
        """The SHA-256 of a file, of which each byte is verified."""
        digest = hashlib.sha256()
        downloader = Downloader(cas, DownloadOptions(workers=1), cancellation=self._call)
        try:
            for data in downloader.stream(file, window_bytes=WINDOW_BYTES):
                digest.update(data)
        except DamagedError:
            raise
        except IntegrityError as error:
            raise DamagedError(str(error), hint=error.hint) from error
        return digest.digest()


HASHING: Final = Hashing()
"""That of this process."""

atexit.register(HASHING.stop)


def _groups(records: Iterable[FileRecord]) -> Iterator[list[FileRecord]]:
    """Small files together; each of the others alone."""
    small: list[FileRecord] = []
    for record in records:
        if 0 < record.size <= SMALL_BYTES:
            small.append(record)
        else:
            yield [record]
    yield from _parts(small, GROUP_FILES, GROUP_BYTES)


def _parts(records: Iterable[FileRecord], most_files: int, most_bytes: int) -> Iterator[list[FileRecord]]:
    return sized_batches(records, lambda record: record.size, most_bytes, most=most_files)


def _noted(cas: EmbeddedCas, computed: Mapping[Hash, bytes]) -> Mapping[Hash, bytes]:
    """Remember what was computed, for all namespaces and processes."""
    if computed:
        cas.index.change(lambda writer: writer.note_many(computed))
    return computed
