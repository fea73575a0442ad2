"""Store: the public verbs, as README shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

import xetstore
from tests.strategies import splitmix64
from xetstore.errors import IntegrityError, NotFoundError, RangeError, UsageError


@pytest.fixture
def data() -> bytes:
    return splitmix64(9, 3_000_000)


@pytest.fixture
def source(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "source"
    path.write_bytes(data)
    return path


def test_put_get_open_stat(tmp_path: Path, source: Path, data: bytes) -> None:
    with xetstore.open(tmp_path / "store") as store:
        info = store.put(source)
        assert info.hash == xetstore.hash_file(source).hash
        assert store.get(info.hash, tmp_path / "copy") == xetstore.GetReport(info.hash, len(data), verified=True)
        assert (tmp_path / "copy").read_bytes() == data
        with store.open(info.hash) as opened:
            opened.seek(1_000_000)
            assert opened.read(100) == data[1_000_000:1_000_100]
        record = store.stat(str(info.hash))
        assert (record.hash, record.size) == (info.hash, len(data))
        assert [r.hash for r in store.files()] == [info.hash]
        assert b"".join(store.iter_range(info.hash, 5, 1_000_000)) == data[5:1_000_000]


def test_a_range_is_written_and_verified(tmp_path: Path, source: Path, data: bytes) -> None:
    with xetstore.open(tmp_path / "store") as store:
        info = store.put(source)
        report = store.get(info.hash, tmp_path / "part", start=100, end=2_000_000)
        assert (report.size, report.verified) == (1_999_900, True)
        assert (tmp_path / "part").read_bytes() == data[100:2_000_000]
        assert store.get(info.hash, tmp_path / "part", start=2_999_999, end=9_999_999).size == 1
        assert store.get(info.hash, tmp_path / "part", start=7, end=7).size == 0
        with pytest.raises(RangeError):
            store.get(info.hash, tmp_path / "part", start=3_000_000)


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        xetstore.open(tmp_path / "store", create=False)
    with xetstore.open(tmp_path / "store") as store:
        with pytest.raises(NotFoundError):
            store.get("a" * 64, tmp_path / "copy")
        with pytest.raises(NotFoundError):
            store.open("a" * 64)
        with pytest.raises(UsageError, match="not a hash"):
            store.get("nonsense", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_damage_is_named_and_never_delivered(tmp_path: Path, source: Path, data: bytes) -> None:
    with xetstore.open(tmp_path / "store") as store:
        info = store.put(source)
        [xorb] = [p for p in (tmp_path / "store" / "xorbs").rglob("*") if p.is_file()]
        body = bytearray(xorb.read_bytes())
        body[1_500_000] ^= 1
        xorb.chmod(0o600)
        xorb.write_bytes(body)
        (tmp_path / "copy").write_bytes(b"precious")
        with pytest.raises(IntegrityError, match=f"xorb {xorb.name}"):
            store.get(info.hash, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b"precious"
        with store.open(info.hash) as opened, pytest.raises(IntegrityError):
            opened.seek(1_499_000)
            opened.read(2000)
        assert len(store.check(read_data=True).problems) >= 1
