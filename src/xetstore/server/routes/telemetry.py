"""Reports of clients about transfers, as metrics. Nothing of it is trusted, or kept by client, file or session."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from xetstore.access.tokens import Scope
from xetstore.errors import UsageError
from xetstore.server.http.bodies import read_body
from xetstore.server.site import site_of

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_BODY_BYTES: Final = 64 << 10

EVENTS: Final = {
    "xet_upload_summary": "upload",
    "xet_download_summary": "download",
    "xet_transfer_heartbeat": "heartbeat",
}
"""The events that hf_xet reports: each transfer at its end, and one that takes long every five minutes meanwhile."""
OUTCOMES: Final = frozenset({"ok", "error", "cancelled", "aborted", "dropped", "in_progress"})
SUMS: Final = (
    "n_files",
    "total_bytes",
    "total_bytes_completed",
    "transfer_bytes_completed",
    "new_bytes",
    "dedup_bytes",
    "global_dedup_bytes",
    "defrag_prevented_dedup_bytes",
    "xorb_bytes_uploaded",
    "shard_bytes_uploaded",
)
"""The numbers worth adding up."""
OTHER: Final = "other"

_MOST: Final = float(1 << 53)


class _Report(msgspec.Struct):
    event: str
    metrics: dict[str, Any] = {}


async def post_telemetry(request: Request) -> Response:
    """Count one report. 204 whatever is in it, as long as it is one."""
    site = site_of(request)
    site.caller(request, Scope.READ)
    body = await read_body(request, site.limits, MAX_BODY_BYTES)
    try:
        report = msgspec.json.decode(body, type=_Report)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise UsageError("the body is not a telemetry report: a JSON object with event and metrics") from None
    event = EVENTS.get(report.event, OTHER)
    outcome = report.metrics.get("outcome")
    # A heartbeat counts what the summary of the same transfer counts again.
    is_summary = event in ("upload", "download")
    milliseconds = _number(report.metrics, "duration_ms")
    site.metrics.client_event(
        event,
        outcome if isinstance(outcome, str) and outcome in OUTCOMES else OTHER,
        seconds=milliseconds / 1000 if is_summary and milliseconds is not None else None,
        sums={name: value for name in SUMS if is_summary and (value := _number(report.metrics, name))},
    )
    return Response(status_code=204)


def _number(metrics: Mapping[str, Any], name: str) -> float | None:
    """A number that can be added up, or None."""
    value = metrics.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= _MOST and math.isfinite(value) else None
