"""The application: every path there is, and its handler. openapi.py describes the CAS and the server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from xetstore.server.http.edge import Edge
from xetstore.server.http.router import Route, reading
from xetstore.server.routes import again, chunks, deletions, openapi, reconstructions, shards, status, telemetry, xorbs
from xetstore.server.routes.file_chunk_hashes import get_file_chunk_hashes
from xetstore.server.site import CAS_MOUNT
from xetstore.version import __version__

if TYPE_CHECKING:
    from xetstore.server.site import Site


_V1: Final = reading(reconstructions.get_v1)
_BATCH: Final = reading(reconstructions.batch_get) | {"POST": reconstructions.batch_post}
_CHUNK: Final = reading(chunks.get_chunk)
_MISS: Final = chunks.miss_at_once
_XORB: Final = reading(xorbs.get_xorb) | {"POST": xorbs.post_xorb}
_SHARD: Final = {"POST": shards.post_v1}

_CAS: Final = (
    # A file
    Route("/v1/reconstructions/{hash}", _V1),
    Route("/v2/reconstructions/{hash}", reading(reconstructions.get_v2)),
    Route("/v1/reconstructions", _BATCH),
    Route("/v2/reconstructions", {"POST": reconstructions.post_ranges}),
    Route("/v1/files", reading(deletions.list_files)),
    Route("/v1/files/{hash}", {"HEAD": reconstructions.head_file, "DELETE": deletions.delete_file}),
    Route("/v1/files/{hash}/undelete", {"POST": deletions.undelete_file}),
    Route("/v1/files/again", {"POST": again.put_again}),
    Route("/v1/files/delete", {"POST": deletions.delete_files}),
    Route("/v1/files/undelete", {"POST": deletions.undelete_files}),
    Route("/v1/files/deleted", reading(deletions.list_deleted)),
    Route("/v2/file-chunk-hashes/{hash}", reading(get_file_chunk_hashes)),
    # Chunks
    Route("/v1/chunks/{prefix}/{hash}", _CHUNK, miss_at_once=_MISS),
    Route("/v1/chunks", {"POST": chunks.post_chunks}),
    # A xorb
    Route("/v1/xorbs/{prefix}/{hash}", _XORB),
    Route("/v1/xorb-grants/{prefix}/{hash}", {"POST": xorbs.xorb_grant}),
    # A shard
    Route("/v1/shards", _SHARD),
    Route("/v2/shards", {"POST": shards.post_v2}),
    # What clients of 2025 call the same: hf_xet 1.2, and 1.1
    Route("/reconstructions/{hash}", _V1),
    Route("/reconstruction/{hash}", _V1),
    Route("/chunks/{prefix}/{hash}", _CHUNK, miss_at_once=_MISS),
    Route("/v1/chunk/{prefix}/{hash}", _CHUNK, miss_at_once=_MISS),
    Route("/chunk/{prefix}/{hash}", _CHUNK, miss_at_once=_MISS),
    Route("/xorbs/{prefix}/{hash}", _XORB),
    Route("/xorb/{prefix}/{hash}", _XORB),
    Route("/shards", _SHARD),
    Route("/shard/{prefix}/{hash}", _SHARD),
    # What clients report
    Route("/v1/telemetry", {"POST": telemetry.post_telemetry}),
)
CAS_ROUTES: Final = tuple(replace(route, answers_pages=True) for route in _CAS)
SERVER_ROUTES: Final = (
    # For a proxy in front
    Route("/v1/auth/xorb", reading(xorbs.authorize_xorb)),
    # The server itself. A monitor is never told to wait.
    Route("/health/live", reading(status.live), limited=False),
    Route("/health/ready", reading(status.ready), limited=False),
    Route("/metrics", reading(status.metrics), limited=False),
    Route("/openapi.json", reading(openapi.get_openapi)),
    Route("/", reading(status.page)),
)
ROUTES: Final = CAS_ROUTES + SERVER_ROUTES
"""The routes of a bare CAS, as the OpenAPI document has them."""
MOUNTED_ROUTES: Final = tuple(replace(route, mount=CAS_MOUNT) for route in CAS_ROUTES)
"""Those of the CAS once more, where the Hub's API says that it is."""


def routes_of(site: Site) -> tuple[Route, ...]:
    """All routes of a server. Those of the Hub are loaded by a server that has one."""
    if site.hub is None:
        return ROUTES + MOUNTED_ROUTES
    from xetstore.server.routes.hub import HUB_ROUTES

    return ROUTES + MOUNTED_ROUTES + tuple(replace(route, is_hub=True, answers_pages=True) for route in HUB_ROUTES)


def create_app(site: Site) -> Edge:
    """The ASGI application of a server."""
    known = status.Status(site, __version__)
    for budget in site.limits.budgets:
        site.metrics.watch(budget)
    if site.hub is None:
        app = Edge(site, routes_of(site), on_shutdown=known.close)
    else:
        from xetstore.server.routes.hub.access import identify
        from xetstore.server.routes.hub.descriptions import Descriptions

        app = Edge(site, routes_of(site), on_shutdown=known.close, identify=identify)
        app.state.descriptions = Descriptions()
    app.state.status = known
    app.state.openapi = openapi.Document(ROUTES, known.version, site.settings)
    return app
