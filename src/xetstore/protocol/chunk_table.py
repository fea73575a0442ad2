"""The table of chunks in a shard (9.6), for answers in which chunks repeat: where a reader is to find each of them.

Without a table the reference client takes the last place of a chunk, and follows the file from there: of a thousand
zeros in a row the last, behind which it finds nothing. Runs of one chunk are what it takes for a fragmented file, and
stores again (10.4).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from itertools import starmap
from typing import Final

from xetstore.protocol.hashes import split_hashes
from xetstore.protocol.suite import HASH_BYTES

MAX_TABLE_CHUNKS: Final = 32_768
"""The most chunks of a table: it takes some 50 ms then."""

CHUNK_TABLE_ENTRY: Final = struct.Struct("<QII")
"""The first 8 bytes of a chunk hash, the record at which its xorb begins, the chunk's number in it."""


def chunk_table(xorbs: Sequence[bytes]) -> bytes:
    """The table of these xorbs, each given as its packed chunk hashes; empty if no chunk is in them twice, or where it
    would take long: beyond :data:`MAX_TABLE_CHUNKS`.

    Of the places of a chunk it names the one with most chunks behind it that repeat as well.
    """
    if sum(map(len, xorbs)) > MAX_TABLE_CHUNKS * HASH_BYTES:
        return b""
    listed = [split_hashes(hashes) for hashes in xorbs]
    times = Counter(digest for digests in listed for digest in digests)
    if len(times) == sum(map(len, listed)):
        return b""
    repeated = {digest: (0, 0, 0) for digest, count in times.items() if count > 1}
    record = 0
    entries: list[tuple[int, int, int]] = []
    for hashes, digests in zip(xorbs, listed, strict=True):
        words = struct.unpack(f"<{len(hashes) // 8}Q", hashes)[::4]
        if repeated.keys().isdisjoint(digests):
            entries += zip(words, (record,) * len(words), range(len(words)), strict=True)
        else:
            entries += ((word, record, at) for at, word in enumerate(words) if digests[at] not in repeated)
            _choose(repeated, digests, record)
        record += 1 + len(digests)
    entries += ((int.from_bytes(digest[:8], "little"), *place[1:]) for digest, place in repeated.items())
    return b"".join(starmap(CHUNK_TABLE_ENTRY.pack, sorted(entries)))


def _choose(repeated: dict[bytes, tuple[int, int, int]], digests: Sequence[bytes], record: int) -> None:
    """Note the places of repeated chunks in a xorb, each with the length of its run, where it is no shorter."""
    run = 0
    for at in range(len(digests) - 1, -1, -1):
        place = repeated.get(digests[at])
        run = 0 if place is None else run + 1
        if place is not None and run >= place[0]:
            repeated[digests[at]] = run, record, at
