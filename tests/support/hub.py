"""A served store with accounts, and huggingface_hub, of any version, in processes of their own against it."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.servers import Server

WORKER = Path(__file__).parents[1] / "interop" / "hub" / "worker.py"


@dataclass
class Hub(Server):
    """A server over a store with the accounts that a test adds. A context manager, as every :class:`Server` is."""

    def add_user(self, name: str) -> str:
        """Add a user; a token that may do everything in its name."""
        self.xet("user", "add", name)
        return self.user_token(name)

    def user_token(self, name: str, scope: str = "write") -> str:
        """One more token of a user."""
        return self.xet("token", "issue", "--user", name, "--scope", scope).strip()

    def add_org(self, name: str, members: Mapping[str, str]) -> None:
        """Add an organization: the role of each of its members."""
        self.xet("org", "create", name)
        for member, role in members.items():
            self.xet("org", "add", name, member, "--role", role)

    def xet(self, *arguments: str) -> str:
        """One command about the store; its stdout."""
        command = [sys.executable, "-m", "xetstore", *arguments, "--store", str(self.root)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


def client_environment(endpoint: str, home: Path, token: str | None = None) -> dict[str, str]:
    """The environment of a Hugging Face client whose Hub is ``endpoint``, with everything it keeps below ``home``."""
    ours = ("HF_", "HUGGING", "PYTHON", "XET_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **kept,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_XET_CACHE": str(home / "xet"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_XET_TELEMETRY_ENABLED": "0",
        "HF_XET_CLIENT_RETRY_BASE_DELAY": "50ms",
        "HOME": str(home),
        "NO_PROXY": "*",
        "PYTHONSAFEPATH": "1",
        **({} if token is None else {"HF_TOKEN": token}),
    }


class HubError(Exception):
    """The error that a client raised: the ``names`` of its class and of those it is one of, and the ``status``."""

    def __init__(self, names: list[str], message: str, status: int | None) -> None:
        super().__init__(f"{names[0]}: {message}")
        self.names = names
        self.status = status


@dataclass
class HubClient:
    """A process of one client: the Hub it asks, the folder it keeps things in, its token, and more of its environment.

    ``path`` are folders of its versions of huggingface_hub and hf_xet, none for those of this environment. The process
    starts at the first call. A context manager, which ends it.
    """

    endpoint: str
    home: Path
    token: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    path: tuple[Path, ...] = ()
    _process: subprocess.Popen[str] | None = field(default=None, init=False, repr=False)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function of a test in the process; its result, which is JSON, as its arguments are. Raises HubError.

        The function is sent as its source: of names it knows but its own, builtins and those of the worker. With an
        argument that is called ``api``, which comes first, it gets an HfApi.
        """
        asked = {
            "source": textwrap.dedent(inspect.getsource(function)),
            "name": function.__name__,
            "arguments": arguments,
        }
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        print(json.dumps(asked), file=process.stdin, flush=True)
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"the client ended with {process.wait()}: {self._log()}")
        told = json.loads(line)
        if "names" in told:
            raise HubError(**told)
        return told["result"]

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed by __exit__
            environment = client_environment(self.endpoint, self.home, self.token)
            if self.path:
                environment["PYTHONPATH"] = os.pathsep.join(map(str, self.path))
            self._process = subprocess.Popen(
                [sys.executable, str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env={**environment, **self.environment},
                text=True,
            )
        return self._process

    def _log(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read()[-4000:]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
            self._stderr.close()
