"""A hub with two users, ann and bob, their clients, and repositories that no other test uses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.hub import Hub, HubClient
from tests.support.proxy import Proxy, proxy
from tests.support.strategies import splitmix64

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LARGE = 3_000_000
"""The bytes of a file that goes the way of large ones, of a few dozen chunks."""

NewRepository = Callable[..., str]
"""Makes a repository of ann's, of a ``kind`` (``model``), perhaps ``private``; its id."""

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub") / "store") as running:
        yield running


@pytest.fixture(scope="session")
def ann_token(hub: Hub) -> str:
    return hub.add_user("ann")


@pytest.fixture(scope="session")
def bob_token(hub: Hub) -> str:
    return hub.add_user("bob")


@pytest.fixture(scope="module")
def ann(hub: Hub, ann_token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubClient]:
    with HubClient(hub.endpoint, tmp_path_factory.mktemp("ann"), ann_token) as client:
        yield client


@pytest.fixture(scope="module")
def bob(hub: Hub, bob_token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubClient]:
    """A user without any right at what is ann's."""
    with HubClient(hub.endpoint, tmp_path_factory.mktemp("bob"), bob_token) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubClient]:
    """A caller without a token."""
    with HubClient(hub.endpoint, tmp_path_factory.mktemp("stranger")) as client:
        yield client


@pytest.fixture(scope="module")
def _recorded(hub: Hub) -> Iterator[Proxy]:
    with proxy(hub.endpoint) as running:
        yield running


@pytest.fixture
def recorded(_recorded: Proxy) -> Proxy:
    """The requests of ``watched``, from the start of the test on."""
    _recorded.seen.clear()
    return _recorded


@pytest.fixture(scope="module")
def watched(_recorded: Proxy, ann_token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubClient]:
    """A client of ann's whose requests are noted."""
    with HubClient(_recorded.endpoint, tmp_path_factory.mktemp("watched"), ann_token) as client:
        yield client


@pytest.fixture
def new_repository(ann: HubClient) -> NewRepository:
    def new(kind: str = "model", private: bool = False) -> str:
        def create(api: HfApi, repo: str, kind: str, private: bool) -> str:
            sdk = "static" if kind == "space" else None
            return api.create_repo(repo, repo_type=kind, private=private, space_sdk=sdk).repo_id

        return str(ann.call(create, unused("repository"), kind, private))

    return new


@pytest.fixture
def repo(new_repository: NewRepository) -> str:
    """A public model of ann's, just made."""
    return new_repository()


def unused(word: str, owner: str = "ann") -> str:
    """A name that no other test of this process has: ``ann/repository-3``."""
    return f"{owner}/{word}-{next(_numbers)}"


def content(size: int = LARGE) -> bytes:
    """Bytes that no other test has."""
    return splitmix64(7_000_000 + next(_numbers), size)


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., str]:
    """Makes a folder ``name`` of files by their path and content; its path."""

    def make(contents: dict[str, bytes], name: str = "folder") -> str:
        for path, data in contents.items():
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        return str(tmp_path / name)

    return make
