"""Tenant: the namespace that a view of the store acts for, and the xorbs that it may see and build upon."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DEFAULT_NAMESPACE: Final = "default"
"""The namespace of an embedded store, which has no other."""


class DedupDomain(StrEnum):
    """With which namespaces uploads share chunks: all of the store, their own, or (by queries) none."""

    STORE = "store"
    NAMESPACE = "namespace"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Tenant:
    """One namespace and its dedup domain. Namespaces in ``private`` neither share their xorbs nor use others'.

    Files are readable where they are granted, whatever the domain: it only says which xorbs are offered, and
    which ones a shard may name. A xorb is *visible* to the namespaces that uploaded it or have a file made of
    it. *Usable* are the visible ones and, where chunks are shared, all that some namespace uploaded which is
    not private; to build a file of them takes the verification hashes of their chunks (6.4).
    """

    namespace: str = DEFAULT_NAMESPACE
    dedup: DedupDomain = DedupDomain.STORE
    private: frozenset[str] = frozenset()

    @property
    def shares(self) -> bool:
        """True if xorbs of other namespaces are usable."""
        return self.dedup is DedupDomain.STORE and self.namespace not in self.private
