"""Arrivals: bytes that come whole, inside a commit or by plain LFS, go the way of every upload.

They are cut into chunks, deduplicated against what the namespace and the store have, packed into xorbs and registered:
a large file has a Xet hash, however it came. Its SHA-256 is computed meanwhile.

Nothing is spooled: a stream is cut as it comes in. What was read of it is gone, so where a hint of deduplication turns
out to be wrong, which is seen when the file is registered, it has to be sent once more (UnavailableError); bytes that
are in memory, and files, are read again instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias

from xetstore.cancellation import Cancellation
from xetstore.errors import HashMismatchError, RejectedShardError, UnavailableError, XetError, kind_of
from xetstore.protocol.hashes import Hash
from xetstore.transfer.progress import NoProgress
from xetstore.transfer.pushed_scan import PushedScan
from xetstore.transfer.upload.context import Context, UploadOptions
from xetstore.transfer.upload.session import UploadSession
from xetstore.transfer.upload.sizing import UploadSizes

if TYPE_CHECKING:
    from typing_extensions import Buffer, TypeIs

    from xetstore.cas.service import EmbeddedCas
    from xetstore.records import FileInfo
    from xetstore.transfer.scan import Block

_MIB: Final = 1 << 20

BLOCK_BYTES: Final = _MIB
SIZES: Final = UploadSizes(xorb_bytes=8 * _MIB, known_chunks=8192, file_bytes=1 << 30, held_bytes=2 * _MIB)
"""Smaller than those of a program of its own: a server has many arrivals at a time, and some senders are slow."""

MEMORY_BYTES: Final = 2 * SIZES.xorb_bytes + 3 * BLOCK_BYTES + 320 * SIZES.known_chunks
"""Memory of one arrival at most: a xorb that is stored, one that is filled, blocks, the chunks it remembers."""

_NAMELESS: Final = Path("-")


class Readable(Protocol):
    """A stream of bytes, such as an open file."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill at most all of the buffer; how many bytes, 0 at the end."""


Source: TypeAlias = "Buffer | Path | Readable"
"""Bytes, a file, or a stream, which is read once and not closed."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file that is stored, durably. ``sha256`` is that of the bytes that came, 32 bytes."""

    file: Hash
    size: int
    sha256: bytes


class Arrival:
    """One file, pushed in. What it is made of is stored as it comes; the file itself by :meth:`finish`.

    Without that, as after an error, nothing is registered: there are xorbs at most that no file names, and the next
    attempt finds them. No call waits for the sender, and no thread does. Not thread-safe, but each call may come from
    another thread. A context manager, which waits for what is under way. Calls raise what the Cas raises, UsageError
    for another size than ``size``, and InterruptedCallError once ``cancellation`` is cancelled.
    """

    def __init__(self, cas: EmbeddedCas, size: int | None = None, *, cancellation: Cancellation | None = None) -> None:
        self._call = Cancellation() if cancellation is None else cancellation.child()
        with ExitStack() as stack:
            context = _context(cas, self._call)
            self._session = stack.enter_context(UploadSession(context, NoProgress()))
            self._scan = stack.enter_context(PushedScan(size, threads=context.threads, block_bytes=BLOCK_BYTES))
            self._file = self._session.begin(_NAMELESS, size)
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def write(self, *parts: Buffer) -> None:
        """Take the next bytes; they are the caller's again when it returns."""
        for part in parts:
            self._take(self._scan.write(part))

    def finish(self, sha256: bytes | None = None) -> Arrived:
        """Register the file, whose last byte has come. Raises HashMismatchError if it has not this SHA-256."""
        self._take(self._scan.finish())
        arrived = _arrived(info := self._scan.info())
        if sha256 is not None and sha256 != arrived.sha256:
            raise HashMismatchError("the file that came", expected=sha256.hex(), actual=arrived.sha256.hex())
        self._session.end(self._file, info)
        try:
            self._session.flush()
        except RejectedShardError as refusal:
            if not self._session.start_over(refusal):
                raise
            raise _send_again() from refusal
        return arrived

    def close(self) -> None:
        """Give up what was not finished. May be called again."""
        self._call.cancel()
        self._open.close()

    def _take(self, blocks: Iterator[Block]) -> None:
        for block in blocks:
            self._session.take(self._file, block)


def arrive(cas: EmbeddedCas, source: Source, *, cancellation: Cancellation | None = None) -> Arrived:
    """Store a file; durable on return. Raises as :class:`Arrival` and, of a source that cannot be read, its error."""
    [arrived] = arrive_many(cas, [source], cancellation=cancellation)
    return arrived


def arrive_many(
    cas: EmbeddedCas, sources: Iterable[Source], *, cancellation: Cancellation | None = None
) -> list[Arrived]:
    """Store files that share xorbs and shards, in order. After an error some of them may be stored."""
    call = Cancellation() if cancellation is None else cancellation.child()
    context = _context(cas, call)
    stored: list[Arrived] = []
    with UploadSession(context, NoProgress()) as session:
        batch: list[Source] = []
        for source in sources:
            batch.append(source)
            stored.append(_add(session, source, context.threads))
            if session.full:
                _flush(session, batch, context.threads)
                batch = []
        _flush(session, batch, context.threads)
    return stored


def _context(cas: EmbeddedCas, call: Cancellation) -> Context:
    return Context(cas.for_local_bytes().under(call), call, UploadOptions(sizes=SIZES))


def _flush(session: UploadSession, batch: list[Source], threads: int) -> None:
    """Register what was added; once more from the start where the store has not what was believed."""
    while True:
        try:
            session.flush()
        except RejectedShardError as refusal:
            if not session.start_over(refusal):
                raise
            if any(not isinstance(source, Path) and _is_stream(source) for source in batch):
                raise _send_again() from refusal
        else:
            return
        for source in batch:
            _add(session, source, threads)


def _add(session: UploadSession, source: Source, threads: int) -> Arrived:
    if isinstance(source, Path):
        return _arrived(session.add(source))
    size = None if _is_stream(source) else memoryview(source).nbytes
    file = session.begin(_NAMELESS, size)
    with PushedScan(size, threads=threads, block_bytes=BLOCK_BYTES) as scan:
        for part in _parts(source) if _is_stream(source) else [source]:
            for block in scan.write(part):
                session.take(file, block)
        for block in scan.finish():
            session.take(file, block)
        session.end(file, info := scan.info())
    return _arrived(info)


def _is_stream(source: Buffer | Readable) -> TypeIs[Readable]:
    return hasattr(source, "readinto")


def _parts(stream: Readable) -> Iterator[memoryview]:
    """The bytes of a stream, in memory that is used again."""
    buffer = memoryview(bytearray(BLOCK_BYTES))
    while True:
        try:
            count = stream.readinto(buffer)
        except XetError:
            raise
        except OSError as error:
            raise kind_of(error)(f"what is to be stored cannot be read: {error.strerror}") from error
        if not count:
            return
        yield buffer[:count]


def _arrived(info: FileInfo) -> Arrived:
    assert info.sha256 is not None
    return Arrived(info.hash, info.size, bytes.fromhex(info.sha256))


def _send_again() -> UnavailableError:
    return UnavailableError("what the store had of this turned out to be damaged", hint="send it once more")
