"""The SHA-256 of files: known to be right before a pointer names it."""

from __future__ import annotations

from collections.abc import Collection

from xetstore.cas.service import EmbeddedCas
from xetstore.errors import UnprocessableError
from xetstore.records import FileRecord


def require_files(cas: EmbeddedCas, digests: Collection[bytes]) -> dict[bytes, FileRecord]:
    """The files of the namespace of ``cas`` with these SHA-256. Raises UnprocessableError for one that it has not."""
    found = {bytes.fromhex(record.sha256): record for record in cas.files() if record.sha256}
    for digest in digests:
        if digest not in found:
            raise UnprocessableError(f"the file {digest.hex()} was not uploaded to this repository")
    return {digest: found[digest] for digest in digests}
