"""Silence: the listener of callers that want to be told nothing."""

from __future__ import annotations


def ignore(_: object) -> None:
    """Take an event and do nothing."""
