"""Versions of files, as uploads meet them: each corpus writes one folder after another, from a seed and a scale."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Final

import numpy as np

MB: Final = 1_000_000
KB: Final = 1_000
Files = Mapping[str, bytes]


class Content:
    """Random bytes and changes to them. Sizes in bytes are those of scale 1."""

    def __init__(self, seed: int, scale: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.scale = scale

    def scaled(self, size: float) -> int:
        return max(1, int(size * self.scale))

    def fresh(self, size: float) -> bytes:
        return self.rng.bytes(self.scaled(size))

    def below(self, end: int) -> int:
        return int(self.rng.integers(max(1, end)))

    def edited(self, data: bytes, *sizes: float) -> bytes:
        """The same, written over at some places by pieces of these sizes."""
        changed = bytearray(data)
        for size in sizes:
            piece = self.rng.bytes(int(size))
            at = self.below(len(data) - len(piece))
            changed[at : at + len(piece)] = piece
        return bytes(changed)

    def inserted(self, data: bytes, *sizes: float) -> bytes:
        for size in sizes:
            at = self.below(len(data))
            data = data[:at] + self.rng.bytes(int(size)) + data[at:]
        return data

    def deleted(self, data: bytes, *sizes: float) -> bytes:
        for size in sizes:
            at = self.below(len(data) - int(size))
            data = data[:at] + data[at + int(size) :]
        return data


def mixed(content: Content) -> Iterator[Files]:
    """Edits, insertions, prepends and deletions, each in a file of its own, and an archive of which members move."""
    edited, inserted, prepended, deleted = (content.fresh(size * MB) for size in (30, 16, 16, 16))
    members = {f"part-{i:03}": content.fresh(content.rng.uniform(0.5, 3) * MB) for i in range(12)}
    order = sorted(members)
    for number in range(4):
        if number:
            edited = content.edited(edited, *[100] * 12, 200 * KB, 400 * KB)
            inserted = content.inserted(inserted, 1, 1000, 300 * KB)
            prepended = content.fresh(1 * MB) + prepended
            deleted = content.deleted(deleted, 10, 50 * KB, 500 * KB * content.scale)
            content.rng.shuffle(order)
            members[order[0]] = content.fresh(1.5 * MB)
        yield {
            "archive.tar": tar({name: members[name] for name in order}),
            "deleted.bin": deleted,
            "edited.bin": edited,
            "inserted.bin": inserted,
            "prepended.bin": prepended,
        }


def checkpoints(content: Content) -> Iterator[Files]:
    """Ten of 200 MB of bf16 weights, each with 1 % changed in eight places."""
    count = content.scaled(100 * MB)
    weights = content.rng.standard_normal(count, dtype=np.float32) * np.float32(0.02)
    halves = (weights.view(np.uint32) >> 16).astype(np.uint16)
    span = count // 800
    for number in range(10):
        if number:
            for _ in range(8):
                at = content.below(count - span)
                halves[at : at + span] = content.rng.permutation(halves[at : at + span])
        yield {"model.bin": halves.tobytes()}


def growing_table(content: Content) -> Iterator[Files]:
    """A CSV to which rows are appended, and a few inserted, with every version."""
    made = 0

    def rows(count: int) -> list[str]:
        nonlocal made
        made += count
        values = content.rng.integers(0, 100_000, size=(count, 3)).tolist()
        return [f"{made + i},2026-11-{i % 28 + 1:02},user{a},{b},{c / 100:.2f}\n" for i, (a, b, c) in enumerate(values)]

    table = rows(content.scaled(1_200_000))
    for number in range(5):
        if number:
            for row in rows(12):
                table.insert(content.below(len(table)), row)
            table += rows(content.scaled(60_000))
        yield {"events.csv": "".join(table).encode()}


def small_files(content: Content) -> Iterator[Files]:
    """3,000 files of 4 KB; 5 % of them change between versions."""
    files = {f"{i:06}": content.rng.bytes(4096) for i in range(content.scaled(3000))}
    for number in range(4):
        if number:
            changed = content.rng.choice(sorted(files), size=max(1, len(files) // 20), replace=False)
            files |= {str(name): content.rng.bytes(4096) for name in changed}
        yield files


def interleaved(content: Content) -> Iterator[Files]:
    """Two files; then their pieces of 1 MB in turn, and of 300 KB."""
    one, two = content.fresh(30 * MB), content.fresh(30 * MB)

    def in_turn(size: int) -> bytes:
        starts = range(0, len(one), size)
        return b"".join(piece for at in starts for piece in (one[at : at + size], two[at : at + size]))

    yield {"one": one, "two": two}
    yield {"megabytes": in_turn(MB)}
    yield {"one": one, "two": two, "pieces": in_turn(300 * KB)}


def monotonous(content: Content) -> Iterator[Files]:
    """Zeros, something over and over, and a file that is mostly holes."""
    piece = content.rng.bytes(300 * KB)
    zeros = bytes(content.scaled(60 * MB)) + content.fresh(MB)
    repeats = piece * content.scaled(100)
    sparse = bytearray(content.scaled(100 * MB))
    for number in range(3):
        for _ in range(20 if number == 0 else 2):
            at = content.below(len(sparse) - 9000)
            sparse[at : at + 9000] = content.rng.bytes(9000)
        yield {"repeats": repeats, "sparse": bytes(sparse), "zeros": zeros}
        zeros += content.fresh(MB)
        repeats += content.fresh(10 * KB) + piece * content.scaled(20)


def tar(members: Files) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


CORPORA: Final[Mapping[str, Callable[[Content], Iterator[Files]]]] = {
    "mixed": mixed,
    "checkpoints": checkpoints,
    "growing table": growing_table,
    "small files": small_files,
    "interleaved": interleaved,
    "monotonous": monotonous,
}
NAMES: Final = ("demo", *CORPORA)


def write(name: str, folder: Path, *, seed: int, scale: float) -> list[Path]:
    """A folder for each version of a corpus, the oldest first. The demo's files have one size and no seed."""
    if name == "demo":
        sys.path.insert(0, str(Path(__file__).parent.parent / "demo"))
        versions = import_module("demo").make_versions(folder)
        return [files[0].parent for files in versions]
    folders = []
    for number, files in enumerate(CORPORA[name](Content(seed, scale)), 1):
        folders.append(folder / f"v{number}")
        folders[-1].mkdir(parents=True)
        for file, data in files.items():
            (folders[-1] / file).write_bytes(data)
    return folders
