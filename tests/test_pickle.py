"""Stores in another process: they travel by how they were opened, and no secret does; what they return travels too."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.support.live import ServerProcess
from xetstore import aio
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import NotFoundError, NotPicklableError
from xetstore.events import Event
from xetstore.fs import XetFileSystem
from xetstore.limits import Limits
from xetstore.store import Store, hash_report

CONTENT = b"Hello World!" * 1000

WORKER = """
import json, pickle, sys
store, file = pickle.load(sys.stdin.buffer)
print(json.dumps([store.location, store.stat(file).size, len(b"".join(store.iter_range(file)))]))
"""


def told(event: Event) -> None:
    """A function of a module, which travels by its name."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("served") / "store") as server:
        yield server


def in_a_worker(store: Store, file: xetstore.Hash, folder: Path) -> Any:
    """What a process says that has nothing but the pickle, and another working directory."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER], input=pickle.dumps((store, file)), capture_output=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


class TestStores:
    def test_a_directory_by_its_absolute_path(
        self, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "elsewhere").mkdir()
        with xetstore.open("store") as store:
            file = store.put(source).hash
            assert in_a_worker(store, file, tmp_path / "elsewhere") == [
                str(tmp_path / "store"),
                len(CONTENT),
                len(CONTENT),
            ]

    def test_a_server_with_the_token_of_the_environment(
        self, server: ServerProcess, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        token = server.token("write")
        monkeypatch.setenv("XET_TOKEN", token)
        with xetstore.open(server.url, cache=tmp_path / "cache") as store:
            file = store.put(source).hash
            assert token.encode() not in pickle.dumps(store)
            assert in_a_worker(store, file, tmp_path) == [server.url, len(CONTENT), len(CONTENT)]

    def test_it_is_opened_when_it_is_first_used(self, tmp_path: Path, source: Path) -> None:
        with xetstore.open(tmp_path / "store") as store:
            file = store.put(source).hash
            arrived = pickle.loads(pickle.dumps(store))
        (tmp_path / "store").rename(tmp_path / "moved")
        assert repr(arrived) == f"Store({str(tmp_path / 'store')!r})"
        with pytest.raises(NotFoundError):
            arrived.stat(file)
        assert not (tmp_path / "store").exists()
        (tmp_path / "moved").rename(tmp_path / "store")
        with arrived:
            assert arrived.stat(file).size == len(CONTENT)

    def test_its_arguments_travel(self, server: ServerProcess, tmp_path: Path) -> None:
        limits = Limits(max_memory=256 << 20, rate=5e6)
        given: dict[str, Any] = {"limits": limits, "cache": tmp_path / "cache", "allow_http": True, "on_event": told}
        with xetstore.open(server.url, **given) as store:
            twice = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(store))))
        options = twice._reopening.options
        assert (options.limits, options.cache, options.allow_http) == (limits, tmp_path / "cache", True)
        assert options.on_event is told
        with twice:
            assert twice._limits == limits
            assert twice.cas.url == server.url
            assert twice._opened.cas._server.transport.is_limited

    def test_a_copy_is_another_store(self, tmp_path: Path, source: Path) -> None:
        with xetstore.open(tmp_path / "store") as store:
            other = copy.copy(store)
            file = store.put(source).hash
        with other:
            assert other.stat(file).size == len(CONTENT)

    def test_one_for_asyncio(self, tmp_path: Path, source: Path) -> None:
        with xetstore.open(tmp_path / "store") as store:
            file = store.put(source).hash
            arrived = pickle.loads(pickle.dumps(aio.AsyncStore(store)))
            assert arrived._store.stat(file).size == len(CONTENT)
            arrived._store.close()

    @pytest.mark.parametrize("token", ["s3cret-token", lambda scope: ("s3cret-token", None)], ids=["text", "callback"])
    def test_a_token_that_was_given_does_not_travel(self, server: ServerProcess, token: Any) -> None:
        with xetstore.open(server.url, token=token) as store:
            for dumped in (pickle.dumps, copy.copy):
                with pytest.raises(NotPicklableError, match="does not travel") as refused:
                    dumped(store)
                assert isinstance(refused.value, TypeError)
                assert "XET_TOKEN" in str(refused.value.hint)
                assert "s3cret" not in f"{refused.value} {refused.value.hint}"

    def test_events_that_go_to_a_function_of_this_process(self, tmp_path: Path) -> None:
        with (
            xetstore.open(tmp_path / "store", on_event=lambda event: None) as store,
            pytest.raises(NotPicklableError, match="events"),
        ):
            pickle.dumps(store)

    def test_one_that_is_made_of_a_cas(self) -> None:
        with Store(EmbeddedCas.in_memory()) as store, pytest.raises(NotPicklableError, match="object of this process"):
            pickle.dumps(store)

    def test_an_attribute_that_is_not_there_is_none(self, tmp_path: Path) -> None:
        with xetstore.open(tmp_path / "store") as store:
            for one in (store, pickle.loads(pickle.dumps(store))):
                with pytest.raises(AttributeError, match="no attribute 'stats'"):
                    getattr(one, "stats")  # noqa: B009

    def test_a_filesystem(self, tmp_path: Path, source: Path) -> None:
        with xetstore.open(tmp_path / "store") as store:
            file = store.put(source).hash
        fs = XetFileSystem(store=str(tmp_path / "store"), skip_instance_cache=True)
        assert fs.cat(f"xet://{file}") == CONTENT
        assert pickle.loads(pickle.dumps(fs)).cat(f"xet://{file}") == CONTENT


RESULTS: dict[str, Callable[[Store, Path], object]] = {
    "FileInfo": lambda store, source: store.put(source),
    "PutReports": lambda store, source: list(store.put_many([source])),
    "GetReport": lambda store, source: store.get(store.put(source).hash, source.with_name("out")),
    "FileRecord": lambda store, source: store.stat(store.put(source).hash),
    "Hash": lambda store, source: store.put(source).hash,
    "Totals": lambda store, source: store.totals(),
    "CheckReport": lambda store, source: store.check(),
    "Estimate": lambda store, source: store.estimate([source]),
    "GetForecast": lambda store, source: store.forecast(store.put(source).hash),
    "HashReport": lambda store, source: hash_report(source),
    "Limits": lambda store, source: Limits(rate=1e6),
}


@pytest.mark.parametrize("make", RESULTS.values(), ids=RESULTS)
def test_what_a_store_returns_travels(tmp_path: Path, source: Path, make: Callable[[Store, Path], object]) -> None:
    with xetstore.open(tmp_path / "store") as store:
        made = make(store, source)
    arrived = pickle.loads(pickle.dumps(made))
    assert arrived == made
    assert type(arrived) is type(made)
