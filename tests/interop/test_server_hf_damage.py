"""hf_xet, unmodified, which compares no hash: from a damaged store it never gets a wrong file, and gets all others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.hf_process import HfError, HfProcess
from tests.support.servers import Server
from tests.support.strategies import splitmix64, text
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.cas.index import XorbRow
from xetstore.records import FileInfo

HURT, OTHER = splitmix64(1, 900_000), text(700_000)
QUICK = {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "2"}


@dataclass(frozen=True)
class Stored:
    """A store of two files, each in a xorb of its own."""

    root: Path
    files: list[FileInfo]
    xorbs: list[XorbRow]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    folder = tmp_path_factory.mktemp("stored")
    infos = []
    with Server(folder / "store") as server:
        for number, content in enumerate((HURT, OTHER)):
            (folder / str(number)).write_bytes(content)
            client = HfProcess(server.connect(), folder / f"home{number}", {"HF_XET_XORB_COMPRESSION_POLICY": "none"})
            infos += client.upload([folder / str(number)]).infos
    with EmbeddedCas.open(folder / "store") as cas, cas.index.snapshot() as reader:
        rows = reader.xorbs_after(0)
    assert [row.raw_bytes for row in rows] == [len(HURT), len(OTHER)]
    return Stored(folder / "store", infos, rows)


def flip(place: Callable[[XorbRow], int]) -> Callable[[Path, list[XorbRow]], None]:
    def change(root: Path, xorbs: list[XorbRow]) -> None:
        path = root / xorbs[0].key
        data = bytearray(path.read_bytes())
        data[place(xorbs[0])] ^= 16
        path.unlink()  # it may be a link to that of the sound store
        path.write_bytes(data)

    return change


def cut(root: Path, xorbs: list[XorbRow]) -> None:
    os.truncate(root / xorbs[0].key, xorbs[0].region_bytes // 2)


def remove(root: Path, xorbs: list[XorbRow]) -> None:
    (root / xorbs[0].key).unlink()


def swap(root: Path, xorbs: list[XorbRow]) -> None:
    shutil.copy(root / xorbs[1].key, root / xorbs[0].key)


def swap_chunks(root: Path, xorbs: list[XorbRow]) -> None:
    """The footer and the checksums stay; the chunks are those of another xorb, as far as there is room."""
    path, row = root / xorbs[0].key, xorbs[0]
    data = path.read_bytes()
    other = (root / xorbs[1].key).read_bytes()[: xorbs[1].region_bytes]
    path.write_bytes((other + data)[: row.region_bytes] + data[row.region_bytes :])


DAMAGES: dict[str, Callable[[Path, list[XorbRow]], None]] = {
    "the version of a chunk": flip(lambda row: 0),
    "the length of a chunk": flip(lambda row: 2),
    "the first byte of data": flip(lambda row: 8),
    "a byte in the middle": flip(lambda row: row.region_bytes // 2),
    "the last byte of data": flip(lambda row: row.region_bytes - 1),
    "the footer": flip(lambda row: row.region_bytes + 60),
    "the ends in the footer": flip(lambda row: row.region_bytes + 64 + 32 * row.chunk_count + 1),
    "the checksums": flip(lambda row: row.stored_bytes + 3),
    "the checksum of these": flip(lambda row: row.sizes[1] - 13),
    "the last byte": flip(lambda row: row.sizes[1] - 1),
    "cut short": cut,
    "missing": remove,
    "another object": swap,
    "other chunks": swap_chunks,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_wrong_file_comes_of_damage_and_the_others_come(stored: Stored, tmp_path: Path, damage: str) -> None:
    root = tmp_path / "store"
    shutil.copytree(stored.root, root)
    DAMAGES[damage](root, stored.xorbs)
    with Server(root) as server:
        client = HfProcess(server.connect(), tmp_path / "home", QUICK)
        with pytest.raises(HfError):
            client.download(stored.files[:1])
        assert HURT not in [path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()]
        assert client.download(stored.files[1:]) == [OTHER]
    with EmbeddedCas.open(root) as cas:
        marked = [row.is_damaged for row in _rows(cas)]
        assert marked == [True, False]
        assert [problem.name for problem in check(cas, checksums=True).problems] == [f"xorb {stored.xorbs[0].hash}"]


def _rows(cas: EmbeddedCas) -> list[XorbRow]:
    with cas.index.snapshot() as reader:
        return reader.xorbs_after(0)
