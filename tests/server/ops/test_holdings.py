"""The sums over a store, which a scrape shows: right, with their time, and made seldom."""

from __future__ import annotations

import re
import shutil
import threading
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.live import live_server
from tests.support.strategies import splitmix64
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import UnavailableError
from xetstore.records import Totals
from xetstore.server.ops import look as look_module
from xetstore.server.ops.holdings import Holdings, NamespaceSize
from xetstore.server.ops.look import Look
from xetstore.testing import make_sample, upload

TOTALS = Totals(1, 2, 3, 4, 5, 6)


def scraped(text: bytes) -> dict[str, float]:
    families = text_string_to_metric_families(text.decode())
    return {
        sample.name + "".join(f"/{value}" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_scrape_shows_what_the_store_holds_and_the_room_that_is_left(tmp_path: Path) -> None:
    with EmbeddedCas.open(tmp_path / "store") as cas:
        for seed, namespace in ((1, "default"), (2, "team/models")):
            upload(cas.in_namespace(namespace), make_sample(splitmix64(seed, 200_000)))
        began = time.time()
        with live_server(cas) as server:
            found = scraped(server.request("GET", "/metrics").body)
        totals = cas.totals()
    for name in ("files", "logical_bytes", "unique_bytes", "stored_bytes", "xorbs"):
        assert found[f"xetstore_{name}"] == getattr(totals, name) > 0
    assert began - 1 <= found["xetstore_totals_timestamp_seconds"] <= time.time() + 1
    usage = shutil.disk_usage(tmp_path)
    for part in ("objects", "index"):
        assert found[f"xetstore_disk_size_bytes/{part}"] == usage.total
        assert abs(found[f"xetstore_disk_free_bytes/{part}"] - usage.free) < 4 << 30


def test_names_keep_the_rules_of_prometheus(tmp_path: Path) -> None:
    """As `promtool check metrics` has them: units are base units at the end, only counters end in _total."""
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas) as server:
        text = server.request("GET", "/metrics").body.decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helped = set(re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE))
    for name, kind in kinds.items():
        assert name in helped, name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name), name
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|milliseconds|kb|mb|kib|mib|percent|minutes|hours|days)(_|$)", name), name
        assert not re.search(r"(gauge|counter|histogram|summary)", name), name
        if kind == "gauge":
            assert not re.search(r"_(total|count|sum|bucket)$", name), name


def test_a_store_that_is_in_memory_has_no_disk() -> None:
    assert Holdings(EmbeddedCas.in_memory(), time.time).disks() == {}


def test_the_largest_namespaces_come_first(tmp_path: Path) -> None:
    with EmbeddedCas.open(tmp_path / "store") as cas:
        small, large = make_sample(splitmix64(1, 1000)), make_sample(splitmix64(2, 2000))
        upload(cas.in_namespace("a"), small)
        upload(cas.in_namespace("b"), small)
        upload(cas.in_namespace("b"), large)
        found = Holdings(cas, time.time).namespaces.latest(60)
    assert found is not None
    assert found[0] == [NamespaceSize("b", 2, 3000), NamespaceSize("a", 1, 1000)]


def test_many_scrapes_look_at_the_rows_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def totals() -> Totals:
        asked.append(1)
        return TOTALS

    with EmbeddedCas.open(tmp_path / "store") as cas:
        monkeypatch.setattr(cas, "totals", totals)
        with live_server(cas) as server:
            for _ in range(20):
                assert scraped(server.request("GET", "/metrics").body)["xetstore_files"] == 1
    assert len(asked) == 1


def test_while_a_look_takes_long_the_value_of_before_is_told_with_its_time() -> None:
    begun, may_end = threading.Event(), threading.Event()
    values = iter([1, 2])

    def make() -> int:
        value = next(values)
        begun.set()
        if value == 2:
            may_end.wait(60)
        return value

    look = Look(make, lambda: 1000.0)
    assert look.latest(60) == (1, 1000.0)
    look._stale_at = 0
    begun.clear()
    for _ in range(5):
        assert look.latest(0) == (1, 1000.0)
    assert begun.wait(60)
    may_end.set()
    assert look.latest(60) == (2, 1000.0)
    assert look.latest(0) == (2, 1000.0)  # it is young: nothing is made


def test_before_the_first_value_there_is_none_and_after_a_failure_that_of_before() -> None:
    answers: list[int | Exception] = [UnavailableError("away"), 7, UnavailableError("away")]

    def make() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    look = Look(make, lambda: 1.0)
    assert look.latest(60) is None
    look._stale_at = 0
    assert look.latest(60) == (7, 1.0)
    look._stale_at = 0
    assert look.latest(60) == (7, 1.0)
    assert answers == []


def test_what_took_long_is_made_again_after_a_hundred_times_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(look_module, "time", clock)

    def make() -> int:
        clock.now += 3
        return 1

    look = Look(make, lambda: 1.0)
    look.latest(60)
    assert look._stale_at == 3 + 300
