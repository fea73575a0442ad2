"""Trees: the files and folders of a revision, by page, or those at some paths."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import msgspec
from starlette.responses import Response

from xetstore.errors import RevisionNotFoundError, UsageError
from xetstore.hub.names import Kind
from xetstore.hub.objects import EXECUTABLE, SYMLINK
from xetstore.server.http.router import Route, reading
from xetstore.server.routes.hub.answers import cursor_of_text, date_of, is_true, json_answer, next_link, text_of_cursor
from xetstore.server.routes.hub.handling import (
    LONG_BODY_BYTES,
    Call,
    api_path,
    decoded,
    of_each_kind,
    on_repository,
    on_repository_with_body,
    whole_number,
)

if TYPE_CHECKING:
    from xetstore.hub.queries import Revision
    from xetstore.hub.repository import Repository
    from xetstore.hub.trees import Entry

PAGE: Final = 5000
"""Entries of one page."""
EXPANDED_PAGE: Final = 1000
"""Entries of one page that tells the last commit of each."""
MOST_PATHS: Final = 10_000
"""Paths of one question."""
MOST_SEGMENTS: Final = 6
"""Slashes of a revision that comes as several segments."""


class _Paths(msgspec.Struct, frozen=True):
    paths: list[str] | str
    expand: bool = False


def split_revision(repository: Repository, rev: str, path: str) -> tuple[Revision, str]:
    """The revision and the path that a URL names. Clients send a revision as one segment; one of them sends
    ``refs/pr/1`` as three, which then begin the path. The longest run that is a revision counts. RevisionNotFoundError.
    """
    try:
        return repository.revision(rev), path
    except RevisionNotFoundError:
        parts = path.split("/")
        for count in range(min(len(parts), MOST_SEGMENTS), 0, -1):
            text = "/".join([rev, *parts[:count]])
            if not path or not _may_be_ref(text):
                continue
            try:
                return repository.revision(text), "/".join(parts[count:])
            except RevisionNotFoundError:
                continue
        raise


def entry_json(entry: Entry, last: Revision | None = None) -> dict[str, Any]:
    """An entry as the API has it, with its last commit if that is given."""
    told: dict[str, Any] = {
        "type": "directory" if entry.is_folder else "file",
        "oid": entry.id,
        "size": entry.size,
        "path": entry.path,
    }
    if entry.sha256 is not None:
        told["lfs"] = {"oid": entry.sha256.hex(), "size": entry.size, "pointerSize": entry.pointer_size}
    if entry.file is not None:
        told["xetHash"] = str(entry.file)
    if entry.mode in (EXECUTABLE, SYMLINK):
        told["mode"] = f"{entry.mode:06o}"  # beyond what a Hub tells: our client restores it
    if last is not None:
        told["lastCommit"] = {"id": last.id, "title": last.title, "date": date_of(last.created_at)}
    return told


def _tree(call: Call) -> Response:
    folder = call.parameter("path").strip("/")
    revision, folder = split_revision(call.repository, call.parameter("rev"), folder)
    expands = is_true(call.query("expand"))
    most = EXPANDED_PAGE if expands else PAGE
    limit = whole_number(call.query("limit"), most, most=most)
    entries = call.repository.entries(
        revision,
        folder,
        recursive=is_true(call.query("recursive")),
        after=text_of_cursor(call.query("cursor")) or None,
        limit=limit + 1,
    )
    headers = {}
    if len(entries) > limit:
        entries = entries[:limit]
        headers["Link"] = next_link(call.request, call.base, cursor=cursor_of_text(entries[-1].path))
    return json_answer(_told(call.repository, revision, entries, expands=expands), headers=headers)


def _paths_info(call: Call, body: bytes) -> Response:
    is_form = call.request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json"
    wanted = _form(body) if is_form else decoded(body, _Paths)
    paths = [wanted.paths] if isinstance(wanted.paths, str) else wanted.paths
    if len(paths) > MOST_PATHS:
        raise UsageError(f"at most {MOST_PATHS} paths can be asked for at once")
    revision = call.repository.revision(call.parameter("rev"))
    entries = call.repository.entries_at(revision, [path.strip("/") for path in paths])
    return json_answer(_told(call.repository, revision, entries, expands=wanted.expand))


def _told(
    repository: Repository, revision: Revision, entries: Collection[Entry], *, expands: bool
) -> list[dict[str, Any]]:
    last = repository.last_changes(revision, [entry.path for entry in entries]) if expands and entries else {}
    return [entry_json(entry, last.get(entry.path)) for entry in entries]


def _form(body: bytes) -> _Paths:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_PATHS + 10)
    except (ValueError, UnicodeDecodeError):
        raise UsageError(f"the body is no form of at most {MOST_PATHS} paths") from None
    paths = [value for key, value in pairs if key in ("paths", "paths[]")]
    return _Paths(paths, expand=any(is_true(value) for key, value in pairs if key == "expand"))


def _may_be_ref(text: str) -> bool:
    """True but for the part of a ref's name that is none: ``refs/pr``."""
    return text not in ("refs/pr", "refs/convert", "refs/heads", "refs/tags")


def _of(kind: Kind) -> tuple[Route, ...]:
    path = api_path(kind)
    tree = reading(on_repository(_tree)(kind))
    paths = on_repository_with_body(_paths_info, most=LONG_BODY_BYTES)(kind)
    return (
        Route(f"{path}/tree/{{rev:text}}", tree),
        Route(f"{path}/tree/{{rev:text}}/{{path:folder}}", tree),
        Route(f"{path}/paths-info/{{rev:text}}", {"POST": paths}),
    )


ROUTES: Final = of_each_kind(_of)
