"""Fixtures of the server's tests: a store, and a server over it, of the deployments that a module says it is for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import deployments
from tests.support.live import LiveServer
from xetstore.cas.service import EmbeddedCas


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    deployments.deployments_of(metafunc)


@pytest.fixture(scope="module")
def deployment(request: pytest.FixtureRequest) -> deployments.Deployment:
    """The deployment of a test."""
    if request.param == deployments.DIRECTORY:
        return deployments.Deployment()
    return deployments.Replicas(request.getfixturevalue("seaweed"), request.getfixturevalue("postgres"))


@pytest.fixture
def one_server() -> None:
    """Run a test on one server over a directory alone, because it looks into that."""


@pytest.fixture
def cas(tmp_path: Path, deployment: deployments.Deployment) -> Iterator[EmbeddedCas]:
    with deployment.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def server(cas: EmbeddedCas, deployment: deployments.Deployment) -> Iterator[LiveServer]:
    with deployment.serve(cas) as running:
        yield running
