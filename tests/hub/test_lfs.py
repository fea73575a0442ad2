"""Large files that come in parts: any process takes any part, and any of them puts the file together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.support import engines
from tests.support.clients import at_once
from tests.support.strategies import splitmix64
from xetstore.errors import HashMismatchError, RepositoryNotFoundError, UnprocessableError
from xetstore.hub.arrivals import arrive
from xetstore.hub.lfs import LargeFiles
from xetstore.hub.names import Kind, RepositoryName
from xetstore.hub.operations import AddPointer
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub
from xetstore.testing import FakeClock, read_back

ENGINES = engines.BOTH

DATA = splitmix64(1, 1_000_000)
SHA256 = hashlib.sha256(DATA).digest()
PART = 300_000
NUMBERS = range(1, 5)
BERT = RepositoryName(Kind.MODELS, "alice", "bert")


@pytest.fixture
def hubs(open_store: engines.OpenStore, clock: FakeClock) -> Iterator[list[EmbeddedHub]]:
    """Two processes, as far as the store can tell."""
    with open_store(clock=clock) as first, open_store(clock=clock) as second:
        found = [EmbeddedHub(first), EmbeddedHub(second)]
        found[0].create(LOCAL, BERT)
        yield found


@pytest.fixture
def files(hubs: list[EmbeddedHub]) -> list[LargeFiles]:
    """The large files of one repository, as each of them has it."""
    return [LargeFiles(hub, hub.repository(LOCAL, Kind.MODELS, "alice/bert").row) for hub in hubs]


def put(files: LargeFiles, number: int) -> str:
    part = DATA[(number - 1) * PART : number * PART]
    return files.put_part(SHA256, number, arrive(files.cas, part))


def put_all(files: list[LargeFiles]) -> dict[int, str]:
    return {number: put(files[number % 2], number) for number in NUMBERS}


def test_each_takes_parts_and_one_completes(hubs: list[EmbeddedHub], files: list[LargeFiles]) -> None:
    tags = put_all(files)
    files[1].complete(SHA256, len(DATA), tags)
    for each in files:
        assert read_back(each.cas, each.find([SHA256])[SHA256].hash) == DATA
        each.complete(SHA256, len(DATA), tags)
    repository = hubs[0].repository(LOCAL, Kind.MODELS, "alice/bert")
    repository.commit("main", [AddPointer("a.bin", SHA256)], "add")
    assert repository.entry(repository.revision(), "a.bin").size == len(DATA)


def test_both_complete_at_once(files: list[LargeFiles]) -> None:
    tags = put_all(files)
    at_once(lambda each: each.complete(SHA256, len(DATA), tags), files)
    assert read_back(files[0].cas, files[0].find([SHA256])[SHA256].hash) == DATA


def test_a_part_by_another_replaces_the_first(files: list[LargeFiles]) -> None:
    tags = put_all(files)
    other = files[0].put_part(SHA256, 2, arrive(files[0].cas, bytes(PART)))
    with pytest.raises(UnprocessableError, match="part 2"):
        files[1].complete(SHA256, len(DATA), tags)
    with pytest.raises(HashMismatchError):
        files[1].complete(SHA256, len(DATA), tags | {2: other})
    put(files[1], 2)
    files[0].complete(SHA256, len(DATA), tags)


def test_parts_of_another_repository_are_no_parts(hubs: list[EmbeddedHub], files: list[LargeFiles]) -> None:
    tags = put_all(files)
    other = LargeFiles(hubs[0], hubs[0].create(LOCAL, RepositoryName(Kind.MODELS, "bob", "bert")).row)
    with pytest.raises(UnprocessableError, match="missing"):
        other.complete(SHA256, len(DATA), tags)
    assert other.find([SHA256]) == {}


def test_a_part_for_a_repository_that_is_gone_is_refused(hubs: list[EmbeddedHub], files: list[LargeFiles]) -> None:
    part = arrive(files[1].cas, b"part")
    hubs[0].delete(LOCAL, Kind.MODELS, "alice/bert")
    with pytest.raises(RepositoryNotFoundError):
        files[1].put_part(SHA256, 1, part)
