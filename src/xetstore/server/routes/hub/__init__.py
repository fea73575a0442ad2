"""Handlers of the Hub's HTTP API, a file for each noun; the table of its routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from xetstore.server.http.router import Route

HUB_ROUTES: Final[tuple[Route, ...]] = ()
"""The routes of the Hub's API, which a bare CAS has not."""
