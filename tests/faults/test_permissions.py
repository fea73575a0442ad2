"""A store that this user may not write to, and files that it may not read. Root gives up its rights before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import xetstore
from tests.support.live import ServerProcess
from tests.support.process import Ended, Worker
from tests.support.strategies import splitmix64

Run = Callable[..., Ended]


@pytest.fixture
def run(worker: Worker) -> Run:
    """Calls that permissions bind."""
    return lambda call, **arguments: worker.run(call, **arguments, bound=True)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lock(folder: Path) -> dict[Path, bytes]:
    """Take away everybody's permission to write; what is there."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return contents(folder)


def unlock(folder: Path) -> None:
    """Let the owner write again."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def public(scratch: Path) -> Path:
    """A directory in which everybody may write."""
    folder = scratch / "public"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def readable(path: Path, size: int) -> Path:
    path.write_bytes(splitmix64(size, size))
    path.chmod(0o644)
    return path


@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "in use by its owner"])
def test_a_read_only_store_gives_and_does_not_take(run: Run, scratch: Path, public: Path, is_open: bool) -> None:
    source, other = readable(scratch / "source", 2_000_000), readable(scratch / "other", 100_000)
    root = scratch / "store"
    with xetstore.open(root) as store:
        file = str(store.put(source).hash)
        if not is_open:
            store.close()
        before = lock(root)
        got = run("get", store=str(root), file=file, out=str(public / "out"))
        assert (got.code, got.error, got.told) == (0, None, [{"verified": True}])
        assert (public / "out").read_bytes() == source.read_bytes()
        for path in (source, other):  # also what is stored already: it would be granted again
            refused = run("put", store=str(root), paths=[str(path)])
            assert (refused.code, refused.error, refused.told) == (5, "AccessDeniedError", [])
        assert run("look", store=str(root)).told == [{"problems": [], "notes": []}]
        assert run("cli", arguments=["--store", str(root), "put", str(other)]).code == 5
        assert run("cli", arguments=["--store", str(root), "check", "--read-data"]).code == 0
        assert contents(root) == before
        unlock(root)


def test_no_store_is_made_in_a_read_only_directory(run: Run, scratch: Path) -> None:
    source = readable(scratch / "source", 100)
    (scratch / "locked").mkdir()
    lock(scratch / "locked")
    refused = run("put", store=str(scratch / "locked" / "store"), paths=[str(source)])
    assert (refused.code, refused.error) == (5, "AccessDeniedError")
    assert list((scratch / "locked").iterdir()) == []


def test_a_file_that_may_not_be_read_is_refused(run: Run, scratch: Path, public: Path) -> None:
    secret = readable(scratch / "secret", 100)
    secret.chmod(0)
    refused = run("put", store=str(public / "store"), paths=[str(secret)])
    assert (refused.code, refused.error) == (5, "AccessDeniedError")
    assert str(secret) in refused.message
    assert run("look", store=str(public / "store")).told == [{"problems": [], "notes": []}]


def test_a_get_into_a_read_only_directory_is_refused(run: Run, scratch: Path) -> None:
    with xetstore.open(scratch / "store") as store:
        file = str(store.put(readable(scratch / "source", 300_000)).hash)
    lock(scratch / "store")
    locked = scratch / "locked"
    locked.mkdir()
    readable(locked / "out", 10)
    before = lock(locked)
    for out in (locked / "out", locked / "new"):
        refused = run("get", store=str(scratch / "store"), file=file, out=str(out))
        assert (refused.code, refused.error) == (5, "AccessDeniedError")
    assert contents(locked) == before


def test_damage_in_a_read_only_store_is_found_and_cannot_be_noted(run: Run, scratch: Path, public: Path) -> None:
    with xetstore.open(scratch / "store") as store:
        files = [store.put(readable(scratch / name, size)).hash for name, size in (("a", 90_000), ("b", 50_000))]
    next((scratch / "store" / "xorbs").glob("*/*")).unlink()
    before = lock(scratch / "store")
    try:
        for _ in range(2):
            [report] = run("look", store=str(scratch / "store")).told
            assert len(report["problems"]) == 1
        codes = [run("get", store=str(scratch / "store"), file=str(file), out=str(public / "o")).code for file in files]
        assert sorted(codes) == [0, 4]
        assert contents(scratch / "store") == before
    finally:
        unlock(scratch / "store")


def lock_with_keys(run: Run, root: Path) -> dict[Path, bytes]:
    """Lock a store of which a server has keys, which none but the owner may read."""
    assert run("cli", arguments=["token", "issue", "--scope", "read", "--store", str(root)]).code == 0
    before = lock(root)
    for path in (root / "access", *(root / "access").iterdir()):
        path.chmod(0o500 if path.is_dir() else 0o400)
    return before


def served(root: Path, file: str, path: str) -> tuple[bytes, int, str]:
    """A file of a store, and the status of a route of the names, as a server gives them that permissions bind."""
    with ServerProcess(root, "--auth", "none", "--workers", "1", bound=True) as server:
        with xetstore.open(server.url, cache=False) as store:
            data = b"".join(store.iter_range(file))
        return data, server.request("GET", path).status, server.log


def test_a_read_only_store_that_never_had_names_is_used_as_before(run: Run, scratch: Path) -> None:
    source = readable(scratch / "source", 300_000)
    with xetstore.open(scratch / "store") as store:
        file = str(store.put(source).hash)
    before = lock_with_keys(run, scratch / "store")
    try:
        for command in (["ls"], ["stat"], ["stat", file], ["check"], ["cat", file]):
            assert run("cli", arguments=["--store", str(scratch / "store"), *command]).code == 0
        data, status, log = served(scratch / "store", file, "/api/models")
        assert (data, status) == (source.read_bytes(), 404)
        assert "files are served, and no repositories" in log
        for command in (["repo", "create", "alice/bert"], ["ls", "xet://alice/bert"]):
            assert run("cli", arguments=["--store", str(scratch / "store"), *command]).code == 5
        assert contents(scratch / "store") == before
    finally:
        unlock(scratch / "store")


def test_a_read_only_store_with_names_gives_them(run: Run, scratch: Path) -> None:
    (scratch / "folder").mkdir()
    source = readable(scratch / "folder" / "a.txt", 300)
    root = scratch / "store"
    with xetstore.open(root) as store:
        file = str(store.put(source).hash)
        store.create_repo("alice/bert")
        store.repo("alice/bert").commit({"a.txt": source.read_bytes()}, message="first")
    before = lock_with_keys(run, root)
    try:
        ran = run("cli", arguments=["--store", str(root), "cat", "xet://alice/bert/a.txt"])
        assert ran.code == 0
        for command in (["check"], ["ls", "xet://alice/bert"], ["log", "xet://alice/bert"], ["repo", "list"]):
            assert run("cli", arguments=["--store", str(root), *command]).code == 0
        assert run("cli", arguments=["--store", str(root), "repo", "create", "alice/other"]).code == 5
        data, status, log = served(root, file, "/alice/bert/resolve/main/a.txt")
        assert (data, status) == (source.read_bytes(), 200)
        assert "no repositories" not in log
        assert contents(root) == before
    finally:
        unlock(root)
