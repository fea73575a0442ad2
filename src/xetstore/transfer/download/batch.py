"""The small files of a batch: the ranges that make them; each file is handed on when it is whole.

They lie one behind the other in a virtual file, so that what delivers the chunks of one file delivers those of all.
Nothing that comes is believed before a file has its hash; what does not come, or comes out wrong, is left to others.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from xetstore.errors import FormatError, IntegrityError, InterruptedCallError, NotFoundError, RangeError, XetError
from xetstore.events import Damaged
from xetstore.protocol.reconstruction import BatchReconstruction, FetchRange, Reconstruction
from xetstore.transfer.download.delivery import Destination, SinkError
from xetstore.transfer.download.fetching import PartFetch
from xetstore.transfer.download.plan import Part, Use, parts_of

if TYPE_CHECKING:
    from xetstore.protocol.chunking import ChunkList
    from xetstore.protocol.hashes import Hash
    from xetstore.transfer.download.context import Context
    from xetstore.transfer.download.file_request import FileRequest

SMALL_CHUNKS: Final = 4096
"""Files of more chunks do not come in batches: eight times as many as a small one has, unless it was made to be so."""


class Room:
    """Room for the bytes of files that are not complete yet. Thread-safe."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> bool:
        """Take room for ``nbytes`` more. True if there was as much."""
        with self._lock:
            has_room = nbytes <= self._left
            self._left -= nbytes if has_room else 0
        return has_room

    def give_back(self, nbytes: int) -> None:
        """Give back the room of what is not held any more."""
        with self._lock:
            self._left += nbytes


class BatchPlan(NamedTuple):
    """The files that come in a batch, and the parts that make them."""

    files: Sequence[FileRequest]
    parts: Sequence[Part]

    @classmethod
    def of(cls, answer: BatchReconstruction, requests: Sequence[FileRequest], small_bytes: int) -> BatchPlan:
        """Plan a batch of all files that are no larger than ``small_bytes``.

        A file that shares a range with one that comes in another way does so too, for else its chunks would come twice.
        """
        requested = {request.file: request for request in requests}
        planned: dict[Hash, tuple[int, int, tuple[Part, ...]]] = {}
        taken: set[FetchRange] = set()
        position = 0
        for file, terms in answer.files.items():
            size = sum(term.unpacked_bytes for term in terms)
            try:
                parts = parts_of(Reconstruction(0, terms, answer.fetches), position, size)
            except FormatError:
                continue  # the download of this file alone will see
            if size > small_bytes or sum(term.chunk_end - term.chunk_start for term in terms) > SMALL_CHUNKS:
                taken.update(part.fetch for part in parts)
            elif parts:
                planned[file] = position, size, parts
                position += size
        while shared := [file for file, (_, _, parts) in planned.items() if any(part.fetch in taken for part in parts)]:
            for file in shared:
                taken.update(part.fetch for part in planned.pop(file)[2])
        uses: dict[FetchRange, list[Use]] = {}
        for file, (position, size, parts) in planned.items():
            requested[file].expect(position, size, len(parts))
            for part in parts:
                uses.setdefault(part.fetch, []).extend(part.uses)
        bodies = answer.bodies or {}
        parts = tuple(Part(fetch, tuple(listed), bodies.get(fetch)) for fetch, listed in uses.items())
        return cls([requested[file] for file in planned], parts)


class Batch:
    """The small ``files`` of a plan. Thread-safe: fetch all ``parts``, each once, in any order.

    ``write`` gets each file that is whole and right, and its bytes. Where there is no ``room``, a file is
    given up.
    """

    def __init__(
        self, plan: BatchPlan, context: Context, room: Room, write: Callable[[FileRequest, memoryview], None]
    ) -> None:
        self._context = context
        self._room = room
        self._write = write
        self._lock = threading.Lock()
        self.files, self.parts = plan
        self._positions = [file.position for file in self.files]

    def fetch(self, part: Part) -> list[FileRequest]:
        """Fetch a part once: the files of which it was the last. Raises InterruptedCallError and what ``write`` raises.

        No other error is: the files that a part does not bring are not written.
        """
        fetch = PartFetch(self._context, Destination(self._put, recorder=self), 1)
        files = {file.position: file for file in (self._at(use.position) for use in part.uses)}.values()
        try:
            if any(file.is_coming for file in files):
                fetch.once(part)
        except SinkError as failed:
            raise failed.error from failed.error.__cause__
        except InterruptedCallError:
            raise
        except XetError as error:
            if isinstance(error, IntegrityError | NotFoundError | RangeError):
                self._context.emit(Damaged(str(error), refetching=True))
            for file in files:
                self._drop(file)
        self._share(part, fetch.fetched_bytes)
        with self._lock:
            return [file for file in files if file.tried()]

    def record(self, position: int, chunks: ChunkList, /) -> None:
        """These chunks are in their buffers: of one file, or of some that lie side by side."""
        sizes, first = chunks.sizes, 0
        while first < len(sizes):
            file, start, end = self._at(position), position, first
            while end < len(sizes) and position < file.end:
                position += sizes[end]
                end += 1
            with self._lock:
                is_complete = file.add(start, chunks.slice(first, end), position - start)
            if is_complete:
                self._finish(file)
            first = end

    def _put(self, position: int, data: memoryview) -> None:
        file = self._at(position)
        with self._lock:
            if file.is_coming and file.buffer is None:
                if self._room.take(file.size):
                    file.buffer = bytearray(file.size)
                else:
                    file.is_coming = False
            buffer = file.buffer
        if buffer is not None:
            at = position - file.position
            buffer[at : at + len(data)] = data

    def _finish(self, file: FileRequest) -> None:
        buffer = file.buffer
        if buffer is not None:
            if file.is_right():
                self._write(file, memoryview(buffer))
                file.is_written = True
            else:
                self._context.emit(Damaged(f"file {file.file}", refetching=True))
        self._drop(file)

    def _drop(self, file: FileRequest) -> None:
        """Forget the bytes of a file: it has been handed on, or will not come."""
        with self._lock:
            buffer = file.give_up()
        if buffer is not None:
            self._room.give_back(file.size)

    def _share(self, part: Part, fetched_bytes: int) -> None:
        """Give each file its share of what a part took, by how much of it goes there: all shares add up to it."""
        total = sum(use.length for use in part.uses)
        reached = given = 0
        with self._lock:
            for use in part.uses:
                reached += use.length
                share = fetched_bytes * reached // total - given
                self._at(use.position).fetched_bytes += share
                given += share

    def _at(self, position: int) -> FileRequest:
        return self.files[bisect_right(self._positions, position) - 1]
