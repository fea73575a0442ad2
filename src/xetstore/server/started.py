"""Started: a server that accepts connections, as it is announced."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Started:
    """A server that accepts connections at ``url``. ``token_file`` holds a token for its admin; None without tokens."""

    url: str
    store: Path
    token_file: Path | None
    version: str
