"""A second look at a file that came out wrong: its chunks that were not checked on their own are fetched once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from xetstore.events import Damaged
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.suite import HASH_BYTES

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.transfer.download.context import Context
    from xetstore.transfer.download.plan import Run, Span
    from xetstore.transfer.download.verify import FileCheck, RunSpool


def look_again(context: Context, check: FileCheck, doubtful: RunSpool, fetch: Callable[[Span], list[Run]]) -> None:
    """Fetch the doubtful chunks of a file once more. HashMismatchError if it comes out wrong again, with a hint that
    says what may be wrong.
    """
    context.emit(Damaged(f"file {check.file}", refetching=True))
    check.start_again()
    differ: list[str] = []
    suspects: dict[Hash, None] = {}
    for group in _groups(doubtful, context.options.group_bytes):
        if group[0].verified:
            check.add_run(group[0])
            continue
        again = fetch((group[0].position, group[-1].end))
        differ.extend(_difference(group, again))
        for run in again:
            check.add_run(run)
            if run.xorb is not None:
                suspects.setdefault(run.xorb)
    if check.is_right:
        return
    context.emit(Damaged(f"file {check.file}", refetching=False))
    for xorb in suspects:
        context.suspect(xorb)
    named = differ or [f"xorb {xorb}" for xorb in suspects]
    listed = ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
    if differ:
        raise check.mismatch(f"it was fetched twice and differed in {listed}")
    if not listed:
        raise check.mismatch()
    raise check.mismatch(f"it was fetched twice and came out the same: look at {listed}")


def _groups(runs: RunSpool, group_bytes: int) -> Iterator[list[Run]]:
    """Yield the runs in order: each verified one alone, the others in groups of neighbours."""
    group: list[Run] = []
    for run in runs:
        if group and (run.verified or group[-1].end - group[0].position >= group_bytes):
            yield group
            group = []
        if run.verified:
            yield [run]
        else:
            group.append(run)
    if group:
        yield group


def _difference(first: Sequence[Run], second: Sequence[Run]) -> list[str]:
    """The chunks of ``first`` that came out differently when they were fetched again."""
    old = b"".join(run.chunks.hashes for run in first)
    new = ChunkList.concat(run.chunks for run in second).hashes
    if old == new:
        return []
    differ: list[str] = []
    at = 0
    for run in first:
        for index in range(len(run.chunks)):
            if new[at : at + HASH_BYTES] != run.chunks.digest(index):
                differ.append(run.name(index))
            at += HASH_BYTES
    return differ
