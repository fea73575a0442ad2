"""Buckets: pages of files by path, batches of which all is done that can be, and nothing is given away."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import engines
from tests.support.hubs import ALICE, BOB, BOB_READING, create, opened_hub, uploaded
from xetstore.errors import (
    EntryNotFoundError,
    ForbiddenError,
    NotFoundError,
    RepositoryNotFoundError,
    UnprocessableError,
)
from xetstore.hub.buckets import LAST_MS, MAX_OPERATIONS, Bucket, DropFile, Failure, Operation, PutFile
from xetstore.hub.names import Kind
from xetstore.hub.queries import BucketFile, BucketFolder, BucketTotals
from xetstore.hub.queries.buckets import behind_prefix
from xetstore.hub.rights import Actor, Right
from xetstore.hub.service import EmbeddedHub
from xetstore.protocol.hashes import Hash
from xetstore.testing import FakeClock

ENGINES = engines.BOTH


@pytest.fixture
def hub(engine: str, root: Path, request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[EmbeddedHub]:
    with opened_hub(engine, root, request, clock) as hub:
        yield hub


@pytest.fixture
def bucket(hub: EmbeddedHub) -> Bucket:
    return Bucket(create(hub, "Alice/logs", Kind.BUCKETS))


def as_seen_by(hub: EmbeddedHub, actor: Actor, name: str = "Alice/logs", right: Right = Right.READ) -> Bucket:
    return Bucket(hub.repository(actor, Kind.BUCKETS, name, right))


def put_empty(bucket: Bucket, *paths: str) -> None:
    assert not bucket.change([PutFile(path, Hash.ZERO) for path in paths])


def everything(bucket: Bucket, prefix: str = "", *, recursive: bool = True, limit: int = 1000) -> list[str]:
    """Paths of all pages; those of folders end with a slash."""
    paths: list[str] = []
    start: str | None = ""
    while start is not None:
        page = bucket.tree(prefix, recursive=recursive, start=start, limit=limit)
        assert len(page.entries) <= limit
        paths += [entry.path + "/" * isinstance(entry, BucketFolder) for entry in page.entries]
        start = page.next
    return paths


# --- Listings -------------------------------------------------------------------------------------------


def level_of(paths: list[str], prefix: str) -> list[str]:
    """The slow twin of a listing of one level."""
    cut = len(prefix) + (bool(prefix) and not prefix.endswith("/"))
    return sorted(
        {path if (slash := path.find("/", cut)) < 0 else path[: slash + 1] for path in paths if path.startswith(prefix)}
    )


PATHS = [
    "a",
    "a b/c",
    "a!",
    "a-b/x",
    "a.txt",
    "a/b",
    "a/b.txt",
    "a/c/d",
    "a/c/e",
    "a0",
    "aa/b",
    "b/c/d/e",
    "é/ü",
    "字/字/字",
]


def test_a_prefix_is_lexical_and_a_level_ends_at_the_next_slash(bucket: Bucket) -> None:
    put_empty(bucket, *PATHS)
    for prefix in ("", "a", "a/", "a/c", "a/c/", "a/b", "b", "é", "字/", "x", "a b", "/"):
        for limit in (1, 2, 1000):
            beginning = sorted(path for path in PATHS if path.startswith(prefix))
            assert everything(bucket, prefix, limit=limit) == beginning
            assert sorted(everything(bucket, prefix, recursive=False, limit=limit)) == level_of(PATHS, prefix)


def test_a_folder_lists_what_is_in_it_and_its_lexical_siblings(bucket: Bucket) -> None:
    put_empty(bucket, "logs/a", "logs/sub/b", "logs.json", "logs_old/c", "other")
    assert everything(bucket, "logs", recursive=False) == ["logs.json", "logs/a", "logs/sub/", "logs_old/"]
    assert everything(bucket, recursive=False) == ["logs.json", "logs/", "logs_old/", "other"]


part = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\"), min_size=1, max_size=3)
path = st.lists(part, min_size=1, max_size=4).map("/".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.lists(path, unique=True, max_size=12), path, st.integers(1, 5))
def test_every_listing_is_that_of_its_slow_twin(bucket: Bucket, paths: list[str], prefix: str, limit: int) -> None:
    bucket.change([DropFile(each) for each in everything(bucket)])
    refused = {failure.path for failure in bucket.change([PutFile(each, Hash.ZERO) for each in paths])}
    paths = [each for each in paths if each not in refused]
    for shown in ("", prefix, prefix[:1]):
        assert everything(bucket, shown, limit=limit) == sorted(each for each in paths if each.startswith(shown))
        assert sorted(everything(bucket, shown, recursive=False, limit=limit)) == level_of(paths, shown)


def test_the_text_behind_a_prefix_is_the_first_one() -> None:
    assert behind_prefix("a\ud7ff") == "a\ue000"
    assert behind_prefix("a\U0010ffff") == "b"
    assert behind_prefix("") > "\U0010ffff" * 256


def test_a_level_does_not_read_what_is_in_its_folders(bucket: Bucket) -> None:
    for first in range(0, 3000, 1000):
        put_empty(bucket, *(f"big/{number:05}" for number in range(first, first + 1000)))
    put_empty(bucket, "a", "z")
    assert everything(bucket, recursive=False) == ["a", "big/", "z"]
    assert len(everything(bucket, "big/", limit=700)) == 3000
    assert bucket.totals() == BucketTotals(3002, 0)


def test_a_prefix_that_no_database_takes_is_refused(bucket: Bucket) -> None:
    for text in ("\0", "a\ud800", "x" * 3000):
        with pytest.raises(UnprocessableError):
            bucket.tree(text)
        with pytest.raises(UnprocessableError):
            bucket.tree(start=text)


# --- Batches --------------------------------------------------------------------------------------------


def test_a_file_is_as_it_was_put(bucket: Bucket, clock: FakeClock) -> None:
    file = uploaded(bucket.repository, 1234)
    put = PutFile("a/b.txt", file, 1_700_000_000_123, "text/plain")
    assert bucket.change([put, PutFile("now", file)]) == []
    assert bucket.file("a/b.txt") == BucketFile("a/b.txt", file, 1234, 1_700_000_000_123, clock(), "text/plain")
    assert bucket.file("now").modified_ms == int(clock() * 1000)
    assert bucket.totals() == BucketTotals(2, 2468)
    assert [each.path for each in bucket.files(["now", "none", "a/b.txt", "a", "../x"])] == ["now", "a/b.txt"]
    with pytest.raises(EntryNotFoundError):
        bucket.file("a")


def test_the_last_operation_at_a_path_counts(bucket: Bucket) -> None:
    one, other = uploaded(bucket.repository, 10), uploaded(bucket.repository, 20)
    bucket.change([PutFile("a", one), PutFile("b", one), PutFile("c", one)])
    assert not bucket.change(
        [PutFile("a", other), DropFile("b"), PutFile("b", other), PutFile("c", other), DropFile("c")]
    )
    assert {each.path: each.file for each in bucket.files(["a", "b", "c"])} == {"a": other, "b": other}
    assert not bucket.change([DropFile("a"), DropFile("never there")])
    assert everything(bucket) == ["b"]


def test_what_can_be_done_is_done_and_the_rest_comes_back(bucket: Bucket) -> None:
    file = uploaded(bucket.repository)
    bad: list[Operation] = [
        PutFile("../a", file),
        PutFile("a//b", file),
        PutFile("a/.git/b", file),
        PutFile("a\\b", file),
        PutFile("", file),
        PutFile("x" * 1025, file),
        PutFile("nul\0", file),
        PutFile("half\ud800", file),
        PutFile("late", file, LAST_MS + 1),
        PutFile("type", file, content_type="a\r\nb: c"),
        DropFile("/"),
        PutFile("unknown", Hash(b"\7" * 32)),
    ]
    failures = bucket.change([bad[0], PutFile("good", file), *bad[1:], DropFile("none")])
    assert [failure.path for failure in failures] == [each.path for each in bad]
    assert all(failure.error for failure in failures)
    assert everything(bucket) == ["good"]


def test_a_batch_has_an_end(bucket: Bucket) -> None:
    operations: list[Operation] = [DropFile("a")] * (MAX_OPERATIONS + 1)
    with pytest.raises(UnprocessableError):
        bucket.change(operations)
    with pytest.raises(UnprocessableError):
        bucket.files([f"{number}" for number in range(MAX_OPERATIONS + 1)])
    assert bucket.change(operations[1:]) == []


def test_who_may_read_may_not_write(hub: EmbeddedHub, bucket: Bucket) -> None:
    for actor in (BOB, BOB_READING, Actor(name="Alice", user_id=1)):
        with pytest.raises(ForbiddenError):
            as_seen_by(hub, actor).change([PutFile("a", Hash.ZERO)])
    assert everything(bucket) == []


def test_batches_that_meet_at_the_same_paths_are_all_done(hub: EmbeddedHub, bucket: Bucket) -> None:
    source = create(hub, "Alice/bert")
    files = [uploaded(source, 100, seed) for seed in range(4)]

    def write(seed: int) -> None:
        rest = random.Random(seed)
        for _ in range(5):
            paths = rest.sample([f"{number}" for number in range(20)], 20)
            puts = [PutFile(path, rest.choice(files), source=(Kind.MODELS, "Alice/bert")) for path in paths]
            assert bucket.change([*puts, DropFile(paths[0])]) == []

    with ThreadPoolExecutor(4) as threads:
        for call in [threads.submit(write, seed) for seed in range(4)]:
            call.result()
    assert len(everything(bucket)) == 19


# --- Grants ---------------------------------------------------------------------------------------------


def test_a_file_of_another_namespace_is_as_if_it_did_not_exist(hub: EmbeddedHub, bucket: Bucket) -> None:
    secret = uploaded(create(hub, "Alice/secret", actor=ALICE, visibility="private"))
    elsewhere = Bucket(create(hub, "bob/mine", Kind.BUCKETS, BOB))
    [foreign] = elsewhere.change([PutFile("a", secret)])
    [missing] = elsewhere.change([PutFile("a", Hash(b"\7" * 32))])
    assert foreign.error.replace(str(secret), "") == missing.error.replace(str(Hash(b"\7" * 32)), "")
    with pytest.raises(NotFoundError):
        elsewhere.cas.stat(secret)


def test_a_copy_grants_what_the_copier_may_read(hub: EmbeddedHub, bucket: Bucket) -> None:
    open_file = uploaded(create(hub, "Alice/open"), 300, 3)
    target = Bucket(create(hub, "bob/copies", Kind.BUCKETS, BOB))
    assert target.change([PutFile("a", open_file, source=(Kind.MODELS, "alice/OPEN"))]) == []
    assert target.file("a").size == 300
    assert target.cas.stat(open_file).size == 300
    other = uploaded(bucket.repository, 400, 4)
    assert target.change([PutFile("b", other, source=(Kind.BUCKETS, "Alice/logs"))]) == []


def test_a_copy_from_what_is_private_or_missing_fails_alike(hub: EmbeddedHub, bucket: Bucket) -> None:
    hidden = create(hub, "Alice/hidden", Kind.BUCKETS, visibility="private")
    gated = create(hub, "Alice/gated")
    hub.update(ALICE, Kind.MODELS, "Alice/gated", gated="manual")
    secret, kept = uploaded(hidden, 500, 5), uploaded(gated, 600, 6)
    target = Bucket(create(hub, "bob/copies", Kind.BUCKETS, BOB))
    failures = target.change(
        [
            PutFile("a", secret, source=(Kind.BUCKETS, "Alice/hidden")),
            PutFile("b", secret, source=(Kind.BUCKETS, "Alice/missing")),
            PutFile("c", kept, source=(Kind.MODELS, "Alice/gated")),
            PutFile("d", secret, source=(Kind.BUCKETS, "Alice/logs")),
            PutFile("e", secret, source=(Kind.BUCKETS, "no name at all")),
        ]
    )
    assert failures == [Failure(path, failures[0].error) for path in "abcde"]
    assert everything(target) == []
    for file in (secret, kept):
        with pytest.raises(NotFoundError):
            target.cas.stat(file)


def test_the_empty_file_is_copied_from_where_it_is(hub: EmbeddedHub, bucket: Bucket) -> None:
    itself = (Kind.BUCKETS, "Alice/logs")
    assert len(bucket.change([PutFile("copy", Hash.ZERO, source=itself)])) == 1
    put_empty(bucket, "empty")
    assert bucket.change([PutFile("copy", Hash.ZERO, source=itself)]) == []
    assert everything(bucket) == ["copy", "empty"]


def test_a_bucket_is_deleted_with_its_files_and_grants(hub: EmbeddedHub, bucket: Bucket) -> None:
    file = uploaded(bucket.repository)
    bucket.change([PutFile("a", file)])
    hub.delete(ALICE, Kind.BUCKETS, "Alice/logs")
    with pytest.raises(RepositoryNotFoundError):
        bucket.change([PutFile("b", Hash.ZERO)])
    again = Bucket(create(hub, "Alice/logs", Kind.BUCKETS))
    assert everything(again) == []
    assert len(again.change([PutFile("a", file)])) == 1
