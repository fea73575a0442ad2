"""What is put: paths, bytes, and file objects of any kind; and nothing of one that fails."""

from __future__ import annotations

import array
import gzip
import io
import mmap
import os
import socket
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.store.conftest import Place
from tests.support.strategies import splitmix64
from xetstore.errors import (
    ExistsError,
    InterruptedCallError,
    NotFoundError,
    TimedOutError,
    UsageError,
    WrongTypeError,
)
from xetstore.events import FilesRegistered
from xetstore.transfer import byte_source
from xetstore.transfer.progress import NoProgress

DATA = splitmix64(3, 9_000_001)
"""More than two blocks, and no whole number of them."""


class Short(io.RawIOBase):
    """Gives some bytes at a time, and now and then none because there are none yet."""

    def __init__(self, data: bytes, most: int, fails_at: int | None = None) -> None:
        self._left, self._most, self._calls, self._fails_at = data, most, 0, fails_at

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes | None:
        self._calls += 1
        if self._calls == self._fails_at:
            raise ConnectionResetError("the other side has gone")
        if self._calls % 3 == 0:
            return None
        part, self._left = self._left[: self._most], self._left[self._most :]
        return part


class ReadOnly:
    """No more than a file object needs."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._stream.read(size)


def written(fd_or_socket: Any, close: Callable[[], object]) -> None:
    def pump() -> None:
        for at in range(0, len(DATA), 100_003):
            fd_or_socket(DATA[at : at + 100_003])
        close()

    threading.Thread(target=pump, daemon=True).start()


def pipe() -> Any:
    reading, writing = os.pipe()
    out = os.fdopen(writing, "wb")
    written(out.write, out.close)
    return os.fdopen(reading, "rb", buffering=0)


def from_socket() -> Any:
    ours, theirs = socket.socketpair()
    written(theirs.sendall, theirs.close)
    with ours:
        return ours.makefile("rb")


def zipped(folder: Path) -> Any:
    with gzip.open(folder / "z.gz", "wb", compresslevel=1) as file:
        file.write(DATA)
    return gzip.open(folder / "z.gz")


def archived(folder: Path) -> Any:
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        archive.writestr("inner", DATA)
    return zipfile.ZipFile(folder / "z.zip").open("inner")


def mapped(folder: Path) -> Any:
    with (folder / "file").open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


SOURCES: dict[str, Callable[[Path], Any]] = {
    "text": lambda folder: str(folder / "file"),
    "path": lambda folder: folder / "file",
    "bytes": lambda folder: DATA,
    "bytearray": lambda folder: bytearray(DATA),
    "memoryview": lambda folder: memoryview(DATA),
    "array": lambda folder: array.array("B", DATA),
    "mmap": mapped,
    "open file": lambda folder: (folder / "file").open("rb"),
    "unbuffered": lambda folder: (folder / "file").open("rb", buffering=0),
    "BytesIO": lambda folder: io.BytesIO(DATA),
    "pipe": lambda folder: pipe(),
    "socket": lambda folder: from_socket(),
    "gzip": zipped,
    "zip": archived,
    "short reads": lambda folder: Short(DATA, 70_001),
    "only read": lambda folder: ReadOnly(DATA),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_bytes_are_stored_whatever_they_come_from(place: Place, tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_bytes(DATA)
    source = SOURCES[kind](tmp_path)
    with place.open() as store:
        info = store.put(source)
        assert info == xetstore.hash_file(tmp_path / "file", sha256=True)
        assert store.read(info) == DATA
    if hasattr(source, "closed"):
        assert not source.closed, "it is the caller's to close"
        source.close()


@pytest.mark.parametrize("size", [0, 1, 4 << 20, (4 << 20) + 1])
def test_bytes_of_any_size_are_those_of_a_file(tmp_path: Path, size: int) -> None:
    data = splitmix64(5, size)
    (tmp_path / "file").write_bytes(data)
    with xetstore.open(tmp_path / "store") as store:
        expected = store.put(tmp_path / "file")
        assert store.put(data) == store.put(io.BytesIO(data)) == store.put(Short(data, 1 << 20)) == expected


def test_a_file_object_is_read_from_where_it_is_on(tmp_path: Path) -> None:
    stream = io.BytesIO(DATA)
    stream.seek(9_000_000)
    with xetstore.open(tmp_path / "store") as store:
        assert store.read(store.put(stream)) == DATA[-1:]
        assert store.put(stream).size == 0


def test_a_stored_file_can_be_put_into_another_store(tmp_path: Path) -> None:
    with xetstore.open(tmp_path / "one") as one, xetstore.open(tmp_path / "two") as two:
        info = one.put(DATA)
        with one.open(info) as file:
            assert two.put(file) == info


def test_a_tilde_is_the_home_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").write_bytes(b"at home")
    monkeypatch.chdir(tmp_path)
    with xetstore.open("~/store") as store:
        assert store.location == str(tmp_path / "store")
        info = store.put("~/file")
        assert info.hash == xetstore.hash_file("~/file").hash
        store.get(info, "~/copy")
        store.get_many([(info, "~/another")])
        [report] = store.put_many(["~/file"])
        assert report.path == tmp_path / "file"
        (tmp_path / "~file").write_bytes(b"called so")
        assert store.read(store.put("~file")) == b"called so"
        with pytest.raises(NotFoundError, match="~/file"):
            store.put(Path("~/file"))
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "another").read_bytes() == b"at home"


def test_of_what_fails_in_the_middle_nothing_is_registered(place: Place) -> None:
    seen: list[object] = []
    with place.open(on_event=seen.append) as store:
        with pytest.raises(ConnectionResetError, match="has gone"):
            store.put(Short(DATA, 1 << 20, fails_at=11))
        assert list(store.files()) == []
        assert not [event for event in seen if isinstance(event, FilesRegistered)]
        assert store.put(DATA).size == len(DATA)


def test_an_error_of_ours_goes_through_as_it_is(tmp_path: Path) -> None:
    class Failing(ReadOnly):
        def read(self, size: int) -> bytes:
            raise ExistsError("as it is")

    with xetstore.open(tmp_path / "store") as store, pytest.raises(ExistsError, match="as it is"):
        store.put(Failing(b""))


def refused(folder: Path) -> Iterator[tuple[Any, str]]:
    """Sources that are none, and what is said."""
    (folder / "file").write_text("text")
    closed = (folder / "file").open("rb")
    closed.close()
    yield (folder / "file").open(), "is open as text"
    yield io.StringIO("text"), "is open as text"
    yield closed, "is closed"
    yield (folder / "new").open("wb"), "is not open for reading"
    yield folder, "is a directory"
    yield str(folder), "is a directory"
    yield memoryview(b"abcdef")[::2], "do not lie one behind the other"


def test_what_is_no_binary_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with xetstore.open(tmp_path / "store") as store:
        for source, sentence in refused(tmp_path):
            with pytest.raises(UsageError, match=sentence):
                store.put(source)
            if hasattr(source, "close"):
                source.close()
        assert list(store.files()) == []


@pytest.mark.parametrize(("part", "sentence"), [("text", "gives text, not bytes"), (5, "returns a int"), ([1], "list")])
def test_a_read_that_gives_no_bytes_is_told(tmp_path: Path, part: object, sentence: str) -> None:
    class Odd:
        def read(self, size: int) -> object:
            return part

    with xetstore.open(tmp_path / "store") as store, pytest.raises(WrongTypeError, match=sentence):
        store.put(Odd())


def test_an_asynchronous_file_is_told(tmp_path: Path) -> None:
    class Asynchronous:
        async def read(self, size: int) -> bytes:
            return b""

    with xetstore.open(tmp_path / "store") as store, pytest.raises(WrongTypeError, match="returns a coroutine"):
        store.put(Asynchronous())


def test_silence_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_source, "SILENT_SECONDS", 0.05)

    class Silent(ReadOnly):
        def read(self, size: int) -> Any:
            return None

    with xetstore.open(tmp_path / "store") as store, pytest.raises(TimedOutError, match="no byte came"):
        store.put(Silent(b""))


def test_a_put_that_waits_for_bytes_can_be_given_up(tmp_path: Path) -> None:
    with xetstore.open(tmp_path / "store") as store:

        class Silent(ReadOnly):
            def read(self, size: int) -> Any:
                store.interrupt()

        with pytest.raises(InterruptedCallError):
            store.put(Silent(b""))


class Peak(NoProgress):
    """The most bytes that were announced, and the most that were done."""

    def __init__(self) -> None:
        self.announced = self.done = 0

    def total(self, nbytes: int) -> None:
        self.announced += nbytes

    def advance(self, **moved: int) -> None:
        self.done += moved.get("logical", 0)


@pytest.mark.parametrize("source", [DATA, io.BytesIO(DATA)], ids=["known", "unknown"])
def test_progress_adds_up_with_and_without_a_known_size(tmp_path: Path, source: Any) -> None:
    told = Peak()
    with xetstore.open(tmp_path / "store") as store:
        store.put(source, progress=told)
    assert (told.announced, told.done) == (len(DATA), len(DATA))


def test_memory_does_not_grow_with_a_stream(tmp_path: Path) -> None:
    """A stream of the same block over and over: what is held of it is seen in how much was read before it is let go."""

    class Long:
        def __init__(self) -> None:
            self.left = 192

        def read(self, size: int) -> bytes:
            self.left -= 1
            return bytes(1 << 20) if self.left >= 0 else b""

    with xetstore.open(tmp_path / "store") as store:
        tracemalloc.start()
        try:
            info = store.put(Long())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert info.size == 192 << 20
    assert peak < 64 << 20
