"""A store that is moved, replaced or loses its index while it is open: nothing is acknowledged until it is back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.live import ServerProcess, until
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.errors import NotFoundError, UnavailableError
from xetstore.protocol.hashes import Hash
from xetstore.remote.http import HttpCas
from xetstore.remote.retry import Patience
from xetstore.remote.tokens import FixedToken
from xetstore.remote.transport import Transport
from xetstore.store import Store
from xetstore.testing import make_sample, random_bytes, read_back, upload


@dataclass(frozen=True)
class Harm:
    """What is done to a store in ``root``, with room ``aside``; and, where it can be, how it is undone."""

    do: Callable[[Path, Path], object]
    undo: Callable[[Path, Path], object] | None = None


def _replace(root: Path, aside: Path) -> None:
    shutil.copytree(root, aside / "copy")
    root.rename(aside / "old")
    (aside / "copy").rename(root)


def _replace_back(root: Path, aside: Path) -> None:
    root.rename(aside / "copy")
    (aside / "old").rename(root)


def _replace_index(root: Path, aside: Path) -> None:
    (root / "index.sqlite3").rename(aside / "index")
    shutil.copy(aside / "index", root / "index.sqlite3")


def _cut_index(root: Path, aside: Path) -> None:
    shutil.copy(root / "index.sqlite3", aside / "index")
    with (root / "index.sqlite3").open("r+b") as file:
        file.truncate(0)


HARMS = {
    "replaced": Harm(_replace, _replace_back),
    "renamed": Harm(lambda root, aside: root.rename(aside / "old"), lambda root, aside: (aside / "old").rename(root)),
    "index renamed": Harm(
        lambda root, aside: (root / "index.sqlite3").rename(aside / "index"),
        lambda root, aside: (aside / "index").rename(root / "index.sqlite3"),
    ),
    "index replaced": Harm(_replace_index, lambda root, aside: (aside / "index").replace(root / "index.sqlite3")),
    "index unlinked": Harm(lambda root, _: (root / "index.sqlite3").unlink()),
    "index cut": Harm(_cut_index),
}


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    folder = tmp_path / "aside"
    folder.mkdir()
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with EmbeddedCas.open(tmp_path / "store") as cas:
        upload(cas, make_sample(random_bytes(50_000, 1)))
    return tmp_path / "store"


@pytest.mark.parametrize("which", HARMS)
def test_a_store_in_this_process_takes_nothing_more(root: Path, aside: Path, which: str) -> None:
    harm = HARMS[which]
    before, later = make_sample(random_bytes(60_000, 2)), make_sample(random_bytes(60_000, 3))
    with EmbeddedCas.open(root) as cas:
        upload(cas, before)
        cas.ping()
        harm.do(root, aside)
        for act in (
            cas.ping,
            lambda: cas.put_xorb(later.xorb.hash, later.body),
            lambda: cas.put_shard(before.shard),
        ):
            with pytest.raises(UnavailableError):
                act()
        if harm.undo is None:
            return
        harm.undo(root, aside)
        cas.ping()
        assert read_back(cas, upload(cas, later)) == later.data
    with EmbeddedCas.open(root) as cas:
        assert read_back(cas, before.file.hash) == before.data
        assert read_back(cas, later.file.hash) == later.data
        assert check(cas).problems == (), "what could not be found meanwhile is not taken for damaged"
        verify_invariants(cas)


def test_what_was_begun_before_is_not_committed_after(root: Path, aside: Path) -> None:
    """The xorb was received into the old folder; the name that it would get leads into the new one."""
    sample = make_sample(random_bytes(60_000, 2))
    with EmbeddedCas.open(root) as cas, cas.receive_xorb(sample.xorb.hash) as receiver:
        receiver.write(sample.body)
        _replace(root, aside)
        with pytest.raises(UnavailableError):
            receiver.commit()
    for folder in (root, aside / "old"):
        with EmbeddedCas.open(folder) as cas:
            assert cas.totals().xorbs == 1
            verify_invariants(cas)


def test_a_transaction_that_was_begun_before_is_not_committed_after(root: Path, aside: Path) -> None:
    with EmbeddedCas.open(root) as cas:
        with pytest.raises(UnavailableError), cas.index.transaction() as writer:
            writer.renew_dedup_key(bytes(32), now=1, old=0)
            _replace(root, aside)
        with cas.index.snapshot() as reader:
            assert reader.dedup_key() is None


def test_no_connection_is_opened_to_another_index(root: Path, aside: Path) -> None:
    """A pool opens connections by path: one to the copy would be used after the store is back."""
    with EmbeddedCas.open(root) as cas:
        with cas.index.snapshot():  # the one connection is in use
            _replace(root, aside)
            with pytest.raises(UnavailableError), cas.index.snapshot():
                raise AssertionError("it was opened")
            _replace_back(root, aside)
        cas.ping()


def test_another_store_opened_in_its_place_is_one_of_its_own(root: Path, aside: Path) -> None:
    sample = make_sample(random_bytes(60_000, 2))
    with EmbeddedCas.open(root) as old:
        _replace(root, aside)
        with EmbeddedCas.open(root) as new:
            assert read_back(new, upload(new, sample)) == sample.data
        with pytest.raises(NotFoundError):
            old.reconstruct(sample.file.hash)


# The same against a server


def ready(server: ServerProcess) -> int:
    """The status of readiness, once it is newer than the last answer that is kept for a second."""
    return server.request("GET", "/health/ready").status


@pytest.fixture
def server(root: Path) -> Iterator[ServerProcess]:
    with ServerProcess(root) as running:
        yield running


def put(server: ServerProcess, token: str, path: Path) -> Hash:
    """Upload by our client, which asks once."""
    with (
        Transport(patience=Patience(attempts=1)) as transport,
        Store(HttpCas(server.url, tokens=FixedToken(token), transport=transport)) as store,
    ):
        return store.put(path).hash


@pytest.mark.parametrize("which", HARMS)
def test_a_server_acknowledges_nothing_and_says_that_it_is_not_ready(
    server: ServerProcess, root: Path, aside: Path, tmp_path: Path, which: str
) -> None:
    harm = HARMS[which]
    paths = [tmp_path / str(number) for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(random_bytes(300_000, 10 + number))
    token = server.token("write")
    first = put(server, token, paths[0])
    assert ready(server) == 200
    harm.do(root, aside)
    sample = make_sample(random_bytes(60_000, 3))
    answer = server.request("POST", f"/v1/xorbs/default/{sample.xorb.hash}", body=sample.body, token=token)
    assert answer.status == 503, answer.body
    assert str(root) not in answer.body.decode(), "where the store lies is no stranger's business"
    answer = server.request("POST", "/v1/shards", body=sample.shard.serialize(), token=token)
    assert answer.status in (400, 503), answer.body
    until_ready(server, 503)
    with pytest.raises(UnavailableError):
        put(server, token, paths[1])
    if harm.undo is None:
        return
    harm.undo(root, aside)
    until_ready(server, 200)
    last = put(server, token, paths[2])
    with EmbeddedCas.open(root) as cas:
        assert read_back(cas, first) == paths[0].read_bytes()
        assert read_back(cas, last) == paths[2].read_bytes()
        assert check(cas, read_data=True).problems == ()


def until_ready(server: ServerProcess, status: int) -> None:
    """Wait until readiness has this status: the answer of a second ago may be given once more."""
    until(lambda: ready(server) == status)
