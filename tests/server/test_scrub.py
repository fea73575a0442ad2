"""The scrub of a server: it is one of its chores, finds damage, and shows what it has read."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.live import live_server, until
from tests.support.objects import xorb_path, xorb_row
from xetstore.cas import EmbeddedCas
from xetstore.cas.lease import Lease
from xetstore.server.care import Care, chores_of
from xetstore.testing import make_sample, random_bytes, upload

SAMPLES = [make_sample(random_bytes(100_000, number)) for number in range(3)]


def test_a_server_reads_all_that_is_due_and_marks_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "store"
    with EmbeddedCas.open(root) as cas, live_server(cas) as server:
        for sample in SAMPLES:
            upload(cas, sample)
        path = xorb_path(root, SAMPLES[1].xorb.hash)
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), b"\xff\x00\xff", 5000)
        # The last run, as it seems, was long ago.
        lease = Lease.take(cas.index, "scrub")
        assert lease is not None
        with lease:
            lease.finish("{}")
        cas.index.change(lambda writer: writer.connection.change("UPDATE chore SET ended_at = 0"))
        server.site.soundness._max_age = 0
        value = server.site.metrics.registry.get_sample_value
        [scrub] = [chore for chore in chores_of(server.site) if chore.name == "scrub"]
        with closing(Care(cas.index, (replace(scrub, every_seconds=0.05),))) as care:
            care.start()
            until(lambda: (value("xetstore_scrub_problems_total") or 0) > 0)
        assert xorb_row(cas, SAMPLES[1].xorb.hash).is_damaged
        assert (value("xetstore_scrub_bytes_total") or 0) >= sum(len(sample.body) for sample in SAMPLES)
        assert value("xetstore_damaged_xorbs") == 1
        assert len([record for record in caplog.records if record.name == "xetstore.cas"]) == 1
        assert server.request("GET", "/health/ready").json()["status"] == "degraded"


def test_without_days_nothing_is_scrubbed(tmp_path: Path) -> None:
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas) as server:
        settings = replace(server.site.settings, scrub_days=0)
        assert "scrub" not in [chore.name for chore in chores_of(replace(server.site, settings=settings))]
