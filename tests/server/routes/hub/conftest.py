"""A server with people, for the tests of a module."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator

import pytest

from tests.server.routes.hub.people import People, people


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    with people(tmp_path_factory.mktemp("hub")) as there:
        yield there


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def new_repo(town: People, numbers: Iterator[int]) -> Callable[..., str]:
    """Makes a repository of alice, under a name that no other test has."""

    def make(**more: object) -> str:
        name = f"alice/repo-{next(numbers)}"
        town.api().create_repo(name, **more)
        return name

    return make


@pytest.fixture
def repo(new_repo: Callable[..., str]) -> str:
    return new_repo()


@pytest.fixture
def asked(town: People) -> Iterator[Callable[[], list[str]]]:
    """Tells the requests since it was last asked, as the server's log has them: method and path."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            method, path, *_ = record.getMessage().split(" ")
            lines.append(f"{method} {path.partition('?')[0]}")

    def told() -> list[str]:
        found, lines[:] = list(lines), []
        return found

    log = logging.getLogger("xetstore.access")
    handler, level = Kept(), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield told
    log.removeHandler(handler)
    log.setLevel(level)
