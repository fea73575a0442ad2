"""Metrics: what the server did, in the text format of Prometheus, in a registry of its own."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.live import LiveServer, live_server, until
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import UnavailableError
from xetstore.protocol.hashes import Hash
from xetstore.server.ops.budgets import Budget
from xetstore.server.ops.metrics import Metrics
from xetstore.testing import make_sample, random_bytes


def samples(text: str) -> dict[str, float]:
    """Every sample, by its name and labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}({labels})"] = sample.value
    return found


def scraped(server: LiveServer) -> dict[str, float]:
    # A client has its answer a moment before the server has counted it.
    until(lambda: server.site.metrics.in_flight == 0)
    return samples(server.request("GET", "/metrics").body.decode())


def test_metrics_are_in_the_text_format_of_prometheus(server: LiveServer) -> None:
    answer = server.request("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    names = {family.name for family in text_string_to_metric_families(answer.body.decode())}
    ours = {name for name in names if not name.startswith(("process_", "python_"))}
    assert all(name.startswith("xetstore_") for name in ours)
    assert {"process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds"} <= names
    assert {"xetstore_build_info", "xetstore_http_requests_in_flight", "xetstore_budget_used_bytes"} <= ours


def test_every_metric_says_what_it_is() -> None:
    for family in text_string_to_metric_families(Metrics("1").exposition().decode()):
        assert family.documentation
        assert family.type != "unknown"


def test_uploads_queries_and_downloads_are_counted(server: LiveServer) -> None:
    sample = make_sample(random_bytes(300_000))
    token = server.token("write")
    for _ in range(2):
        server.request("POST", f"/v1/xorbs/default/{sample.xorb.hash}", body=sample.body, token=token)
        server.request("POST", "/v1/shards", body=sample.shard.serialize(), token=token)
    first = Hash(bytes(sample.xorb.chunks.hashes[:32]))
    for chunk in (first, Hash.ZERO):
        server.request("GET", f"/v1/chunks/default/{chunk}", token=token)
    answer = server.request("GET", f"/v1/reconstructions/{sample.file.hash}", token=token)
    ((fetch,),) = answer.json()["fetch_info"].values()
    part = server.request("GET", fetch["url"], headers={"Range": "bytes=0-999"})
    assert (part.status, len(part.body)) == (206, 1000)

    found = scraped(server)
    assert found["xetstore_xorbs_received_total(is_new=true)"] == 1
    assert found["xetstore_xorbs_received_total(is_new=false)"] == 1
    assert found["xetstore_xorb_received_bytes_total()"] == 2 * len(sample.body)
    assert found["xetstore_shards_received_total(is_new=true)"] == 1
    assert found["xetstore_shards_received_total(is_new=false)"] == 1
    assert found["xetstore_files_received_total()"] == 2
    assert found["xetstore_dedup_queries_total(found=true)"] == 1
    assert found["xetstore_dedup_queries_total(found=false)"] == 1
    assert found["xetstore_xorb_served_bytes_total()"] == 1000
    assert found["xetstore_http_requests_total(method=GET,route=/v1/xorbs/{prefix}/{hash},status=206)"] == 1
    assert found["xetstore_http_request_seconds_count(route=/v1/shards)"] == 2


def test_a_scrape_counts_itself_as_the_one_request_in_flight(server: LiveServer) -> None:
    assert scraped(server)["xetstore_http_requests_in_flight()"] == 1


def test_the_budget_is_shown_as_it_is(cas: EmbeddedCas) -> None:
    with live_server(cas, max_bytes_in_flight=1 << 24) as server:
        server.site.limits.receiving.used = 12_345
        found = scraped(server)
        server.site.limits.receiving.used = 0
    for name in ("reading", "receiving", "committing"):
        assert found[f"xetstore_budget_bytes(budget={name})"] == 1 << 24
    assert found["xetstore_budget_used_bytes(budget=receiving)"] == 12_345
    assert found["xetstore_budget_used_bytes(budget=reading)"] == 0
    assert found["xetstore_budget_waiting(budget=receiving)"] == 0
    assert found["xetstore_budget_refused_total(budget=shards)"] == 0


def test_a_refusal_of_a_budget_is_counted() -> None:
    metrics = Metrics("1")
    budget = Budget("rooms", 7, queue_seconds=0.01)
    metrics.watch(budget)

    async def play() -> None:
        async with budget.reserve(7):
            with pytest.raises(UnavailableError):
                async with budget.reserve(1):
                    pass

    asyncio.run(play())
    found = samples(metrics.exposition().decode())
    assert found["xetstore_budget_bytes(budget=rooms)"] == 7
    assert found["xetstore_budget_refused_total(budget=rooms)"] == 1


def test_two_servers_in_one_process_count_apart(cas: EmbeddedCas) -> None:
    with live_server(cas) as one, live_server(cas) as other:
        one.request("GET", "/nowhere")
        key = "xetstore_http_requests_total(method=GET,route=unknown,status=404)"
        assert scraped(one)[key] == 1
        assert key not in scraped(other)


@pytest.mark.parametrize("method", ["BREW", "GET\n", "x" * 1000])
def test_a_method_of_a_strangers_own_gets_no_series_of_its_own(method: str) -> None:
    metrics = Metrics("1")
    metrics.answered("/", method, 405, seconds=0.1, received_bytes=0, sent_bytes=0)
    assert samples(metrics.exposition().decode())["xetstore_http_requests_total(method=other,route=/,status=405)"] == 1
