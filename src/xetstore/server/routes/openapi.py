"""/openapi.json: the CAS as an OpenAPI 3.1 document, made from the very table by which requests are answered.

Routes of the Hub are not in it: their shapes are those that clients of the Hub expect, and the tests ask these clients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from xetstore.interfaces import MANY_CHUNKS, MANY_PUT_AGAIN
from xetstore.protocol.headers import HASHES_HEADER, INLINE_HEADER, SUSPECT_HEADER
from xetstore.protocol.inline import INLINE_TYPE
from xetstore.protocol.suite import HASH_BYTES
from xetstore.server.routes import again, chunks, deletions, reconstructions, shards, status, telemetry, xorbs
from xetstore.server.routes.file_chunk_hashes import DIRTY_HEADER, get_file_chunk_hashes
from xetstore.server.routes.openapi_schemas import SCHEMAS, ref

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.server.http.router import Handler, Route
    from xetstore.server.settings import ServerSettings

_Json = dict[str, Any]
_TEXT: Final[_Json] = {"type": "string"}

_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"
_MAX_QUERY_FILES: Final = 800
"""More do not fit into the head of a request."""
_PREFIX: Final = {"type": "string", "pattern": "^[A-Za-z0-9._~-]+$", "examples": ["default"]}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """The description of a handler, whatever the path that leads to it.

    ``scope`` is what the token has to allow, None where none is needed. ``body`` is what a request's body is:
    its media type and schema. ``answers`` are statuses with their description and content; ``errors`` further
    statuses, beside those that follow from the rest, whose content is a Problem. ``named`` is the schema of a
    ``{hash}`` in its path.
    """

    summary: str
    tag: str
    scope: str | None = None
    parameters: tuple[_Json, ...] = ()
    body: tuple[str, _Json] | None = None
    answers: Mapping[int, tuple[str, _Json]]
    errors: frozenset[int] = frozenset()
    named: str = "Hash"


class Document:
    """The document for a table of routes, as ``body``. KeyError if one of its handlers is not described."""

    def __init__(self, routes: Sequence[Route], version: str, settings: ServerSettings) -> None:
        described: set[tuple[Handler, str]] = set()
        paths: _Json = {}
        for route in routes:
            for method, handler in route.handlers.items():
                # Of several paths that lead to one handler the first is its own, the others are for old clients.
                is_alias = (handler, method) in described
                described.add((handler, method))
                operation = _operation(OPERATIONS[handler], route, method, is_alias=is_alias)
                paths.setdefault(route.template, {})[method.lower()] = operation
        security = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
        if settings.auth == "none":
            security = {}
            for methods in paths.values():
                for operation in methods.values():
                    operation.pop("security", None)
        self.document: _Json = {
            "openapi": "3.1.0",
            "info": {
                "title": "xetstore",
                "version": version,
                "description": "A content-addressable store for files, as chunks that are deduplicated and verified."
                " Repositories are served by the API of the Hugging Face Hub, which is not described here.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": settings.public_url or "/"}],
            "paths": paths,
            "components": {"schemas": SCHEMAS, "securitySchemes": security},
        }
        self.body = msgspec.json.encode(self.document)


async def get_openapi(request: Request) -> Response:
    """The document."""
    document: Document = request.app.state.openapi
    return Response(document.body, media_type=_JSON)


def _operation(operation: Operation, route: Route, method: str, *, is_alias: bool) -> _Json:
    path_parameters = [
        _parameter(
            "path", name, "", ref(operation.named) if name == "hash" else _TEXT if kind else _PREFIX, required=True
        )
        for name, kind in route.parameters.items()
    ]
    parameters = [*path_parameters, *operation.parameters]
    errors = set(operation.errors)
    if parameters:
        errors |= {400, 431}
    if path_parameters:
        errors |= {404}
    if operation.body:
        errors |= {400, 408, 413}
    if operation.scope:
        errors |= {400, 401, 403, 500, 503}
    if route.limited:
        errors |= {429}
    responses = {code: {"description": text, "content": content} for code, (text, content) in operation.answers.items()}
    for code in errors - responses.keys():
        responses[code] = {"description": HTTPStatus(code).phrase, "content": _json("Problem")}
    if method == "HEAD":
        for response in responses.values():
            del response["content"]
    described: _Json = {
        "operationId": "_".join([method.lower(), *re.findall(r"\w+", route.template)]),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": parameters,
        "responses": {str(code): responses[code] for code in sorted(responses)},
    }
    if operation.body:
        media_type, schema = operation.body
        described["requestBody"] = {"required": True, "content": _content(media_type, schema)}
    if operation.scope:
        described["description"] = f"Needs a token with scope {operation.scope}."
        described["security"] = [{"token": []}]
    if is_alias:
        described["deprecated"] = True
    return described


def _parameter(where: str, name: str, text: str, schema: _Json, **more: object) -> _Json:
    return {"in": where, "name": name, "schema": schema, **({"description": text} if text else {}), **more}


def _text_parameters(where: str, **texts: str) -> tuple[_Json, ...]:
    return tuple(_parameter(where, name.replace("_", "-"), text, {"type": "string"}) for name, text in texts.items())


def _content(media_type: str, schema: _Json) -> _Json:
    return {media_type: {"schema": schema}}


def _json(name: str) -> _Json:
    return _content(_JSON, ref(name))


_PAGE: Final = (
    _parameter(
        "query",
        "limit",
        "The most files of this page.",
        {"type": "integer", "minimum": 1, "maximum": deletions.MAX_FILES},
    ),
    _parameter("query", "after", "What the page before has as `next`.", {"type": "string"}),
)


_BYTES: Final[_Json] = {"type": "string", "contentMediaType": _BINARY, "minLength": 1}

_FRAME: Final = _content(INLINE_TYPE, _BYTES)
"""That JSON with bytes of the ranges that it names, where they were asked for."""
_INLINE: Final = _parameter(
    "header",
    INLINE_HEADER,
    "How many bytes of the ranges in the answer may come along with it.",
    {"type": "string", "pattern": "^[0-9]{1,12}$"},
)
_RECONSTRUCTION: Final = Operation(
    summary="How to rebuild a file, or a range of it",
    tag="Files",
    scope="read",
    parameters=(
        _parameter(
            "header",
            "Range",
            "Bytes of the file, as `bytes=0-1048575`.",
            {"type": "string", "pattern": "^bytes=([0-9]+-[0-9]*|-[0-9]+)$"},
        ),
        _parameter(
            "header",
            HASHES_HEADER,
            "With `true` the terms come with the hashes of their chunks.",
            {"enum": ["true", "false"]},
        ),
    ),
    answers={200: ("The terms, and where their chunks are.", _json("ReconstructionV1"))},
    errors=frozenset({404, 413, 416}),
)
_BATCH: Final = Operation(
    summary="How to rebuild several whole files",
    tag="Files",
    scope="read",
    parameters=(
        _parameter(
            "query",
            "file_id",
            "The hash of a file, once for each.",
            {"type": "array", "items": ref("Hash"), "minItems": 1, "maxItems": _MAX_QUERY_FILES},
            required=True,
        ),
        _INLINE,
    ),
    answers={200: ("The terms of each, and where the chunks of all are.", _json("BatchReconstruction") | _FRAME)},
    errors=frozenset({404, 413}),
)
_SHARD: Final = Operation(
    summary="Register files",
    tag="Uploads",
    scope="write",
    body=(_BINARY, _BYTES),
    answers={200: ("All its files are registered.", _json("ShardResult"))},
    errors=frozenset({507}),
)

OPERATIONS: Final[Mapping[Handler, Operation]] = {
    reconstructions.get_v1: _RECONSTRUCTION,
    reconstructions.get_v2: replace(
        _RECONSTRUCTION,
        parameters=(*_RECONSTRUCTION.parameters, _INLINE),
        answers={200: ("The terms, and where their chunks are.", _json("ReconstructionV2") | _FRAME)},
    ),
    reconstructions.post_ranges: Operation(
        summary="How to rebuild ranges of files, with the hashes of their chunks",
        tag="Files",
        scope="read",
        parameters=(_INLINE,),
        body=(_JSON, ref("FileRanges")),
        answers={
            200: ("For each its reconstruction, or null: ask for it alone.", _json("RangeReconstructions") | _FRAME)
        },
    ),
    reconstructions.batch_get: _BATCH,
    reconstructions.batch_post: replace(_BATCH, parameters=(_INLINE,), body=(_JSON, ref("FileKeys"))),
    reconstructions.head_file: Operation(
        summary="The size of a file, as the Content-Length",
        tag="Files",
        scope="read",
        answers={200: ("The caller may read it.", {})},
        errors=frozenset({404}),
    ),
    get_file_chunk_hashes: Operation(
        summary="What one has to know of a file to change ranges of it",
        tag="Files",
        scope="read",
        parameters=(
            _parameter(
                "header",
                DIRTY_HEADER,
                "The ranges, as `bytes=0-99,500-999`.",
                {"type": "string", "pattern": "^bytes=[0-9]+-[0-9]+(,[0-9]+-[0-9]+)*$"},
                required=True,
            ),
        ),
        answers={200: ("Windows of chunks around the ranges, and hashes for the rest.", _json("FileChunkHashes"))},
        errors=frozenset({404, 413}),
    ),
    deletions.list_files: Operation(
        summary="The files of the caller's namespace",
        tag="Files",
        scope="write",
        parameters=(
            *_PAGE,
            _parameter(
                "query", "prefix", "The first digits of their hashes.", {"type": "string", "pattern": deletions.PREFIX}
            ),
        ),
        answers={200: ("A page of them.", _json("FilesPage"))},
    ),
    deletions.delete_file: Operation(
        summary="Delete a file from the caller's namespace",
        tag="Files",
        scope="write",
        answers={200: ("It is gone, by this or before.", _json("DeletedFile"))},
        errors=frozenset({507}),
    ),
    deletions.undelete_file: Operation(
        summary="Give a deleted file back",
        tag="Files",
        scope="write",
        answers={200: ("It is there.", _json("File"))},
        errors=frozenset({413, 507}),
    ),
    deletions.delete_files: Operation(
        summary="Delete several files",
        tag="Files",
        scope="write",
        body=(_JSON, ref("FilesToDelete")),
        answers={200: ("All of them are gone, or would be.", _json("DeletedFiles"))},
        errors=frozenset({404, 507}),
    ),
    deletions.undelete_files: Operation(
        summary="Give several deleted files back",
        tag="Files",
        scope="write",
        body=(_JSON, ref("FilesToUndelete")),
        answers={200: ("All of them are there.", _json("Files"))},
        errors=frozenset({404, 507}),
    ),
    deletions.list_deleted: Operation(
        summary="The deleted files that can be given back, the last one first",
        tag="Files",
        scope="write",
        parameters=_PAGE,
        answers={200: ("A page of them.", _json("DeletedPage"))},
    ),
    chunks.get_chunk: Operation(
        summary="Which xorbs hold a chunk and its neighbours",
        tag="Uploads",
        scope="read",
        answers={200: ("A shard with a footer, in which chunk hashes are keyed.", _content(_BINARY, _BYTES))},
        errors=frozenset({404}),
    ),
    chunks.post_chunks: Operation(
        summary="Which xorbs hold several chunks, and their neighbours",
        tag="Uploads",
        scope="read",
        body=(_BINARY, _BYTES | {"minLength": HASH_BYTES, "maxLength": MANY_CHUNKS * HASH_BYTES}),
        answers={
            200: ("A shard with a footer, in which chunk hashes are keyed.", _content(_BINARY, _BYTES)),
            204: ("None of them is known.", {}),
        },
    ),
    again.put_again: Operation(
        summary="Put files again, by their hashes",
        tag="Uploads",
        scope="write",
        parameters=(_parameter("query", "dry_run", "Only tell which of them are here.", {"type": "boolean"}),),
        body=(_BINARY, _BYTES | {"minLength": HASH_BYTES, "maxLength": MANY_PUT_AGAIN * HASH_BYTES}),
        answers={200: ("The hashes of those that are here, and can be read.", _content(_BINARY, _BYTES))},
    ),
    xorbs.post_xorb: Operation(
        summary="Upload a xorb",
        tag="Uploads",
        scope="write",
        body=(_BINARY, _BYTES),
        answers={200: ("It is stored, by this or before.", _json("XorbResult"))},
        errors=frozenset({507}),
    ),
    xorbs.get_xorb: Operation(
        summary="Ranges of a xorb, by a URL of a reconstruction",
        tag="Xorbs",
        named="ObjectName",
        parameters=(
            *_text_parameters(
                "header",
                Range="One range, or several.",
                If_None_Match="An ETag.",
                **{SUSPECT_HEADER: "`true` with HEAD and a token: bytes came out wrong, and the server looks at it."},
            ),
            *_text_parameters(
                "query",
                X_Xet_Signed_Range="What the URL is good for.",
                X_Xet_Expires="Until when, in unix seconds.",
                X_Xet_Key_Id="Which key signed it.",
                X_Xet_Signature="The signature.",
            ),
        ),
        answers={
            200: ("The size, as the Content-Length: for HEAD with a token instead of a signature.", {}),
            206: (
                "The range; several as `multipart/byteranges`.",
                _content(_BINARY, _BYTES) | _content("multipart/byteranges", _BYTES),
            ),
            304: ("The client has it already.", {}),
        },
        errors=frozenset({401, 403, 404, 416, 500, 503}),
    ),
    xorbs.authorize_xorb: Operation(
        summary="Whether a proxy may answer a request for a xorb",
        tag="Xorbs",
        parameters=_text_parameters(
            "header",
            X_Original_Method="The method of that request.",
            X_Original_URI="Its path and query.",
            Range="Its ranges.",
        ),
        answers={204: ("It may.", {})},
        errors=frozenset({401, 403, 500, 503}),
    ),
    xorbs.xorb_grant: Operation(
        summary="Always 404: there are no direct uploads, xorbs are to be posted",
        tag="Uploads",
        answers={},
        errors=frozenset({404}),
    ),
    shards.post_v1: _SHARD,
    shards.post_v2: replace(
        _SHARD,
        summary="Register files, and tell how far that is",
        answers={
            200: ("A JSON object a line: progress, then a result or an error.", _content("application/x-ndjson", _TEXT))
        },
    ),
    telemetry.post_telemetry: Operation(
        summary="Report a transfer",
        tag="Server",
        scope="read",
        body=(_JSON, ref("Report")),
        answers={204: ("It is counted.", {})},
    ),
    status.live: Operation(
        summary="Whether the process runs", tag="Server", answers={200: ("It does.", _json("Health"))}
    ),
    status.ready: Operation(
        summary="Whether to send requests here",
        tag="Server",
        answers={
            200: ("Yes.", _json("Health")),
            503: ("No: it is about to stop, or its index or its objects do not answer.", _json("Health")),
        },
    ),
    status.metrics: Operation(
        summary="Metrics, for Prometheus",
        tag="Server",
        answers={200: ("All of them.", _content("text/plain", _TEXT))},
        errors=frozenset({401, 403, 429, 503}),
    ),
    status.page: Operation(
        summary="The status page",
        tag="Server",
        answers={
            200: (
                "What the store holds, for those who may know; its version, for all.",
                _content("text/html", _TEXT) | _json("Status"),
            )
        },
        errors=frozenset({503}),
    ),
    get_openapi: Operation(
        summary="This document", tag="Server", answers={200: ("It.", _content(_JSON, {"type": "object"}))}
    ),
}
"""The description of each handler."""
