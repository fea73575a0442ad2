"""Inline answers: the JSON of a reconstruction, then the bytes of ranges that it lists, read as they are sent.

They are the bytes that the URLs in it give, to a caller who was given these: so a grant is needed as for them, and each
chunk is compared with its checksum before any of it is sent. The JSON goes out first. Where a range turns out to be
damaged, or cannot be read, the answer breaks off behind it, and the URL says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from xetstore.protocol.headers import INLINE_HEADER
from xetstore.protocol.inline import INLINE_HEAD_BYTES, INLINE_TYPE, InlineHead
from xetstore.server.http.sending import FramedStream, SentStream
from xetstore.server.site import Site, holders_of, site_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.cas.index import XorbRow
    from xetstore.cas.service import EmbeddedCas
    from xetstore.interfaces import ByteStream
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.reconstruction import FetchRange

_NUMBER: Final = re.compile(r"[0-9]{1,12}")

Rows = Mapping["Hash", "XorbRow"]


def inline_bytes(request: Request) -> int:
    """The most bytes that an answer may bring along: as many as were asked for, and are given here; 0 for none.

    Where URLs lead to the object store itself, no byte is to pass through this server.
    """
    site = site_of(request)
    asked = request.headers.get(INLINE_HEADER, "")
    if site.direct is not None or request.method == "HEAD" or not _NUMBER.fullmatch(asked):
        return 0
    return min(int(asked), site.settings.max_inline_bytes)


def inline_answer(
    request: Request, cas: EmbeddedCas, question: str, json: bytes, ranges: Sequence[FetchRange], rows: Rows
) -> SentStream:
    """The answer to ``question``: ``json``, and the bytes of the first ranges that it lists."""
    site = site_of(request)
    head = InlineHead.of(question, json, len(ranges)).serialize() + json
    length = len(head) + sum(fetch.byte_end - fetch.byte_start for fetch in ranges)
    return SentStream(
        FramedStream(_parts(head, ranges), _opener(cas, rows), head_first=True),
        status_code=200,
        headers={"Content-Type": INLINE_TYPE, "Content-Length": str(length), "Cache-Control": "private, no-store"},
        limits=site.limits,
        holders=holders_of(request),
        on_sent=_counter(site, INLINE_HEAD_BYTES + len(json)),
        begins_here=True,
    )


def _parts(head: bytes, ranges: Sequence[FetchRange]) -> Iterator[bytes | tuple[Hash, int, int]]:
    yield head
    for fetch in ranges:
        yield fetch.xorb, fetch.byte_start, fetch.byte_end


def _opener(cas: EmbeddedCas, rows: Rows) -> Callable[[Hash, int, int], ByteStream]:
    """Opens ranges of xorbs, checked; the footer of each is looked at once."""
    openers: dict[Hash, Callable[[int, int], ByteStream]] = {}

    def open_range(xorb: Hash, start: int, end: int) -> ByteStream:
        opened = openers.get(xorb)
        if opened is None:
            opened = openers[xorb] = cas.reader_of(rows[xorb]).checked()
        return opened(start, end)

    return open_range


def _counter(site: Site, left_out: int) -> Callable[[int], None]:
    """Counts bytes of xorbs that were sent: all but the first ``left_out``."""

    def sent(nbytes: int) -> None:
        nonlocal left_out
        skipped = min(left_out, nbytes)
        left_out -= skipped
        site.metrics.xorb_served(nbytes - skipped)

    return sent
