"""Discussions and pull requests of a repository."""

from __future__ import annotations

from xetstore.hub.queries import HubWriter


def open_pull_request(writer: HubWriter, repository_id: int, *, title: str, author: str, base: str, now: float) -> int:  # noqa: ARG001
    """Open a pull request on the branch ``base``, a ref in full; its number. ``now`` is unix seconds."""
    return writer.next_number(repository_id)
