"""Stores and samples that the tests of cas share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from xetstore.cas import EmbeddedCas
from xetstore.testing import FakeClock, Sample, make_sample, random_bytes


@pytest.fixture
def cas(root: Path, clock: FakeClock) -> Iterator[EmbeddedCas]:
    with EmbeddedCas.open(root, clock=clock) as cas:
        yield cas


@pytest.fixture
def sample() -> Sample:
    return make_sample(random_bytes(400_000, 1), before=random_bytes(150_000, 2))
