"""Putting again by the hash alone: files whose bytes are here, for callers who know that theirs are the same."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from xetstore.batches import sized_batches
from xetstore.cas.stored_xorb import looks_whole
from xetstore.errors import UsageError
from xetstore.interfaces import MANY_PUT_AGAIN
from xetstore.platform.threads import Threads
from xetstore.protocol.hashes import Hash

if TYPE_CHECKING:
    from xetstore.cas.index import Writer
    from xetstore.cas.index.queries.again import HadFile
    from xetstore.cas.index.queries.rows import XorbRow
    from xetstore.cas.service import EmbeddedCas

YOUNG_SECONDS: Final = 3600.0
"""A grant of the last hour is as good as a new one: what ends grants that nothing names waits for weeks."""
LOOK_SECONDS: Final = 20.0
"""The longest look at objects, which a client waits for: to read a file again is always right."""
LOOKS_AT_ONCE: Final = 16
"""Objects that are looked at side by side, of a store that is far away."""
_EDGES_AT_A_TIME: Final = 50_000


def put_again(
    cas: EmbeddedCas, files: Iterable[Hash], *, dry_run: bool = False, look_seconds: float = LOOK_SECONDS
) -> set[Hash]:
    """Those of these files that the namespace of ``cas`` has and that can be read, as far as is known and can be seen;
    from now on as if they had been put just now, unless it is a ``dry_run``.

    One whose SHA-256 the namespace does not claim is not among them: it could not be committed.

    The object of each of their xorbs is looked at once. One that is missing, or not as long as its row says, is marked.
    Files whose objects could not all be looked at in ``look_seconds`` are not among them. A store that cannot be
    written to has none of them.
    """
    by_digest = {file.digest: file for file in files}
    if len(by_digest) > MANY_PUT_AGAIN:
        raise UsageError(f"at most {MANY_PUT_AGAIN} files can be put again at once, not {len(by_digest)}")
    if not cas.index.is_writable and not dry_run:
        return set()
    with cas.index.snapshot() as reader:
        had = reader.had_files(by_digest, cas.tenant.namespace)
    sound = _sound(cas, had, time.monotonic() + look_seconds)
    now = cas.now()
    oldest = -inf if dry_run else now - YOUNG_SECONDS
    here = [file.digest for file in sound if file.granted_at > oldest]
    if len(here) < len(sound):
        old = [file.digest for file in sound if file.granted_at <= oldest]
        here += _renewed(cas, old, now)
    return {by_digest[digest] for digest in here}


def _sound(cas: EmbeddedCas, files: Sequence[HadFile], until: float) -> list[HadFile]:
    """Those of these files of which every xorb is whole, as far as is known and can be seen ``until`` then."""
    whole: dict[int, bool] = {}
    sound: list[HadFile] = []
    for part in sized_batches(files, attrgetter("xorb_count"), _EDGES_AT_A_TIME):
        if time.monotonic() >= until:
            break
        with cas.index.snapshot() as reader:
            edges = reader.xorb_ids_of(file.id for file in part)
            rows = reader.xorbs_with({xorb_id for _, xorb_id in edges} - whole.keys())
        for (xorb_id, row), is_whole in zip(rows.items(), _looks(cas, [*rows.values()], until), strict=True):
            if is_whole is False:
                cas.healing.mark(row)
            whole[xorb_id] = is_whole is True and row.is_offerable
        counts = Counter(file_id for file_id, xorb_id in edges if whole.get(xorb_id, False))
        sound += [file for file in part if counts[file.id] == file.xorb_count]
    return sound


def _looks(cas: EmbeddedCas, rows: Sequence[XorbRow], until: float) -> list[bool | None]:
    """For each object True if it looks whole; None if it was not looked at by then."""

    def look(row: XorbRow) -> bool | None:
        return looks_whole(row, cas.blobs) if time.monotonic() < until else None

    if not cas.is_remote or len(rows) < 2:
        return [look(row) for row in rows]
    with Threads(min(LOOKS_AT_ONCE, len(rows)), "look") as threads:
        return [*threads.map(look, rows)]


def _renewed(cas: EmbeddedCas, digests: Sequence[bytes], now: float) -> list[bytes]:
    def renew(writer: Writer) -> list[bytes]:
        return writer.renew_grants(digests, cas.tenant.namespace, now=now)

    return cas.index.change(renew)
