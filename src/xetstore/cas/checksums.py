"""Checksums of the stored chunks of a xorb, behind the footer of its object: bytes are checked without decoding them.

This store writes them, no client: an upload never carries them. For ``n`` chunks, behind the footer:

======  ======================================================================================
 8n     u64 each: CRC-64/NVME of a chunk as it is stored, its header included
 8      u64: CRC-64/NVME of the footer, which names the xorb, and of the field above
 4      u32 n
 8      ``XETSUMS``, u8 1
======  ======================================================================================

So the end of an object tells whether it has them (format 2) or not (format 1), and one read of a known place gives
footer and checksums. All numbers are little-endian.
"""

from __future__ import annotations

import struct
from typing import Final

from xetstore.errors import FormatError
from xetstore.protocol import kernel
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

_IDENT: Final = b"XETSUMS\x01"
_OWN: Final = struct.Struct("<Q")
_END: Final = struct.Struct(f"<I{len(_IDENT)}s")
END_BYTES: Final = _END.size
"""Bytes at the end of an object that tell whether it has checksums."""


def section_bytes(chunk_count: int) -> int:
    """Bytes of the checksums of a xorb of ``chunk_count`` chunks."""
    return 8 * chunk_count + _OWN.size + _END.size


def told_section_bytes(end: bytes) -> int:
    """Bytes of the checksums of an object, by its last :data:`END_BYTES`; 0 where it has none."""
    if len(end) != _END.size:
        return 0
    count, ident = _END.unpack(end)
    return section_bytes(count) if ident == _IDENT and 1 <= count <= XET_GEARHASH_BLAKE3.max_xorb_chunks else 0


def with_checksums(footer: bytes, checksums: bytes) -> bytes:
    """The end of an object: its footer, and behind it the ``checksums``, a native u64 a chunk."""
    count = len(checksums) // 8
    covered = footer + struct.pack(f"<{count}Q", *memoryview(checksums).cast("Q"))
    return covered + _OWN.pack(kernel.crc64_nvme(covered)) + _END.pack(count, _IDENT)


def parse_checksums(tail: bytes, footer_bytes: int, offset: int) -> bytes:
    """The checksums, a native u64 a chunk, in what :func:`with_checksums` has written.

    ``offset`` is where ``tail`` starts in its object. Raises FormatError where a bit of the footer or of them differs.
    """
    at = len(tail) - _END.size - _OWN.size
    count, rest = divmod(at - footer_bytes, 8)
    if rest or count < 1 or tail[at + _OWN.size :] != _END.pack(count, _IDENT):
        raise FormatError("checksums.ident", offset + at + _OWN.size, "the object does not end with its checksums")
    if _OWN.unpack_from(tail, at)[0] != kernel.crc64_nvme(memoryview(tail)[:at]):
        raise FormatError("checksums.own", offset + at, "the footer and the checksums are not those that were written")
    return struct.pack(f"={count}Q", *struct.unpack_from(f"<{count}Q", tail, footer_bytes))
