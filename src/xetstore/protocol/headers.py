"""HTTP headers that both sides know: those of our own are ignored by other servers and clients."""

from __future__ import annotations

from typing import Final

SUSPECT_HEADER: Final = "X-Xet-Suspect"
"""With the value ``true`` at HEAD of a xorb: bytes of it came out wrong at a client, and the server looks at it."""

HASHES_HEADER: Final = "X-Xet-Chunk-Hashes"
"""A request for a reconstruction with the value ``true`` asks for the chunk hashes of the terms."""

INLINE_HEADER: Final = "X-Xet-Inline"
"""A request for a reconstruction with a number asks for the bytes of its ranges along with it, at most as many as that;
see :mod:`xetstore.protocol.inline`.
"""

QUERIES_HEADER: Final = "X-Xet-Chunk-Queries"
"""With every answer to a dedup query, as ``modulus=64, most=1024``: chunks whose hash is divisible by 64 can be found,
and POST /v1/chunks takes 1,024 at once.
"""

SESSION_HEADER: Final = "X-Xet-Session-Id"
"""The name that a client gives to an upload, or to all calls of a process. The reference sends it, too."""
