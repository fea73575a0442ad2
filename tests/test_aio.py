"""The store for asyncio: the same verbs with the same results, and calls that can be given up without a trace."""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.support.strategies import splitmix64
from xetstore import aio
from xetstore.errors import ExistsError, InterruptedCallError, NotFoundError, UsageError
from xetstore.protocol.hashes import Hash
from xetstore.repositories.repository import Repository
from xetstore.store import Store, What
from xetstore.transfer.progress import NoProgress

DATA = splitmix64(1, 3 << 20)

# What is not for asyncio: the Cas itself, and the views that every call of AsyncStore makes.
SYNCHRONOUS = {"cas", "for_one_call", "call_names", "files_of", "file_at", "in_namespace"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(DATA)
    return tmp_path / "file"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())  # those of another test may be about to end
    yield
    left = set(threading.enumerate()) - before
    assert not [thread for thread in left if thread.name.startswith(("xetstore-aio", "fetch"))]


def run(work: Coroutine[Any, Any, None]) -> None:
    """A test in an event loop, which fails rather than hangs."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


# --- The same verbs -------------------------------------------------------------------------------------


def public_verbs(kind: type) -> dict[str, Any]:
    return {name: verb for name, verb in vars(kind).items() if not name.startswith("_")}


def test_every_public_verb_of_the_store_has_a_twin_with_the_same_arguments() -> None:
    verbs, twins = public_verbs(Store), public_verbs(aio.AsyncStore)
    assert set(verbs) - SYNCHRONOUS == set(twins)
    for name, twin in twins.items():
        assert _arguments(verbs[name]) == _arguments(twin), name
        assert (
            inspect.iscoroutinefunction(twin)
            or inspect.isasyncgenfunction(twin)
            or name
            in (
                "open",
                "iter_put",
                "iter_get",
                "iter_range",
                "deleted",
                "files",
                "repo",
                "repos",
                "interrupt",
            )
        )
    for name in ("hash_file", "open", "open_locator"):
        assert _arguments(getattr(xetstore, name)) == _arguments(getattr(aio, name)), name


def test_every_verb_of_a_repository_has_a_twin_with_the_same_arguments() -> None:
    verbs, twins = public_verbs(Repository), public_verbs(aio.AsyncRepository)
    assert set(verbs) == set(twins) - {"within"}
    for name, verb in verbs.items():
        if callable(verb):
            assert _arguments(verb) == _arguments(twins[name]), name
            is_iterator = name in ("files", "iter_range", "log", "iter_download", "open")
            assert inspect.iscoroutinefunction(twins[name]) != is_iterator, name


def test_a_repository_is_the_same(tmp_path: Path, path: Path) -> None:
    async def work() -> None:
        async with await aio.open(tmp_path / "store") as store:
            repo = await store.create_repo("alice/bert")
            with pytest.raises(ExistsError):
                await store.create_repo("alice/bert")
            report = await repo.commit({"large.bin": path, "small": b"small"}, message="both")
            await repo.create_tag("v1")
            await repo.commit({"small": b"smaller"}, delete=["large.bin"])
            assert [ref.commit for ref in await repo.tags()] == [report.commit.oid]
            async with await repo.open("large.bin", "v1") as file:
                await file.seek(100)
                assert await file.read(10) == DATA[100:110]
            async with await repo.open("small") as file:
                assert await file.read() == b"smaller"
            assert [str(one.kind) for one in await repo.diff("v1")] == ["deleted", "changed"]
            assert [commit.title async for commit in repo.log("v1")] == ["both", "initial commit"]
            assert {one.path async for one in repo.files("v1")} == {".gitattributes", "large.bin", "small"}
            await repo.download("v1", tmp_path / "out")
            assert (tmp_path / "out" / "large.bin").read_bytes() == DATA
            other = await store.create_repo("alice/copy")
            await other.copy_from(repo, "v1")
            assert b"".join([bytes(part) async for part in other.iter_range("large.bin", start=5)]) == DATA[5:]
            assert {one.id.name async for one in store.repos()} == {"alice/bert", "alice/copy"}
            moved = await store.move_repo("alice/copy", "bob/copy")
            assert moved.name == "bob/copy"
            await store.delete_repo("bob/copy")
            assert not await moved.exists()

    run(work())


def _arguments(verb: Callable[..., object]) -> list[tuple[str, object, object]]:
    return [(given.name, given.default, given.kind) for given in inspect.signature(verb).parameters.values()]


def test_the_verbs_do_what_the_store_does(tmp_path: Path, path: Path) -> None:
    async def work() -> None:
        async with await aio.open(tmp_path / "store") as store:
            assert store.location == str(tmp_path / "store")
            info = await store.put(path)
            assert info == await aio.hash_file(path, sha256=True)
            (tmp_path / "other").write_bytes(b"other")
            reports = await store.put_many([path, tmp_path / "other"])
            assert [report.info.size for report in reports] == [len(DATA), 5]
            assert (await store.stat(str(info.hash))).size == len(DATA)
            assert await store.resolve(str(info.hash)) == info.hash
            got = await store.get(info.hash, tmp_path / "copy", start=10, end=1_000_010)
            assert (got.size, (tmp_path / "copy").read_bytes()) == (1_000_000, DATA[10:1_000_010])
            many = [(report.info.hash, tmp_path / f"many{number}") for number, report in enumerate(reports)]
            assert [report.size for report in await store.get_many(many)] == [len(DATA), 5]
            assert [report.size async for report in store.iter_get(many)] == [len(DATA), 5]
            assert [report.info async for report in store.iter_put([path])] == [info]
            assert (tmp_path / "many1").read_bytes() == b"other"
            assert b"".join([bytes(part) async for part in store.iter_range(info.hash, 5)]) == DATA[5:]
            assert {file.size async for file in store.files()} == {len(DATA), 5}
            assert (await store.totals()).files == 2
            assert (await store.check(read_data=True)).problems == ()
            assert (await store.estimate([path])).new_bytes == 0
            assert (await store.forecast(info.hash)).size == len(DATA)

    run(work())


def test_a_file_is_read_at_any_place(tmp_path: Path, path: Path) -> None:
    async def work() -> None:
        async with await aio.open(tmp_path / "store") as store:
            info = await store.put(path)
            async with await store.open(info.hash) as file:
                assert file.size == len(DATA)
                assert await file.read(10) == DATA[:10]
                assert file.tell() == 10
                assert await file.seek(1_000_000) == 1_000_000
                assert await file.read(5) == DATA[1_000_000:1_000_005]
                assert await file.seek(-5, os.SEEK_CUR) == 1_000_000
                assert await file.seek(-3, os.SEEK_END) == len(DATA) - 3
                assert await file.read() == DATA[-3:]
                assert await file.read(1) == b""
                await file.seek(0)
                assert await file.read() == DATA
                with pytest.raises(ValueError, match="no position"):
                    await file.seek(-1)
                with pytest.raises(ValueError, match="no position"):
                    await file.seek(0, 7)
            await file.close()
            with pytest.raises(ValueError, match="closed file"):
                await file.read()

    run(work())


def test_errors_are_those_of_the_store(tmp_path: Path) -> None:
    async def work() -> None:
        async with await aio.open(tmp_path / "store") as store:
            with pytest.raises(NotFoundError):
                await store.put(tmp_path / "missing")
            with pytest.raises(NotFoundError):
                await store.stat(Hash(bytes(range(32))))
            with pytest.raises(NotFoundError):
                await store.open(Hash(bytes(range(32))))
            with pytest.raises(UsageError):
                await anext(store.iter_range(Hash(bytes(range(32))), 5, 3))
            missed: list[Path] = []
            assert await store.put_many([tmp_path / "no"], on_error=lambda path, error: missed.append(path)) == []
            assert missed == [tmp_path / "no"]
        with pytest.raises(NotFoundError):
            await aio.open(tmp_path / "nothing", create=False)
        with pytest.raises(UsageError):
            await aio.open_locator("no locator")
        with pytest.raises(NotFoundError):
            await aio.hash_file(tmp_path / "missing")

    run(work())


def test_many_calls_run_at_a_time(tmp_path: Path) -> None:
    async def work() -> None:
        async with await aio.open(tmp_path / "store") as store:
            paths = [tmp_path / f"f{i}" for i in range(12)]
            for i, path in enumerate(paths):
                path.write_bytes(splitmix64(i, 100_000))
            infos = await asyncio.gather(*(store.put(path) for path in paths))
            await asyncio.gather(*(store.get(info.hash, tmp_path / f"out{i}") for i, info in enumerate(infos)))
            assert all((tmp_path / f"out{i}").read_bytes() == path.read_bytes() for i, path in enumerate(paths))

    run(work())


def test_an_iterator_that_is_left_early_ends_its_thread(tmp_path: Path, path: Path) -> None:
    async def work() -> None:
        async with await aio.open(tmp_path / "store") as store:
            info = await store.put(path)
            parts = store.iter_range(info.hash)
            async for _ in parts:
                break
            await parts.aclose()
            files = store.files()
            assert (await anext(files)).hash == info.hash
            await files.aclose()

    run(work())


# --- Giving up ------------------------------------------------------------------------------------------


class Silent:
    """A server that takes every connection and never answers. A context manager."""

    def __enter__(self) -> Silent:
        self.asked = threading.Semaphore(0)
        self._taken: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def _serve(self) -> None:
        while True:
            taken, _ = self._listener.accept()
            self._taken.append(taken)
            if not taken.recv(1):
                return
            self.asked.release()

    async def wait(self) -> None:
        """Until somebody has asked, and hangs."""
        await asyncio.to_thread(self.asked.acquire)

    def __exit__(self, *exc: object) -> None:
        with socket.create_connection(self._listener.getsockname()):
            pass
        self._thread.join()
        self._listener.close()
        for taken in self._taken:
            taken.close()


async def give_up(waiting: Awaitable[Any], ready: Callable[[], Awaitable[None]]) -> None:
    """Cancel once it hangs, twice over; it ends as cancelled."""
    task = asyncio.ensure_future(waiting)
    await ready()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def first(items: Any) -> object:
    return await anext(items)


@pytest.mark.parametrize(
    "verb",
    [
        "stat",
        "get",
        "get_many",
        "iter_get",
        "put",
        "put_many",
        "iter_put",
        "iter_range",
        "open",
        "estimate",
        "forecast",
    ],
)
def test_a_call_that_hangs_can_be_cancelled_and_leaves_nothing(tmp_path: Path, path: Path, verb: str) -> None:
    name = Hash(bytes(range(32)))

    async def work() -> None:
        with Silent() as server:
            async with await aio.open(server.url, cache=tmp_path / "cache") as store:
                (tmp_path / "out").mkdir()
                many = [(name, tmp_path / "out" / "a"), (Hash(bytes(32 * [1])), tmp_path / "out" / "b")]
                waiting: dict[str, Callable[[], Awaitable[Any]]] = {
                    "stat": lambda: store.stat(name),
                    "get": lambda: store.get(name, tmp_path / "out" / "file"),
                    "get_many": lambda: store.get_many(many),
                    "iter_get": lambda: first(store.iter_get(many)),
                    "put": lambda: store.put(path),
                    "put_many": lambda: store.put_many([path]),
                    "iter_put": lambda: first(store.iter_put([path])),
                    "iter_range": lambda: first(store.iter_range(name)),
                    "open": lambda: store.open(name),
                    "estimate": lambda: store.estimate([path]),
                    "forecast": lambda: store.forecast(name),
                }
                await give_up(waiting[verb](), server.wait)
                assert list((tmp_path / "out").iterdir()) == []

    run(work())


def test_cancelling_one_call_leaves_the_others_alone(tmp_path: Path) -> None:
    name = Hash(bytes(range(32)))

    async def work() -> None:
        with Silent() as server:
            async with await aio.open(server.url, cache=False) as store:
                other = asyncio.ensure_future(store.stat(name))
                await server.wait()
                await give_up(store.stat(name), server.wait)
                assert not other.done()
                store.interrupt()
                with pytest.raises(InterruptedCallError):
                    await other
                again = asyncio.ensure_future(store.stat(name))
                await server.wait()
                await give_up(again, lambda: asyncio.sleep(0))

    run(work())


class Held(NoProgress):
    """A progress that stops the work until it is let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def advance(self, **_: int) -> None:
        self.reached.set()
        self.go_on.wait()

    async def wait(self) -> None:
        await asyncio.to_thread(self.reached.wait)
        asyncio.get_running_loop().call_later(0.01, self.go_on.set)


@pytest.mark.parametrize("verb", ["hash_file", "check", "estimate", "get"])
def test_long_work_on_this_machine_can_be_cancelled_too(tmp_path: Path, verb: str) -> None:
    path = tmp_path / "long"
    path.write_bytes(splitmix64(7, 13 << 20))

    async def work() -> None:
        held = Held()
        async with await aio.open(tmp_path / "store") as store:
            info = await store.put(path)
            waiting: dict[str, Callable[[], Awaitable[Any]]] = {
                "hash_file": lambda: aio.hash_file(path, progress=held),
                "check": lambda: store.check(read_data=True, progress=held),
                "estimate": lambda: store.estimate([path], progress=held, on_error=lambda path, error: None),
                "get": lambda: store.get(info.hash, tmp_path / "copy", progress=held),
            }
            before = set(tmp_path.iterdir())
            await give_up(waiting[verb](), held.wait)
            assert set(tmp_path.iterdir()) == before
            assert (await store.stat(info.hash)).size == path.stat().st_size

    run(work())


def test_a_read_that_is_cancelled_can_be_made_again(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()

    class Slow(Store):
        def open(self, what: What) -> Any:
            reached.set()
            go_on.wait()
            return super().open(what)

    async def work() -> None:
        async with await aio.open(tmp_path / "store") as store:
            info = await store.put(path)
            async with await store.open(info.hash) as file:
                await file.seek(100)

                async def ready() -> None:
                    await asyncio.to_thread(reached.wait)
                    asyncio.get_running_loop().call_later(0.01, go_on.set)

                view = file._view
                view.__class__ = Slow
                await give_up(file.read(50), ready)
                assert await file.read(50) == DATA[100:150]

    run(work())


def test_a_store_that_was_opened_for_nobody_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = threading.Event()
    reached, go_on = threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> Store:
        reached.set()
        go_on.wait()
        return xetstore.open(*args, **options)

    given = Store.close

    def close(store: Store) -> None:
        given(store)
        closed.set()

    monkeypatch.setattr(Store, "close", close)
    monkeypatch.setattr("xetstore.aio.store.open_store", slow)

    async def ready() -> None:
        await asyncio.to_thread(reached.wait)
        asyncio.get_running_loop().call_later(0.01, go_on.set)

    async def work() -> None:
        await give_up(aio.open(tmp_path / "store"), ready)
        assert closed.is_set()

    run(work())
