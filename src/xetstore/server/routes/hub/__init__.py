"""Handlers of the Hub's HTTP API, a file for each noun; the table of its routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xetstore.server.routes.hub import (
    access_requests,
    accounts,
    buckets,
    commits,
    deleted,
    discussions,
    duplicates,
    files,
    lfs,
    lfs_files,
    likes,
    listings,
    preupload,
    refs,
    repositories,
    trees,
    xet_tokens,
)

if TYPE_CHECKING:
    from xetstore.server.http.router import Route

HUB_ROUTES: Final[tuple[Route, ...]] = (
    *accounts.ROUTES,
    *deleted.ROUTES,
    *repositories.ROUTES,
    *listings.ROUTES,
    *trees.ROUTES,
    *refs.ROUTES,
    *preupload.ROUTES,
    *commits.ROUTES,
    *files.ROUTES,
    *lfs.ROUTES,
    *lfs_files.ROUTES,
    *xet_tokens.ROUTES,
    *buckets.ROUTES,
    *discussions.ROUTES,
    *access_requests.ROUTES,
    *duplicates.ROUTES,
    *likes.ROUTES,
)
"""The routes of the Hub's API, which a bare CAS has not."""
