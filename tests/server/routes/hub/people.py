"""A server of the Hub's API and the people who use it, each with a token and the real client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.live import LiveServer, Response, live_server
from xetstore.access.tokens import Scope
from xetstore.cas.service import EmbeddedCas
from xetstore.hub.rights import Role
from xetstore.hub.service import EmbeddedHub

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@dataclass(frozen=True)
class People:
    """Users, and ``org``, an organization: alice administers it, carol writes, dave reads, and bob is a stranger."""

    server: LiveServer
    tokens: dict[str, str]

    @property
    def hub(self) -> EmbeddedHub:
        assert self.server.site.hub is not None
        return self.server.site.hub

    def api(self, name: str | None = "alice") -> Any:
        """The real client, with the token of a user, or none."""
        from huggingface_hub import HfApi

        return HfApi(self.server.url, token=False if name is None else self.tokens[name])

    def ask(
        self, method: str, path: str, body: object = None, *, name: str | None = "alice", **headers: str
    ) -> Response:
        """One request. A body is sent as JSON, unless it is bytes."""
        sent: dict[str, str] = {key.replace("_", "-"): value for key, value in headers.items()}
        data = body if isinstance(body, bytes) else b""
        if body is not None and not isinstance(body, bytes):
            sent.setdefault("Content-Type", "application/json")
            data = msgspec.json.encode(body)
        token = None if name is None else self.tokens[name]
        return self.server.request(method, path, headers=sent, body=data, token=token)

    def commit(self, repo: str, *lines: tuple[str, dict[str, Any]], title: str = "a title", **more: Any) -> Response:
        """A commit of these operations to ``main``, as clients send it. ``more`` is for its header, and for ask()."""
        head: dict[str, Any] = {key: more.pop(key) for key in ("description", "parentCommit") if key in more}
        query = more.pop("query", "")
        rev = more.pop("rev", "main")
        every: list[tuple[str, dict[str, Any]]] = [("header", {"summary": title, **head}), *lines]
        body = b"\n".join(msgspec.json.encode({"key": key, "value": value}) for key, value in every)
        return self.ask("POST", f"/api/models/{repo}/commit/{rev}{query}", body, **more)


@contextmanager
def people(folder: Path, **settings: Any) -> Iterator[People]:
    """A server over a new store, with its people."""
    with EmbeddedCas.open(folder / "store") as cas, live_server(cas, **settings) as server:
        hub = server.site.hub
        assert hub is not None
        accounts = hub.accounts
        for user in ("alice", "bob", "carol", "dave"):
            accounts.add_user(user)
        accounts.add_org("org")
        for user, role in (("alice", Role.ADMIN), ("carol", Role.WRITE), ("dave", Role.READ)):
            accounts.add_member("org", user, role)
        tokens = {user: accounts.issue(user) for user in ("alice", "bob", "carol", "dave")}
        tokens["alice-reading"] = accounts.issue("alice", scope=Scope.READ)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "huggingface_hub.constants.ENDPOINT", server.url
            )  # as HF_ENDPOINT does, before it is imported
            template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
            patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
            patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "cache"))
            yield People(server, tokens)
