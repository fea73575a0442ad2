"""collect(): the steps of a collection, in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from xetstore.cas.grace import Grace
from xetstore.cas.lease import Lease
from xetstore.cas.service import EmbeddedCas
from xetstore.cas.throttle import Throttle

DEFAULT: Final = Grace()


@dataclass(frozen=True, slots=True)
class CollectReport:
    """The result of a collection: what it deleted for good, or would delete.

    ``grants`` that can be given back no more, ``files``, and ``xorbs`` are rows. ``objects`` of xorbs and shards were
    removed, with ``bytes`` in all; ``shards`` and ``abandoned`` of them were of shards, and of uploads that were cut
    off. ``doomed`` xorbs are those of which no file is made since this collection; ``doomed_xorbs`` all that wait for
    the end of their grace, with ``doomed_bytes``; the first of them goes at ``first_due``, in unix seconds.
    ``abandoned_objects`` are named by no row, and too young to go.
    """

    grants: int = 0
    files: int = 0
    xorbs: int = 0
    shards: int = 0
    objects: int = 0
    bytes: int = 0
    abandoned: int = 0
    doomed: int = 0
    doomed_xorbs: int = 0
    doomed_bytes: int = 0
    first_due: float | None = None
    abandoned_objects: int = 0


def collect(
    cas: EmbeddedCas,  # noqa: ARG001
    lease: Lease | None,  # noqa: ARG001
    grace: Grace = DEFAULT,  # noqa: ARG001
    throttle: Throttle | None = None,  # noqa: ARG001
    *,
    dry_run: bool = False,  # noqa: ARG001
) -> CollectReport:
    """Delete what nothing names any more, in all namespaces, while the store is in use.

    ``lease`` is that of the chore ``collect``; None with ``dry_run``, which changes nothing.
    """
    return CollectReport()
