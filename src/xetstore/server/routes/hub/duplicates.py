"""Duplicates of large files: given from one repository to another, for a commit that names them."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from starlette.responses import Response

from xetstore.errors import RepositoryNotFoundError, UnprocessableError, UsageError
from xetstore.hub.duplicates import MAX_FILES, GivenFile, give_files
from xetstore.hub.names import Kind
from xetstore.hub.rights import Right
from xetstore.server.http.router import Route
from xetstore.server.routes.hub.answers import json_answer
from xetstore.server.routes.hub.handling import (
    GIT_KINDS,
    LONG_BODY_BYTES,
    Call,
    api_path,
    decoded,
    hub_of,
    on_repository_with_body,
)
from xetstore.server.site import parse_hash

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class _Target(msgspec.Struct, frozen=True):
    name: str
    type: str | None = None


class _File(msgspec.Struct, frozen=True, rename="camel"):
    xet_hash: str
    sha256: str


class _Files(msgspec.Struct, frozen=True):
    target: _Target
    files: list[_File]


def _duplicate(call: Call, body: bytes) -> Response:
    """The repository of the path is the source; those files that it has not are told."""
    wanted = decoded(body, _Files)
    if len(wanted.files) > MAX_FILES:
        raise UnprocessableError(f"at most {MAX_FILES} files are given at once")
    kind = Kind.of_word(wanted.target.type)
    if not kind.is_git:
        raise RepositoryNotFoundError
    target = hub_of(call.request).repository(call.repository.actor, kind, wanted.target.name, Right.READ)
    asked = [GivenFile(parse_hash(file.xet_hash), _sha256(file.sha256)) for file in wanted.files]
    missing = give_files(call.repository, target, asked)
    failed = [{"sha256": file.sha256.hex(), "error": "the source has no such file"} for file in missing]
    return json_answer({"success": not failed, "failed": failed})


def _sha256(text: str) -> bytes:
    if not _SHA256.fullmatch(text):
        raise UsageError(f"{text[:80]!r} is no SHA-256")
    return bytes.fromhex(text)


ROUTES: Final = tuple(
    Route(
        f"{api_path(kind)}/lfs-files/duplicate",
        {"POST": on_repository_with_body(_duplicate, Right.READ, most=LONG_BODY_BYTES, writes=True)(kind)},
    )
    for kind in GIT_KINDS
)
