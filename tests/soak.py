"""A soak, by hand: ``python -m tests.soak --minutes 10``. One server, all kinds of clients, and SIGKILL now and then.

Each role is a process. Whatever was acknowledged is written into a ledger, and has to come back as it was: while it
runs, to whoever asks, and at the end, every file. It prints what it did, and exits with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import xetstore
from xetstore.errors import UnavailableError, XetError
from xetstore.testing.samples import make_sample

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
CHILD_SECONDS = 120
"""A forked child that takes longer hangs."""


class DefectError(Exception):
    """Something that must not be."""


def content(number: int) -> bytes:
    """The bytes of a file; ten numbers in a row are versions of one file, each with another MiB changed."""
    rng = random.Random(number // 10)
    data = bytearray(rng.randbytes(rng.randrange(1, 9) * MIB + rng.randrange(MIB)))
    if number % 10:
        at = (number % 10) * MIB % len(data)
        data[at : at + MIB] = random.Random(number).randbytes(MIB)
    return bytes(data)


class Role:
    """What the processes share: where everything is, until when, and a tally that is printed as one line at the end."""

    def __init__(self, name: str, url: str, folder: Path, until: float) -> None:
        self.name, self.url, self.folder, self.until = name, url, folder, until
        self.token = (folder / "token").read_text().strip()
        self.random = random.Random(name)
        self.tally: collections.Counter[str] = collections.Counter()
        self.own = folder / name
        self.own.mkdir()

    def open(self) -> xetstore.Store:
        return xetstore.open(self.url, token=self.token, cache=self.own / "cache")

    def rounds(self) -> Iterator[int]:
        number = 0
        while time.time() < self.until:
            yield number
            number += 1

    def tolerant(self, what: str, work: Callable[[], None]) -> None:
        """Do it, and count it. A server that is killed is out of reach for a while: that is no defect."""
        try:
            work()
        except UnavailableError:
            self.tally[f"{what}: unavailable"] += 1
            time.sleep(0.5)
        else:
            self.tally[what] += 1

    def acknowledged(self) -> list[dict[str, object]]:
        """All ledgers; the last line may be on its way."""
        lines = [line for ledger in self.folder.glob("*.ledger") for line in ledger.read_text().splitlines(True)]
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def note(self, number: int, name: str) -> None:
        with (self.folder / f"{self.name}.ledger").open("a") as ledger:
            ledger.write(json.dumps({"number": number, "hash": name}) + "\n")


def putter(role: Role) -> None:
    """Uploads files and versions of them, some of them again."""
    path = role.own / "file"
    base = 1000 * role.random.randrange(10**6)
    with role.open() as store:
        for _ in role.rounds():
            number = base + role.random.randrange(300)
            path.write_bytes(content(number))
            role.tolerant("put", lambda number=number: role.note(number, str(store.put(path).hash)))  # type: ignore[misc]


def getter(role: Role) -> None:
    """Downloads what was acknowledged, whole or in part."""
    out = role.own / "out"
    with role.open() as store:
        for _ in role.rounds():
            if not (entries := role.acknowledged()):
                time.sleep(0.2)
                continue
            entry = role.random.choice(entries)
            data = content(int(str(entry["number"])))
            start = role.random.choice([0, role.random.randrange(len(data))])

            def get(entry: dict[str, object] = entry, data: bytes = data, start: int = start) -> None:
                store.get(str(entry["hash"]), out, start=start)
                if out.read_bytes() != data[start:]:
                    raise DefectError(f"{entry} from {start} came back otherwise")

            role.tolerant("get", get)


def forker(role: Role) -> None:
    """Forks eight children that read with the parent's store."""
    with role.open() as store:
        for _ in role.rounds():
            if len(entries := role.acknowledged()) < 8:
                time.sleep(0.2)
                continue
            with suppress(UnavailableError):
                store.stat(str(entries[0]["hash"]))
            children = []
            for entry in role.random.sample(entries, 8):
                if (child := os.fork()) == 0:
                    _read_in_child(store, entry)
                children.append(child)
            for child in children:
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                if code not in (0, 6):
                    raise DefectError(f"a forked child ended with {code}")
                role.tally["child" if not code else "child: unavailable"] += 1
            time.sleep(1)


def _read_in_child(store: xetstore.Store, entry: dict[str, object]) -> None:
    signal.alarm(CHILD_SECONDS)
    code = 70
    try:
        data = content(int(str(entry["number"])))
        name = str(entry["hash"])
        if store.stat(name).size != len(data) or b"".join(store.iter_range(name, 10, 3 * MIB)) != data[10 : 3 * MIB]:
            raise DefectError(f"{entry} is another file in a child")
        code = 0
    except XetError as error:
        code = error.exit_code
    finally:
        os._exit(code)


def hf(role: Role) -> None:
    """The reference client up and down, a process each time."""
    script = """
import hf_xet, sys
url, token, path, out = sys.argv[1:5]
credentials = (token, 2**33)
[info] = hf_xet.upload_files([path], url, credentials, None, None, None)
print(info.hash, flush=True)
hf_xet.download_files([hf_xet.PyXetDownloadInfo(out, info.hash, info.file_size)], url, credentials, None, None)
"""
    path, out = role.own / "file", role.own / "out"
    base = 1000 * role.random.randrange(10**6)
    for _ in role.rounds():
        number = base + role.random.randrange(300)
        path.write_bytes(data := content(number))
        command = [sys.executable, "-W", "ignore", "-c", script, role.url, role.token, str(path), str(out)]
        home = {**os.environ, "HF_HOME": str(role.own / "home"), "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "3"}
        try:
            done = subprocess.run(command, env=home, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            role.tally["hf_xet: gave up"] += 1
            continue
        if done.stdout:
            role.note(number, done.stdout.strip())
        role.tally["hf_xet" if not done.returncode else "hf_xet: failed"] += 1
        if not done.returncode and out.read_bytes() != data:
            raise DefectError(f"hf_xet got file {number} back otherwise")


def slow(role: Role) -> None:
    """Bodies that come a byte at a time, heads that never end, answers that are not taken."""
    parts = urlsplit(role.url)
    head = f"Host: x\r\nAuthorization: Bearer {role.token}\r\n"
    openings = [
        f"POST /v2/shards HTTP/1.1\r\n{head}Content-Length: 67108864\r\n\r\n",
        f"POST /v1/xorbs/default/{'0' * 64} HTTP/1.1\r\n{head}Content-Length: 60000000\r\n\r\n",
        f"GET /openapi.json HTTP/1.1\r\n{head}X-Long: ",
        f"GET /health/live HTTP/1.1\r\n{head}\r\n" * 200,
    ]
    for _ in role.rounds():
        with ExitStack() as stack:
            sockets = []
            for number in range(80):
                with suppress(OSError):
                    one = stack.enter_context(socket.create_connection((parts.hostname, parts.port or 80), 5))
                    one.sendall(openings[number % len(openings)].encode())
                    sockets.append(one)
            for _ in range(20):
                time.sleep(1)
                for one in sockets:
                    with suppress(OSError):
                        one.send(b"x")
            role.tally["slow connections"] += len(sockets)


def greedy(role: Role) -> None:
    """Many large uploads at once of which none ends, and questions without end."""
    sample = make_sample(random.Random(0).randbytes(8 * MIB))
    request = (
        f"POST /v1/xorbs/default/{sample.xorb.hash} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {role.token}\r\n"
        f"Content-Length: {len(sample.body)}\r\n\r\n"
    ).encode()
    questions = (
        f"GET /v1/chunks/default/{role.random.getrandbits(255):064x} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {role.token}\r\n\r\n"
    ).encode()
    parts = urlsplit(role.url)
    for _ in role.rounds():
        with ExitStack() as stack:
            for _ in range(16):
                with suppress(OSError):
                    one = stack.enter_context(socket.create_connection((parts.hostname, parts.port or 80), 5))
                    one.settimeout(5)
                    one.sendall(request + sample.body[: role.random.randrange(len(sample.body))])
                    role.tally["uploads cut off"] += 1
            with suppress(OSError):
                other = stack.enter_context(socket.create_connection((parts.hostname, parts.port or 80), 5))
                other.settimeout(5)
                other.sendall(questions * 50)
                role.tally["questions"] += 50
                other.recv(1 << 16)
        time.sleep(1)


def checker(role: Role) -> None:
    """`xet check` of the directory while it is served."""
    for _ in role.rounds():
        command = [sys.executable, "-m", "xetstore", "check", "--store", str(role.folder / "store"), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DefectError(f"check: {done.stdout[-2000:]} {done.stderr[-2000:]}")
        role.tally["checks"] += 1
        time.sleep(20)


ROLES: dict[str, Callable[[Role], None]] = {
    "put-1": putter,
    "put-2": putter,
    "get-1": getter,
    "get-2": getter,
    "fork": forker,
    "hf": hf,
    "slow": slow,
    "greedy": greedy,
    "check": checker,
}


class Served:
    """The server, which can be killed and comes again at the same port."""

    def __init__(self, folder: Path) -> None:
        self._store, self._log = folder / "store", folder / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.peak_kib = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "xetstore", "serve", str(self._store), "--port", str(self._port), "--json"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def look(self) -> None:
        """Note its memory, and that it lives."""
        if self._process.poll() is not None:
            raise DefectError(f"the server ended with {self._process.returncode}")
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        [peak] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        self.peak_kib = max(self.peak_kib, int(peak))

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def stop(self) -> int:
        self._process.terminate()
        self._process.communicate(timeout=120)
        return self._process.returncode


def run(minutes: float) -> list[str]:
    """All of it; what was wrong."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        served = Served(folder)
        issue = ["token", "issue", "--store", str(folder / "store"), "--scope", "write", "--ttl", "12h"]
        token = subprocess.check_output([sys.executable, "-m", "xetstore", *issue], text=True)
        (folder / "token").write_text(token)
        until = time.time() + 60 * minutes
        command = [sys.executable, "-m", "tests.soak", "--url", served.url, "--folder", name, "--until", str(until)]
        roles = {role: subprocess.Popen([*command, "--role", role], cwd=ROOT) for role in ROLES}
        kills, next_kill = 0, time.time() + 30
        while time.time() < until:
            time.sleep(1)
            try:
                served.look()
            except DefectError as defect:
                wrong.append(str(defect))
                served.start()
            if time.time() > next_kill:
                served.kill()
                time.sleep(1)
                served.start()
                kills, next_kill = kills + 1, time.time() + random.uniform(20, 60)
        for role, process in roles.items():
            try:
                if process.wait(600):
                    wrong.append(f"{role} ended with {process.returncode}")
            except subprocess.TimeoutExpired:
                process.kill()
                wrong.append(f"{role} did not end")
        wrong += _all_there(served.url, folder)
        served.look()
        if code := served.stop():
            wrong.append(f"the server stopped with {code}")
        check = [sys.executable, "-m", "xetstore", "check", "--read-data", "--store", str(folder / "store")]
        if subprocess.run(check, check=False).returncode:
            wrong.append("the store is damaged")
        log_bytes = (folder / "log").stat().st_size
        print(f"server: {kills} kills, peak {served.peak_kib >> 10} MiB, {log_bytes >> 10} KiB of log")
    return wrong


def _all_there(url: str, folder: Path) -> list[str]:
    role = Role("last", url, folder, 0)
    wrong, files = [], {str(entry["hash"]): int(str(entry["number"])) for entry in role.acknowledged()}
    with role.open() as store:
        for name, number in files.items():
            try:
                store.get(name, role.own / "out")
                if (role.own / "out").read_bytes() != content(number):
                    wrong.append(f"file {number} is another one")
            except XetError as error:
                wrong.append(f"file {number} was acknowledged: {error}")
    print(f"{len(files)} files were acknowledged, {len(files) - len(wrong)} are there")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    for name in ("role", "url", "folder", "until"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role is None:
        wrong = run(options.minutes)
        print(*wrong or ["nothing was wrong"], sep="\n")
        sys.exit(bool(wrong))
    role = Role(options.role, options.url, Path(options.folder), float(options.until))
    try:
        ROLES[options.role](role)
    finally:
        print(f"{role.name}: " + ", ".join(f"{count} {what}" for what, count in sorted(role.tally.items())))


if __name__ == "__main__":
    main()
