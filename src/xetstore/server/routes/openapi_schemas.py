"""The schemas of /openapi.json: the parts of requests and answers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from xetstore.interfaces import MANY_RANGES
from xetstore.records import Totals
from xetstore.server.routes.deletions import MAX_FILES

HASH_PATTERN: Final = "^[0-9a-f]{64}$"

_Json = dict[str, Any]


def ref(name: str) -> _Json:
    """A schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: dict[str, _Json], optional: dict[str, _Json] | None = None, **more: object) -> _Json:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": [*required], **more}


def _list(items: _Json, **more: object) -> _Json:
    return {"type": "array", "items": items, **more}


def _by_hash(values: _Json) -> _Json:
    return {"type": "object", "propertyNames": ref("Hash"), "additionalProperties": values}


_COUNT: Final[_Json] = {"type": "integer", "minimum": 0}
_TEXT: Final[_Json] = {"type": "string"}
_HASHES: Final = _list(ref("Hash"), minItems=1, maxItems=MAX_FILES)
_DELETED: Final = _object(
    {"hash": ref("Hash"), "size": _COUNT, "deleted_at": {"type": "number"}, "until": {"type": "number"}},
    description="Times are unix seconds. It can be given back until then at least.",
)
_TERMS: Final = {"offset_into_first_range": _COUNT, "terms": _list(ref("Term"))}

SCHEMAS: Final[_Json] = {
    "Hash": {
        "type": "string",
        "pattern": HASH_PATTERN,
        "description": "32 bytes as four little-endian 64-bit words of 16 hexadecimal digits each.",
    },
    "ObjectName": {
        "type": "string",
        "pattern": "^[0-9a-f]{64}(-[0-9a-f]{16})?$",
        "description": "The hash of a xorb, and the generation of its object, if it has one.",
    },
    "Problem": _object({"code": _TEXT, "message": _TEXT, "request_id": _TEXT}, additionalProperties=False),
    "Range": _object(
        {"start": _COUNT, "end": _COUNT},
        description="Of chunks, `end` is the first one that is not meant; of bytes, it is the last one that is.",
    ),
    "Term": _object(
        {"hash": ref("Hash"), "unpacked_length": _COUNT, "range": ref("Range")},
        {"chunk_hashes": {"type": "string", "contentEncoding": "base64", "description": "32 bytes for each chunk."}},
    ),
    "FetchV1": _object({"range": ref("Range"), "url": {"type": "string", "format": "uri"}, "url_range": ref("Range")}),
    "FetchV2": _object(
        {
            "url": {"type": "string", "format": "uri"},
            "ranges": _list(_object({"chunks": ref("Range"), "bytes": ref("Range")}), minItems=1),
        }
    ),
    "ReconstructionV1": _object({**_TERMS, "fetch_info": _by_hash(_list(ref("FetchV1")))}),
    "ReconstructionV2": _object({**_TERMS, "xorbs": _by_hash(_list(ref("FetchV2")))}),
    "BatchReconstruction": _object(
        {"files": _by_hash(_list(ref("Term"))), "fetch_info": _by_hash(_list(ref("FetchV1")))}
    ),
    "RangeReconstructions": _object(
        {"reconstructions": _list({"anyOf": [ref("ReconstructionV2"), {"type": "null"}]})},
    ),
    "FileRanges": _object(
        {
            "ranges": _list(
                _object({"hash": ref("Hash"), "start": _COUNT, "end": {"type": "integer", "minimum": 1}}),
                minItems=1,
                maxItems=MANY_RANGES,
                description="Of bytes, each from its start up to its end, which is not in it.",
            )
        }
    ),
    "FileKeys": _list(_object({"hash": ref("Hash")}, {"prefix": _TEXT}), minItems=1),
    "FilesToDelete": _object({"files": _HASHES}, {"dry_run": {"type": "boolean"}}, additionalProperties=False),
    "FilesToUndelete": _object({"files": _HASHES}, additionalProperties=False),
    "DeletedFile": _DELETED,
    "DeletedFiles": _object({"files": _list(ref("DeletedFile"))}),
    "DeletedPage": _object({"files": _list(ref("DeletedFile")), "next": {"type": ["string", "null"]}}),
    "File": _object({"hash": ref("Hash"), "size": _COUNT}),
    "FilesPage": _object(
        {
            "files": _list(_object({"hash": ref("Hash"), "size": _COUNT, "sha256": {"type": ["string", "null"]}})),
            "next": {"type": ["string", "null"]},
        }
    ),
    "Files": _object({"files": _list(ref("File"))}),
    "FileChunkHashes": _object(
        {
            "totalChunks": _COUNT,
            "fileSize": _COUNT,
            "windows": _list(_object({"dirtyByteRange": _list(_COUNT, minItems=2, maxItems=2)})),
            "hashRanges": _list(
                {"type": ["object", "null"]}, description="What is not in a window, before, between and behind."
            ),
            "gapVerification": _list(ref("Hash")),
        }
    ),
    "XorbResult": _object({"was_inserted": {"type": "boolean", "description": "False: it was there already."}}),
    "ShardResult": _object({"result": {"enum": [0, 1], "description": "0: nothing in it was new."}}),
    "Report": _object({"event": _TEXT}, {"metrics": {"type": "object"}}),
    "Health": _object({"status": _TEXT}, {"reason": {"type": ["string", "null"]}}),
    "Status": _object(
        {"name": _TEXT, "version": _TEXT},
        dict.fromkeys(("uptime_seconds", *(field.name for field in fields(Totals))), _COUNT),
    ),
}
