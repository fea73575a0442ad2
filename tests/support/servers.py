"""The real server, `xet serve` in a process of its own, as the interop tests start it, ask it and start it again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import xetstore
from tests.support.hf_process import Connection, Token
from tests.support.live import ServerProcess
from tests.support.ports import free_port
from tests.support.scripted import Scripted, reply
from xetstore.store import Totals


@dataclass
class Server:
    """A server over the store in ``root``. A context manager; a second one of the same ``port`` has its endpoint."""

    root: Path
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._process.log

    def token(self, scope: str = "write", *, namespace: str = "default", seconds: int = 900) -> Token:
        expires = int(time.time()) + seconds
        return self._process.token(scope, namespace, ttl_seconds=seconds), expires

    def connect(self, scope: str = "write", *, endpoint: str | None = None, namespace: str = "default") -> Connection:
        """The connection of a client with a token of some scope, perhaps by another endpoint."""
        return Connection(endpoint or self.endpoint, self.token(scope, namespace=namespace))

    def totals(self) -> Totals:
        """What the store holds, read beside the server."""
        with xetstore.open(self.root, create=False) as store:
            return store.totals()

    def __enter__(self) -> Self:
        self._process = ServerProcess(self.root, "--port", str(self.port), *self.options)
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.close()


@dataclass
class TokenHub:
    """Answers where clients ask for a token: ``issue`` makes it, ``asked`` counts."""

    url: str
    cas_url: str
    issue: Callable[[], Token]
    asked: int = 0

    def answer(self) -> bytes:
        self.asked += 1
        token, expires = self.issue()
        return json.dumps({"casUrl": self.cas_url, "exp": expires, "accessToken": token}).encode()


@contextmanager
def token_hub(server: Server, issue: Callable[[], Token]) -> Iterator[TokenHub]:
    """A place that gives tokens for ``server``, as the token routes of a Hub do."""
    hub = TokenHub("", server.endpoint, issue)
    with Scripted(lambda _: reply(200, hub.answer(), {"Content-Type": "application/json"})) as listening:
        hub.url = f"{listening.url}/token"
        yield hub
