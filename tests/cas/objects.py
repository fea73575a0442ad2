"""Objects of xorbs as they are stored, in both formats."""

from __future__ import annotations

import struct

from xetstore.protocol import kernel, reference
from xetstore.testing import Sample


def in_format_1(sample: Sample) -> bytes:
    """Chunk region and footer."""
    return sample.body + sample.xorb.serialize_footer()


def in_format_2(sample: Sample) -> bytes:
    """The same, and behind it the checksums, as docs/design.md has them; of a small object by the slow twin."""
    checksum = reference.crc64_nvme if len(sample.body) < 5000 else kernel.crc64_nvme
    footer = sample.xorb.serialize_footer()
    ends = memoryview(sample.xorb.ends).cast("Q")
    chunks = [sample.body[start:end] for start, end in zip((0, *ends), ends, strict=False)]
    covered = footer + struct.pack(f"<{len(chunks)}Q", *map(checksum, chunks))
    return sample.body + covered + struct.pack("<QI", checksum(covered), len(chunks)) + b"XETSUMS\x01"
