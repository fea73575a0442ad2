"""Inline answers: a reconstruction and the bytes of what it lists, in one frame, so that a read takes one round trip.

An extension of ours. A client that sends ``X-Xet-Inline: MOST`` with a call for a reconstruction, or for several, may
get, in the place of the JSON, a frame: a head, that JSON as ever, and the stored bytes of the first byte ranges that it
lists, at most MOST of them, one behind the other in the order of the JSON.

    8   XETREAD1
    4   u32, the length of the JSON in bytes
    4   u32, the number of ranges whose bytes are here
    32  the SHA-256 of the question (UTF-8), a line feed, and the SHA-256 of these two numbers and the JSON
    …   the JSON
    …   the bytes of each of these ranges

Numbers are little-endian. The head binds the JSON to its question, as ``X-Xet-Answers`` does that of a plain answer,
where no proxy drops it. The bytes need nothing of that kind: each chunk in them has its hash in the JSON, or the file
that it makes has, and the reader compares them as it does those of any xorb.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from xetstore.errors import FormatError, IntegrityError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.reconstruction import FetchRange

INLINE_TYPE: Final = "application/vnd.xetstore.reconstruction"
"""The media type of a frame."""

INLINE_HEAD_BYTES: Final = 48

MOST_INLINE_BYTES: Final = 8 << 20
"""The most bytes of ranges that a client asks for in one frame: of more, several requests at a time are no slower."""

_MAGIC: Final = b"XETREAD1"
_HEAD: Final = struct.Struct("<8sII32s")
_NUMBERS: Final = struct.Struct("<II")


@dataclass(frozen=True, slots=True)
class InlineHead:
    """The head of a frame: what follows it, and what it is the answer to."""

    json_bytes: int
    ranges: int
    binding: bytes

    @classmethod
    def of(cls, question: str, json: bytes, ranges: int) -> InlineHead:
        """The head for ``json`` and the bytes of its first ``ranges``, as the answer to ``question``."""
        return cls(len(json), ranges, _binding(question, json, ranges))

    @classmethod
    def parse(cls, data: Buffer) -> InlineHead:
        """Read a head of ``INLINE_HEAD_BYTES``. FormatError for what is none."""
        if len(memoryview(data)) != INLINE_HEAD_BYTES:
            raise FormatError("inline.head", 0, f"a head has {INLINE_HEAD_BYTES} bytes")
        magic, json_bytes, ranges, binding = _HEAD.unpack(data)
        if magic != _MAGIC:
            raise FormatError("inline.magic", 0, "it does not begin as an inline answer does")
        return cls(json_bytes, ranges, binding)

    def serialize(self) -> bytes:
        """The head as it is sent."""
        return _HEAD.pack(_MAGIC, self.json_bytes, self.ranges, self.binding)

    def check(self, question: str, json: bytes) -> None:
        """Raise IntegrityError unless ``json`` is what was sent, and for this question."""
        if len(json) != self.json_bytes or _binding(question, json, self.ranges) != self.binding:
            raise IntegrityError("an inline answer is the answer to another question, or was changed", hint="try again")


def inline_ranges(fetches: Iterable[FetchRange], most_bytes: int) -> list[FetchRange]:
    """The first of these ranges, in the order of the JSON, that are at most ``most_bytes`` together."""
    taken: list[FetchRange] = []
    for fetch in fetches:
        most_bytes -= fetch.byte_end - fetch.byte_start
        if most_bytes < 0:
            break
        taken.append(fetch)
    return taken


def told_ranges(head: InlineHead, fetches: Iterable[FetchRange], most_bytes: int) -> list[FetchRange]:
    """The ranges whose bytes follow, of all that the JSON lists. FormatError for more of them, or of their bytes, than
    there can be.
    """
    taken = list(islice(fetches, head.ranges))
    if len(taken) != head.ranges:
        raise FormatError(
            "inline.ranges", 0, f"the bytes of {head.ranges} ranges are said to come, {len(taken)} listed"
        )
    nbytes = sum(fetch.byte_end - fetch.byte_start for fetch in taken)
    if nbytes > most_bytes:
        raise FormatError("inline.bytes", 0, f"{nbytes} bytes are said to come where {most_bytes} may")
    return taken


def listed(fetches: Mapping[Hash, tuple[FetchRange, ...]]) -> Iterator[FetchRange]:
    """All ranges of a reconstruction, in the order of its JSON."""
    return (fetch for ranges in fetches.values() for fetch in ranges)


def _binding(question: str, json: bytes, ranges: int) -> bytes:
    content = hashlib.sha256(_NUMBERS.pack(len(json), ranges) + json).digest()
    return hashlib.sha256(question.encode() + b"\n" + content).digest()
