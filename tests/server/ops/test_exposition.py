"""Metrics of several workers are added up: what is of a process, of the server, and of workers that have ended."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.server.ops.test_metrics import samples
from xetstore.server.ops.exposition import Exposition
from xetstore.server.ops.metrics import Metrics


def metrics(requests: int, *, in_flight: int = 0, route: str = "/v1/xorbs") -> Metrics:
    counted = Metrics("1")
    for _ in range(requests):
        counted.answered(route, "GET", 200, seconds=0.02, received_bytes=1, sent_bytes=10)
    counted.in_flight = in_flight
    return counted


def test_counters_gauges_and_histograms_are_sums() -> None:
    merged = Exposition()
    merged.add(metrics(3, in_flight=2).exposition(), 1)
    merged.add(metrics(4, in_flight=1).exposition(), 2)
    merged.add(metrics(1, route="/a b\n").exposition(), 3)
    found = samples(merged.text().decode())
    assert found["xetstore_http_requests_total(method=GET,route=/v1/xorbs,status=200)"] == 7
    assert found["xetstore_http_requests_total(method=GET,route=/a b\n,status=200)"] == 1
    assert found["xetstore_http_sent_bytes_total(route=/v1/xorbs)"] == 70
    assert found["xetstore_http_request_seconds_count(route=/v1/xorbs)"] == 7
    assert found["xetstore_http_request_seconds_bucket(le=0.025,route=/v1/xorbs)"] == 7
    assert found["xetstore_http_request_seconds_bucket(le=0.01,route=/v1/xorbs)"] == 0
    assert found["xetstore_http_requests_in_flight()"] == 3
    assert found["xetstore_build_info(version=1)"] == 1


def test_figures_of_a_process_have_its_number() -> None:
    merged = Exposition()
    merged.add(metrics(0).exposition(), 1)
    merged.add(metrics(0).exposition(), 2)
    found = samples(merged.text().decode())
    assert found["process_resident_memory_bytes(worker=1)"] > 0
    assert found["process_resident_memory_bytes(worker=2)"] > 0


def test_of_one_that_has_ended_only_counts_are_kept() -> None:
    kept = Exposition()
    kept.add(metrics(5, in_flight=4).exposition(), 1)
    kept.keep_counts()
    merged = Exposition()
    merged.add(metrics(2, in_flight=1).exposition(), 1)
    merged.include(kept)
    merged.include(kept)
    found = samples(merged.text().decode())
    assert found["xetstore_http_requests_total(method=GET,route=/v1/xorbs,status=200)"] == 12
    assert found["xetstore_http_requests_in_flight()"] == 1
    alone = samples(kept.text().decode())
    assert alone["xetstore_http_request_seconds_sum(route=/v1/xorbs)"] > 0
    assert not any(name.startswith(("process_", "xetstore_build", "xetstore_http_requests_in")) for name in alone)


def test_a_sum_says_what_it_is_as_its_parts_do() -> None:
    merged = Exposition()
    merged.add(metrics(1).exposition(), 1)
    merged.add(metrics(1).exposition(), 2)
    for family in text_string_to_metric_families(merged.text().decode()):
        assert family.documentation
        assert family.type != "unknown"
