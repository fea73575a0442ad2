"""Rewriting: space within xorbs comes back, and what is deleted stays deleted, because shards follow."""

from xetstore.cas.rewriting.repacking import Locality
from xetstore.cas.rewriting.rewrite import LOOKS, THRESHOLD, rewrite
from xetstore.cas.rewriting.run import RewriteReport

__all__ = ["LOOKS", "THRESHOLD", "Locality", "RewriteReport", "rewrite"]
