"""Files: their bytes by name, for every client that speaks HTTP; and all that one which speaks Xet has to know."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from xetstore.errors import EntryNotFoundError, RevisionNotFoundError
from xetstore.hub.names import Kind
from xetstore.hub.objects import SUBMODULE
from xetstore.hub.rights import Right
from xetstore.server.http.router import Route, reading
from xetstore.server.routes.hub.answers import content_disposition, is_true, json_answer, link
from xetstore.server.routes.hub.handling import (
    Call,
    api_url,
    find_nothing,
    of_each_kind,
    on_repository,
    page_prefix,
)
from xetstore.server.routes.hub.sending import send_file, send_kept
from xetstore.server.routes.hub.trees import split_revision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xetstore.hub.queries import Revision
    from xetstore.hub.trees import Entry
    from xetstore.protocol.hashes import Hash

FILE_INFO: Final = "application/vnd.xet-fileinfo+json"
"""The media type by which a client asks for the names of a file in the CAS, and not for its bytes."""

_TEXT: Final = "text/plain; charset=utf-8"
_BYTES: Final = "application/octet-stream"


def _resolve(call: Call) -> Response:
    revision, entry = _find(call)
    headers = _headers(revision, entry)
    if is_true(call.query("download")):
        headers["Content-Disposition"] = headers["Content-Disposition"].replace("inline", "attachment", 1)
    if entry.file is None and entry.sha256 is not None:
        raise EntryNotFoundError(f"Entry not found: {entry.path[:200]} was deleted for good", commit=revision.id)
    if entry.file is None:
        return send_kept(call.request, partial(call.repository.blob, entry), entry.size, headers)
    assert entry.sha256 is not None
    headers |= {
        "ETag": f'"{entry.sha256.hex()}"',
        "Content-Type": _BYTES,
        "X-Linked-Etag": f'"{entry.sha256.hex()}"',
    }
    return send_stored(call, entry.file, entry.size, headers, revision)


def send_stored(
    call: Call, file: Hash, size: int, headers: Mapping[str, str], revision: Revision | None = None
) -> Response:
    """A file of the store, with the names by which it is read from the CAS; those alone if that is what is asked for.

    ``headers`` have its ETag. A bucket has no ``revision``.
    """
    refresh = f"{api_url(call.base, call.repository.name)}/xet-read-token" + (f"/{revision.id}" if revision else "")
    reconstruction = f"{call.site.cas_url(call.request)}/v1/reconstructions/{file}"
    headers = {
        **headers,
        "X-Linked-Size": str(size),
        "X-Xet-Hash": str(file),
        "Link": link((refresh, "xet-auth"), (reconstruction, "xet-reconstruction-info")),
    }
    if call.request.method == "GET" and FILE_INFO in call.request.headers.get("accept", ""):
        told = {"hash": str(file), "refreshUrl": refresh, "reconstructionUrl": reconstruction}
        answer = json_answer(told, headers=headers)
        answer.headers["Content-Type"] = FILE_INFO
        return answer
    return send_file(call.request, call.repository.cas, file, size, headers)


def _raw(call: Call) -> Response:
    """The file as the repository has it: of a large one its pointer."""
    revision, entry = _find(call)
    size = entry.size if entry.pointer_size is None else entry.pointer_size
    return send_kept(call.request, partial(call.repository.blob, entry), size, _headers(revision, entry))


def _find(call: Call) -> tuple[Revision, Entry]:
    rev, path = call.parameter("rev"), call.parameter("path")
    try:
        revision, entry = call.repository.find(rev, path)
    except RevisionNotFoundError:
        revision, path = split_revision(call.repository, rev, path)
        entry = call.repository.entry(revision, path)
    if entry.is_folder or entry.mode == SUBMODULE:
        raise EntryNotFoundError(f"Entry not found: {path[:200]} is no file", commit=revision.id)
    return revision, entry


def _headers(revision: Revision, entry: Entry) -> dict[str, str]:
    """Headers of every file. A browser makes no page of it, though it were one: it would be a page of this server."""
    return {
        "X-Repo-Commit": revision.id,
        "ETag": f'"{entry.id}"',
        "Content-Type": _TEXT,
        "Content-Disposition": content_disposition(entry.path),
        "Cache-Control": "private, no-cache",
    }


def _of(kind: Kind) -> tuple[Route, ...]:
    prefix = page_prefix(kind)
    path = f"{prefix}/{{owner:text}}/{{name:text}}"
    resolve = reading(on_repository(_resolve, Right.READ)(kind))
    raw = reading(on_repository(_raw, Right.READ)(kind))
    nothing = reading(find_nothing)
    return (
        Route(f"{path}/resolve/{{rev:text}}/{{path:path}}", resolve),
        Route(f"{path}/raw/{{rev:text}}/{{path:path}}", raw),
        Route(f"{prefix}/{{name:text}}/resolve/{{rev:text}}/{{path:path}}", nothing, is_last=True),
        Route(f"{prefix}/{{name:text}}/raw/{{rev:text}}/{{path:path}}", nothing, is_last=True),
    )


ROUTES: Final = of_each_kind(_of)
