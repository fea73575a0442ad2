"""Running a server: its first start, its socket, and how it stops, as a process and in this one."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from tests.support.live import PATIENCE_SECONDS, LiveServer, ServerFailedError, ServerProcess, request, served, until
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import UnavailableError, UsageError
from xetstore.server.http.sockets import DESCRIPTORS_EACH, DESCRIPTORS_KEPT, listen, url_of
from xetstore.server.ops.logs import REPEATS
from xetstore.server.settings import ServerSettings
from xetstore.testing.samples import Sample, make_sample, random_bytes, read_back

# The superuser may listen on any port, unless he gives up his capabilities (capset, version 3 of its header).
POWERLESS = """
import ctypes, os
if os.geteuid() == 0:
    libc = ctypes.CDLL(None)
    assert libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0
from xetstore.cli.main import run
run()
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def head_of(sample: Sample, token: str) -> bytes:
    """A xorb upload, without its body."""
    return (
        f"POST /v1/xorbs/default/{sample.xorb.hash} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {len(sample.body)}\r\n\r\n"
    ).encode()


def rest_of(connection: socket.socket) -> bytes:
    """All that still comes, until the server closes."""
    received = bytearray()
    while part := connection.recv(1 << 16):
        received += part
    return bytes(received)


# The first start


def test_a_first_start_makes_a_store_keys_and_a_token_for_the_admin(store: Path) -> None:
    with ServerProcess(store, "--status", "token") as server:
        started = server.started
        assert set(started) == {"url", "store", "token_file", "version"}
        assert Path(started["store"]) == store
        file = Path(started["token_file"])
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
        assert server.request("GET", "/metrics").status == 401
        assert server.request("GET", "/metrics", token=server.token("write")).status == 403
        assert server.request("GET", "/metrics", token=server.admin_token).status == 200
        assert server.admin_token not in server.log + json.dumps(started)


def test_a_relative_store_is_shown_as_an_absolute_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with ServerProcess(Path("store")) as server:
        assert server.started["store"] == str(tmp_path / "store")


def test_without_tokens_nobody_needs_one(store: Path) -> None:
    with ServerProcess(store, "--auth", "none") as server:
        assert server.started["token_file"] is None
        sample = make_sample(b"anything")
        path = f"/v1/xorbs/default/{sample.xorb.hash}"
        assert server.request("POST", path, body=sample.body).json() == {"was_inserted": True}


def test_a_directory_that_is_no_store_is_not_served(store: Path) -> None:
    store.mkdir()
    (store / "something").touch()
    with pytest.raises(ServerFailedError, match=r"exit code 2.*not a store"):
        ServerProcess(store)


# The socket


def test_a_port_in_use_is_named(store: Path) -> None:
    with closing(listen("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"port {port} of 127.0.0.1 is in use"):
            listen("127.0.0.1", port)
        with pytest.raises(ServerFailedError, match=r"exit code 6.*is in use"):
            ServerProcess(store, "--port", str(port))


@pytest.mark.parametrize("host", ["192.0.2.1", "xet.invalid", "x" * 64 + ".example.org"])
def test_an_address_that_is_not_this_machines_is_named(host: str) -> None:
    with pytest.raises(UsageError, match="is not an address of this machine"):
        listen(host, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="needs capabilities")
def test_a_port_that_is_the_superusers_is_denied(store: Path) -> None:
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
    if int(first) <= 1:
        pytest.skip("any user may listen on any port here")
    done = subprocess.run(
        [sys.executable, "-c", POWERLESS, "serve", store, "--port", "1", "--json"], capture_output=True, check=False
    )
    error = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, error["code"]) == (5, "denied")
    assert "1024" in error["hint"]


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("localhost", "127.0.0.1")]
)
def test_the_url_is_one_that_can_be_opened(host: str, shown: str) -> None:
    settings = ServerSettings(host=host, allow_plain_http=True)
    with closing(listen(host, 0)) as listening:
        url = url_of(settings, listening)
        port = listening.getsockname()[1]
        assert url == f"http://{shown}:{port}"
        socket.create_connection((shown, port), timeout=PATIENCE_SECONDS).close()


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="there is no IPv6 here")
@pytest.mark.parametrize("host", ["::1", "::"])
def test_an_ipv6_address_stands_in_brackets(host: str) -> None:
    try:
        listening = listen(host, 0)
    except UsageError:
        pytest.skip("IPv6 is switched off here")
    with closing(listening):
        port = listening.getsockname()[1]
        assert url_of(ServerSettings(host=host, allow_plain_http=True), listening) == f"http://[::1]:{port}"


# How it stops


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_stops_when_told_and_that_is_no_failure(store: Path, number: int) -> None:
    with ServerProcess(store) as server, closing(server.connect()) as idle:
        idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n")
        assert idle.recv(9) == b"HTTP/1.1 "
        server.send_signal(number)
        assert server.wait() == 0
        assert server.log.splitlines()[-1].endswith("stopped")


def test_an_upload_in_flight_gets_its_answer_and_the_server_says_meanwhile_that_it_is_not_ready(store: Path) -> None:
    sample = make_sample(random_bytes(3_000_000))
    with ServerProcess(store) as server, closing(server.connect()) as uploading, closing(server.connect()) as idle:
        uploading.sendall(head_of(sample, server.token("write")) + sample.body[:100])
        idle.sendall(b"GET /health/ready HTTP/1.1\r\nHost: test\r\n\r\n")
        assert idle.recv(12) == b"HTTP/1.1 200"
        server.terminate()
        assert rest_of(idle), "an idle connection is closed, after what was left of its answer"
        answer = server.request("GET", "/health/ready")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert server.request("GET", "/health/live").status == 200
        for start in range(100, len(sample.body), 500_000):
            uploading.sendall(sample.body[start : start + 500_000])
        head, _, body = rest_of(uploading).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert json.loads(body) == {"was_inserted": True}
        assert server.wait() == 0
    with EmbeddedCas.open(store) as cas:
        assert not cas.put_xorb(sample.xorb.hash, sample.body), "it was kept"
        cas.put_shard(sample.shard)
        assert read_back(cas, sample.file.hash) == sample.data


def test_an_upload_that_takes_longer_than_the_drain_is_cut_off(store: Path) -> None:
    sample = make_sample(random_bytes(3_000_000))
    with ServerProcess(store, "--drain-seconds", "0.3") as server, closing(server.connect()) as uploading:
        uploading.sendall(head_of(sample, server.token("write")) + sample.body[:100])
        until(lambda: b"in_flight 2.0" in server.request("GET", "/metrics").body)  # that one, and this
        server.terminate()
        assert not rest_of(uploading).startswith(b"HTTP/1.1 2")
        assert server.wait() == 0
    with EmbeddedCas.open(store) as cas:
        assert cas.put_xorb(sample.xorb.hash, sample.body), "nothing of it was kept"


def test_told_a_second_time_it_stops_at_once(store: Path) -> None:
    sample = make_sample(random_bytes(3_000_000))
    with ServerProcess(store, "--drain-seconds", "1h") as server, closing(server.connect()) as uploading:
        uploading.sendall(head_of(sample, server.token("write")) + sample.body[:100])
        until(lambda: b"in_flight 2.0" in server.request("GET", "/metrics").body)
        server.terminate()
        until(lambda: server.request("GET", "/health/ready").status == 503)
        server.terminate()
        assert server.wait() == 130
        assert b"HTTP/1.1 2" not in rest_of(uploading)


def test_it_can_be_killed_and_started_again(store: Path) -> None:
    with ServerProcess(store) as server:
        token = server.token("read")
        server.kill()
        assert server.wait() == -signal.SIGKILL
    with ServerProcess(store) as server:
        path = f"/v1/reconstructions/{'0' * 63}1"
        assert server.request("GET", path, token=token).status == 404, "the token is still valid"


def test_nothing_is_left_open_when_it_stops(store: Path) -> None:
    with ServerProcess(store, environment={"PYTHONDEVMODE": "1"}) as server:
        server.request("GET", "/", headers={"Accept": "application/json"})
        server.terminate()
        assert server.wait() == 0
        assert "Warning" not in server.log


@contextmanager
def draining(
    app: Callable[[Scope, Receive, Send], object], **settings: float
) -> Iterator[tuple[str, Callable[[], None]]]:
    async def only_http(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        await app(scope, receive, send)  # type: ignore[misc]

    chosen = ServerSettings(port=0, **settings)  # type: ignore[arg-type]
    with served(only_http, chosen) as (url, server):
        yield url, server.drain


def test_a_long_answer_is_sent_to_its_end(tmp_path: Path) -> None:
    size = 8 << 20

    async def long_answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": bytes(size)})

    with draining(long_answer) as (url, drain):
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.create_connection(address, timeout=PATIENCE_SECONDS) as reading:
            reading.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            start = reading.recv(1000)
            drain()
            threading.Event().wait(0.5)  # the application is done; its answer is not
            assert len(start + rest_of(reading)) > size


def test_a_connection_that_was_opened_but_not_used_keeps_nobody_waiting() -> None:
    async def short_answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    with draining(short_answer, drain_seconds=3600) as (url, drain):
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.create_connection(address, timeout=PATIENCE_SECONDS) as unused:
            assert request(url, "GET", "/").status == 204
            drain()
            assert rest_of(unused) == b""


def test_requests_that_come_during_the_drain_are_answered() -> None:
    go_on = threading.Event()

    async def patient(scope: Scope, receive: Receive, send: Send) -> None:
        while scope["path"] == "/wait" and not go_on.is_set():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    with draining(patient, drain_seconds=3600) as (url, drain):
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.create_connection(address, timeout=PATIENCE_SECONDS) as waiting:
            waiting.sendall(b"GET /wait HTTP/1.1\r\nHost: test\r\n\r\n")
            assert request(url, "GET", "/").status == 200
            drain()
            for _ in range(3):
                assert request(url, "GET", "/").status == 200
            go_on.set()
            assert rest_of(waiting).startswith(b"HTTP/1.1 200")


# What other tests use


def test_a_live_server_speaks_as_the_process_does(server: LiveServer) -> None:
    assert server.request("GET", "/health/ready").json()["status"] == "ready"
    path = f"/v1/reconstructions/{'0' * 63}1"
    assert server.request("GET", path).status == 401
    assert server.request("GET", path, token=server.token()).status == 404
    with closing(server.connect()) as raw:
        raw.sendall(b"\r\nnothing\r\n\r\n")
        assert rest_of(raw).startswith(b"HTTP/1.1 400")


def test_settings_in_the_environment_of_the_tests_do_not_reach_a_server_process(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XETSTORE_PORT", "none")
    assert "XETSTORE_PORT" in os.environ
    with ServerProcess(store) as server:
        assert server.request("GET", "/health/live").status == 200


# Few descriptors

PLACES = 60


def descriptors_for(connections: int) -> int:
    return DESCRIPTORS_KEPT + DESCRIPTORS_EACH * connections


def test_a_server_with_few_descriptors_keeps_fewer_connections_and_serves(store: Path) -> None:
    with (
        ServerProcess(store, ulimit=f"-n {descriptors_for(PLACES)}") as server,
        ExitStack() as idle,
    ):
        assert f"at most {PLACES} connections instead of 2000" in server.log
        for _ in range(300):
            idle.enter_context(server.connect())
        for _ in range(3):
            assert server.request("GET", "/health/live").status == 200
        text = server.request("GET", "/metrics").body.decode()
        assert f"\nxetstore_connections_max {PLACES}.0\n" in text

        def closed() -> float:
            text = server.request("GET", "/metrics").body.decode()
            pattern = r'^xetstore_connections_lacking_room_total{how="idle_closed"} (\S+)$'
            [told] = re.findall(pattern, text, re.MULTILINE)
            return float(told)

        until(lambda: closed() >= 300 - PLACES)  # all of them were accepted by then
        assert len(server.log) < 10_000


def test_a_server_raises_its_soft_limit_of_descriptors(store: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = descriptors_for(500)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip("the hard limit is too low here")
    options = ("--max-connections", "500", "--workers", "1")  # so that the process is the one that raises it
    with ServerProcess(store, *options, ulimit="-S -n 200") as server:
        assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (wanted, hard)
        assert "instead of" not in server.log


def test_a_server_that_runs_out_of_descriptors_says_so_a_few_times_and_goes_on_when_it_has_some(store: Path) -> None:
    # One worker: its descriptors are the ones that are taken away.
    with ServerProcess(store, "--workers", "1") as server, ExitStack() as idle:
        before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        taken = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (taken + 5, before[1]))
        for _ in range(100):
            idle.enter_context(server.connect())
        until(lambda: "out of system resource" in server.log)
        time.sleep(2.5)  # in which it tries again
        assert server.log.count("out of system resource") <= REPEATS
        assert "Logging error" not in server.log
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)
        assert server.request("GET", "/health/live").status == 200


# Little memory


def test_a_server_without_memory_for_a_request_says_so_and_lives(store: Path) -> None:
    """A process takes some 80 MB of addresses at rest; bodies of 60 MiB come, and more than one at a time."""
    answers: list[tuple[int, str]] = []
    # One worker: two have more memory than these bodies take.
    with ServerProcess(store, "--max-bytes-in-flight", "2GiB", "--workers", "1", ulimit="-v 200000") as server:
        token = server.token("write")

        def send() -> None:
            with suppress(OSError):  # a connection that there was no memory to read from is closed
                answer = server.request("POST", "/v1/shards", body=bytes(60 << 20), token=token)
                answers.append((answer.status, answer.json()["code"]))

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(answers) <= {(400, "format"), (503, "unavailable")}
        assert "MemoryError" in server.log, "it was not enough for all"
        try:
            assert server.request("GET", "/health/live").status == 200
        except TimeoutError:
            pytest.fail(f"it hangs:\n{server.end_with_stacks()}")
        answer = server.request("POST", "/v1/shards", body=bytes(1 << 20), token=token)
        assert (answer.status, answer.json()["code"]) == (400, "format")
