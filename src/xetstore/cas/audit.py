"""Audit: one line of the log for each thing that is deleted for good, whatever else is logged."""

from __future__ import annotations

import logging
from typing import Final

AUDIT: Final = logging.getLogger("xetstore.audit")
"""Each record of it has ``kind``, ``what`` and ``bytes``."""
AUDIT.setLevel(logging.INFO)

KINDS: Final = frozenset({"grant", "file", "xorb", "shard", "object", "abandoned", "repository", "git", "snapshot"})
"""The kinds of things: a grant that can be given back no more; rows; objects, and those that no row ever named."""


def audit(kind: str, what: str, nbytes: int = 0) -> None:
    """Write that a thing of one of the :data:`KINDS` is deleted, once that is durable. ``nbytes`` are those it had."""
    AUDIT.info("deleted", extra={"kind": kind, "what": what, "bytes": nbytes})
