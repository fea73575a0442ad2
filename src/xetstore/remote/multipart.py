"""A multipart/byteranges answer of one part, which some servers give to the request for one range (RFC 9110, 14.6)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from xetstore.remote.transport import Answer

MAX_PART_HEAD_BYTES: Final = 8 << 10
"""All before the first byte of the part."""
_TYPE: Final = re.compile(r"multipart/byteranges\s*;.*?boundary=\"?([^\s\";]{1,70})", re.IGNORECASE)
_RANGE: Final = re.compile(rb"^content-range:[ \t]*(.*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class Part:
    """The part that an answer begins with. ``content_range`` says which bytes it is."""

    def __init__(self, boundary: bytes, content_range: str) -> None:
        self._boundary = boundary
        self.content_range = content_range

    def ends(self, answer: Answer) -> bool:
        """True if the part, and with it the answer, ends where it was read to."""
        end = b"\r\n--" + self._boundary + b"--"
        return _read(answer, len(end)) == end and not _read(answer, 3).strip()


def open_part(answer: Answer) -> Part | None:
    """Read up to the first byte of the part; None for an answer that is no multipart.

    The ``content_range`` of a part that does not say which bytes it is is empty.
    """
    found = _TYPE.match(answer.headers.get("content-type") or "")
    if found is None:
        return None
    boundary = found[1].encode("latin-1")
    head = bytearray()
    while len(head) < MAX_PART_HEAD_BYTES and (byte := _read(answer, 1)):
        head += byte
        if head.endswith(b"\r\n\r\n") and b"--" + boundary in head:
            told = _RANGE.search(head)
            return Part(boundary, told[1].decode("latin-1") if told else "")
    return Part(boundary, "")


def _read(answer: Answer, nbytes: int) -> bytes:
    """Read ``nbytes`` bytes, or what is left of the answer."""
    view = memoryview(bytearray(nbytes))
    got = 0
    while got < nbytes and (count := answer.readinto(view[got:])):
        got += count
    return bytes(view[:got])
