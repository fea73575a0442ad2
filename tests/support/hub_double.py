"""A small Hub for tests: names, token routes and listings in front of a real server of ours, and a record of calls."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from tests.support.scripted import Scripted, Seen, Step, reply
from xetstore.protocol.hashes import Hash


class Issuer(Protocol):
    """A server of ours that gives out tokens: ``LiveServer`` and ``ServerProcess`` are."""

    @property
    def url(self) -> str: ...

    def token(self, scope: str = "read", namespace: str = "default", **more: Any) -> str: ...


@dataclass(frozen=True)
class Stored:
    """A file of a repository; ``hash`` None for one that Xet does not store."""

    size: int
    hash: Hash | None


class _Error(Exception):
    def __init__(self, status: int, code: str, **headers: str) -> None:
        super().__init__(code)
        self.status = status
        self.headers = {"X-Error-Code": code} if code else {}
        self.headers |= headers


@dataclass
class HubDouble:
    """What the Hub has and how it answers; all of it may be changed while it runs."""

    url: str
    server: Issuer
    token: str | None = None
    """The Hub token that every call needs; None: everything is public."""
    may_write: bool = True
    redirects_to: str | None = None
    """Resolve answers with a redirect to there, as the public Hub does to a host of its own, instead of 200."""
    commits: dict[tuple[str, str], int] = field(default_factory=dict)
    """How many commits were made on a revision since the first, by root name and revision."""
    failures: list[int] = field(default_factory=list)
    """Statuses that the next calls are answered with."""
    page_size: int = 1000
    ttl_seconds: int = 900
    body_tells: bool = True
    headers_tell: bool = True
    renamed: dict[str, str] = field(default_factory=dict)
    """Old root names to new ones, such as ``models/ns/old``."""
    link_origin: str | None = ""
    """Where the token route is that resolve names in a Link: "" for here, None for no Link."""
    next_origin: str | None = None
    """Where the listing's next pages are said to be, if not here."""
    asked: list[Seen] = field(default_factory=list)
    issued: list[tuple[str, str]] = field(default_factory=list)
    """Scope and revision of every token."""
    files: dict[tuple[str, str], dict[str, Stored]] = field(default_factory=dict)

    def add(self, kind: str, repo: str, revision: str | None, path: str, hash: Hash | None, size: int) -> str:  # noqa: A002
        """Name a file of the server's, and return its locator. A bucket's revision is None."""
        self.files.setdefault((f"{kind}/{repo}", revision or ""), {})[path] = Stored(size, hash)
        at = f"@{quote(revision, safe='')}" if revision else ""
        return f"hf://{kind}/{repo}{at}/{path}"

    def calls(self, part: str) -> list[Seen]:
        """The requests with this in their path."""
        return [asked for asked in self.asked if part in asked.target]

    def forget_calls(self) -> None:
        self.asked.clear()
        self.issued.clear()

    def commit_of(self, root: str, revision: str) -> str:
        """The commit that a revision of a repository stands for, made up."""
        return hashlib.sha1(f"{root}@{revision} {self.commits.get((root, revision), 0)}".encode()).hexdigest()

    def revision_of(self, root: str, text: str) -> str | None:
        """The revision that is asked for, by its name or by its commit."""
        for known, revision in self.files:
            if known == root and text in (revision, self.commit_of(root, revision)):
                return revision
        return None

    def answer(self, seen: Seen) -> Step:
        """The answer to a request."""
        self.asked.append(seen)
        try:
            if self.failures:
                raise _Error(self.failures.pop(0), "")
            authorization = seen.headers.get("authorization")
            if self.token is not None and authorization != f"Bearer {self.token}":
                raise _Error(401, "RepoNotFound" if authorization is None else "")
            parts = urlsplit(seen.target)
            segments = parts.path.strip("/").split("/")
            if segments[0] == "api":
                return self._api(parts, segments[1], segments[2:])
            return self._resolve(segments)
        except _Error as error:
            return reply(error.status, json.dumps({"error": f"{error.status}"}).encode(), error.headers)

    def _resolve(self, segments: list[str]) -> Step:
        kind = segments.pop(0) if segments[0] in ("datasets", "spaces", "buckets") else "models"
        cut = segments.index("resolve")
        root = "/".join([kind, *segments[:cut]])
        rest = segments[cut + 1 :]
        if root in self.renamed:
            new = self.renamed[root].removeprefix("models/")
            raise _Error(307, "", Location=f"/{new}/resolve/{'/'.join(rest)}")
        revision = self._revision(root, kind, rest)
        path = unquote("/".join(rest))
        file = self.files[root, revision].get(path)
        if file is None:
            raise _Error(404, "EntryNotFound")
        commit = self.commit_of(root, revision)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(path.encode()).hexdigest()}"'}
        if file.hash is not None:
            headers["X-Xet-Hash"] = str(file.hash)
            if self.link_origin is not None:
                tail = "" if kind == "buckets" else f"/{commit}"
                headers["Link"] = (
                    f'<{self.link_origin or self.url}/api/{root}/xet-read-token{tail}>; rel="xet-auth", '
                    f'<{self.server.url}/v1/reconstructions/{file.hash}>; rel="xet-reconstruction-info"'
                )
        if self.redirects_to is not None:
            headers |= {
                "X-Linked-Size": str(file.size),
                "Location": self.redirects_to,
            }
            return reply(302, b"", headers)
        return reply(200, b"", headers | {"Content-Length": str(file.size)})

    def _api(self, parts: SplitResult, kind: str, segments: list[str]) -> Step:
        for number, segment in enumerate(segments):
            root = "/".join([kind, *segments[:number]])
            if root in self.renamed:
                new = "/".join([self.renamed[root], *segments[number:]])
                raise _Error(307, "", Location=f"{self.url}/api/{new}?{parts.query}")
            if segment in ("xet-read-token", "xet-write-token"):
                rest = segments[number + 1 :]
                return self._token(segment.split("-")[1], self._revision(root, kind, rest))
            if segment == "tree":
                rest = segments[number + 1 :]
                revision = self._revision(root, kind, rest)
                return self._tree(parts, (root, revision), kind, unquote("/".join(rest)))
        raise _Error(404, "")

    def _revision(self, root: str, kind: str, rest: list[str]) -> str:
        """Take the revision off the front of what is left of the path."""
        if not any(known == root for known, _ in self.files):
            raise _Error(404, "RepoNotFound")
        if kind == "buckets":
            return ""
        revision = self.revision_of(root, unquote(rest.pop(0)))
        if revision is None:
            raise _Error(404, "RevisionNotFound")
        return revision

    def _token(self, scope: str, revision: str) -> Step:
        if scope == "write" and not self.may_write:
            raise _Error(403, "")
        self.issued.append((scope, revision))
        token = self.server.token(scope, ttl_seconds=self.ttl_seconds)
        expires = int(time.time()) + self.ttl_seconds
        headers = {
            "X-Xet-Cas-Url": self.server.url,
            "X-Xet-Access-Token": token,
            "X-Xet-Token-Expiration": str(expires),
        }
        body = {"casUrl": self.server.url, "exp": expires, "accessToken": token}
        sent = json.dumps(body if self.body_tells else {}).encode()
        return reply(200, sent, headers if self.headers_tell else {})

    def _tree(self, parts: SplitResult, of: tuple[str, str], kind: str, path: str) -> Step:
        files, query = self.files[of], parse_qs(parts.query)
        prefix = path if kind == "buckets" or not path else f"{path}/"
        recursive = query.get("recursive") == ["true"]
        entries: dict[str, dict[str, Any]] = {}
        for name, file in sorted(files.items()):
            if not name.startswith(prefix) and name != path:
                continue
            folders = name[len(prefix) :].split("/")[:-1]
            for depth in range(1, len(folders) + 1):
                folder = prefix + "/".join(folders[:depth])
                entries.setdefault(folder, {"type": "directory", "path": folder, "size": 0})
                if not recursive:
                    break
            if recursive or not folders:
                entries[name] = {"type": "file", "path": name, "size": file.size}
                if file.hash is not None:
                    entries[name]["xetHash"] = str(file.hash)
        if path and not entries and kind != "buckets":
            raise _Error(404, "EntryNotFound")
        start = int(query.get("cursor", ["0"])[0])
        page = list(entries.values())[start : start + self.page_size]
        headers = {"Content-Type": "application/json"}
        if start + self.page_size < len(entries):
            origin = self.next_origin or self.url
            flag = "true" if recursive else "false"
            headers["Link"] = f'<{origin}{parts.path}?recursive={flag}&cursor={start + self.page_size}>; rel="next"'
        return reply(200, json.dumps(page).encode(), headers)


@contextmanager
def hub_double(server: Issuer, *, token: str | None = None) -> Iterator[HubDouble]:
    """A Hub on a free port whose files lie in ``server``. With ``token`` every call to it needs that one."""
    hub = HubDouble("", server, token)
    with Scripted(lambda seen: hub.answer(seen)) as listening:
        hub.url = listening.url
        yield hub
