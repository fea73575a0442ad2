"""Asking an application without a socket, from any address there is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message


@dataclass(frozen=True)
class Answer:
    """An answer, whole; the names of ``headers`` in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    app: ASGIApp,
    path: str,
    *,
    method: str = "GET",
    peer: str = "127.0.0.1",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    token: str | None = None,
) -> Answer:
    """One request, in an event loop of its own."""
    sent = {"Host": "localhost", "Content-Length": str(len(body)), **(headers or {})}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "scheme": "http",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()],
        "client": (peer, 50_000),
    }
    received: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        received.append(message)

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    start, *parts = received
    assert not parts[-1].get("more_body", False), "the answer broke off"
    return Answer(
        start["status"],
        {name.decode(): value.decode("latin-1") for name, value in start["headers"]},
        b"".join(part.get("body", b"") for part in parts),
    )
