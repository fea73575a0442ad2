"""A soak of collections: ``python -m tests.soak_collecting --minutes 10``. The suite runs it for a minute.

A server of two workers collects every second, and keeps what is deleted for two seconds, while eight clients, each a
process, upload, download, commit and delete. A live file that cannot be read, or comes back otherwise, is a defect. At
the end all is deleted: then no object of a xorb or shard is left, and no row.

With so short a grace an upload may be told that a xorb is gone which it was offered a moment ago: then it comes again.
The reference client does not, so it remembers nothing from one upload to the next.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import xetstore
from tests.support.hf_process import Connection, HfError, HfProcess
from tests.support.live import ServerProcess
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.cas.index.queries.reader import Reader
from xetstore.errors import IntegrityError, RejectedShardError, UnavailableError, XetError
from xetstore.protocol.hashes import Hash
from xetstore.records import FileInfo

ROOT = Path(__file__).parents[1]
KIB = 1 << 10
MOST_LIVE = 4
LONGEST_END_SECONDS = 120
SETTINGS = (
    *("--collect-seconds", "1", "--grace", "2s", "--undelete", "1s", "--care-share", "1", "--workers", "2"),
    *("--scrub-days", "0", "--snapshot-seconds", "0", "--log-level", "warning"),
)


class DefectError(Exception):
    """Something that must not be."""


def content(name: str, number: int) -> bytes:
    """The bytes of a file of a client: a part that files of all clients have, one of an earlier file, and a new one."""
    shared = random.Random("shared").randbytes(300 * KIB)
    before = random.Random(f"{name} {number - 1}").randbytes(400 * KIB)
    own = random.Random(f"{name} {number}").randbytes(400 * KIB + number)
    return own + before[: 200 * KIB] + shared[(number % 4) * 50 * KIB :]


class Role:
    """A client: where everything is, until when, its live files, and a tally that is printed at the end."""

    def __init__(self, name: str, url: str, folder: Path, until: float) -> None:
        self.name, self.url, self.until = name, url, until
        self.token = (folder / "token").read_text().strip()
        self.own = folder / name
        self.own.mkdir()
        self.random = random.Random(name)
        self.tally: collections.Counter[str] = collections.Counter()

    def numbers(self) -> Iterator[int]:
        number = 0
        while time.time() < self.until:
            number += 1
            yield number

    def compare(self, found: bytes, number: int) -> None:
        if found != content(self.name, number):
            raise DefectError(f"file {number} of {self.name} came back otherwise")
        self.tally["downloads"] += 1


def ours(role: Role) -> None:
    """Our client: one store for all of it, which remembers what it was told."""
    live: dict[int, Hash] = {}
    path, out = role.own / "file", role.own / "out"
    with xetstore.open(role.url, token=role.token, cache=role.own / "cache") as store:
        for number in role.numbers():
            path.write_bytes(content(role.name, number))
            try:
                live[number] = store.put(path).hash
                role.tally["uploads"] += 1
            except (RejectedShardError, UnavailableError) as error:
                role.tally[f"uploads told to come again: {type(error).__name__}"] += 1
            for chosen in role.random.sample(sorted(live), min(2, len(live))):
                store.get(live[chosen], out)
                role.compare(out.read_bytes(), chosen)
            while len(live) > MOST_LIVE:
                store.delete(live.pop(role.random.choice(sorted(live))))
                role.tally["deletions"] += 1
        for file in live.values():
            store.delete(file)


def reference(role: Role) -> None:
    """The reference client for uploads and downloads, ours to delete."""
    live: dict[int, FileInfo] = {}
    path = role.own / "file"
    connection = Connection(role.url, (role.token, 2**33))
    with xetstore.open(role.url, token=role.token, cache=role.own / "cache") as store:
        for number in role.numbers():
            client = HfProcess(connection, role.own / f"home {number}")
            path.write_bytes(content(role.name, number))
            try:
                [live[number]] = client.upload([path]).infos
                role.tally["uploads"] += 1
            except HfError as error:
                if "not stored" not in str(error) and "503" not in str(error):
                    raise
                role.tally["uploads told to come again"] += 1
            if live:
                chosen = role.random.choice(sorted(live))
                [found] = client.download([live[chosen]])
                role.compare(found, chosen)
            shutil.rmtree(role.own / f"home {number}", ignore_errors=True)
            while len(live) > MOST_LIVE:
                store.delete(live.pop(role.random.choice(sorted(live))).hash)
                role.tally["deletions"] += 1
        for info in live.values():
            store.delete(info.hash)


def committing(role: Role) -> None:
    """Commits to a repository of its own by huggingface_hub, which uploads by the reference client."""
    script = """
import json, os, sys
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
api = HfApi(endpoint=sys.argv[1], token=sys.argv[2])
repo, call = sys.argv[3], json.loads(sys.argv[4])
if call["call"] == "create":
    api.create_repo(repo, exist_ok=True)
elif call["call"] == "commit":
    operations = [CommitOperationAdd(path, file) for path, file in call["add"]]
    operations += [CommitOperationDelete(path) for path in call["delete"]]
    api.create_commit(repo, operations, commit_message="a change")
elif call["call"] == "download":
    path = api.hf_hub_download(repo, call["path"], local_dir=call["folder"], force_download=True)
    print(path)
elif call["call"] == "delete":
    api.delete_repo(repo)
"""
    repo = f"alice/{role.name}"

    def call(home: str, **what: object) -> str:
        command = [sys.executable, "-W", "ignore", "-c", script, role.url, user, repo, json.dumps(what)]
        environment = {**os.environ, "HF_HOME": str(role.own / home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
        if done.returncode:
            raise HfError("huggingface_hub", done.stderr[-1500:])
        return done.stdout.strip()

    user = (role.own.parent / "user").read_text().strip()
    call("home", call="create")
    live: list[int] = []
    path = role.own / "file"
    for number in role.numbers():
        path.write_bytes(content(role.name, number))
        gone = live[:-MOST_LIVE]
        try:
            call(
                f"home {number}",
                call="commit",
                add=[[f"{number}.bin", str(path)]],
                delete=[f"{one}.bin" for one in gone],
            )
        except HfError as error:
            if "not stored" not in str(error) and "503" not in str(error):
                raise
            role.tally["commits told to come again"] += 1
        else:
            live = [*live[len(gone) :], number]
            role.tally["commits"] += 1
        if live:
            chosen = role.random.choice(live)
            found = call(f"home {number}", call="download", path=f"{chosen}.bin", folder=str(role.own / "out"))
            role.compare(Path(found).read_bytes(), chosen)
        shutil.rmtree(role.own / f"home {number}", ignore_errors=True)
    call("home", call="delete")


ROLES: dict[str, Callable[[Role], None]] = {
    **{f"ours-{number}": ours for number in range(4)},
    **{f"reference-{number}": reference for number in range(2)},
    **{f"committing-{number}": committing for number in range(2)},
}


def run(seconds: float, roles: dict[str, Callable[[Role], None]] = ROLES) -> list[str]:
    """All of it; what was wrong."""
    with tempfile.TemporaryDirectory() as name, ServerProcess(Path(name) / "store", *SETTINGS) as server:
        folder, root = Path(name), Path(name) / "store"
        (folder / "token").write_text(server.token("write", "default", ttl_seconds=86400))
        (folder / "user").write_text(_user_token(root))
        until = time.time() + seconds
        command = [sys.executable, "-m", "tests.soak_collecting", "--url", server.url, "--folder", name]
        processes = {
            role: subprocess.Popen([*command, "--until", str(until), "--role", role], cwd=ROOT) for role in roles
        }
        wrong = []
        try:
            for role, process in processes.items():
                if process.wait(seconds + 300):
                    wrong.append(f"{role} ended with {process.returncode}")
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
        with EmbeddedCas.open(root) as cas:
            wrong += [str(problem) for problem in check(cas, read_data=True).problems]
            wrong += [] if wrong else _left(cas)
        wrong += [line for line in server.log.splitlines() if " error " in line or "Traceback" in line][:5]
        deleted = server.log.count("deleted kind=xorb")
        wrong += [] if deleted else ["no xorb was deleted"]
        print(f"{deleted} xorbs were deleted", flush=True)
    return wrong


def _user_token(root: Path) -> str:
    """The token of a user, who may make repositories."""
    xet = [sys.executable, "-m", "xetstore"]
    subprocess.run([*xet, "user", "add", "alice", "--store", str(root)], check=True, capture_output=True)
    issue = [*xet, "token", "issue", "--user", "alice", "--scope", "write", "--store", str(root)]
    return subprocess.run(issue, check=True, capture_output=True, text=True).stdout


def _left(cas: EmbeddedCas) -> list[str]:
    """What is there still, when everything was deleted, and some collections have passed."""
    deadline = time.monotonic() + LONGEST_END_SECONDS
    while True:
        with cas.index.snapshot() as reader:
            rows = _rows(reader)
        objects = [blob.key for prefix in ("xorbs/", "shards/") for blob in cas.blobs.list(prefix)]
        if not any(rows.values()) and not objects:
            return []
        if time.monotonic() > deadline:
            return [f"left behind: {rows}, {len(objects)} objects, {objects[:3]}"]
        time.sleep(0.5)


def _rows(reader: Reader) -> dict[str, int]:
    tables = ("file", "file_segment", "edge", "file_grant", "deleted_grant", "xorb", "shard", "superseded_object")
    return {table: int(reader.connection.value(f"SELECT count(*) FROM {table}")) for table in tables}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    for name in ("role", "url", "folder", "until"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role is None:
        wrong = run(60 * options.minutes)
        print("\n".join(wrong) or "nothing was wrong")
        sys.exit(bool(wrong))
    role = Role(options.role, options.url, Path(options.folder), float(options.until))
    try:
        ROLES[options.role](role)
    except (DefectError, HfError, XetError, IntegrityError) as error:
        print(f"{role.name}: {type(error).__name__}: {error}", flush=True)
        sys.exit(1)
    finally:
        print(f"{role.name}: {dict(role.tally)}", flush=True)


if __name__ == "__main__":
    main()
