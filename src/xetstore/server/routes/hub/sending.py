"""The bytes of a file of a repository: whole or in ranges, verified, from the store as they are taken by the client.

A window of the file is decoded and checked while the one before it is sent. So what a client has been given is right,
and a file that turns out to be damaged breaks off before its last byte.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Generator, Mapping
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from xetstore.errors import DamagedError, IntegrityError
from xetstore.server.http.ranges import Framing, parse_range, resolve
from xetstore.server.http.sending import BLOCK_BYTES, ClosableSource, FramedStream, SentStream
from xetstore.server.site import holders_of, site_of
from xetstore.transfer.download.context import DownloadOptions
from xetstore.transfer.download.downloader import Downloader

if TYPE_CHECKING:
    from starlette.requests import Request

    from xetstore.cas.service import EmbeddedCas
    from xetstore.protocol.hashes import Hash

WINDOW_BYTES: Final = 2 << 20
"""Bytes of a file that are decoded at a time. Two such windows are in memory."""
FAR_WINDOW_BYTES: Final = 4 << 20
"""The same where objects are on another machine, because each window waits for that once."""
PIECE_BYTES: Final = 256 << 10
"""Bytes of a xorb that are decoded at a time."""
DECODING_BYTES: Final = 2 << 20
"""Memory in which at most two threads decode a window."""
MAX_RANGES: Final = 16
"""Ranges that are answered: each is a download of its own. A request for more gets the whole file."""

_OF_EVERY_FILE: Final = {
    "Content-Type": "application/octet-stream",
    "Accept-Ranges": "bytes",
    # A page must not come of it, though it were one: it would be this server's.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}
_OPTIONS: Final = DownloadOptions(workers=2, piece_bytes=PIECE_BYTES)
_ETAG: Final = re.compile(r'(?:W/)?("[!#-~]*")')

OpenRange = Callable[[int, int], ClosableSource]
"""Opens bytes ``[start, end)`` of a file."""


def send_file(request: Request, cas: EmbeddedCas, file: Hash, size: int, headers: Mapping[str, str]) -> Response:
    """The answer to GET or HEAD of a file of ``size`` bytes that is granted to the namespace of ``cas``.

    ``headers`` are those of the file; with its ``ETag`` conditions are compared. Raises UnsatisfiableRangeError.
    """
    window = FAR_WINDOW_BYTES if cas.is_remote else WINDOW_BYTES

    def open_range(start: int, end: int) -> ClosableSource:
        blocks = Downloader(cas, _OPTIONS).stream(file, start, end, window, size=size)
        return _StoredRange(blocks, end - start)

    return _send(request, open_range, size, headers, partial(memory_of, window))


def send_kept(request: Request, load: Callable[[], bytes], size: int, headers: Mapping[str, str]) -> Response:
    """The same of a file of ``size`` bytes that is in memory as a whole while it is sent, and not before."""
    return _send(request, lambda start, end: _KeptRange(load, start, end), size, headers, lambda _: size)


def memory_of(window: int, length: int) -> int:
    """The memory that ``length`` bytes of a stored file take in windows, beside the blocks that are sent."""
    return min(length, 2 * window) + min(4 * length, DECODING_BYTES)


def _send(
    request: Request, open_range: OpenRange, size: int, headers: Mapping[str, str], memory: Callable[[int], int]
) -> Response:
    headers = {**_OF_EVERY_FILE, **headers}
    tag = headers.get("ETag", "")
    if tag and _is_unchanged(request, tag):
        return Response(status_code=304, headers=headers)
    ranges = _ranges(request, tag, size)
    if not size:
        # The JavaScript client takes the size from a Content-Range, also that of an empty file.
        answered = {"Content-Range": "bytes */0"} if "range" in request.headers else {}
        return Response(headers=headers | answered)
    if request.method == "HEAD":
        return Response(headers=headers | {"Content-Length": str(size)})
    framing = Framing(ranges or ((0, size),), size, secrets.token_hex(16))
    framed = framing.headers()
    if len(framing.ranges) == 1:
        framed["Content-Type"] = headers["Content-Type"]
    if not ranges:
        del framed["Content-Range"]
    most = max(end - start for start, end in framing.ranges)
    return SentStream(
        FramedStream(framing.parts(), open_range),
        status_code=206 if ranges else 200,
        headers=headers | framed,
        limits=site_of(request).limits,
        holders=holders_of(request),
        amount=min(most, 2 * BLOCK_BYTES) + memory(most),
    )


class _KeptRange:
    """Bytes ``[start, end)`` of what ``load`` gives, which is called for the first of them."""

    def __init__(self, load: Callable[[], bytes], start: int, end: int) -> None:
        self._load = load
        self._start, self._end = start, end
        self._data: BytesIO | None = None

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of the buffer; 0 at the end."""
        if self._data is None:
            self._data = BytesIO(self._load()[self._start : self._end])
        return self._data.readinto(buffer)

    def close(self) -> None:
        """Let go of the bytes."""
        self._data = None


class _StoredRange:
    """``length`` bytes of a file, which come in blocks. The last ones are given once all of them are verified."""

    def __init__(self, blocks: Generator[memoryview, None, object], length: int) -> None:
        self._blocks = blocks
        self._block = memoryview(b"")
        self._left = length

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of the buffer; 0 at the end. Raises DamagedError."""
        try:
            if not self._block:
                self._block = next(self._blocks, self._block)
            count = min(len(buffer), len(self._block))
            if count and count == self._left and next(self._blocks, None) is not None:
                raise DamagedError("a stored file is longer than it was")
        except IntegrityError as error:
            raise DamagedError(str(error), hint=error.hint) from error
        buffer[:count] = self._block[:count]
        self._block = self._block[count:]
        self._left -= count
        return count

    def close(self) -> None:
        """Let go of what is under way."""
        self._blocks.close()


def _ranges(request: Request, tag: str, size: int) -> tuple[tuple[int, int], ...]:
    """The ranges to send; none for the whole file."""
    asked = request.headers.getlist("range")
    # Of another version no range is wanted (RFC 9110, 13.1.5). HEAD has none (14.2).
    if request.method != "GET" or len(asked) != 1 or not size or request.headers.get("if-range", tag) != tag:
        return ()
    specs = parse_range(asked[0])
    return () if specs is None or len(specs) > MAX_RANGES else resolve(specs, size)


def _is_unchanged(request: Request, tag: str) -> bool:
    """True if the client has it already: by If-None-Match, which compares weakly (RFC 9110, 13.1.2)."""
    listed = ",".join(request.headers.getlist("if-none-match")).strip()
    return listed == "*" or tag.removeprefix("W/") in _ETAG.findall(listed)
