"""Several workers: one server for its clients, by its limits, metrics, logs and signals, whichever of them answers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.live import PATIENCE_SECONDS, Response, ServerProcess, until
from tests.support.stored import exchange
from xetstore.access.keys import KeyKind, KeyRing
from xetstore.access.tokens import TokenAuthority
from xetstore.cas.check import verify_invariants
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import UsageError
from xetstore.server.http.sockets import listen
from xetstore.server.settings import ServerSettings
from xetstore.testing.samples import Sample, make_sample, random_bytes, read_back

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for the workers in /proc")

TWO = ("--workers", "2")

GIVES_UP = """
import sys
from xetstore.cas.parts import StoreParts
from xetstore.server import workers
from xetstore.server.settings import ServerSettings
replacing = workers.Replacing(first_seconds=0.01, most_seconds=0.02, most_deaths=3)
settings = ServerSettings(port=0, workers=2)
try:
    parts = StoreParts.of_directory(sys.argv[1])
    workers.serve(parts, settings, lambda started: print("started", flush=True), replacing)
except OSError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


class Kept:
    """Connections that are kept open, as those of a client are: enough that each of two workers has some."""

    def __init__(self, server: ServerProcess) -> None:
        self._open: list[socket.socket] = []
        while set(answering(server)) != {"1", "2"}:
            assert len(self._open) < 200, "one worker gets them all"
            self._open.append(server.connect())
            assert self.ask("/health/live")[-1] == 200

    def ask(self, path: str, token: str | None = None) -> list[int]:
        """The statuses of one GET on each, one after the other."""
        head = [f"GET {path} HTTP/1.1", "Host: localhost", *([f"Authorization: Bearer {token}"] if token else [])]
        statuses = []
        for connection in self._open:
            answer = exchange(connection, head)
            answer.read()
            statuses.append(answer.status)
        return statuses

    def close(self) -> None:
        for connection in self._open:
            connection.close()


def answering(server: ServerProcess) -> Counter[str]:
    """How many requests each worker has logged."""
    return Counter(re.findall(r" worker=([0-9]+)$", server.log, re.MULTILINE))


def metric(server: ServerProcess, name: str, labels: str = "") -> float:
    """The value of a metric, or the sum of its values with some labels."""
    text = server.request("GET", "/metrics").body.decode()
    found = re.findall(rf"^{name}(?:{{[^}}]*{labels}[^}}]*}})? (\S+)$", text, re.MULTILINE)
    assert found, text
    return sum(map(float, found))


def put(server: ServerProcess, sample: Sample, token: str) -> list[Response]:
    return [
        server.request("POST", f"/v1/xorbs/default/{sample.xorb.hash}", body=sample.body, token=token),
        server.request("POST", "/v1/shards", body=sample.shard.serialize(), token=token),
    ]


def gone(pids: Sequence[int]) -> bool:
    """True if none of these processes runs; one that nobody has waited for yet does not."""

    def is_gone(pid: int) -> bool:
        try:
            return ") Z " in Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True

    return all(map(is_gone, pids))


@pytest.fixture
def head() -> Callable[[Sample, str], bytes]:
    def head_of(sample: Sample, token: str) -> bytes:
        return (
            f"POST /v1/xorbs/default/{sample.xorb.hash} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Length: {len(sample.body)}\r\n\r\n"
        ).encode()

    return head_of


# One server


def test_connections_that_are_kept_are_spread_over_all_workers(store: Path) -> None:
    with ServerProcess(store, *TWO) as server, closing(Kept(server)):
        assert set(server.workers) == {1, 2}


def test_one_worker_is_the_process_itself(store: Path) -> None:
    with ServerProcess(store, "--workers", "1") as server:
        assert server.workers == {}
        assert server.request("GET", "/health/live").status == 200
        assert answering(server) == {}
        assert b"worker=" not in server.request("GET", "/metrics").body


def test_workers_are_as_many_as_cores_but_at_most_four_and_no_more_than_places() -> None:
    cores = len(os.sched_getaffinity(0))
    assert ServerSettings().worker_count == min(cores, 4)
    assert ServerSettings(workers=7).worker_count == 7
    assert ServerSettings(max_shards=1).worker_count == 1
    with pytest.raises(UsageError, match="3 workers are more than max_shards, 2"):
        ServerSettings(workers=3, max_shards=2)


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="there is no IPv6 here")
def test_workers_serve_ipv6(store: Path) -> None:
    try:
        listen("::1", 0).close()
    except UsageError:
        pytest.skip("IPv6 is switched off here")
    with ServerProcess(store, *TWO, "--host", "::1", "--auth", "none") as server:
        assert urlsplit(server.url).hostname == "::1"
        assert server.request("GET", "/health/ready").status == 200


def test_every_log_line_is_whole_and_says_its_worker(store: Path) -> None:
    with ServerProcess(store, *TWO, "--log-format", "json") as server:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: server.request("GET", f"/{'x' * 200}"), range(200)))
        server.terminate()
        assert server.wait() == 0
        lines = [json.loads(line) for line in server.log.splitlines()]
        requests = Counter(line["worker"] for line in lines if line["logger"] == "xetstore.access")
        assert requests.total() == 200
        assert set(requests) <= {1, 2}
        assert [line["message"] for line in lines if "worker" not in line] == ["serving", "stopped"]


# One message for what goes wrong at the start


def test_what_goes_wrong_at_the_start_is_said_once(store: Path) -> None:
    store.mkdir()
    (store / "something").touch()
    command = [sys.executable, "-m", "xetstore", "serve", str(store), "--json", "--port", "0", *TWO]
    done = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE_SECONDS)
    assert (done.returncode, done.stdout) == (2, b"")
    [error] = map(json.loads, done.stderr.splitlines())
    assert error["code"] == "usage"


# Signals


@pytest.mark.parametrize("to_all", [False, True], ids=["the parent", "the whole group, as Ctrl-C does"])
def test_a_signal_drains_all_workers(store: Path, to_all: bool, head: Callable[[Sample, str], bytes]) -> None:
    samples = [make_sample(random_bytes(500_000, number)) for number in range(8)]
    with ServerProcess(store, *TWO) as server, ExitStack() as open_connections:
        token = server.token("write")
        uploading = [open_connections.enter_context(server.connect()) for _ in samples]
        for connection, sample in zip(uploading, samples, strict=True):
            connection.sendall(head(sample, token) + sample.body[:1000])
        until(lambda: metric(server, "xetstore_http_requests_in_flight") == len(samples) + 1)
        workers = list(server.workers.values())
        if to_all:
            for pid in (server.pid, *workers):
                os.kill(pid, signal.SIGINT)
        else:
            server.terminate()
        until(lambda: server.request("GET", "/health/ready").status == 503)
        for connection, sample in zip(uploading, samples, strict=True):
            connection.sendall(sample.body[1000:])
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert server.wait() == 0
        assert gone(workers)
        assert server.log.splitlines()[-1].endswith("stopped")
    with EmbeddedCas.open(store) as cas:
        assert not any(cas.put_xorb(sample.xorb.hash, sample.body) for sample in samples), "all were kept"


def test_a_second_signal_ends_all_at_once(store: Path, head: Callable[[Sample, str], bytes]) -> None:
    sample = make_sample(random_bytes(500_000))
    with ServerProcess(store, *TWO, "--drain-seconds", "1h") as server, closing(server.connect()) as uploading:
        uploading.sendall(head(sample, server.token("write")) + sample.body[:1000])
        until(lambda: metric(server, "xetstore_http_requests_in_flight") == 2)
        workers = list(server.workers.values())
        server.terminate()
        until(lambda: server.request("GET", "/health/ready").status == 503)
        server.terminate()
        assert server.wait() == 130
        assert gone(workers)


def test_without_their_parent_workers_let_go_of_the_port_and_end_what_they_are_at(
    store: Path, head: Callable[[Sample, str], bytes]
) -> None:
    sample = make_sample(random_bytes(500_000))
    with ServerProcess(store, *TWO) as server, closing(server.connect()) as uploading:
        uploading.sendall(head(sample, server.token("write")) + sample.body[:1000])
        until(lambda: metric(server, "xetstore_http_requests_in_flight") == 2)
        workers = list(server.workers.values())
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        port = urlsplit(server.url).port

        def is_free() -> bool:
            with suppress(OSError), socket.socket() as taken:
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                taken.bind(("127.0.0.1", port))
                taken.listen()
                return True
            return False

        until(is_free)
        assert not gone(workers)
        uploading.sendall(sample.body[1000:])
        assert uploading.recv(12) == b"HTTP/1.1 200"
        until(lambda: gone(workers))


# Workers that end


def test_a_worker_that_is_killed_is_replaced_and_what_it_counted_stays_counted(store: Path) -> None:
    counted = ("xetstore_http_requests_total", 'route="/health/live"')
    with ServerProcess(store, *TWO) as server:
        for _ in range(20):
            assert server.request("GET", "/health/live").status == 200
        until(lambda: metric(server, *counted) == 20)
        for number in (1, 2):
            pid = server.workers[number]
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid, number=number: server.workers.get(number, pid) != pid)  # type: ignore[misc]
            assert metric(server, *counted) == 20
        assert server.request("GET", "/health/live").status == 200
        until(lambda: metric(server, *counted) == 21)
        assert metric(server, "xetstore_build_info") == 1
        until(lambda: metric(server, "xetstore_connections") == 1)
        assert "worker 1 ended by signal 9; another takes its place" in server.log


def test_a_replacement_serves_no_other_store_than_the_others(store: Path, tmp_path: Path) -> None:
    with EmbeddedCas.open(tmp_path / "other"):
        pass
    with ServerProcess(store, *TWO) as server:
        first = server.workers
        store.rename(tmp_path / "away")
        os.kill(first[1], signal.SIGKILL)
        until(lambda: "worker 1 cannot start: there is no store" in server.log)
        assert not store.exists()
        assert server.request("GET", "/health/live").status == 200, "the other one goes on"
        (tmp_path / "other").rename(store)
        until(lambda: "worker 1 cannot start: the store is not the one that the other workers serve" in server.log)
        store.rename(tmp_path / "other")
        (tmp_path / "away").rename(store)
        until(lambda: b'worker="1"' in server.request("GET", "/metrics").body)
        assert server.request("GET", "/health/ready").status == 200
        assert server.workers[2] == first[2]


def test_a_parent_gives_up_when_workers_end_again_and_again(store: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GIVES_UP, str(store)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        over = threading.Event()

        def kill_the_first() -> None:
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
            while not over.wait(0.02):
                with suppress(OSError):
                    for child in children.read_text().split():
                        if b"worker 1 of" in Path(f"/proc/{child}/cmdline").read_bytes():
                            os.kill(int(child), signal.SIGKILL)

        killing = threading.Thread(target=kill_the_first)
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "started\n"
            killing.start()
            said, log = parent.communicate(timeout=PATIENCE_SECONDS)
        finally:
            over.set()
            parent.kill()
            if killing.ident:
                killing.join()
    assert parent.returncode == 6
    assert said == "worker 1 ended by signal 9: 3 ends in a row\n"
    assert "giving up" in log


# Limits of the server


def test_a_rate_is_the_servers(store: Path) -> None:
    with ServerProcess(store, *TWO, "--rate-per-token", "0.01", "--burst-seconds", "1000") as server:
        token = server.token()
        statuses: Counter[int] = Counter()
        with closing(Kept(server)) as kept:
            while statuses.total() < 20:
                statuses.update(kept.ask(f"/v1/reconstructions/{'0' * 64}", token))
        assert statuses == {404: 10, 429: statuses.total() - 10}


def test_connections_are_the_servers(store: Path) -> None:
    with ServerProcess(store, *TWO, "--max-connections", "6") as server, ExitStack() as idle:
        for _ in range(30):
            idle.enter_context(server.connect())
        until(lambda: metric(server, "xetstore_connections_lacking_room_total") >= 24)
        assert metric(server, "xetstore_connections") <= 6
        assert metric(server, "xetstore_connections_max") == 6


def test_budgets_are_the_servers(store: Path) -> None:
    with ServerProcess(store, *TWO, "--max-bytes-in-flight", "64MiB", "--max-commits", "5") as server:
        assert metric(server, "xetstore_budget_bytes", 'budget="receiving"') == 64 << 20
        assert metric(server, "xetstore_budget_bytes", 'budget="commits"') == 5


# One store


def test_a_token_that_is_revoked_is_refused_by_all_at_once(store: Path) -> None:
    path = f"/v1/reconstructions/{'0' * 64}"
    with ServerProcess(store, *TWO) as server, closing(Kept(server)) as kept:
        authority = TokenAuthority(KeyRing.open(store / "access", create=False))
        token, other = server.token(), server.token()
        assert set(kept.ask(path, token)) == {404}
        authority.revoke(token)
        assert set(kept.ask(path, token)) == {401}
        assert set(kept.ask(path, other)) == {404}
        KeyRing.open(store / "access", create=False).rotate(KeyKind.TOKEN, overlap_seconds=0)
        assert set(kept.ask(path, other)) == {401}
        assert set(kept.ask(path, server.token())) == {404}


def test_a_xorb_that_many_put_at_once_is_new_once(store: Path) -> None:
    sample = make_sample(random_bytes(1_000_000))
    with ServerProcess(store, *TWO) as server:
        token = server.token("write")
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: put(server, sample, token), range(16)))
        assert {answer.status for each in answers for answer in each} == {200}
        assert sum(xorb.json()["was_inserted"] for xorb, _ in answers) == 1
    with EmbeddedCas.open(store) as cas:
        verify_invariants(cas)
        assert read_back(cas, sample.file.hash) == sample.data


def test_small_files_by_64_connections_and_four_workers(store: Path) -> None:
    files = 4
    with ServerProcess(store, "--workers", "4", "--log-level", "warning") as server:
        token = server.token("write")

        def upload(number: int) -> set[int]:
            samples = [make_sample(random_bytes(2000, number * files + each)) for each in range(files)]
            return {answer.status for sample in samples for answer in put(server, sample, token)}

        started = time.monotonic()
        with ThreadPoolExecutor(64) as pool:
            statuses = set().union(*pool.map(upload, range(64)))
        assert statuses == {200}, f"after {time.monotonic() - started:.1f} seconds: {server.log[-2000:]}"
        assert metric(server, "xetstore_files_received_total") == 64 * files
    with EmbeddedCas.open(store) as cas:
        verify_invariants(cas)
        assert cas.totals().files == 64 * files
