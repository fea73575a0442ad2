"""Figures of repositories, with huggingface_hub as the client; written to HUB.md.

Beside them, where there is one, the plain file server: nginx over the same bytes. A file server is a stand-in: it has
no upload, names no commit and verifies nothing.
"""

from __future__ import annotations

import http.client
import os
import platform
import shutil
import statistics
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.server import nginx
from tests.support.hub import Hub, HubClient
from tests.support.ports import free_port

from bench.server import percentiles
from xetstore.cas import EmbeddedCas
from xetstore.hub.names import Kind
from xetstore.hub.operations import AddFile
from xetstore.hub.rights import LOCAL
from xetstore.hub.service import EmbeddedHub

ROOT = Path(__file__).parent
WORKERS: Final = 2
FILES: Final = 1000
TREE_FILES, COMMIT_FILES, COMMITS = 100_000, 10_000, 10_000
_PATIENCE_SECONDS: Final = 120
_WINDOW: Final = 1 << 20


def run(work: Path, chosen: Any) -> None:
    """All figures of repositories."""
    nbytes, rounds = int(chosen.gib * 2**30), min(chosen.rounds, 3)
    folder = work / "hub"
    folder.mkdir()
    with Hub(folder / "store", ("--workers", str(WORKERS))) as hub:
        token = hub.add_user("alice")
        with HubClient(hub.endpoint, folder / "home", token) as client:
            sections = [
                f"# Repositories\n\n`make bench` on {platform.system()}, {os.cpu_count()} cores, Python "
                f"{platform.python_version()}, huggingface_hub 2.4.0 and hf_xet 1.8.0 as the client, `xet serve` with "
                f"{WORKERS} workers on the same cores, a directory on tmpfs. Medians of {rounds} rounds.",
                f"## A folder of {FILES} files, {2 * nbytes / 2**30:g} GiB\n\n"
                + "\n".join(_folder(client, folder, 2 * nbytes, rounds)),
                "## Names\n\n" + "\n".join(_names(hub, client, token, chosen.asked)),
                f"## GET of one file, {nbytes / 2**30:g} GiB\n\n" + "\n".join(_get(hub, token, folder, nbytes, rounds)),
            ]
    shutil.rmtree(folder)
    (ROOT / "HUB.md").write_text("\n\n".join(sections) + "\n")


def _folder(client: HubClient, folder: Path, nbytes: int, rounds: int) -> list[str]:
    """upload_folder, and snapshot_download cold and warm."""
    source = folder / "source"
    chance = Random(3)
    for number in range(FILES):
        path = source / f"part-{number % 10}" / f"{number:04}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(nbytes // FILES))
    seconds: dict[str, list[float]] = {}
    for round_ in range(rounds):
        for path in source.rglob("*.safetensors"):  # other content each time: nothing is known of it
            with path.open("r+b") as file:
                for at in range(0, nbytes // FILES, 4096):
                    file.seek(at)
                    file.write(chance.randbytes(16))
        told = client.call(_upload_and_download, f"alice/folder-{round_}", str(source), str(folder / "snapshots"))
        for name, each in told.items():
            seconds.setdefault(name, []).append(each)
    shutil.rmtree(source)
    lines = ["| | seconds | GB/s |", "|---|---|---|"]
    for name, each in seconds.items():
        median = statistics.median(each)
        rate = "" if name.endswith("warm") else f"{nbytes / 1e9 / median:.2f}"
        lines.append(f"| {name} | {median:.2f} | {rate} |")
        print(lines[-1], flush=True)
    return lines


def _upload_and_download(name: str, source: str, out: str) -> dict[str, float]:
    import filecmp
    import os
    import shutil
    import time
    from pathlib import Path

    from huggingface_hub import HfApi, snapshot_download

    told = {}
    api = HfApi()
    api.create_repo(name)

    def timed(what: str, call: object) -> object:
        start = time.perf_counter()
        result = call()  # type: ignore[operator]
        told[what] = time.perf_counter() - start
        return result

    timed("upload_folder", lambda: api.upload_folder(repo_id=name, folder_path=source))
    found = timed("snapshot_download, cold", lambda: snapshot_download(name, cache_dir=out))
    timed("snapshot_download, warm", lambda: snapshot_download(name, cache_dir=out))
    for folder, _, files in os.walk(source):
        there = Path(str(found)) / os.path.relpath(folder, source)
        if filecmp.cmpfiles(folder, there, files, shallow=False)[1:] != ([], []):
            raise SystemExit("other bytes came back")
    shutil.rmtree(out)
    return told


def _names(hub: Hub, client: HubClient, token: str, asked: int) -> list[str]:
    """HEAD of resolve; a large tree, a large commit, and a long history."""
    lines = ["| | |", "|---|---|"]

    def note(what: str, figure: str) -> None:
        lines.append(f"| {what} | {figure} |")
        print(lines[-1], flush=True)

    client.call(_create, "alice/names")
    head = "/alice/names/resolve/main/.gitattributes"
    _ask(hub, token, "HEAD", head, 200)
    note("HEAD resolve, p50 and p99 ms, one after another", percentiles(_ask(hub, token, "HEAD", head, asked * 5)))
    note("HEAD resolve, requests a second, 8 at a time", f"{_rate(hub, token, head, asked * 2):,.0f}")
    seconds = client.call(_commit, "alice/names", COMMIT_FILES)
    note(f"create_commit of {COMMIT_FILES:,} files in the repository, s", f"{seconds:.2f}")
    with EmbeddedCas.open(hub.root) as cas:
        repository = EmbeddedHub(cas).repository(LOCAL, Kind.MODELS, "alice/names")
        repository.create_branch("large")
        files = [AddFile(f"d{number % 100:02}/{number:06}.txt", b"%d" % number) for number in range(TREE_FILES)]
        repository.commit("large", files, "many")
        start = time.perf_counter()
        for number in range(COMMITS):
            repository.commit("main", [AddFile(f"log/{number % 50}.txt", b"%d" % number)], f"commit {number}")
        each = (time.perf_counter() - start) / COMMITS
    note(f"list_repo_tree of {TREE_FILES:,} files, s", f"{client.call(_tree, 'alice/names', 'large'):.2f}")
    note(f"a commit in this process, mean of {COMMITS:,}, ms", f"{each * 1000:.2f}")
    api = "/api/models/alice/names"
    paths = {
        f"a page of 50 of {COMMITS:,} commits, p50 and p99 ms": f"{api}/commits/main?limit=50&p=150",
        "a page of 50 entries with their last commits, p50 and p99 ms": f"{api}/tree/main/log?expand=true",
        "info of it, p50 and p99 ms": api,
    }
    for what, path in paths.items():
        _ask(hub, token, "GET", path, 20)
        note(what, percentiles(_ask(hub, token, "GET", path, asked)))
    return lines


def _create(name: str) -> None:
    from huggingface_hub import HfApi

    HfApi().create_repo(name)


def _commit(name: str, files: int) -> float:
    import time

    from huggingface_hub import CommitOperationAdd, HfApi

    operations = [
        CommitOperationAdd(f"many/{number % 20}/{number:05}.txt", b"the file %d" % number) for number in range(files)
    ]
    start = time.perf_counter()
    HfApi().create_commit(name, operations, commit_message="many")
    return time.perf_counter() - start


def _tree(name: str, revision: str) -> float:
    import time

    from huggingface_hub import HfApi

    start = time.perf_counter()
    count = sum(1 for _ in HfApi().list_repo_tree(name, revision=revision, recursive=True))
    if count < 100_000:
        raise SystemExit(f"{count} entries only")
    return time.perf_counter() - start


def _connected(url: str) -> http.client.HTTPConnection:
    parts = urllib.parse.urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE_SECONDS)


def _ask(hub: Hub, token: str, method: str, path: str, count: int) -> list[float]:
    """Milliseconds of requests on one connection."""
    connection = _connected(hub.endpoint)
    headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        taken.append((time.perf_counter() - start) * 1000)
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status}")
    connection.close()
    return taken


def _rate(hub: Hub, token: str, path: str, each: int) -> float:
    threads = [threading.Thread(target=_ask, args=(hub, token, "HEAD", path, each)) for _ in range(8)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 8 * each / (time.perf_counter() - start)


def _get(hub: Hub, token: str, folder: Path, nbytes: int, rounds: int) -> list[str]:
    """GET of resolve, verified while it is sent, beside nginx with the plain file; in turn."""
    if nginx.NGINX is None:
        raise SystemExit("nginx is not installed: apt-get install nginx")
    plain = folder / "plain"
    plain.mkdir()
    with (plain / "file.bin").open("wb") as file:
        for _ in range(nbytes // _WINDOW):
            file.write(os.urandom(_WINDOW))
    hub.xet("cp", str(plain / "file.bin"), "xet://alice/get@main/file.bin")
    port = free_port()
    config = nginx.main_file(folder, f"server {{ listen 127.0.0.1:{port}; root {plain}; }}")
    seconds: dict[str, list[float]] = {"resolve": [], "nginx": []}
    with nginx.running(folder, config, port):
        calls: dict[str, Callable[[], int]] = {
            "resolve": lambda: _read(hub.endpoint, "/alice/get/resolve/main/file.bin", token),
            "nginx": lambda: _read(f"http://127.0.0.1:{port}", "/file.bin", token),
        }
        for round_ in range(rounds + 1):
            for name, call in calls.items():
                start = time.perf_counter()
                if call() != nbytes // _WINDOW * _WINDOW:
                    raise SystemExit(f"{name}: not all of it came")
                if round_:
                    seconds[name].append(time.perf_counter() - start)
    lines = ["| | GB/s |", "|---|---|"]
    lines += [f"| {name} | {nbytes / 1e9 / statistics.median(each):.2f} |" for name, each in seconds.items()]
    print(*lines[2:], sep="\n", flush=True)
    return lines


def _read(url: str, path: str, token: str) -> int:
    connection = _connected(url)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"})
    answer = connection.getresponse()
    buffer = bytearray(_WINDOW)
    total = 0
    while count := answer.readinto(buffer):
        total += count
    connection.close()
    return total
