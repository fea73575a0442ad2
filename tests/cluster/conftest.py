"""Two replicas behind nginx over PostgreSQL and SeaweedFS, started once for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.nginx import NGINX
from tests.support import cluster as clusters
from tests.support.cluster import Cluster
from tests.support.postgres import PostgresServer
from tests.support.seaweed import Seaweed


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, seaweed: Seaweed, postgres: PostgresServer) -> Iterator[Cluster]:
    if NGINX is None:
        pytest.skip("nginx is not installed: apt-get install nginx")
    with clusters.running(tmp_path_factory.mktemp("cluster"), seaweed, postgres) as running:
        yield running
