"""LZ4 frames and blocks, from LZ4's two format documents: the slow twin of the kernel's reader.

Decoders raise FormatError on whatever is not legal; offsets count from the start of the LZ4 data.
"""

from __future__ import annotations

from typing import Final

from xetstore.errors import FormatError

LZ4_MAGIC: Final = 0x184D2204
LZ4_LEGACY_MAGIC: Final = 0x184C2102
LZ4_SKIPPABLE_MAGICS: Final = range(0x184D2A50, 0x184D2A60)
_BLOCK_MAX_BYTES: Final = {4: 1 << 16, 5: 1 << 18, 6: 1 << 20, 7: 1 << 22}
_LEGACY_BLOCK_MAX_BYTES: Final = 8 << 20
_WINDOW_BYTES: Final = 1 << 16


def lz4_decode(data: bytes, limit: int) -> bytes:
    """Decode LZ4 frames that hold at most ``limit`` bytes together: one as a rule, but any number is legal."""
    reader = _Reader(data)
    content = b""
    while not reader.at_end:
        magic = reader.u32()
        if magic == LZ4_MAGIC:
            content += _lz4_frame(reader, limit - len(content))
        elif magic == LZ4_LEGACY_MAGIC:
            content += _lz4_legacy_frame(reader, limit - len(content))
        elif magic in LZ4_SKIPPABLE_MAGICS:
            reader.take(reader.u32())
        else:
            raise FormatError("lz4.magic", reader.at - 4, f"{magic:#010x} begins no LZ4 frame")
    return content


def _lz4_frame(reader: _Reader, limit: int) -> bytes:
    # Frame descriptor: FLG, BD, maybe a content size, and a checksum of all these.
    start = reader.at
    flags, block_descriptor = reader.take(1)[0], reader.take(1)[0]
    blocks_are_independent = bool(flags & 0b0010_0000)
    has_block_checksums = bool(flags & 0b0001_0000)
    has_content_size = bool(flags & 0b0000_1000)
    has_content_checksum = bool(flags & 0b0000_0100)
    if flags >> 6 != 0b01 or flags & 0b0000_0010 or block_descriptor & 0b1000_1111:
        raise FormatError("lz4.descriptor", start, f"flags {flags:#04x}, block descriptor {block_descriptor:#04x}")
    if flags & 0b0000_0001:
        raise FormatError("lz4.dictionary", start, "a frame that needs a dictionary")
    if block_descriptor >> 4 not in _BLOCK_MAX_BYTES:
        raise FormatError("lz4.descriptor", start + 1, f"block size code {block_descriptor >> 4}")
    block_max_bytes = _BLOCK_MAX_BYTES[block_descriptor >> 4]
    content_size = int.from_bytes(reader.take(8), "little") if has_content_size else None
    header_checksum = (xxh32(reader.since(start)) >> 8) & 0xFF
    if reader.take(1)[0] != header_checksum:
        raise FormatError("lz4.header_checksum", reader.at - 1, "the frame descriptor's checksum is wrong")

    # Data blocks, until one of size 0.
    content = b""
    while size_field := reader.u32():
        is_stored = bool(size_field >> 31)
        block = reader.take(size_field & 0x7FFF_FFFF)
        if len(block) > block_max_bytes:
            raise FormatError("lz4.block", reader.at - len(block), f"a block of {len(block)} bytes")
        if has_block_checksums and reader.u32() != xxh32(block):
            raise FormatError("lz4.block_checksum", reader.at - 4, "a block's checksum is wrong")
        room = min(block_max_bytes, limit - len(content))
        window = b"" if blocks_are_independent else content[-_WINDOW_BYTES:]
        if is_stored and len(block) > room:
            raise FormatError("lz4.size", reader.at, f"more than {limit} bytes in the frame")
        content += block if is_stored else lz4_block_decode(block, room, window)

    if content_size is not None and content_size != len(content):
        raise FormatError("lz4.content_size", start + 2, f"{len(content)} bytes where {content_size} were declared")
    if has_content_checksum and reader.u32() != xxh32(content):
        raise FormatError("lz4.content_checksum", reader.at - 4, "the content's checksum is wrong")
    return content


def _lz4_legacy_frame(reader: _Reader, limit: int) -> bytes:
    """Compressed blocks with their sizes and nothing else, up to the end or the next frame."""
    content = b""
    while not reader.at_end:
        size = reader.u32()
        if size in (LZ4_MAGIC, LZ4_LEGACY_MAGIC) or size in LZ4_SKIPPABLE_MAGICS:
            reader.at -= 4
            break
        room = min(_LEGACY_BLOCK_MAX_BYTES, limit - len(content))
        content += lz4_block_decode(reader.take(size), room)
    return content


def lz4_block_decode(block: bytes, limit: int, window: bytes = b"") -> bytes:
    """Decode one compressed block to at most ``limit`` bytes; matches may reach back into ``window``."""
    reader = _Reader(block)
    out = bytearray(window)
    while True:
        # A sequence: a token, literals, and a match (an offset back and a length of at least 4).
        token = reader.take(1)[0]
        literal_bytes = token >> 4
        if literal_bytes == 15:
            literal_bytes += reader.lz4_length()
        out += reader.take(literal_bytes)
        if len(out) - len(window) > limit:
            raise FormatError("lz4.size", reader.at, f"more than {limit} bytes in a block")
        if reader.at_end:  # the last sequence ends behind its literals
            return bytes(out[len(window) :])
        offset = int.from_bytes(reader.take(2), "little")
        match_bytes = token & 15
        if match_bytes == 15:
            match_bytes += reader.lz4_length()
        match_bytes += 4
        if not 1 <= offset <= len(out):
            raise FormatError("lz4.offset", reader.at, f"a match {offset} bytes back of {len(out)}")
        if len(out) - len(window) + match_bytes > limit:
            raise FormatError("lz4.size", reader.at, f"more than {limit} bytes in a block")
        for _ in range(match_bytes):  # one by one: a match may overlap what it writes
            out.append(out[-offset])


def lz4_frame_encode_stored(data: bytes) -> bytes:
    """The simplest legal frame: independent 64 KiB blocks, all of them uncompressed, no checksums."""
    descriptor = bytes([0b0110_0000, 4 << 4])
    frame = LZ4_MAGIC.to_bytes(4, "little") + descriptor + bytes([(xxh32(descriptor) >> 8) & 0xFF])
    block_max_bytes = _BLOCK_MAX_BYTES[4]
    for start in range(0, len(data), block_max_bytes):
        block = data[start : start + block_max_bytes]
        frame += (len(block) | 1 << 31).to_bytes(4, "little") + block
    return frame + bytes(4)


class _Reader:
    """Bytes from front to back; reading past the end is a FormatError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    @property
    def at_end(self) -> bool:
        return self.at == len(self._data)

    def since(self, start: int) -> bytes:
        return self._data[start : self.at]

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self.at:
            raise FormatError("lz4.truncated", self.at, f"{size} bytes wanted, {len(self._data) - self.at} left")
        self.at += size
        return self._data[self.at - size : self.at]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def lz4_length(self) -> int:
        """The rest of a length of 15 or more: bytes to add up, the last of them below 255."""
        total = 0
        while (byte := self.take(1)[0]) == 255:
            total += byte
        return total + byte


_PRIME_1, _PRIME_2, _PRIME_3, _PRIME_4, _PRIME_5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
_U32: Final = 0xFFFF_FFFF


def xxh32(data: bytes) -> int:
    """XXH32 with seed 0: the checksum inside LZ4 frames."""
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data) - 3, 4)]
    stripes = len(words) // 4
    if stripes:
        lanes = [(_PRIME_1 + _PRIME_2) & _U32, _PRIME_2, 0, -_PRIME_1 & _U32]
        for i, word in enumerate(words[: 4 * stripes]):
            lanes[i % 4] = _rotate_left((lanes[i % 4] + word * _PRIME_2) & _U32, 13) * _PRIME_1 & _U32
        h = sum(_rotate_left(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _U32
    else:
        h = _PRIME_5
    h = (h + len(data)) & _U32
    for word in words[4 * stripes :]:
        h = _rotate_left((h + word * _PRIME_3) & _U32, 17) * _PRIME_4 & _U32
    for byte in data[4 * len(words) :]:
        h = _rotate_left((h + byte * _PRIME_5) & _U32, 11) * _PRIME_1 & _U32
    h = (h ^ h >> 15) * _PRIME_2 & _U32
    h = (h ^ h >> 13) * _PRIME_3 & _U32
    return h ^ h >> 16


def _rotate_left(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & _U32
