"""Files of a namespace over HTTP: GET /v1/files, POST /v1/files/delete and …/undelete, GET …/deleted. Our own calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Generic, TypeAlias, TypeVar
from urllib.parse import quote

import msgspec

from xetstore.errors import UnavailableError, UsageError, XetError
from xetstore.protocol.hashes import Hash
from xetstore.records import DeletedFile, FileRecord
from xetstore.remote.server import Credentials, Server
from xetstore.remote.transport import Answer

AT_A_TIME: Final = 1000
"""The most files of one call."""
MAX_ANSWER_BYTES: Final = 1 << 20
_NO_SUCH_CALL: Final = (404, 405, 501)

_HashText = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _File(msgspec.Struct):
    hash: _HashText
    size: Annotated[int, msgspec.Meta(ge=0)]


class _Listed(_File):
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None


class _Deleted(_File):
    deleted_at: float
    until: float


F = TypeVar("F", bound=_File)


class _Answer(msgspec.Struct, Generic[F]):
    files: list[F]
    next: str | None = None


A = TypeVar("A")
_Files: TypeAlias = _Answer[_File]
_ListedFiles: TypeAlias = _Answer[_Listed]
_DeletedFiles: TypeAlias = _Answer[_Deleted]


def files(server: Server) -> Iterator[FileRecord]:
    """As :meth:`interfaces.Cas.files`, a page at a time."""
    for file in _pages(server, "/v1/files", "list its files", _ListedFiles):
        yield FileRecord(Hash.parse(file.hash), file.size, file.sha256)


def delete(server: Server, files: Sequence[Hash], *, dry_run: bool) -> list[DeletedFile]:
    """As :meth:`interfaces.Cas.delete`."""
    parts = _parts(files)
    # Of more files than one call takes, all are looked at before the first is deleted.
    tries = (True, False) if len(parts) > 1 and not dry_run else (dry_run,)
    for is_try in tries:
        more = {"dry_run": True} if is_try else {}
        done = [file for part in parts for file in _post(server, "delete", part, _DeletedFiles, **more)]
    return [_deleted(file) for file in done]


def undelete(server: Server, files: Sequence[Hash]) -> list[FileRecord]:
    """As :meth:`interfaces.Cas.undelete`; of more than 1,000 files, some may be back before an error comes."""
    done = (file for part in _parts(files) for file in _post(server, "undelete", part, _Files))
    return [FileRecord(Hash.parse(file.hash), file.size) for file in done]


def deleted(server: Server) -> Iterator[DeletedFile]:
    """As :meth:`interfaces.Cas.deleted`, a page at a time."""
    return map(_deleted, _pages(server, "/v1/files/deleted", "delete files by their hashes", _DeletedFiles))


def _post(server: Server, verb: str, files: Sequence[Hash], kind: type[_Answer[F]], **more: object) -> list[F]:
    body = msgspec.json.encode({"files": [str(file) for file in files], **more})
    path = f"/v1/files/{verb}"
    credentials = server.credentials(write=True)
    headers = {"content-type": "application/json"}

    def ask() -> list[F]:
        with server.send("POST", path, credentials=credentials, headers=headers, body=body) as answer:
            if not answer.is_success:
                raise _refused(server, answer, files, credentials)
            told = _parsed(server, answer, kind).files
            if [file.hash for file in told] != [str(file) for file in files]:
                raise _garbled(server)
            return told

    return server.retrying(f"POST {path}", ask)


def _refused(server: Server, answer: Answer, files: Sequence[Hash], credentials: Credentials) -> XetError:
    status = answer.status
    error = server.refused(answer, "the file" if len(files) == 1 else f"{len(files)} files", credentials)
    if status not in _NO_SUCH_CALL:
        return error
    # A server that knows the call says which of the files it has not found.
    return error if any(str(file) in str(error) for file in files) else _no_such_call(server)


def _pages(server: Server, route: str, what: str, kind: type[_Answer[F]]) -> Iterator[F]:
    after: str | None = None
    while True:
        page = _page(server, route, after, what, kind)
        yield from page.files
        if page.next is None or page.next == after:
            return
        after = page.next


def _page(server: Server, route: str, after: str | None, what: str, kind: type[_Answer[F]]) -> _Answer[F]:
    path = route + ("" if after is None else f"?after={quote(after, safe='')}")
    credentials = server.credentials(write=True)

    def ask() -> _Answer[F]:
        with server.send("GET", path, credentials=credentials) as answer:
            if answer.status in _NO_SUCH_CALL:
                raise _no_such_call(server, what)
            if not answer.is_success:
                raise server.refused(answer, "the list of files", credentials)
            return _parsed(server, answer, kind)

    return server.retrying(f"GET {route}", ask)


def _parsed(server: Server, answer: Answer, kind: type[A]) -> A:
    try:
        return msgspec.json.decode(answer.read(MAX_ANSWER_BYTES), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _garbled(server) from None


def _deleted(file: _Deleted) -> DeletedFile:
    return DeletedFile(Hash.parse(file.hash), file.size, deleted_at=file.deleted_at, until=file.until)


def _parts(files: Sequence[Hash]) -> list[list[Hash]]:
    wanted = [*dict.fromkeys(files)]
    return [wanted[at : at + AT_A_TIME] for at in range(0, len(wanted), AT_A_TIME)]


def _garbled(server: Server) -> UnavailableError:
    return UnavailableError(
        f"{server.origin.address}: what came for an answer is not what was asked for",
        hint="try again; if it stays so, the server does not delete files by their hashes",
    )


def _no_such_call(server: Server, what: str = "delete files by their hashes") -> UsageError:
    return UsageError(
        f"the server at {server.origin.address} does not {what}",
        hint="do it where its store is, or by names, as `xet rm xet://OWNER/NAME@REVISION/PATH` and `xet ls`",
    )
