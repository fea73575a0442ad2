"""collect_all(): all that one collection is: names, then what they leave, then the space within xorbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from xetstore.cas.collecting.collect import DEFAULT, collect
from xetstore.cas.grace import Grace
from xetstore.cas.lease import Lease
from xetstore.cas.rewriting import rewrite
from xetstore.cas.service import EmbeddedCas
from xetstore.cas.throttle import Throttle

Names = Callable[[Lease | None, Grace, Throttle], Mapping[str, Any]]
"""The part of a collection that knows names: it takes grants away that no name needs any more. Without a lease it only
tells which.
"""


def collect_all(
    cas: EmbeddedCas,
    lease: Lease,
    grace: Grace = DEFAULT,
    throttle: Throttle | None = None,
    *,
    names: Names | None = None,
    looks: int | None = None,
    listing_seconds: float = 0.0,
) -> dict[str, Any]:
    """Collect, under one lease. Returns the report, which goes to JSON: that of
    :func:`~xetstore.cas.collecting.collect.collect`, of the names below ``names``, and of
    :func:`~xetstore.cas.rewriting.rewrite.rewrite` below ``rewrite``; and in ``index_bytes`` the space that the index
    gave back. Arguments and errors as these.
    """
    throttle = throttle or Throttle()
    named = {} if names is None else dict(names(lease, grace, throttle))
    collected = collect(cas, lease, grace, throttle, listing_seconds=listing_seconds)
    rewritten = rewrite(cas, lease, grace=grace, throttle=throttle, looks=looks)
    index_bytes = cas.index.give_back_space()
    return {**asdict(collected), "names": named, "rewrite": asdict(rewritten), "index_bytes": index_bytes}
