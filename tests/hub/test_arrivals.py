"""Bytes that arrive whole: stored as every upload is, whatever way they come; what does not end leaves nothing."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.objects import xorb_object
from tests.support.strategies import splitmix64
from xetstore.cancellation import Cancellation
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.errors import (
    HashMismatchError,
    InterruptedCallError,
    NotFoundError,
    UnavailableError,
    UsageError,
    XetError,
)
from xetstore.hub.arrivals import Arrival, Arrived, Source, arrive, arrive_many
from xetstore.protocol.hashes import Hash
from xetstore.testing import read_back
from xetstore.transfer.scan import BLOCK_BYTES, hash_file

Way = Callable[[EmbeddedCas, bytes, Path], Arrived]


@pytest.fixture
def cas(tmp_path: Path) -> Iterator[EmbeddedCas]:
    before = set(threading.enumerate())
    with EmbeddedCas.open(tmp_path / "store") as store:
        yield store.in_namespace("models/alice/bert")
        assert check(store, read_data=True).problems == ()
    assert set(threading.enumerate()) <= before


def _as_bytes(cas: EmbeddedCas, data: bytes, _: Path) -> Arrived:
    return arrive(cas, data)


def _as_file(cas: EmbeddedCas, data: bytes, folder: Path) -> Arrived:
    path = folder / "source"
    path.write_bytes(data)
    return arrive(cas, path)


def _as_stream(cas: EmbeddedCas, data: bytes, _: Path) -> Arrived:
    return arrive(cas, io.BytesIO(data))


def _in_parts(cas: EmbeddedCas, data: bytes, _: Path) -> Arrived:
    with Arrival(cas, len(data)) as arrival:
        for at in range(0, len(data), 100_000):
            part = bytearray(data[at : at + 100_000])
            arrival.write(part)
            part[:] = bytes(len(part))
        return arrival.finish()


def _in_parts_of_unknown_number(cas: EmbeddedCas, data: bytes, _: Path) -> Arrived:
    with Arrival(cas) as arrival:
        arrival.write(data[:1000], data[1000:])
        return arrival.finish()


WAYS: dict[str, Way] = {
    "bytes": _as_bytes,
    "file": _as_file,
    "stream": _as_stream,
    "parts": _in_parts,
    "open end": _in_parts_of_unknown_number,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 77])
def test_what_arrives_is_stored_whatever_way(cas: EmbeddedCas, tmp_path: Path, way: str, size: int) -> None:
    data = splitmix64(1, size)
    (tmp_path / "file").write_bytes(data)
    arrived = WAYS[way](cas, data, tmp_path)
    assert arrived == Arrived(hash_file(tmp_path / "file").hash, size, hashlib.sha256(data).digest())
    assert read_back(cas, arrived.file) == data


@pytest.mark.parametrize("way", WAYS)
def test_what_is_stored_already_is_not_stored_again(cas: EmbeddedCas, tmp_path: Path, way: str) -> None:
    data = splitmix64(2, 2 * BLOCK_BYTES)
    arrive(cas, data)
    before = cas.totals()
    other = cas.in_namespace("models/bob/bert")
    WAYS[way](other, data[: 3 << 20] + b"changed" + data[3 << 20 :], tmp_path)
    assert cas.totals().stored_bytes - before.stored_bytes < 1 << 20


def test_small_files_share_a_xorb_and_a_shard(cas: EmbeddedCas) -> None:
    files = [splitmix64(seed, 3000) for seed in range(50)]
    arrived = arrive_many(cas, [*files, io.BytesIO(b"last")])
    assert [read_back(cas, each.file) for each in arrived] == [*files, b"last"]
    assert cas.totals().xorbs == 1
    assert len(list(cas.blobs.list("shards/"))) == 1


class _BrokenError(Exception):
    pass


class _Broken(io.RawIOBase):
    """A stream that ends in the middle."""

    def __init__(self, error: Exception) -> None:
        self._left, self._error = 3 * BLOCK_BYTES, error

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._left -= len(buffer)
        if self._left < 0:
            raise self._error
        buffer[:] = splitmix64(self._left, len(buffer))
        return len(buffer)


@pytest.mark.parametrize(
    ("error", "seen"),
    [(_BrokenError(), _BrokenError), (OSError(5, "I/O error"), XetError), (MemoryError(), MemoryError)],
)
def test_a_stream_that_breaks_leaves_no_file(cas: EmbeddedCas, error: Exception, seen: type[Exception]) -> None:
    with pytest.raises(seen):
        arrive_many(cas, [b"before", _Broken(error)])
    assert list(cas.files()) == []


@pytest.mark.parametrize("size", [10, 3 * BLOCK_BYTES])
def test_an_arrival_that_is_not_finished_leaves_no_file(cas: EmbeddedCas, size: int) -> None:
    with Arrival(cas) as arrival:
        arrival.write(splitmix64(3, size))
    arrival.close()
    assert list(cas.files()) == []


@pytest.mark.parametrize("change", [-1, 1])
def test_another_size_than_announced_leaves_no_file(cas: EmbeddedCas, change: int) -> None:
    with pytest.raises(UsageError), Arrival(cas, 5000) as arrival:
        arrival.write(splitmix64(4, 5000 + change))
        arrival.finish()
    assert list(cas.files()) == []


def test_another_sha256_than_asked_for_leaves_no_file(cas: EmbeddedCas) -> None:
    with Arrival(cas) as arrival, pytest.raises(HashMismatchError):
        arrival.write(b"other bytes")
        arrival.finish(hashlib.sha256(b"bytes").digest())
    assert list(cas.files()) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [0, 5000])
def test_its_sha256_counts_as_computed(cas: EmbeddedCas, tmp_path: Path, way: str, size: int) -> None:
    arrived = WAYS[way](cas, splitmix64(8, size), tmp_path)
    with cas.index.snapshot() as reader:
        found = reader.file_by_sha256(cas.tenant.namespace, arrived.sha256)
    assert found is not None
    assert (found[0].hash, found[1]) == (arrived.file, True)


def test_an_arrival_ends_with_its_cancellation(cas: EmbeddedCas) -> None:
    call = Cancellation()
    with Arrival(cas, cancellation=call) as arrival:
        arrival.write(splitmix64(5, 2 * BLOCK_BYTES))
        call.cancel()
        with pytest.raises(InterruptedCallError):
            arrival.write(splitmix64(6, 2 * BLOCK_BYTES))
    with pytest.raises(InterruptedCallError):
        arrive(cas, b"more", cancellation=call)
    assert list(cas.files()) == []


def test_a_file_is_granted_to_its_namespace_alone(cas: EmbeddedCas) -> None:
    arrived = arrive(cas, b"of alice")
    with pytest.raises(NotFoundError):
        cas.in_namespace("models/bob/bert").stat(arrived.file)


def _lose_xorbs(cas: EmbeddedCas, root: Path, file: Hash) -> None:
    for xorb in cas.reconstruct(file).fetches:
        (root / xorb_object(cas, xorb)).unlink()


def test_what_is_in_memory_or_a_file_is_read_again_where_a_hint_was_wrong(cas: EmbeddedCas, tmp_path: Path) -> None:
    data = splitmix64(7, 2 * BLOCK_BYTES)
    (tmp_path / "file").write_bytes(data)
    before = arrive(cas, data)

    def sources() -> Iterator[Source]:
        yield from (data, tmp_path / "file")
        _lose_xorbs(cas, tmp_path / "store", before.file)

    assert arrive_many(cas, sources()) == [before, before]
    assert read_back(cas, before.file) == data


def test_a_stream_is_asked_for_again_where_a_hint_was_wrong(cas: EmbeddedCas, tmp_path: Path) -> None:
    data = splitmix64(7, 2 * BLOCK_BYTES)
    before = arrive(cas, data)
    with Arrival(cas) as arrival:
        arrival.write(data)
        _lose_xorbs(cas, tmp_path / "store", before.file)
        with pytest.raises(UnavailableError, match="damaged"):
            arrival.finish()
    assert arrive(cas, io.BytesIO(data)) == before
    assert read_back(cas, before.file) == data
