"""Deleted content is nowhere on the disk of a store, and a rewrite that is killed at any moment loses nothing."""

from __future__ import annotations

import time
from pathlib import Path

from tests.cas.deleting import NO_GRACE, expect_contents, expect_sound, objects
from tests.support.process import Worker
from tests.support.strategies import splitmix64
from xetstore import Store
from xetstore.cas import EmbeddedCas
from xetstore.cas.collecting import collect
from xetstore.cas.lease import Lease
from xetstore.cas.rewriting import rewrite
from xetstore.protocol.hashes import Hash

KIB = 1 << 10
ROUNDS = 12


def care(cas: EmbeddedCas, rounds: int = 4) -> None:
    """Collect and rewrite without a grace, until all that is due has gone."""
    for _ in range(rounds):
        time.sleep(0.01)  # what is done at one moment is due at a later one
        lease = Lease.take(cas.index, "collect")
        assert lease is not None
        with lease:
            collect(cas, lease, NO_GRACE)
            rewrite(cas, lease, grace=NO_GRACE)


def places_of(root: Path, marker: bytes) -> list[str]:
    """The files below a folder that have these bytes."""
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and marker in path.read_bytes()]


def test_deleted_content_is_nowhere_on_the_disk(tmp_path: Path, scratch: Path) -> None:
    root, marker = scratch / "store", splitmix64(7, 64)
    contents = {"kept": splitmix64(1, 300 * KIB), "gone": splitmix64(2, 200 * KIB) + marker + splitmix64(3, 200 * KIB)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with EmbeddedCas.open(root) as cas:
        store = Store(cas)
        kept, gone = (report.info.hash for report in store.put_many([tmp_path / name for name in contents]))
        assert len(objects(cas, "xorbs/")) == 1, "both are in one xorb"
        assert len(places_of(root, marker)) == 1
        assert places_of(root, gone.digest)
        store.delete(gone)
        care(cas)
        assert places_of(root, marker) == [], "the store is open still"
        expect_sound(cas)
        expect_contents(cas, {kept: contents["kept"]})
    # Its log is gone with the last process that has the index open, and so are hashes in old pages of it.
    assert places_of(root, marker) == []
    named = places_of(root, gone.digest)
    assert all(place.startswith("snapshots/") for place in named), named


def test_with_everything_deleted_the_store_is_as_small_as_an_empty_one(tmp_path: Path, scratch: Path) -> None:
    with EmbeddedCas.open(scratch / "store") as cas:
        store = Store(cas)
        paths = []
        for number in range(5):
            paths.append(tmp_path / str(number))
            paths[-1].write_bytes(splitmix64(number, 100 * KIB))
        hashes = [report.info.hash for report in store.put_many(paths)]
        for at in range(5):
            store.delete(hashes[at])
            care(cas, 1)
        care(cas)
        assert objects(cas, "xorbs/") == objects(cas, "shards/") == set()


def test_a_rewrite_killed_at_any_moment_loses_nothing(worker: Worker, scratch: Path) -> None:
    """Under load: files are put into the same store meanwhile."""
    root = scratch / "store"
    folder = scratch / "files"
    folder.mkdir()
    kept: dict[Hash, bytes] = {}
    killed = 0
    for number in range(ROUNDS):
        paths = {}
        for at in range(6):
            paths[folder / f"{number}-{at}"] = splitmix64(100 * number + at, 40 * KIB + at)
        for path, content in paths.items():
            path.write_bytes(content)
        put = {"call": "put", "store": str(root), "paths": [str(path) for path in paths]}
        moment = 0.5 * (number + 0.5) / ROUNDS  # it rewrites for a second
        rewritten, ended = worker.run_all({"call": "rewrite", "store": str(root), "kill_after": moment}, put)
        assert rewritten.code == 0 or rewritten.was_killed, rewritten.message
        killed += rewritten.was_killed
        if ended.error == "MissingXorbError":  # without a grace a xorb may go before its shard comes
            ended = worker.run(**put)  # type: ignore[arg-type]
        assert ended.code == 0, ended.message
        with EmbeddedCas.open(root) as cas:
            names = [Hash.parse(told["hash"]) for told in ended.told]
            kept |= dict(zip(names, (paths[Path(told["path"])] for told in ended.told), strict=True))
            expect_sound(cas)
            expect_contents(cas, kept)
            # Some of each put go, so that the next rewrite has much to do.
            _free(cas, names[::2])
            for name in names[::2]:
                del kept[name]
    assert killed
    with EmbeddedCas.open(root) as cas:
        _free(cas, [])
        care(cas)
        expect_sound(cas)
        expect_contents(cas, kept)


def _free(cas: EmbeddedCas, files: list[Hash]) -> None:
    """Delete files, and let another runner have the chore, whose last one was killed."""
    with cas.index.transaction() as writer:
        writer.revoke("default", files, now=cas.now())
        writer.connection.change("UPDATE chore SET expires_at = 0")
