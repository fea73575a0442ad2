"""Names that change while they are collected, at every rest of the collection: what is named is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support import engines
from tests.support.hubs import ALICE, create, opened_hub, uploaded
from xetstore.cas.check import verify_invariants
from xetstore.cas.grace import Grace
from xetstore.cas.lease import Lease
from xetstore.cas.throttle import Throttle
from xetstore.errors import NotFoundError, UnavailableError, UnprocessableError
from xetstore.hub.buckets import Bucket, DropFile, PutFile
from xetstore.hub.check import verify_names
from xetstore.hub.collecting import collect_names, history
from xetstore.hub.discussions import Discussions
from xetstore.hub.duplicates import duplicate
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.operations import AddFile, AddPointer, Copy, Delete
from xetstore.hub.repository import Repository
from xetstore.hub.service import EmbeddedHub
from xetstore.hub.undeleting import undelete_files, undelete_ref, undelete_repository
from xetstore.protocol.hashes import Hash
from xetstore.testing import FakeClock
from xetstore.testing.samples import random_bytes

ENGINES = engines.BOTH
GRACE = Grace(undelete=100)
MOST_RESTS = 80
LARGE = hashlib.sha256(random_bytes(2000, 1)).digest()


class Beside(Throttle):
    """Rests never, and calls once at its rest of that number."""

    def __init__(self, at: int, call: Callable[[], object]) -> None:
        super().__init__()
        self._left = at
        self._call = call

    @property
    def is_done(self) -> bool:
        return self._left <= 0

    def rest(self) -> None:
        self._left -= 1
        if not self._left:
            self._call()


@pytest.fixture
def hub(
    engine: str, root: Path, request: pytest.FixtureRequest, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmbeddedHub]:
    monkeypatch.setattr(history, "_COMMITS", 1)  # each order of commits is seen
    with opened_hub(engine, root, request, clock) as hub:
        yield hub


def with_garbage(hub: EmbeddedHub, name: str, clock: FakeClock) -> tuple[Repository, str]:
    """A repository with a history that can be given back no more, and the id of the commit that was its tip."""
    repository = create(hub, name)
    uploaded(repository, 2000, 1)
    repository.commit("main", [AddFile("b/c/x", b"1"), AddPointer("a.bin", LARGE)], "one")
    old, _ = repository.commit("main", [AddFile("b/c/y", b"2"), AddFile("z", b"3")], "two")
    repository.commit("main", [Delete("b/c/x"), Delete("a.bin"), Delete("z")], "three")
    repository.squash("main", "all of it")
    clock.advance(101)
    return repository, old.id


def collected(hub: EmbeddedHub, repository: Repository, at: int, act: Callable[[], object]) -> bool:
    """Collect this repository, and no other one; ``act`` at a rest of that number. False if there was none."""
    others = "UPDATE repository SET collected_at = 1e18 WHERE id <> :id"
    hub.change(lambda writer, _: writer.connection.change(others, {"id": repository.row.id}))
    beside = Beside(at, act)
    with Lease.take(hub.cas.index, "collect") as lease:  # type: ignore[union-attr]
        collect_names(hub, lease, GRACE, beside)
    return beside.is_done


def again(repository: Repository, _: str) -> None:
    """The same trees and files once more, and the large one, which is uploaded before."""
    uploaded(repository, 2000, 1)
    repository.commit("main", [AddFile("b/c/x", b"1"), AddPointer("a.bin", LARGE), AddFile("z", b"3")], "again")


def squash(repository: Repository, old: str) -> None:
    repository.create_branch("again", old)
    repository.squash("again", "all of the old one")
    repository.delete_branch("again")


def delete_and_undelete(repository: Repository, old: str) -> None:
    """A repository that is gone for a moment."""
    repository.hub.delete(ALICE, Kind.MODELS, repository.name.id)
    undelete_repository(repository.hub, ALICE, repository.name)
    repository.create_branch("again", old)


ACTIONS: Final[dict[str, Callable[[Repository, str], object]]] = {
    "branch": lambda repository, old: repository.create_branch("again", old),
    "tag": lambda repository, old: repository.create_tag("again", old, "with words"),
    "copy": lambda repository, old: repository.commit("main", [Copy("d", "b", old), Copy("e", "a.bin", old)], "copy"),
    "again": again,
    "squash": squash,
    "pull request": lambda repository, old: (
        repository.create_branch("again", old),
        repository.commit("again", [AddFile("p", b"p")], "proposed", create_pull_request=True),
        Discussions(repository).open("another", is_pull_request=True),
    ),
    "undelete": lambda repository, old: undelete_ref(repository, "main", to="again"),
    "delete": delete_and_undelete,
    "duplicate": lambda repository, old: (
        repository.create_branch("again", old),
        duplicate(repository, RepositoryName(Kind.MODELS, "Alice", f"{repository.name.name}-2")),
    ),
}


def test_a_repository_that_is_given_back_before_its_end_keeps_its_files(hub: EmbeddedHub, clock: FakeClock) -> None:
    """Several end by one page: the last of them can be given back until its turn comes."""
    first, repository = sorted((create(hub, f"Alice/{name}") for name in "ab"), key=lambda each: each.row.id)
    file = uploaded(repository, 2000, 1)
    repository.commit("main", [AddPointer("a.bin", LARGE)], "one")
    for each in (first, repository):
        hub.delete(ALICE, Kind.MODELS, each.name.id)
    clock.advance(101)
    beside = Beside(1, lambda: undelete_repository(hub, ALICE, repository.name))
    with Lease.take(hub.cas.index, "collect") as lease:  # type: ignore[union-attr]
        report = collect_names(hub, lease, GRACE, beside)
    assert beside.is_done
    assert report.repositories == 1
    with hub.snapshot() as reader:
        assert reader.granted(repository.row.namespace, [file])
    assert verify_names(hub) == []
    verify_invariants(hub.cas)


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_named_beside_a_collection_is_whole(
    hub: EmbeddedHub, clock: FakeClock, action: str, engine: str
) -> None:
    done = refused = 0
    # The second engine takes a fifth of the moments: at each of them one transaction is alone, on both.
    for at in range(1, MOST_RESTS, 1 if engine == engines.SQLITE else 5):
        repository, old = with_garbage(hub, f"Alice/r{at}", clock)

        def act(repository: Repository = repository, old: str = old) -> None:
            nonlocal done, refused
            try:
                ACTIONS[action](repository, old)
                done += 1
            except (NotFoundError, UnprocessableError, UnavailableError):
                refused += 1

        if not collected(hub, repository, at, act):
            break
        assert verify_names(hub) == [], at
    else:
        raise AssertionError("more rests than were thought of")
    assert at > 10
    verify_invariants(hub.cas)
    assert done > 0 or action == "undelete"  # what is over is noted before the first rest
    if action in ("branch", "tag", "copy", "squash", "undelete", "pull request"):
        assert refused > 0
    if action == "again":
        assert refused == 0


def test_a_file_of_a_bucket_that_comes_back_beside_a_collection_can_be_read(hub: EmbeddedHub, clock: FakeClock) -> None:
    for at in range(1, MOST_RESTS):
        bucket = Bucket(create(hub, f"Alice/b{at}", Kind.BUCKETS))
        file = uploaded(bucket.repository, 2000, 1)
        bucket.change([PutFile("a", file)])
        bucket.change([DropFile("a")])
        clock.advance(101)

        def act(bucket: Bucket = bucket, file: Hash = file) -> None:
            try:
                undelete_files(bucket, "a")
            except NotFoundError:
                uploaded(bucket.repository, 2000, 1)
                assert bucket.change([PutFile("a", file)]) == []

        if not collected(hub, bucket.repository, at, act):
            break
        assert verify_names(hub) == [], at
    assert at > 4
