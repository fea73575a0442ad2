"""ServerWorker and ForkedServer: real servers in processes of their own that are quick to start, and to kill."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PATIENCE_SECONDS = 60
"""How long a test waits for what should come at once, before it fails."""

ROOT = Path(__file__).parents[2]


class ServerWorkerError(Exception):
    """The worker, or a server that it started, failed where it should not."""


class ServerWorker:
    """Runs ``server_worker.py``, behind the command ``prefix``. A context manager; one call at a time.

    What its servers log is in :attr:`log`.
    """

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        self._said = b""
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.faults.server_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
            bufsize=0,
        )
        try:
            self.read("ready")
        except BaseException:
            self.close()
            raise

    @property
    def log(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode()

    def call(self, call: str, answer: str | None = None, **arguments: Any) -> Any:
        """What the worker says under the name ``answer``, or all of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"call": call, **arguments}).encode() + b"\n")
        return self.read(answer)

    def read(self, wanted: str | None) -> Any:
        """The next thing that is said, which has to be that."""
        while b"\n" not in self._said:
            assert self._process.stdout is not None
            readable, _, _ = select.select([self._process.stdout], [], [], PATIENCE_SECONDS)
            part = os.read(self._process.stdout.fileno(), 1 << 16) if readable else b""
            if not part:
                raise ServerWorkerError(f"the worker said nothing: {self.log}")
            self._said += part
        line, _, self._said = self._said.partition(b"\n")
        said = json.loads(line)
        if wanted is None:
            return said
        if wanted not in said:
            raise ServerWorkerError(f"{said} came instead of {wanted!r}: {self.log}")
        return said[wanted]

    def close(self) -> None:
        """End the process, which ends its servers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ForkedServer:
    """A server over the store in ``root``, with these settings: starting when it is made.

    As a context manager it accepts connections at ``url``, ``token`` is that of its admin, and it is killed at the
    end. Permissions bind a server that is ``bound``, also where root runs the tests.
    """

    url: str
    token: str

    def __init__(self, worker: ServerWorker, root: Path, *, bound: bool = False, **settings: Any) -> None:
        self._worker = worker
        self.pid: int = worker.call("start", "pid", root=str(root), settings=settings, bound=bound)
        self.exit_code: int | None = None

    def kill(self) -> int:
        """SIGKILL; returns the exit code."""
        return self._end("kill")

    def terminate(self) -> int:
        """SIGTERM: it drains. Returns the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self._end("wait")

    def __enter__(self) -> Self:
        said = self._worker.read(None)
        if "url" not in said:
            self.kill()
            raise ServerWorkerError(f"the server did not start: {said}, {self._worker.log}")
        self.url, self.token = said["url"], said["token"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.exit_code is None:
            self.kill()

    def _end(self, call: str) -> int:
        said = self._worker.call(call, pid=self.pid)
        while "code" not in said:  # it became ready just before its end, or failed
            said = self._worker.read(None)
        self.exit_code = int(said["code"])
        return self.exit_code
