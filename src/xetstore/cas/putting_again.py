"""Putting again by the hash alone: files whose bytes are here, for callers who know that theirs are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from xetstore.batches import batches, sized_batches
from xetstore.cas.stored_xorb import looks_whole
from xetstore.protocol.hashes import Hash

if TYPE_CHECKING:
    from xetstore.cas.index import Writer
    from xetstore.cas.index.queries import HadFile
    from xetstore.cas.service import EmbeddedCas

YOUNG_SECONDS: Final = 3600.0
"""A grant of the last hour is as good as a new one: what ends grants that nothing names waits for weeks."""
_EDGES_AT_A_TIME: Final = 50_000
_FILES_AT_A_TIME: Final = 4096


def put_again(cas: EmbeddedCas, files: Iterable[Hash], *, dry_run: bool = False) -> set[Hash]:
    """Those of these files that the namespace of ``cas`` has and that can be read, as far as is known and can be seen;
    from now on as if they had been put just now, unless it is a ``dry_run``.

    The object of each of their xorbs is looked at once. One that is missing, or not as long as its row says, is marked.
    A store that cannot be written to has none of them.
    """
    if not cas.index.is_writable and not dry_run:
        return set()
    namespace = cas.tenant.namespace
    with cas.index.snapshot() as reader:
        had = reader.had_files([*dict.fromkeys(files)], namespace)
    sound = _sound(cas, had)
    if dry_run:
        return {file.hash for file in sound}
    now = cas.now()
    young = {file.hash for file in sound if file.granted_at > now - YOUNG_SECONDS}
    old = [file.hash for file in sound if file.hash not in young]
    for part in batches(old, _FILES_AT_A_TIME):
        young |= _renewed(cas, part, now)
    return young


def _sound(cas: EmbeddedCas, files: Sequence[HadFile]) -> list[HadFile]:
    """Those of these files of which every xorb is whole, as far as is known and can be seen."""
    whole: dict[int, bool] = {}
    sound = []
    for part in sized_batches(files, lambda file: file.xorb_count, _EDGES_AT_A_TIME, most=_FILES_AT_A_TIME):
        with cas.index.snapshot() as reader:
            edges = reader.xorb_ids_of(file.id for file in part)
            rows = reader.xorbs_with({xorb_id for _, xorb_id in edges} - whole.keys())
        for xorb_id, row in rows.items():
            is_whole = looks_whole(row, cas.blobs)
            if not is_whole:
                cas.healing.mark(row)
            whole[xorb_id] = is_whole and row.is_offerable
        counts = Counter(file_id for file_id, xorb_id in edges if whole.get(xorb_id, False))
        sound += [file for file in part if counts[file.id] == file.xorb_count]
    return sound


def _renewed(cas: EmbeddedCas, files: Sequence[Hash], now: float) -> set[Hash]:
    def renew(writer: Writer) -> set[Hash]:
        return writer.renew_grants(files, cas.tenant.namespace, now=now)

    return cas.index.change(renew)
