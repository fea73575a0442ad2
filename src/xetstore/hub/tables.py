"""The tables of the hub, as numbered steps."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from xetstore.database.migrations import Migrations

MIGRATIONS: Final = Migrations(Path(__file__).parent / "migrations", "hub_version", "the index of names of this store")
"""For :meth:`Index.migrate <xetstore.cas.index.index.Index.migrate>`."""
