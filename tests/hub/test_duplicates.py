"""Copies of repositories and of files: the same history, and grants of exactly what the copier could read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import engines
from tests.support.hubs import ALICE, BOB, BOB_READING, create, opened_hub
from xetstore.errors import (
    ExistsError,
    ForbiddenError,
    GatedError,
    NotFoundError,
    RevisionNotFoundError,
    UnauthenticatedError,
    UnprocessableError,
    UsageError,
)
from xetstore.hub.discussions import Discussions
from xetstore.hub.duplicates import MAX_FILES, GivenFile, duplicate, give_files
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.operations import AddFile, AddPointer, Delete
from xetstore.hub.repository import Repository
from xetstore.hub.rights import ANONYMOUS, Actor, Right
from xetstore.hub.service import EmbeddedHub
from xetstore.protocol.hashes import Hash
from xetstore.testing import FakeClock
from xetstore.testing.samples import make_sample, random_bytes, upload

ENGINES = engines.BOTH


@pytest.fixture
def hub(engine: str, root: Path, request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[EmbeddedHub]:
    with opened_hub(engine, root, request, clock) as hub:
        yield hub


def named(name: str, kind: Kind = Kind.MODELS) -> RepositoryName:
    return RepositoryName.parse(name, kind)


def stored(repository: Repository, seed: int) -> GivenFile:
    data = random_bytes(2000, seed)
    return GivenFile(upload(repository.cas, make_sample(data)), hashlib.sha256(data).digest())


def source_of(hub: EmbeddedHub, visibility: str | None = None) -> tuple[Repository, GivenFile, GivenFile]:
    """A repository with two branches, tags, and a pull request, and the files of its branches and of that."""
    source = create(hub, "Alice/bert", visibility=visibility)
    ours, proposed = stored(source, 1), stored(source, 2)
    source.commit("main", [AddPointer("a.bin", ours.sha256), AddFile("b/c", b"1")], "first")
    source.create_tag("v1", message="with words")
    source.create_branch("dev/x")
    source.commit("dev/x", [Delete("b/c"), AddFile("d", b"2")], "on a branch")
    source.commit("main", [AddFile("b/c", b"3")], "second")
    source.create_tag("plain", "main")
    source.commit("main", [AddPointer("p.bin", proposed.sha256)], "a proposal", create_pull_request=True)
    return source, ours, proposed


def test_a_duplicate_has_the_same_branches_tags_and_history(hub: EmbeddedHub) -> None:
    source, ours, _ = source_of(hub)
    copy = duplicate(hub.repository(BOB, Kind.MODELS, "alice/bert", Right.READ), named("bob/copy"))
    assert (copy.name.id, copy.right, copy.row.visibility) == ("bob/copy", Right.ADMIN, "public")
    assert copy.refs() == [ref for ref in source.refs() if not ref.name.startswith("refs/pr/")]
    for text in ("main", "dev/x", "v1", "plain"):
        theirs, revision = source.revision(text), copy.revision(text)
        assert revision == theirs
        assert copy.log(revision, limit=10) == source.log(theirs, limit=10)
        entries = copy.entries(revision, recursive=True)
        assert entries == source.entries(theirs, recursive=True)
        paths = [entry.path for entry in entries]
        assert copy.last_changes(revision, paths) == source.last_changes(theirs, paths)
    assert copy.cas.stat(ours.file).size == 2000
    copy.commit("main", [AddFile("e", b"5"), AddPointer("again.bin", ours.sha256)], "goes on")
    copy.create_branch("other", "v1")
    copy.commit("other", [AddFile("e", b"6")], "leaves the line")
    assert source.revision().title == "second"
    hub.delete(ALICE, Kind.MODELS, "Alice/bert")
    assert copy.entry(copy.revision(), "again.bin").file == ours.file
    assert copy.cas.stat(ours.file).size == 2000


def test_a_duplicate_has_nothing_of_pull_requests(hub: EmbeddedHub) -> None:
    source, _, proposed = source_of(hub)
    tip = source.revision("refs/pr/1")
    copy = duplicate(source, named("Alice/copy"))
    with pytest.raises(NotFoundError):
        copy.cas.stat(proposed.file)
    for text in ("refs/pr/1", tip.id):
        with pytest.raises(RevisionNotFoundError):
            copy.revision(text)
    assert Discussions(copy).open("the first here").number == 1


def test_a_duplicate_is_as_visible_and_gated_as_its_source(hub: EmbeddedHub) -> None:
    source_of(hub, visibility="private")
    hub.update(ALICE, Kind.MODELS, "Alice/bert", gated="manual")
    source = hub.repository(ALICE, Kind.MODELS, "Alice/bert", Right.READ)
    copy = duplicate(source, named("Alice/copy"))
    assert (copy.row.visibility, copy.row.gated) == ("private", "manual")
    assert duplicate(source, named("Alice/open"), visibility="public").row.visibility == "public"
    with pytest.raises(UsageError):
        duplicate(source, named("Alice/odd"), visibility="odd")


def test_who_may_duplicate_where(hub: EmbeddedHub) -> None:
    source, _, _ = source_of(hub)
    create(hub, "bob/taken", actor=BOB)
    with pytest.raises(ExistsError):
        duplicate(hub.repository(BOB, Kind.MODELS, "Alice/bert"), named("bob/TAKEN"))
    for actor, error in ((BOB, ForbiddenError), (BOB_READING, ForbiddenError), (ANONYMOUS, UnauthenticatedError)):
        with pytest.raises(error):
            duplicate(hub.repository(actor, Kind.MODELS, "Alice/bert"), named("Alice/copy"))
    hub.update(ALICE, Kind.MODELS, "Alice/bert", gated="auto")
    with pytest.raises(GatedError):
        duplicate(hub.repository(BOB, Kind.MODELS, "Alice/bert"), named("bob/copy"))
    assert source.row.gated is None


def test_files_are_given_to_those_who_could_read_them(hub: EmbeddedHub) -> None:
    source, ours, _ = source_of(hub)
    other, foreign = create(hub, "Alice/other"), stored(create(hub, "Alice/hidden", visibility="private"), 9)
    target = create(hub, "bob/target", actor=BOB)
    seen = hub.repository(BOB, Kind.MODELS, "Alice/bert", Right.READ)
    swapped, unknown = GivenFile(ours.file, foreign.sha256), GivenFile(Hash(b"\7" * 32), b"\7" * 32)
    assert give_files(seen, target, [swapped, ours, foreign, unknown]) == [swapped, foreign, unknown]
    target.commit("main", [AddPointer("x.bin", ours.sha256)], "takes it")
    assert target.entry(target.revision(), "x.bin").file == ours.file
    with pytest.raises(UnprocessableError):
        target.commit("main", [AddPointer("y.bin", foreign.sha256)], "cannot take it")
    with pytest.raises(NotFoundError):
        target.cas.stat(foreign.file)
    with pytest.raises(UnprocessableError):
        give_files(seen, target, [ours] * (MAX_FILES + 1))
    for actor in (BOB_READING, Actor(name="Alice", user_id=1)):
        with pytest.raises(ForbiddenError):
            give_files(source, hub.repository(actor, Kind.MODELS, "Alice/other"), [ours])
    assert give_files(source, hub.repository(BOB, Kind.MODELS, "Alice/other"), [ours]) == []  # for a pull request
    assert other.cas.stat(ours.file).size == 2000
