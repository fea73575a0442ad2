"""Versions of files: corpora from a seed, and how much of each version is new."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from xetstore.cas.claims import INDEXED_CHUNKS
from xetstore.protocol.chunking import chunk_bytes
from xetstore.protocol.hashes import Hash
from xetstore.transfer.scan import hash_report

MIB = 1 << 20
Version = dict[str, bytes]


class Content:
    """Random bytes and changes to them, from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def fresh(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def found_late(self, size: int) -> bytes:
        """Random bytes of which the index of a store finds nothing in the first 5 MiB, whatever is before them."""
        while True:
            data = self.fresh(size)
            if min(INDEXED_CHUNKS.selected(chunk_bytes(data)), default=0) > 90:
                return data

    def edited(self, data: bytes, times: int) -> bytes:
        changed = bytearray(data)
        for _ in range(times):
            at = self.random.randrange(len(data) - 100)
            changed[at : at + 100] = self.fresh(100)
        return bytes(changed)

    def inserted(self, data: bytes, size: int) -> bytes:
        at = self.random.randrange(len(data))
        return data[:at] + self.fresh(size) + data[at:]


def edits(content: Content) -> list[Version]:
    data = content.fresh(16 * MIB)
    return [{"file": data}, {"file": content.edited(data, 3)}, {"file": content.edited(data, 20)}]


def edits_of_the_first_chunk(content: Content) -> list[Version]:
    data = content.found_late(20 * MIB)
    return [{"file": content.fresh(10) + data[10:]} for _ in range(3)]


def insertions(content: Content) -> list[Version]:
    versions = [content.fresh(16 * MIB)]
    for size in (1, 1000, 300_000):
        versions.append(content.inserted(versions[-1], size))
    return [{"file": data} for data in versions]


def prepends(content: Content) -> list[Version]:
    data = content.found_late(20 * MIB)
    return [{"file": head + data} for head in (b"", content.fresh(1000), content.fresh(2 * MIB))]


def deletions(content: Content) -> list[Version]:
    data = content.fresh(3 * MIB) + content.found_late(17 * MIB)
    return [{"file": data}, {"file": data[3 * MIB + 123 :]}, {"file": data[: 7 * MIB] + data[8 * MIB :]}]


def moved_members(content: Content) -> list[Version]:
    members = [bytes(512) + content.fresh(content.random.randrange(MIB, 4 * MIB)) for _ in range(8)]
    members += [bytes(512) + content.found_late(8 * MIB) for _ in range(2)]
    versions = []
    for _ in range(4):
        versions.append({"archive": b"".join(members)})
        content.random.shuffle(members)
    return versions


def a_growing_table(content: Content) -> list[Version]:
    rows = [b"%d,user%d,%d\n" % (i, *content.random.choices(range(10**6), k=2)) for i in range(300_000)]
    versions = []
    for _ in range(3):
        versions.append({"table": b"".join(rows)})
        for _ in range(10):
            rows.insert(content.random.randrange(len(rows)), b"new,%d\n" % content.random.randrange(10**9))
        rows += [b"more,%d\n" % content.random.randrange(10**9) for _ in range(20_000)]
    return versions


def two_files_interleaved(content: Content) -> list[Version]:
    a, b = content.fresh(8 * MIB), content.fresh(8 * MIB)
    parts = [part for at in range(0, len(a), MIB) for part in (a[at : at + MIB], b[at : at + MIB])]
    return [{"a": a, "b": b}, {"c": b"".join(parts)}, {"a": a, "b": b, "c": b"".join(parts)}]


def zeros(content: Content) -> list[Version]:
    data = bytes(20 * MIB) + content.fresh(MIB) + bytes(20 * MIB)
    return [{"file": data}, {"file": data + content.fresh(MIB)}]


def repeats(content: Content) -> list[Version]:
    data = content.fresh(300_000) * 60
    return [{"file": data}, {"file": data + content.fresh(1000) + data}]


def a_sparse_file(content: Content) -> list[Version]:
    data = bytearray(40 * MIB)
    for _ in range(20):
        at = content.random.randrange(len(data) - 9000)
        data[at : at + 9000] = content.fresh(9000)
    before = bytes(data)
    data[MIB : MIB + 5] = b"hello"
    return [{"file": before}, {"file": bytes(data)}]


def small_files(content: Content) -> list[Version]:
    files = {f"file{i}": content.fresh(content.random.randrange(200, 200_000)) for i in range(60)}
    changed = {name: content.edited(data, 1) if content.random.random() < 0.1 else data for name, data in files.items()}
    return [files, changed]


def a_mix_of_short_pieces(content: Content) -> list[Version]:
    pieces = [content.fresh(150_000) for _ in range(200)]
    mixed = [b"".join(content.random.choices(pieces, k=250)) for _ in range(2)]
    return [{"pieces": b"".join(pieces)}, *({"mixed": data} for data in mixed), {"mixed": content.edited(mixed[1], 40)}]


CORPORA: Sequence[Callable[[Content], list[Version]]] = (
    edits,
    edits_of_the_first_chunk,
    insertions,
    prepends,
    deletions,
    moved_members,
    a_growing_table,
    two_files_interleaved,
    zeros,
    repeats,
    a_sparse_file,
    small_files,
    a_mix_of_short_pieces,
)


def write(folder: Path, version: Version) -> list[Path]:
    paths = [folder / name for name in version]
    for path, data in zip(paths, version.values(), strict=True):
        path.write_bytes(data)
    return paths


class Ideal:
    """A store that knows every chunk it has."""

    def __init__(self) -> None:
        self._chunks: set[Hash] = set()

    def new_bytes(self, paths: list[Path]) -> int:
        new = 0
        for path in paths:
            for chunk, size in hash_report(path, keep_chunks=True).chunks or ():
                new += size if chunk not in self._chunks else 0
                self._chunks.add(chunk)
        return new
