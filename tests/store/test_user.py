"""A program of a user: the types that a checker sees are those that are there; records, subclasses and threads."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import pickle
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, assert_type

import pytest

import xetstore
from xetstore import aio
from xetstore.aio import AsyncFile, AsyncStore
from xetstore.transfer.download.forecast import GetForecast

DATA = b"Hello World!" * 100_000


class Counting(xetstore.Store):
    """A store of a user's own."""

    reads = 0

    def read(self, what: xetstore.What, start: int = 0, end: int | None = None) -> bytes:
        self.reads += 1
        return super().read(what, start, end)


def test_every_verb_has_the_type_that_it_gives(tmp_path: Path) -> None:
    """``make check`` compares what a checker sees with these, and this what is there."""
    with xetstore.open(tmp_path / "store") as store:
        assert_type(store, xetstore.Store)
        info = store.put(DATA)
        assert_type(info, xetstore.FileInfo)
        assert_type(info.hash, xetstore.Hash)
        assert_type(f"{info.hash:.12}", str)
        assert_type(info.to_dict(), dict[str, Any])
        assert_type(xetstore.FileInfo.from_dict(info.to_dict()), xetstore.FileInfo)
        assert_type(sorted([info, info]), list[xetstore.FileInfo])
        assert isinstance(assert_type(store.put(io.BytesIO(DATA)), xetstore.FileInfo), xetstore.FileInfo)
        assert isinstance(assert_type(store.read(info, 0, 4), bytes), bytes)
        assert isinstance(assert_type(store.exists(info), bool), bool)
        assert isinstance(assert_type(store.stat(str(info.hash)), xetstore.FileRecord), xetstore.FileRecord)
        assert isinstance(assert_type(store.get(info, tmp_path / "out"), xetstore.GetReport), xetstore.GetReport)
        assert isinstance(assert_type(store.open(info), io.BufferedReader), io.BufferedReader)
        assert isinstance(next(assert_type(store.iter_range(info), Iterator[memoryview])), memoryview)
        assert isinstance(next(assert_type(store.files(), Iterator[xetstore.FileRecord])), xetstore.FileRecord)
        [got] = assert_type(store.get_many([(info, tmp_path / "a")]), list[xetstore.GetReport])
        [put] = assert_type(store.put_many([tmp_path / "a"]), list[xetstore.PutReport])
        assert (got.hash, put.info) == (info.hash, info)
        assert isinstance(assert_type(store.resolve(info), xetstore.Hash), xetstore.Hash)
        assert isinstance(assert_type(store.forecast(info), GetForecast), GetForecast)
        assert isinstance(assert_type(store.repo("alice/bert"), xetstore.Repository), xetstore.Repository)
        [gone] = assert_type(store.delete(info), list[xetstore.DeletedFile])
        assert isinstance(gone, xetstore.DeletedFile)
        [back] = assert_type(store.undelete(gone), list[xetstore.FileRecord])
        assert isinstance(back, xetstore.FileRecord)


def test_the_verbs_for_asyncio_have_the_types_that_they_give(tmp_path: Path) -> None:
    async def work() -> None:
        async with aio.open(tmp_path / "store") as store:
            assert isinstance(assert_type(store, AsyncStore), AsyncStore)
            info = assert_type(await store.put(DATA), xetstore.FileInfo)
            assert isinstance(assert_type(await store.read(info, 3), bytes), bytes)
            assert assert_type(await store.exists(info), bool)
            async with store.open(info) as file:
                assert isinstance(assert_type(file, AsyncFile), AsyncFile)
                assert assert_type(await file.read(12), bytes) == DATA[:12]
            listed = assert_type(store.files(), AsyncGenerator[xetstore.FileRecord])
            assert [record.hash async for record in listed] == [info.hash]

    asyncio.run(work())


def test_what_is_opened_for_asyncio_may_be_awaited_or_entered(tmp_path: Path) -> None:
    async def work() -> None:
        async with aio.open(tmp_path / "store") as store:
            info = await store.put(DATA)
            repo = await store.create_repo("alice/bert")
            await repo.commit({"small": b"small"})
            async with repo.open("small") as file, await store.open(info) as other:
                assert (await file.read(), await other.read(5)) == (b"small", b"Hello")
        async with await aio.open(tmp_path / "store") as store:
            assert await store.exists(info)
        task = asyncio.create_task(aio.open(tmp_path / "store"))
        store = assert_type(await task, AsyncStore)
        assert await store.read(info, 0, 5) == b"Hello"
        await store.close()
        [one, other_one] = await asyncio.gather(aio.open(tmp_path / "store"), aio.open(tmp_path / "store"))
        await one.close()
        await other_one.close()
        with pytest.raises(xetstore.errors.NotFoundError):
            async with aio.open(tmp_path / "none", create=False):
                pass
        with pytest.raises(RuntimeError, match="enough"):
            async with aio.open(tmp_path / "store") as store:
                raise RuntimeError("enough")
        with pytest.raises(xetstore.errors.InterruptedCallError):
            await store.read(info)

    asyncio.run(work())
    assert asyncio.run(aio.open(tmp_path / "store")).location == str(tmp_path / "store")


def test_a_hash_is_its_text(tmp_path: Path) -> None:
    with xetstore.open(tmp_path / "store") as store:
        file = store.put(DATA).hash
    text = str(file)
    assert type(text) is str
    assert file == text
    assert text == file
    assert file != text.upper()
    by_text: dict[str, int] = {file: 1}
    assert by_text[text] == {text: 1}[file] == 1
    assert hash(file) == hash(text)
    assert f"{file}" == text
    assert f"{file:.12}" == file[:12] == text[:12]
    assert f"{file:>66}" == f"  {text}"
    assert json.loads(json.dumps({"hash": file, file: 1})) == {"hash": text, text: 1}
    assert sorted([file, xetstore.Hash("0" * 64), text]) == ["0" * 64, text, text]
    assert xetstore.Hash(text) == xetstore.Hash(text.upper()) == xetstore.Hash(file.digest) == file
    for again in (pickle.loads(pickle.dumps(file)), copy.copy(file), copy.deepcopy(file)):
        assert (type(again), again, again.digest) == (xetstore.Hash, file, file.digest)
    with pytest.raises(AttributeError):
        file.digest = bytes(32)  # type: ignore[misc]
    assert repr(file) == f"Hash('{text}')"


def test_records_travel_and_are_copied_whole(tmp_path: Path) -> None:
    with xetstore.open(tmp_path / "store") as store:
        info = store.put(DATA)
        for record in (info, store.stat(info), *store.delete(info)):
            assert pickle.loads(pickle.dumps(record)) == copy.deepcopy(record) == record
            assert len({record, copy.copy(record)}) == 1


def test_a_store_of_a_users_own_class_stays_one(tmp_path: Path) -> None:
    with xetstore.open(tmp_path / "store") as opened:
        info = opened.put(DATA)
        opened.__class__ = Counting
        with pickle.loads(pickle.dumps(opened)) as store:
            assert isinstance(store, Counting)
            assert store.read(info) == DATA
            assert store.reads == 1


def test_threads_share_a_store(tmp_path: Path) -> None:
    before = threading.active_count()
    with xetstore.open(tmp_path / "store") as store, ThreadPoolExecutor(8) as threads:
        infos = list(threads.map(lambda number: store.put(DATA[number:]), range(16)))
        contents = threads.map(store.read, infos)
        assert list(contents) == [DATA[number:] for number in range(16)]
        assert all(threads.map(store.exists, infos))
        assert {file.hash for file in store.files()} == {info.hash for info in infos}
    assert threading.active_count() < before + 10


def test_no_secret_is_shown(tmp_path: Path) -> None:
    with xetstore.open("http://127.0.0.1:9", token="very-secret", cache=False) as store:
        shown = [repr(store), repr(store.repo("alice/bert")), repr(AsyncStore(store)), str(vars(store))]
    assert not [text for text in shown if "very-secret" in text]
    assert shown[0] == "Store('http://127.0.0.1:9')"
    assert shown[2] == "AsyncStore('http://127.0.0.1:9')"
