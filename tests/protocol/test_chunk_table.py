"""The table of chunks in a dedup answer: only where chunks repeat, and then the place with the longest run."""

from __future__ import annotations

import struct

from xetstore.protocol.chunk_table import CHUNK_TABLE_ENTRY, MAX_TABLE_CHUNKS, chunk_table
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.shard import Shard, XorbEntry
from xetstore.protocol.suite import SHARD_FOOTER_BYTES


def packed(letters: str) -> bytes:
    return b"".join(chunk_hash(letter.encode()).digest for letter in letters)


def places(*xorbs: str) -> dict[str, tuple[int, int]]:
    """For each letter the xorb and the chunk that the table names."""
    table = chunk_table([packed(letters) for letters in xorbs])
    entries = [CHUNK_TABLE_ENTRY.unpack_from(table, at) for at in range(0, len(table), CHUNK_TABLE_ENTRY.size)]
    assert entries == sorted(entries)
    words = {int.from_bytes(packed(letter)[:8], "little"): letter for letter in "".join(xorbs)}
    begins = {sum(len(letters) + 1 for letters in xorbs[:number]): number for number in range(len(xorbs))}
    return {words[word]: (begins[record], number) for word, record, number in entries}


def test_there_is_no_table_where_no_chunk_repeats() -> None:
    assert chunk_table([]) == b""
    assert places("abc", "def") == {}


def test_a_table_that_would_take_long_is_left_out() -> None:
    assert chunk_table([packed("a") * 2])
    assert chunk_table([packed("a") * (MAX_TABLE_CHUNKS + 1)]) == b""


def test_a_chunk_is_found_where_most_that_repeat_follow() -> None:
    assert places("azbz", "czzzd", "ze") == {
        "a": (0, 0),
        "b": (0, 2),
        "c": (1, 0),
        "d": (1, 4),
        "e": (2, 1),
        "z": (1, 1),
    }
    assert places("xyz", "axyzxyz") == {"a": (1, 0), "x": (1, 1), "y": (1, 2), "z": (1, 3)}


def test_an_answer_has_it_and_a_stored_shard_has_not() -> None:
    entry = XorbEntry(Hash(bytes(range(32))), ChunkList(packed("zzz"), struct.pack("=3Q", 5, 5, 5)))
    shard = Shard(xorbs=(entry,))
    stored = shard.serialize_with_footer()
    keyed = shard.keyed(bytes(range(32)), 1, 2)
    answer = keyed.serialize_with_footer()
    assert Shard.parse(answer) == keyed
    assert len(answer) == len(stored) + CHUNK_TABLE_ENTRY.size
    assert len(keyed.serialize_with_footer(ascending=False)) == len(stored)
    offset, count = struct.unpack_from("<QQ", answer, len(answer) - SHARD_FOOTER_BYTES + 56)
    word, *place = CHUNK_TABLE_ENTRY.unpack_from(answer, offset)
    assert (count, place) == (1, [0, 0])
    assert word == int.from_bytes(keyed.xorbs[0].chunks.digest(0)[:8], "little")
