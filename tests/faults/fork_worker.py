"""A process that forks while its threads are busy with a store: ``python -m tests.faults.fork_worker MODE ...``.

It prints what went wrong in each child, one JSON list. Every child looks for the file that is its own, and ends by a
signal if it hangs.
"""

from __future__ import annotations

import asyncio
import io
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import xetstore
from tests.support.children import CHILD_SECONDS, failures, in_child
from xetstore import aio


def content(number: int, size: int = 0) -> bytes:
    """The bytes of file ``number``, each of another size."""
    return random.Random(number).randbytes(size or 150_000 + 7001 * number)


def same(got: Any, expected: Any, what: str) -> None:
    if got != expected:
        shown = (got, expected) if isinstance(got, int) else (len(got), len(expected))
        raise AssertionError(f"{what}: another file's ({shown[0]} instead of {shown[1]})")


class Files:
    """A store with files 0, 1, 2 …, and what a child does with one of them."""

    def __init__(self, where: str, folder: Path, count: int) -> None:
        self.store = xetstore.open(where, cache=folder / "cache")
        self.folder = folder
        self.hashes = []
        for number in range(count):
            path = folder / f"{number}.in"
            path.write_bytes(content(number))
            self.hashes.append(self.store.put(path).hash)
        self.opened: list[io.BufferedReader] = []
        self.awaited_files: list[aio.AsyncFile] = []

    def open_all(self) -> None:
        self.opened = [self.store.open(file) for file in self.hashes]
        for file in self.opened:
            file.read(1000)

        async def open_all() -> None:
            for one in self.hashes:
                self.awaited_files.append(await aio.AsyncStore(self.store).open(one))
                await self.awaited_files[-1].read(1000)

        asyncio.run(open_all())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": [], "awaited_files": []}

    def stat(self, number: int) -> None:
        same(self.store.stat(self.hashes[number]).size, len(content(number)), "stat")

    def iter_range(self, number: int) -> None:
        start, end = 1000 * number, 100_000
        got = b"".join(self.store.iter_range(self.hashes[number], start, end))
        same(got, content(number)[start:end], "iter_range")

    def file_object(self, number: int) -> None:
        with self.store.open(self.hashes[number]) as file:
            file.seek(5000)
            same(file.read(70_000), content(number)[5000:75_000], "file object")

    def opened_before(self, number: int) -> None:
        file = self.opened[number]
        same(file.tell(), 1000, "position")
        same(file.read(), content(number)[1000:], "file object of the parent")

    def get(self, number: int) -> None:
        out = self.folder / f"{os.getpid()}-{threading.get_ident()}.out"
        self.store.get(self.hashes[number], out)
        same(out.read_bytes(), content(number), "get")
        out.unlink()

    def put(self, number: int) -> None:
        path = self.folder / f"{os.getpid()}-{threading.get_ident()}.new"
        data = content(random.getrandbits(60), 100_000)
        path.write_bytes(data)
        file = self.store.put(path).hash
        same(b"".join(self.store.iter_range(file)), data, "put")
        path.unlink()

    def awaited(self, number: int) -> None:
        async def read() -> None:
            store = aio.AsyncStore(self.store)
            same((await store.stat(self.hashes[number])).size, len(content(number)), "aio stat")
            async with await store.open(self.hashes[number]) as file:
                same(await file.read(1000), content(number)[:1000], "aio read")

        asyncio.run(read())

    def awaited_before(self, number: int) -> None:
        async def read() -> None:
            file = self.awaited_files[number]
            same(file.tell(), 1000, "position")
            same(await file.read(), content(number)[1000:], "file of the parent's event loop")

        asyncio.run(read())

    def verbs(self) -> list[Callable[[int], None]]:
        return [
            self.stat,
            self.iter_range,
            self.file_object,
            self.opened_before,
            self.get,
            self.put,
            self.awaited,
            self.awaited_before,
        ]


class Busy:
    """Threads of the parent that use the store all the time."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._stopped = threading.Event()
        self._failed: list[str] = []
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(2)]

    def _work(self, number: int) -> None:
        turn = number
        verbs = [self._files.stat, self._files.iter_range, self._files.get, self._files.put]
        while not self._stopped.wait(0.005):
            turn += 1
            try:
                verbs[turn % len(verbs)](turn % len(self._files.hashes))
            except BaseException as error:
                self._failed.append(f"the parent: {error!r}")
                traceback.print_exc()
                return

    def __enter__(self) -> list[str]:
        for thread in self._threads:
            thread.start()
        return self._failed

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


def rounds(where: str, folder: str, count: str, children: str) -> list[str]:
    """Fork ``children`` at a time, ``count`` times, each time with another verb; once for each verb all at a time."""
    files = Files(where, Path(folder), 8)
    files.open_all()
    verbs = files.verbs()
    found: list[str] = []
    with Busy(files) as failed:
        for turn in range(int(count)):
            verb = verbs[turn % len(verbs)]
            at_once = len(files.hashes) if turn < len(verbs) else int(children)
            pids = [in_child(partial(verb, number)) for number in range(at_once)]
            found += [f"{verb.__name__}: {one}" for one in failures(pids)]
            if len(found) > 5:
                break
    for number, file in enumerate(files.opened):
        same(file.read(), content(number)[1000:], "what the parent reads afterwards")
    return found + failed


def ending(where: str, folder: str, count: str) -> list[str]:
    """Children that end as programs do, by way of all that Python finalizes; the parent's iterators go on."""
    files = Files(where, Path(folder), 4)
    found: list[str] = []
    with Busy(files) as failed:
        for turn in range(int(count)):
            begun = files.store.iter_get((file, files.folder / f"{file}.copy") for file in files.hashes)
            blocks = files.store.iter_range(files.hashes[turn % 4])
            got = [next(blocks)]
            next(iter(begun))
            pid = os.fork()
            if not pid:
                signal.alarm(CHILD_SECONDS)
                files.stat(turn % 4)
                return []
            found += failures([pid])
            same(b"".join([*got, *blocks]), content(turn % 4), "what the parent iterates over")
            for number, _ in enumerate(begun, 1):
                same((files.folder / f"{files.hashes[number]}.copy").read_bytes(), content(number), "iter_get")
    return found + failed


def task(files: Files, verb: str, number: int) -> None:
    """What a worker of a pool does."""
    signal.alarm(CHILD_SECONDS)
    getattr(files, verb)(number)
    signal.alarm(0)


def pooled(where: str, folder: str, method: str, count: str, children: str) -> list[str]:
    """The same by a pool: each task brings the store, pickled, and each process does some tasks and ends."""
    files = Files(where, Path(folder), int(children))
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["tests.faults.fork_worker"])
    verbs = ["stat", "iter_range", "file_object", "get", "put", "awaited"]
    per_process = {"fork": 5, "forkserver": 10, "spawn": 25}[method]
    with context.Pool(2, maxtasksperchild=per_process) as pool:
        for turn in range(int(count)):
            tasks = [(files, verbs[(turn + number) % len(verbs)], number) for number in range(int(children))]
            pool.starmap_async(task, tasks, chunksize=1).get(2 * CHILD_SECONDS)
    return []


SHARED: Files | None = None


def shared_task(verb: str, number: int) -> None:
    assert SHARED is not None
    task(SHARED, verb, number)


def inherited(where: str, folder: str, count: str, children: str) -> list[str]:
    """Pools that fork, whose tasks use a store that is a global of the module; made in a thread, beside busy ones."""
    global SHARED
    SHARED = Files(where, Path(folder), int(children))
    failed: list[str] = []

    def make_pools() -> None:
        context = multiprocessing.get_context("fork")
        try:
            for turn in range(int(count)):
                with context.Pool(int(children)) as pool:
                    tasks = [(("stat", "iter_range", "get")[turn % 3], number) for number in range(int(children))]
                    pool.starmap_async(shared_task, tasks, chunksize=1).get(2 * CHILD_SECONDS)
        except BaseException as error:
            failed.append(repr(error))

    with Busy(SHARED) as busy:
        thread = threading.Thread(target=make_pools)
        thread.start()
        thread.join()
    return failed + busy


if __name__ == "__main__":
    # By the name under which the processes of a pool find it, too.
    from tests.faults import fork_worker

    print(json.dumps(getattr(fork_worker, sys.argv[1])(*sys.argv[2:])))
