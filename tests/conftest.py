"""How Hypothesis runs: the same every time, less with ``--hypothesis-profile brief``, random and long with ``long``.
And that no test reads, or writes, what belongs to the user who runs it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import postgres as postgres_server
from tests.support import seaweed as s3_server
from xetstore.testing import FakeClock

for name, examples in {"brief": 20, "usual": 200, "long": 200_000}.items():
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        derandomize=name != "long",
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("usual")


@pytest.fixture(autouse=True, scope="session")
def _nothing_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the tests' own, and no store or token that the user's environment names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XET_CACHE", str(tmp_path_factory.mktemp("cache", numbered=True) / "xetstore"))
        patch.setenv("HF_TOKEN_PATH", str(Path(os.devnull)))
        for name in ("XET_STORE", "XET_TOKEN", "XET_TOKEN_FILE", "XET_ALLOW_HTTP", "HF_TOKEN", "HF_ENDPOINT"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True, scope="session")
def _control_c_is_heard() -> Iterator[None]:
    """A shell lets what it starts in the background ignore SIGINT, and its children do so too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("hypothesis_profile") == "long":
        for item in items:
            item.add_marker(pytest.mark.timeout(0))


@pytest.fixture(scope="session")
def seaweed() -> Iterator[s3_server.Seaweed]:
    """A real S3 server, SeaweedFS: started once, if a test asks for it. A test that kills it starts it again."""
    with s3_server.running() as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.PostgresServer]:
    """A PostgreSQL server for all tests of a session, started for the first one that asks."""
    if postgres_server.find_programs() is None:
        pytest.skip(postgres_server.MISSING)
    with postgres_server.running() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: postgres_server.PostgresServer) -> Iterator[str]:
    """The URL of an empty PostgreSQL database, of this test alone."""
    if not postgres.is_running:
        postgres.start()
    with postgres.database() as url:
        yield url
