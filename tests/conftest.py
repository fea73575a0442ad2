"""How Hypothesis runs: quick and the same every time, or long and random with XETSTORE_FUZZ=long. And that no test
reads, or writes, what belongs to whoever runs it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

LONG = os.environ.get("XETSTORE_FUZZ") == "long"

settings.register_profile(
    "quick", max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", max_examples=200_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("long" if LONG else "quick")


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if LONG:
        for item in items:
            item.add_marker(pytest.mark.timeout(0))
