"""The SHA-256 of a pointer: computed here from the stored bytes before the pointer is committed.

A shard brings the SHA-256 of a file as its uploader's word. git-lfs, caches and other readers build on it, so it is
computed once, from verified bytes, and remembered for all namespaces. The work on one file is shared by all callers of
this process that wait for it. It goes on when they give up, so the next attempt finds it done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from types import MappingProxyType
from typing import Final

from xetstore.cas import EmbeddedCas
from xetstore.errors import DamagedError, UnprocessableError
from xetstore.hub.hashing import HASHING
from xetstore.records import FileRecord
from xetstore.transfer.waiting import TICK_SECONDS

_ANY_SIZES: Final[Mapping[bytes, int]] = MappingProxyType({})


def require_file(cas: EmbeddedCas, sha256: bytes, *, size: int | None = None) -> FileRecord:
    """As :func:`require_files`, for one."""
    return require_files(cas, [sha256], sizes={} if size is None else {sha256: size})[sha256]


def require_files(
    cas: EmbeddedCas,
    digests: Iterable[bytes],
    *,
    sizes: Mapping[bytes, int] = _ANY_SIZES,
    caller: str | None = None,
    on_wait: Callable[[], None] = lambda: None,
) -> dict[bytes, FileRecord]:
    """The files of the namespace of ``cas`` with these SHA-256, 32 bytes each, which were computed from their bytes.

    What was not computed before is computed now. ``sizes`` in bytes are those that the caller was told: a file of
    another size is not looked at. ``caller`` is the account for which the work counts. ``on_wait`` is called some times
    a second meanwhile; what it raises ends the wait and not the work.

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
        futures = HASHING.begin(cas, tried.values(), caller)
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


def begin_to_hash(
    cas: EmbeddedCas, sizes: Mapping[bytes, int | None], caller: str | None = None
) -> list[Future[bytes]]:
    """Begin what :func:`require_files` would wait for at first, for SHA-256 and the sizes that are known; waits for
    nothing. Where it gives none, that would not wait.
    """
    with cas.index.snapshot() as reader:
        claimed = reader.claimed(cas.tenant.namespace, sizes)
    unchecked = (files[0][0] for files in claimed.values() if not files[0][1])
    return list(HASHING.begin(cas, unchecked, caller).values())


def _lacking(digests: list[bytes]) -> UnprocessableError:
    more = f", and {len(digests) - 1} more" if len(digests) > 1 else ""
    return UnprocessableError(
        f"the file {digests[0].hex()}{more} was not uploaded to this repository", hint="upload it before the commit"
    )
