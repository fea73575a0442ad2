"""HttpNames: the repositories of any Hub, by its API, as :class:`~xetstore.interfaces.Names`."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from xetstore.cancellation import Cancellation
from xetstore.errors import FormatError, NotFoundError, UnprocessableError, UsageError
from xetstore.platform.threads import Threads
from xetstore.records import (
    Change,
    Commit,
    DeletedName,
    NewBlob,
    NewPointer,
    Ref,
    Removal,
    RepoFile,
    RepositoryId,
    RepositoryRecord,
)
from xetstore.remote.hub.answers import entries_of, object_of, objects_of, seconds_of, text_of
from xetstore.remote.hub.locators import DEFAULT_REVISION, SCHEME, HubLocator
from xetstore.remote.hub.verified import Verified

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from xetstore.remote.hub.client import Hub

PREUPLOAD_FILES: Final = 256
PATHS_AT_ONCE: Final = 500
COMMITS_A_PAGE: Final = 100
READS_AT_ONCE: Final = 8
TICK_SECONDS: Final = 0.25
"""The longest wait at a time: Ctrl-C is noticed between two."""
MAX_COMMIT_BYTES: Final = 1 << 30
"""The files that git keeps of one commit, as text: more should have been large ones."""


class HttpNames:
    """The names of a Hub, ``hub``. Thread-safe. ``scheme`` is that of the locators in messages."""

    keeps_modes = False

    def __init__(self, hub: Hub, scheme: str = SCHEME) -> None:
        self.hub = hub
        self._scheme = scheme

    @property
    def location(self) -> str:
        """The URL of the Hub."""
        return self.hub.endpoint

    def locator(self, repo: RepositoryId, revision: str = DEFAULT_REVISION, path: str = "") -> HubLocator:
        """The locator of a repository; of a bucket without a revision."""
        return HubLocator(repo.kind, repo.name, None if repo.kind == "buckets" else revision, path, self._scheme)

    def repositories(
        self, kind: str, *, owner: str | None = None, search: str | None = None
    ) -> Iterator[RepositoryRecord]:
        """All that the Hub lists, of one kind."""
        locator = HubLocator(kind, "any/any", None if kind == "buckets" else DEFAULT_REVISION, "", self._scheme)
        query = {"author": owner, "search": search, "limit": "500"}
        route = f"/api/{kind}"
        if kind == "buckets":
            route += f"/{quote(owner or 'me', safe='')}"
            query.pop("author")
        text = urlencode({key: value for key, value in query.items() if value is not None})
        return self.hub.pages(
            f"{route}?{text}",
            locator,
            f"list {kind}",
            lambda body: [_record(kind, item) for item in objects_of(body, f"its {kind}")],
        )

    def create(self, repo: RepositoryId, *, is_private: bool | None = None) -> RepositoryRecord:
        """Create a repository."""
        locator = self.locator(repo)
        told: dict[str, Any] = {} if is_private is None else {"private": is_private}
        if repo.kind == "buckets":
            self._post(f"/api/buckets/{quote(repo.name)}", locator, "create a bucket", told)
        else:
            owner, _, name = repo.name.rpartition("/")
            told |= {"name": name, "organization": owner or None, "type": repo.kind.removesuffix("s")}
            if is_private is not None:
                told["visibility"] = "private" if is_private else "public"
            if repo.kind == "spaces":
                told["sdk"] = "static"
            self._post("/api/repos/create", locator, "create a repository", told)
        return self.info(repo)

    def info(self, repo: RepositoryId) -> RepositoryRecord:
        """The record of a repository."""
        locator = self.locator(repo)
        told = object_of(self.hub.ask("GET", locator.api_route, locator, "tell of a repository"), "a repository")
        return _record(repo.kind, told)

    def delete(self, repo: RepositoryId) -> None:
        """Delete a repository."""
        locator = self.locator(repo)
        if repo.kind == "buckets":
            self.hub.ask("DELETE", locator.api_route, locator, "delete a bucket")
            return
        owner, _, name = repo.name.rpartition("/")
        told = {"name": name, "organization": owner or None, "type": repo.kind.removesuffix("s")}
        self.hub.ask("DELETE", "/api/repos/delete", locator, "delete a repository", body=_json(told))

    def deleted(self, repo: RepositoryId, path: str = "") -> list[DeletedName]:
        """Deleted names that can be given back: of a server of ours."""
        query = urlencode({"type": repo.kind.removesuffix("s"), "name": repo.name, "path": path})
        answer = self.hub.ask("GET", f"/api/repos/deleted?{query}", self.locator(repo), "list what was deleted")
        return [_deleted(item) for item in objects_of(answer, "what was deleted")]

    def undelete(self, repo: RepositoryId, *, to: str | None = None) -> RepositoryRecord:
        """Give a repository back."""
        told = {"name": repo.name, "type": repo.kind.removesuffix("s"), "to": to}
        answer = self._post("/api/repos/undelete", self.locator(repo), "give a repository back", told)
        name = text_of(object_of(answer, "a repository"), "name")
        return self.info(RepositoryId(repo.kind, name or to or repo.name))

    def undelete_ref(self, repo: RepositoryId, name: str, *, to: str | None = None) -> Ref:
        """Give a branch or a tag back."""
        locator = self.locator(repo)
        told = {"ref": name, "to": to}
        ref = object_of(self._post(f"{locator.api_route}/undelete", locator, "give a branch back", told), "a ref")
        return Ref(text_of(ref, "name"), text_of(ref, "ref"), text_of(ref, "targetCommit"))

    def undelete_files(self, repo: RepositoryId, path: str, *, to: str | None = None) -> list[str]:
        """Give files of a bucket back."""
        if repo.kind != "buckets":
            raise UsageError(f"{repo.path} is no bucket", hint="earlier revisions of a repository have its files")
        locator, paths, is_more = self.locator(repo), list[str](), True
        while is_more:
            told = {"path": path, "to": to}
            answer = object_of(self._post(f"{locator.api_route}/undelete", locator, "give files back", told), "files")
            some = answer.get("paths")
            if not isinstance(some, list) or not all(isinstance(each, str) for each in some):
                raise FormatError("hub.undelete", 0, "the server does not say which files it gave back")
            paths += some
            is_more = answer.get("more") is True and bool(some)
        return paths

    def move(self, repo: RepositoryId, name: str) -> None:
        """Give a repository another name."""
        told = {"fromRepo": repo.name, "toRepo": name, "type": repo.kind.removesuffix("s")}
        self._post("/api/repos/move", self.locator(repo), "move a repository", told)

    def commit_at(self, repo: RepositoryId, revision: str) -> Commit:
        """The commit that a revision is at: its id."""
        locator = self.locator(repo, revision)
        route = f"{locator.api_route}/revision{locator.revision_segment}?expand=sha"
        oid = text_of(object_of(self.hub.ask("GET", route, locator, "find the revision"), "a revision"), "sha")
        if not oid:
            raise FormatError("hub.revision", 0, f"the Hub names no commit for {locator}")
        return Commit(oid)

    def log(self, repo: RepositoryId, revision: str) -> Iterator[Commit]:
        """The commits of a revision, from new to old."""
        locator = self.locator(repo, revision)
        return self.hub.pages(
            f"{locator.api_route}/commits{locator.revision_segment}?limit={COMMITS_A_PAGE}",
            locator,
            "list the commits",
            lambda body: [_commit(item) for item in objects_of(body, "commits")],
        )

    def branches(self, repo: RepositoryId) -> list[Ref]:
        """The branches."""
        return self._refs(repo, "branches")

    def tags(self, repo: RepositoryId) -> list[Ref]:
        """The tags."""
        return self._refs(repo, "tags")

    def create_branch(self, repo: RepositoryId, name: str, revision: str) -> None:
        """Create a branch."""
        locator = self.locator(repo, name)
        route = f"{locator.api_route}/branch{locator.revision_segment}"
        self._post(route, self.locator(repo, revision), "create a branch", {"startingPoint": revision})

    def delete_branch(self, repo: RepositoryId, name: str) -> None:
        """Delete a branch."""
        locator = self.locator(repo, name)
        self.hub.ask("DELETE", f"{locator.api_route}/branch{locator.revision_segment}", locator, "delete a branch")

    def create_tag(self, repo: RepositoryId, name: str, revision: str, message: str = "") -> None:
        """Create a tag."""
        locator = self.locator(repo, revision)
        told = {"tag": name, "message": message} if message else {"tag": name}
        self._post(f"{locator.api_route}/tag{locator.revision_segment}", locator, "create a tag", told)

    def delete_tag(self, repo: RepositoryId, name: str) -> None:
        """Delete a tag."""
        locator = self.locator(repo, name)
        self.hub.ask("DELETE", f"{locator.api_route}/tag{locator.revision_segment}", locator, "delete a tag")

    def entries(
        self, repo: RepositoryId, revision: str, path: str = "", *, recursive: bool = False, dates: bool = False
    ) -> Iterator[RepoFile]:
        """The content of a folder, or the one file."""
        return self.hub.tree(self.locator(repo, revision, path), recursive, dates=dates)

    def entries_at(self, repo: RepositoryId, revision: str, paths: Sequence[str]) -> list[RepoFile]:
        """The entries at those of these paths where there is one."""
        locator = self.locator(repo, revision)
        route = f"{locator.api_route}/paths-info{locator.revision_segment}"
        found: list[RepoFile] = []
        for start in range(0, len(paths), PATHS_AT_ONCE):
            part = list(paths[start : start + PATHS_AT_ONCE])
            found += entries_of(self._post(route, locator, "find files", {"paths": part, "expand": False}))
        asked = set(paths)
        return [file for file in found if file.path in asked]

    def read(self, repo: RepositoryId, revision: str, file: RepoFile) -> Iterator[Buffer]:
        """The bytes of a file that the Hub itself sends; HashMismatchError at the end if they are not its own."""
        check = Verified(file)
        for part in self.hub.stream(self.locator(repo, revision, file.path)):
            check.update(part)
            yield part
        check.finish()

    def read_many(self, repo: RepositoryId, revision: str, files: Sequence[RepoFile]) -> list[bytes]:
        """The bytes of files that the Hub itself sends, some at a time."""

        def whole(file: RepoFile) -> bytes:
            return self.hub.retrying(
                f"GET {file.path}", lambda: b"".join(bytes(part) for part in self.read(repo, revision, file))
            )

        if not files:
            return []
        with Threads(min(READS_AT_ONCE, len(files)), "hub") as threads:
            reads = [threads.submit(whole, file) for file in files]
            try:
                while wait(reads, TICK_SECONDS).not_done:
                    pass
                return [read.result() for read in reads]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def large_files(self, repo: RepositoryId, branch: str, files: Sequence[tuple[str, int, bytes]]) -> set[str]:
        """Those that the Hub wants by another way than in the commit."""
        locator = self.locator(repo, branch)
        route = f"{locator.api_route}/preupload{locator.revision_segment}"
        large: set[str] = set()
        for start in range(0, len(files), PREUPLOAD_FILES):
            part = files[start : start + PREUPLOAD_FILES]
            told = [{"path": path, "size": size, "sample": _base64(sample)} for path, size, sample in part]
            answer = object_of(self._post(route, locator, "say which files are large", {"files": told}), "an upload")
            modes = answer.get("files")
            if not isinstance(modes, list) or not all(isinstance(mode, dict) for mode in modes):
                raise FormatError("hub.preupload", 0, "the Hub does not say which files are large ones")
            named = {text_of(mode, "path") for mode in modes if mode.get("uploadMode") == "lfs"}
            large |= {path for path, size, _ in part if size and path in named}
        return large

    def adopt(self, repo: RepositoryId, source: RepositoryId, files: Sequence[RepoFile]) -> bool:
        """Have the Hub give files of one repository to another one, if it has a call for that."""
        locator = self.locator(source)
        if any(file.hash is None or file.sha256 is None for file in files):
            return False
        told = [{"xetHash": str(file.hash), "sha256": file.sha256, "filename": file.path} for file in files]
        target = {"type": repo.kind.removesuffix("s"), "name": repo.name}
        for start in range(0, len(told), PATHS_AT_ONCE):
            body = {"target": target, "files": told[start : start + PATHS_AT_ONCE]}
            try:
                answer = self._post(f"{locator.api_route}/lfs-files/duplicate", locator, "copy files", body)
            except NotFoundError:
                return False
            if object_of(answer, "a copy").get("failed"):
                return False
        return True

    def commit(
        self,
        repo: RepositoryId,
        branch: str,
        changes: Sequence[Change],
        *,
        message: str,
        description: str = "",
        parent: str | None = None,
    ) -> Commit:
        """Commit changes to a branch, in one call."""
        locator = self.locator(repo, branch)
        header: dict[str, Any] = {"summary": message, "description": description}
        if parent is not None:
            header["parentCommit"] = parent
        removals = [change for change in changes if isinstance(change, Removal)]
        others = [change for change in changes if not isinstance(change, Removal)]
        lines = [_line("header", header)]
        size = 0
        for change in (*removals, *others):
            lines.append(_operation(change))
            size += len(lines[-1])
            if size > MAX_COMMIT_BYTES:
                raise UnprocessableError(
                    "the files that git keeps make this commit too large", hint="commit a part of them at a time"
                )
        answer = object_of(
            self.hub.ask(
                "POST",
                f"{locator.api_route}/commit{locator.revision_segment}",
                locator,
                "commit",
                body=b"".join(lines),
                content_type="application/x-ndjson",
            ),
            "a commit",
        )
        oid = text_of(answer, "commitOid")
        if not oid:
            raise FormatError("hub.commit", 0, "the Hub names no commit in its answer")
        title = message.partition("\n")[0]
        return Commit(oid, title, f"{message}\n\n{description}" if description else message)

    def under(self, cancellation: Cancellation) -> HttpNames:
        """The same names, for calls that end with ``cancellation``."""
        return HttpNames(self.hub.under(cancellation), self._scheme)

    def close(self) -> None:
        """Close the Hub."""
        self.hub.close()

    def _post(self, route: str, locator: HubLocator, what: str, told: object) -> bytes:
        return self.hub.ask("POST", route, locator, what, body=_json(told))

    def _refs(self, repo: RepositoryId, kind: str) -> list[Ref]:
        locator = self.locator(repo)
        told = object_of(self.hub.ask("GET", f"{locator.api_route}/refs", locator, "list the refs"), "refs")
        refs = told.get(kind)
        if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
            raise FormatError("hub.refs", 0, f"the Hub names no {kind}")
        return sorted(
            (Ref(text_of(ref, "name"), text_of(ref, "ref"), text_of(ref, "targetCommit")) for ref in refs),
            key=lambda ref: ref.name,
        )


def _deleted(item: dict[str, Any]) -> DeletedName:
    size = item.get("size")
    return DeletedName(
        text_of(item, "kind"),
        text_of(item, "name"),
        seconds_of(item, "deletedAt") or 0.0,
        seconds_of(item, "until") or 0.0,
        size if type(size) is int else None,
        text_of(item, "oid") or None,
    )


def _operation(change: Change) -> bytes:
    match change:
        case NewBlob(path, data, _):
            return _line("file", {"path": path, "content": _base64(data), "encoding": "base64"})
        case NewPointer(path, sha256, size, _):
            return _line("lfsFile", {"path": path, "algo": "sha256", "oid": sha256, "size": size})
        case Removal(path):
            return _line("deletedFile", {"path": path})
    raise UsageError(f"{change.path} is an empty folder, of which a Hub knows nothing")


def _line(key: str, value: dict[str, Any]) -> bytes:
    return _json({"key": key, "value": value}) + b"\n"


def _json(told: object) -> bytes:
    return json.dumps(told).encode()


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _record(kind: str, item: dict[str, Any]) -> RepositoryRecord:
    name = text_of(item, "id")
    if not name:
        raise FormatError("hub.repository", 0, "the Hub tells of a repository without a name")
    gated, size = item.get("gated"), item.get("usedStorage", item.get("size"))
    return RepositoryRecord(
        RepositoryId(kind, name),
        bool(item.get("private")),
        text_of(item, "sha") or None,
        gated if isinstance(gated, str) else None,
        seconds_of(item, "createdAt"),
        seconds_of(item, "lastModified"),
        size if type(size) is int else None,
    )


def _commit(item: dict[str, Any]) -> Commit:
    authors = item.get("authors")
    names = (
        [text_of(author, "user") for author in authors if isinstance(author, dict)] if isinstance(authors, list) else []
    )
    title, more = text_of(item, "title"), text_of(item, "message")
    # A Hub tells what follows the title by itself.
    message = more if more.startswith(title) else f"{title}\n\n{more}"
    return Commit(text_of(item, "id"), title, message if more else title, ", ".join(names), seconds_of(item, "date"))
