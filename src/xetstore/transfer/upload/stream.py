"""One file into a Cas from a stream of unknown length, read once: a pipe, a socket, a file object.

Memory is a few blocks and xorbs, however much comes. What was read is gone, so where the store has not what was
believed, which is seen when the file is registered, the stream has to be sent once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from xetstore.cancellation import Cancellation
from xetstore.errors import RejectedShardError, UnavailableError, XetError, kind_of
from xetstore.events import Emit, ignore
from xetstore.interfaces import Cas
from xetstore.transfer.progress import NoProgress, Progress
from xetstore.transfer.pushed_scan import PushedScan
from xetstore.transfer.upload.context import Context, UploadOptions
from xetstore.transfer.upload.known import KnownXorbs
from xetstore.transfer.upload.pending import PutReport
from xetstore.transfer.upload.session import UploadSession

PART_BYTES: Final = 1 << 20


class Readable(Protocol):
    """A stream of bytes, such as an open file."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill at most all of the buffer; how many bytes, 0 at the end."""


def put_stream(
    cas: Cas,
    stream: Readable,
    name: Path,
    options: UploadOptions = UploadOptions(),  # noqa: B008  # it is immutable
    *,
    progress: Progress | None = None,
    known: KnownXorbs | None = None,
    emit: Emit = ignore,
    cancellation: Cancellation | None = None,
) -> PutReport:
    """Store all that comes, and leave the stream open; durable and registered on return.

    ``name`` is what errors and the report call it. Raises what the Cas raises, the error of a stream that cannot be
    read, and UnavailableError where it has to be sent once more.
    """
    own = Cancellation() if cancellation is None else cancellation.child()
    context = Context(cas.under(own), own, options, known, emit)
    told = progress or NoProgress()
    with UploadSession(context, told) as session, PushedScan(threads=context.threads) as scan:
        pending = session.begin(name, None)
        for part in parts_of(stream, str(name)):
            told.total(len(part))
            for block in scan.write(part):
                session.take(pending, block)
            told.advance(logical=len(part))
        for block in scan.finish():
            session.take(pending, block)
        session.end(pending, scan.info())
        try:
            [report] = session.flush()
        except RejectedShardError as refusal:
            if not session.start_over(refusal):
                raise
            raise UnavailableError(
                f"what the store had of {name} turned out to be damaged or gone", hint="send it once more"
            ) from refusal
    return report


def parts_of(stream: Readable, name: str, part_bytes: int = PART_BYTES) -> Iterator[memoryview]:
    """The bytes of a stream, in memory that is used again. Raises an error of ours that begins with ``name``."""
    buffer = memoryview(bytearray(part_bytes))
    while True:
        try:
            count = stream.readinto(buffer)
        except XetError:
            raise
        except OSError as error:
            raise kind_of(error)(f"{name} cannot be read: {error.strerror}") from error
        if not count:
            return
        yield buffer[:count]
