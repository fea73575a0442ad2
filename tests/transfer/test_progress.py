"""Progress that is told of files too: which of how many, and its name."""

from __future__ import annotations

from pathlib import Path

import xetstore
from tests.support.strategies import splitmix64
from xetstore.transfer.progress import FileProgress, NoProgress, with_files


class Bytes:
    """A progress as callers have it, who know nothing of files."""

    def __init__(self) -> None:
        self.moved = self.announced = 0

    def total(self, nbytes: int) -> None:
        self.announced += nbytes

    def advance(self, *, logical: int = 0, new: int = 0, deduped: int = 0) -> None:
        self.moved += logical


class Files(Bytes):
    """One that does."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.names: list[str] = []

    def files(self, count: int) -> None:
        self.count += count

    def file(self, name: str) -> None:
        self.names.append(name)


def test_a_commit_and_a_download_tell_each_file(tmp_path: Path) -> None:
    sizes = {"a.bin": 2_000_000, "b.bin": 3_000_000, "small.txt": 10}
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, size in sizes.items():
        (folder / name).write_bytes(splitmix64(size, size))
    up, down, plain = Files(), Files(), Bytes()
    with xetstore.open(tmp_path / "store") as store:
        repo = store.create_repo("alice/bert")
        repo.commit({"": folder}, progress=up)
        repo.download(to=tmp_path / "copy", progress=down)
        repo.download(to=tmp_path / "other", progress=plain)
    assert up.count == 2, "the small one is in the commit itself"
    assert [Path(name).name for name in up.names] == ["a.bin", "b.bin"]
    assert up.moved == up.announced == 5_000_000
    assert down.count == len(down.names) == 4, "with .gitattributes"
    assert {Path(name).name for name in down.names} == {*sizes, ".gitattributes"}
    assert plain.moved == plain.announced == down.moved


def test_a_progress_that_takes_no_files_is_told_none() -> None:
    assert isinstance(Files(), FileProgress)
    assert isinstance(with_files(Bytes()), NoProgress)
    assert isinstance(with_files(None), NoProgress)


def test_a_put_and_an_estimate_name_each_file(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one", "two")]
    for path in paths:
        path.write_bytes(path.name.encode())
    put, estimated = Files(), Files()
    with xetstore.open(tmp_path / "store") as store:
        store.estimate(paths, progress=estimated)
        store.put_many(paths, progress=put)
    assert put.names == estimated.names == [str(path) for path in paths]
