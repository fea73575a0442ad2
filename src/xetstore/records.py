"""Records of a store about a file and about itself: FileRecord and Totals."""

from __future__ import annotations

from dataclasses import dataclass

from xetstore.protocol.hashes import Hash


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A registered file. ``sha256`` is the hex digest its uploader gave, or None; ``created_at`` unix seconds.

    ``terms`` and ``xorbs`` count the runs of chunks it is made of, and the xorbs these lie in. Of a file on a server
    only hash and size are known: the others are None.
    """

    hash: Hash
    size: int
    sha256: str | None = None
    created_at: float | None = None
    terms: int | None = None
    xorbs: int | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the whole store, in bytes where the name says so.

    ``logical_bytes`` is the size of all files together, ``unique_bytes`` what is left of it as chunks in
    xorbs, ``stored_bytes`` what these xorbs take in the blob store, compressed and with their footers.
    """

    files: int
    logical_bytes: int
    unique_bytes: int
    stored_bytes: int
    xorbs: int
    chunks: int
