"""Started: a server that accepts connections, as it is announced."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xetstore.cas.parts import StoreParts


@dataclass(frozen=True)
class Started:
    """A server that accepts connections at ``url``. ``token_file`` holds a token for its admin; None without tokens,
    and where that is in the database of the store.
    """

    url: str
    store: StoreParts
    asks_for_tokens: bool
    token_file: Path | None
    version: str
