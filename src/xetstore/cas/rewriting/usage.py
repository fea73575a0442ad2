"""Usage: which chunks of a xorb files are made of, and how many bytes of it are garbage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xetstore.cas.index import Reader, XorbRow
from xetstore.protocol.xorb import XorbInfo


@dataclass(frozen=True, slots=True)
class Usage:
    """The runs ``[start, end)`` of chunks of a xorb that files are made of, ascending; and the bytes of the others.

    ``first_user`` is the file that was registered first, of those that have the xorb: its id.
    """

    row: XorbRow
    runs: tuple[tuple[int, int], ...]
    garbage_bytes: int
    first_user: int


def usage_of(row: XorbRow, info: XorbInfo, reader: Reader, *, more_than: float) -> Usage | None:
    """The usage of a xorb that has more bytes of garbage than that, headers of chunks counted.

    None for another, as soon as that is seen: as a rule the first files tell. None, too, for one without a file.
    """
    ends = memoryview(info.ends).cast("Q")
    unused = bytearray(b"\1" * info.chunk_count)
    garbage = info.region_bytes
    first_user = None
    for file_id, spans in reader.used_chunks(row.id):
        first_user = first_user or file_id
        for start, end in spans:
            for at, stop in _runs_of(1, unused, start, end):
                unused[at:stop] = bytes(stop - at)
                garbage -= ends[stop - 1] - (ends[at - 1] if at else 0)
        if garbage <= more_than:
            return None
    if first_user is None:
        return None
    return Usage(row, tuple(_runs_of(0, unused, 0, len(unused))), garbage, first_user)


def _runs_of(value: int, flags: bytearray, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The runs of one of two values, which may be changed as they are given."""
    at = flags.find(value, start, end)
    while at >= 0:
        stop = flags.find(1 - value, at, end)
        stop = end if stop < 0 else stop
        yield at, stop
        at = flags.find(value, stop, end)
