"""Health: alive while the loop turns, ready while requests should come, whatever else the server is busy with."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from tests.server.in_process import ask
from tests.support.live import LiveServer, live_server
from xetstore.cas.service import EmbeddedCas
from xetstore.platform.threads import Threads
from xetstore.server.app import ROUTES, create_app
from xetstore.server.http.edge import Edge
from xetstore.server.http.router import Route, Routes
from xetstore.server.routes.status import Shared
from xetstore.server.site import Site

MORE_THAN_THE_POOL = 60


def test_a_server_that_runs_is_alive_and_ready(server: LiveServer) -> None:
    live, ready = server.request("GET", "/health/live"), server.request("GET", "/health/ready")
    assert (live.status, live.json()) == (200, {"status": "live"})
    assert (ready.status, ready.json()) == (200, {"status": "ready", "reason": None})
    assert server.request("HEAD", "/health/live").status == 200
    assert live.headers["Cache-Control"] == ready.headers["Cache-Control"] == "no-store"


def test_a_server_that_is_about_to_stop_is_alive_and_not_ready(server: LiveServer) -> None:
    app = create_app(replace(server.site, draining=threading.Event()))
    assert ask(app, "/health/ready").status == 200
    app.site.draining.set()
    ready = ask(app, "/health/ready")
    assert (ready.status, ready.json()) == (503, {"status": "unavailable", "reason": "draining"})
    assert ready.headers["retry-after"] == "1"
    assert ask(app, "/health/live").status == 200


def test_a_server_whose_store_does_not_answer_is_not_ready(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cas = EmbeddedCas.open(tmp_path / "store")
    with live_server(cas) as server:
        cas.close()
        ready = server.request("GET", "/health/ready")
        assert (ready.status, ready.json()["reason"]) == (503, "the index does not answer")
        assert server.request("GET", "/health/live").status == 200
    assert len([record for record in caplog.records if "does not answer" in record.getMessage()]) == 1


@contextmanager
def saturated(cas: EmbeddedCas) -> Iterator[LiveServer]:
    """A server all of whose threads for work on the store are in use, and whose budget is spent."""
    release = threading.Event()

    async def block(request: Request) -> Response:
        await run_in_threadpool(release.wait)
        return Response()

    def app(site: Site) -> Edge:
        made = create_app(site)
        made.routes = Routes((*ROUTES, Route("/block", {"GET": block})))
        return made

    with (
        live_server(cas, app=app, max_bytes_in_flight=1 << 20) as server,
        ThreadPoolExecutor(MORE_THAN_THE_POOL) as pool,
    ):
        for budget in server.site.limits.budgets:
            budget.used = budget.total
        blocked: list[Future[object]] = [
            pool.submit(server.request, "GET", "/block") for _ in range(MORE_THAN_THE_POOL)
        ]
        deadline = time.monotonic() + 60
        while server.site.metrics.in_flight < MORE_THAN_THE_POOL:
            assert time.monotonic() < deadline, "the requests did not come"
            time.sleep(0.01)
        try:
            yield server
        finally:
            release.set()
            for future in blocked:
                future.result()


def test_health_and_metrics_answer_while_everything_is_in_use(cas: EmbeddedCas) -> None:
    with saturated(cas) as server:
        for path in ("/health/live", "/health/ready", "/metrics", "/", "/openapi.json"):
            assert server.request("GET", path).status == 200


def test_whoever_watches_is_never_told_to_wait(cas: EmbeddedCas) -> None:
    with live_server(cas, rate_per_address=0.001, burst_seconds=1000) as server:
        server.request("GET", "/openapi.json")
        assert server.request("GET", "/openapi.json").status == 429
        for path in ("/health/live", "/health/ready", "/metrics"):
            assert {server.request("GET", path).status for _ in range(3)} == {200}


def test_health_needs_no_host_and_no_token(cas: EmbeddedCas) -> None:
    with live_server(cas, auth="none", status="token") as server:
        for path in ("/health/live", "/health/ready"):
            assert server.request("GET", path, headers={"Host": "probe.example.org"}).status == 200
            assert ask(create_app(server.site), path, peer="192.0.2.1").status == 200


# What many ask for at once


def test_what_many_ask_for_at_once_is_computed_once() -> None:
    computed: list[int] = []
    release = threading.Event()

    def compute() -> int:
        release.wait()
        computed.append(1)
        return len(computed)

    async def play() -> list[int]:
        with Threads(2, "test") as pool:
            shared = Shared(compute, 60, pool)
            asking = [asyncio.create_task(shared.get()) for _ in range(50)]
            await asyncio.sleep(0)
            asking[0].cancel()
            release.set()
            return [await one for one in asking[1:]] + [await shared.get()]

    assert set(asyncio.run(play())) == {1}


def test_what_is_too_old_is_computed_again() -> None:
    computed: list[int] = []

    def compute() -> int:
        computed.append(1)
        return len(computed)

    async def play() -> list[int]:
        with Threads(1, "test") as pool:
            shared = Shared(compute, 0, pool)
            return [await shared.get() for _ in range(3)]

    assert asyncio.run(play()) == [1, 2, 3]


def test_an_error_is_what_all_get_who_asked() -> None:
    def compute() -> int:
        raise KeyError("x")

    async def play() -> list[object]:
        with Threads(1, "test") as pool:
            shared = Shared(compute, 60, pool)
            return list(await asyncio.gather(shared.get(), shared.get(), return_exceptions=True))

    assert [type(result) for result in asyncio.run(play())] == [KeyError, KeyError]
