"""Renewing: an object of format 1 is stored anew with checksums, from chunks that are verified on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xetstore.blobs.layers import past_caches
from xetstore.cas.checksums import with_checksums
from xetstore.cas.index import Writer, XorbRow
from xetstore.cas.layout import new_generation, xorb_key
from xetstore.cas.registering import register
from xetstore.errors import IntegrityError, NotFoundError
from xetstore.protocol.xorb import XorbInfo, XorbVerifier

if TYPE_CHECKING:
    from xetstore.cas.service import EmbeddedCas

_BLOCK_BYTES: Final = 2 << 20


def renew(cas: EmbeddedCas, row: XorbRow, threads: int = 1) -> XorbInfo:
    """Verify an object that has no checksums, and let one with the same chunks and with checksums count in its place.

    The old one is left to those who read it, for a day. Nothing is changed where another object counts by now.
    Raises NotFoundError where object or row are gone, IntegrityError for what is damaged, StorageFullError or
    AccessDeniedError where nothing can be written.
    """
    generation = new_generation()
    key = xorb_key(row.hash, generation)
    verifier = XorbVerifier(threads=threads)
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    with past_caches(cas.blobs).get_range(row.key, 0, row.stored_bytes) as stream, cas.blobs.create(key) as new:
        while count := stream.readinto(buffer):
            for region in verifier.update(buffer[:count]):
                new.write(region)
        info = verifier.finish()
        if info.hash != row.hash:
            raise IntegrityError(f"the object holds xorb {info.hash}")
        if info.region_bytes != row.region_bytes:
            raise IntegrityError(f"it has {info.region_bytes} bytes of chunks, the index says {row.region_bytes}")
        new.write(with_checksums(info.serialize_footer(), verifier.checksums))
        now = cas.now()

        def replace(writer: Writer, old: XorbRow | None) -> tuple[bool, XorbRow]:
            is_replaced = old is not None and writer.replace_object(old, info, generation, now=now)
            counts = writer.xorb(row.hash)
            if counts is None:
                raise NotFoundError(f"xorb {row.hash} was deleted meanwhile")
            return is_replaced, counts

        register(key, new.commit, replace, damaged=row, blobs=cas.blobs, index=cas.index)
    return info
