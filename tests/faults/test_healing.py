"""A store that was damaged is healed by putting the file again: in this process, by our client, by the command line."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.support.live import ServerProcess
from tests.support.process import Worker
from tests.support.strategies import ramp, splitmix64, text
from xetstore import Store
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.errors import IntegrityError, XetError
from xetstore.events import Event, Forgotten
from xetstore.protocol.chunking import chunk_bytes
from xetstore.protocol.hashes import Hash

CONTENT = splitmix64(1, 900_000)


def objects(root: Path) -> list[Path]:
    """The objects of xorbs that count, in a fixed order."""
    with EmbeddedCas.open(root, create=False) as cas, cas.index.snapshot() as reader:
        return [root / row.key for row in reader.xorbs_after(0)]


def flip(path: Path, chance: random.Random | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data)) if chance else 1000] ^= 1 << (chance.randrange(8) if chance else 0)
    path.write_bytes(data)


def cut(path: Path, chance: random.Random | None = None) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size) if chance else 1000)


def remove(path: Path, _: random.Random | None = None) -> None:
    path.unlink()


def overwrite(path: Path, chance: random.Random | None = None) -> None:
    """As many bytes of something else."""
    path.write_bytes((chance or random.Random(1)).randbytes(path.stat().st_size))


DAMAGES: dict[str, Callable[[Path], None]] = {"flipped": flip, "cut": cut, "removed": remove, "overwritten": overwrite}
SEEN_AT_ONCE = ("cut", "removed")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("damage", DAMAGES)
def test_putting_a_file_again_heals_a_store_in_this_process(tmp_path: Path, source: Path, damage: str) -> None:
    root, out = tmp_path / "store", tmp_path / "out"
    with xetstore.open(root) as store:
        file = store.put(source).hash
    [path] = objects(root)
    DAMAGES[damage](path)
    with xetstore.open(root) as store:
        if damage not in SEEN_AT_ONCE:
            with pytest.raises(IntegrityError) as caught:
                store.get(file, out)
            assert "put the file again" in str(caught.value.hint)
        [report] = list(store.put_many([source]))
        assert (report.info.hash, report.new_bytes) == (file, len(CONTENT))
        assert store.get(file, out).verified
        assert out.read_bytes() == CONTENT
        assert store.check(read_data=True).problems == ()
        [report] = list(store.put_many([source]))
        assert report.new_bytes == 0


@pytest.mark.parametrize("way", ["a stream", "a file object", "many", "check"])
def test_whatever_reads_the_damage_notes_it(tmp_path: Path, source: Path, way: str) -> None:
    root, out = tmp_path / "store", tmp_path / "out"
    with xetstore.open(root) as store:
        file = store.put(source).hash
        flip(objects(root)[0])
        if way == "check":
            assert store.check(read_data=True).problems
        else:
            with pytest.raises(IntegrityError):
                if way == "a stream":
                    b"".join(store.iter_range(file, 10, 800_000))
                elif way == "a file object":
                    with store.open(file) as opened:
                        opened.read()
                else:
                    list(store.get_many([(file, out)]))
        store.put(source)
        store.get(file, out)
        assert out.read_bytes() == CONTENT


def test_the_command_line_heals_and_says_so(worker: Worker, tmp_path: Path, source: Path) -> None:
    root, out = tmp_path / "store", tmp_path / "out"
    with xetstore.open(root) as store:
        file = store.put(source).hash

    def cli(*arguments: str) -> int:
        return worker.run("cli", arguments=["--store", str(root), *arguments]).code

    flip(objects(root)[0])
    assert cli("get", str(file), "-o", str(out)) == 4
    assert cli("check") == 4
    assert cli("put", str(source)) == 0
    assert cli("get", str(file), "-o", str(out)) == 0
    assert out.read_bytes() == CONTENT
    assert cli("check", "--read-data") == 0


# Through a server


def first_chunk(path: Path) -> Hash:
    return Hash(chunk_bytes(path.read_bytes()).digest(0))


def damaged_server_store(tmp_path: Path, source: Path) -> Path:
    with xetstore.open(tmp_path / "store") as store:
        store.put(source)
    return tmp_path / "store"


@pytest.mark.parametrize("cache", ["kept", "fresh"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_our_client_heals_a_server(tmp_path: Path, source: Path, damage: str, cache: str) -> None:
    """With a kept cache the client believes that all is stored; the refused shard makes it forget, and send it all."""
    out = tmp_path / "out"
    events: list[Event] = []

    def opened(name: str) -> Store:
        return xetstore.open(server.url, token=server.token("write"), cache=tmp_path / name, on_event=events.append)

    with ServerProcess(tmp_path / "store") as server:
        with opened("kept") as store:
            file = store.put(source).hash
        [path] = objects(tmp_path / "store")
        DAMAGES[damage](path)
        with opened(cache) as store:
            if damage not in SEEN_AT_ONCE:
                with pytest.raises(IntegrityError) as caught:
                    store.get(file, out)
                assert "put the file again" in str(caught.value.hint)
            events.clear()
            [report] = list(store.put_many([source]))
            assert (report.info.hash, report.new_bytes) == (file, len(CONTENT))
            assert any(isinstance(event, Forgotten) for event in events) == (cache == "kept")
            store.get(file, out)
            assert out.read_bytes() == CONTENT
    with EmbeddedCas.open(tmp_path / "store") as cas:
        assert cas.find_chunks(first_chunk(source)) is not None, "it is whole, and offered again"
        verify_invariants(cas)


def test_a_client_that_was_lied_to_makes_nobody_doubt_a_whole_xorb(tmp_path: Path, source: Path) -> None:
    """What a client says is a reason to look, and no more."""
    root = damaged_server_store(tmp_path, source)
    [path] = objects(root)
    with ServerProcess(root) as server:
        target, headers = f"/v1/xorbs/default/{path.name}", {"X-Xet-Suspect": "true"}
        for _ in range(3):
            assert server.request("HEAD", target, headers=headers, token=server.token("read")).status == 200
        assert server.request("HEAD", target, headers=headers).status == 401
        others = server.token("read", "others")
        flip(path)
        assert server.request("HEAD", target, headers=headers, token=others).status == 404
    with EmbeddedCas.open(root) as cas, cas.index.snapshot() as reader:
        assert not any(row.is_damaged for row in reader.xorbs_after(0))


def test_urls_of_an_object_that_was_replaced_are_refused(tmp_path: Path) -> None:
    """Its byte ranges are others: a client that gets 403 asks for a new reconstruction."""
    content = ramp(500_000) + text(300_000)
    (tmp_path / "source").write_bytes(content)
    with ServerProcess(tmp_path / "store") as server:
        token = server.token("write")
        with xetstore.open(server.url, token=token, cache=False) as store:
            file = store.put(tmp_path / "source", policy="lz4").hash

            def url() -> tuple[str, str]:
                told = server.request("GET", f"/v2/reconstructions/{file}", token=token).json()
                [[entry]] = told["xorbs"].values()
                span = entry["ranges"][0]["bytes"]
                return entry["url"], f"bytes={span['start']}-{span['end']}"

            def status(url: str, span: str) -> int:
                return server.request("GET", url.removeprefix(server.url), headers={"Range": span}).status

            old = url()
            assert status(*old) == 206
            objects(tmp_path / "store")[0].unlink()
            store.put(tmp_path / "source", policy="none")
            assert status(*old) == 403
            assert url()[0] != old[0]
            assert status(*url()) == 206
            assert status(url()[0], old[1]) in (206, 403)
            assert b"".join(store.iter_range(file, 1000, 700_000)) == content[1000:700_000]


# Hundreds of damages


@dataclass
class Life:
    """A store that is damaged, read, checked and healed, over and over."""

    root: Path
    folder: Path
    chance: random.Random
    opened: Callable[[], Store]
    contents: dict[Path, bytes] = field(default_factory=dict)
    hashes: dict[Path, Hash] = field(default_factory=dict)
    harms: int = 0

    def begin(self) -> None:
        noise = splitmix64(7, 300_000)
        for number, content in enumerate(
            (
                noise,
                noise[:150_000] + splitmix64(8, 100_000),
                text(100_000) + noise[200_000:],
                ramp(90_000),
                b"tiny",
            )
        ):
            path = self.folder / f"file {number}"
            path.write_bytes(content)
            self.contents[path] = content
        for group in self.groups(list(self.contents)):
            self.put(group)

    def groups(self, paths: list[Path]) -> list[list[Path]]:
        """The files in any order, some together."""
        self.chance.shuffle(paths)
        groups: list[list[Path]] = [[]]
        for path in paths:
            if groups[-1] and self.chance.random() < 0.5:
                groups.append([])
            groups[-1].append(path)
        return groups

    def put(self, paths: list[Path]) -> None:
        with self.opened() as store:
            for report in store.put_many(paths):
                self.hashes[report.path] = report.info.hash

    def failing(self) -> list[Path]:
        """The files that do not come back; what does come back is right."""
        failed = []
        out = self.folder / "out"
        with self.opened() as store:
            for path, content in self.contents.items():
                try:
                    store.get(self.hashes[path], out)
                except XetError:
                    failed.append(path)
                else:
                    assert out.read_bytes() == content
        return failed

    def harm(self) -> None:
        paths = objects(self.root)
        for path in self.chance.sample(paths, min(len(paths), self.chance.randint(2, 6))):
            if path.exists():
                self.chance.choice((flip, flip, flip, cut, remove, overwrite))(path, self.chance)
                self.harms += 1

    def round(self, *, checked: bool) -> int:
        """Damage, see it, put again what was lost: how many files that were.

        After a check that reads everything one put is enough. A read stops at the first damage that it finds.
        """
        self.harm()
        if self.chance.random() < 0.3:
            # A put that knows nothing of it must not be fooled by what can be seen, and must not make it worse.
            self.put([self.chance.choice(list(self.contents))])
        if checked:
            with EmbeddedCas.open(self.root) as cas:
                check(cas, read_data=True)
        lost = failed = self.failing()
        for _ in range(1 if checked else len(objects(self.root))):
            for group in self.groups(failed):
                self.put(group)
            failed = self.failing()
        assert failed == []
        return len(lost)


def test_hundreds_of_damages_are_healed_by_putting_what_they_affect(tmp_path: Path) -> None:
    life = Life(tmp_path / "store", tmp_path, random.Random(11), lambda: xetstore.open(tmp_path / "store"))
    life.begin()
    lost = sum(life.round(checked=number % 2 == 0) for number in range(60))
    assert life.harms > 100
    assert lost > 40
    with EmbeddedCas.open(life.root) as cas:
        # What no read has noticed lies in parts of xorbs that no file needs, or is nonce and padding.
        for problem in check(cas, read_data=True).problems:
            assert problem.name.startswith("xorb")
    assert life.failing() == []


def test_damages_of_a_served_store_are_healed_by_our_client(tmp_path: Path) -> None:
    root = tmp_path / "store"
    EmbeddedCas.open(root).close()
    options: dict[str, Any] = {"cache": tmp_path / "cache"}
    # One worker: another one may remember a footer that is damaged by now, and so give a file that this one cannot.
    with ServerProcess(root, "--workers", "1") as server:
        token = server.token("write")
        life = Life(root, tmp_path, random.Random(12), lambda: xetstore.open(server.url, token=token, **options))
        life.begin()
        assert sum(life.round(checked=number % 2 == 0) for number in range(12)) > 8
