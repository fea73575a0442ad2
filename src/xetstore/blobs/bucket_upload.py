"""NewBucketObject: an object that is sent to an object store while it is written."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Self

from xetstore.errors import UsageError
from xetstore.platform import forks
from xetstore.platform.threads import start_thread

if TYPE_CHECKING:
    from typing_extensions import Buffer

PART_BYTES: Final = 5 << 20
"""Bytes of a part of a long object, which is sent once it is full: the least that stores take."""

PARTS_SENT: Final = 2
"""Parts of one object that are sent at once."""

PARTS_HELD: Final = PARTS_SENT + 2
"""Parts of one object in memory: those that are sent, the one that is sent next, and the one that is being filled."""

CLOSE_SECONDS: Final = 60.0
"""The longest wait for an upload to be given up. A request of it ends in 18 s, one way or the other."""

Put = Callable[[str, Any, int], None]
"""Puts the object of a key: one body, or parts of some size that come one after the other."""


class _GivenUpError(Exception):
    """An object that is not to be made."""


class NewBucketObject:
    """A NewObject. Not longer than one part, it is one request at the commit; longer, a multipart upload, whose parts
    are sent by a thread of their own while others come. It is completed by the commit, and otherwise aborted.
    """

    def __init__(self, put: Put, key: str, part_bytes: int) -> None:
        self._put, self._key, self._part_bytes = put, key, part_bytes
        self._part = bytearray()
        self._long: _LongUpload | None = None
        self._process = os.getpid()
        self._is_over = False

    def write(self, part: Buffer, /) -> None:
        """Append bytes. Waits while more was written than could be sent."""
        self._require_open()
        rest = memoryview(part).cast("B")
        while rest:
            if len(self._part) == self._part_bytes:
                self._send()
            taken = rest[: self._part_bytes - len(self._part)]
            self._part += taken
            rest = rest[len(taken) :]

    def commit(self) -> None:
        """Make the object visible and durable."""
        self._require_open()
        if self._long is None:
            self._put(self._key, self._part, 0)
        else:
            self._send()
            self._long.finish()
        self._is_over = True
        self._part = bytearray()

    def close(self) -> None:
        """Drop it unless it was committed. May be called again."""
        if self._is_over or self._process != os.getpid():
            return
        self._is_over = True
        self._part = bytearray()
        if self._long is not None:
            self._long.give_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _send(self) -> None:
        if self._long is None:
            self._long = _LongUpload(self._put, self._key, self._part_bytes)
        part, self._part = self._part, bytearray()
        self._long.send(part)

    def _require_open(self) -> None:
        if self._process != os.getpid():
            raise forks.left_behind()
        if self._is_over:
            raise UsageError("the object is committed, or was given up")


class _LongUpload:
    """A multipart upload, and the thread that does it."""

    def __init__(self, put: Put, key: str, part_bytes: int) -> None:
        self._parts: SimpleQueue[bytearray | None] = SimpleQueue()
        self._taken = threading.Semaphore(0)
        self._is_given_up = False
        self._error: BaseException | None = None
        self._thread = start_thread(self._run, put, key, part_bytes, name="upload")

    def send(self, part: bytearray) -> None:
        """Hand the next part to the thread, and wait until it is taken. Raises the error of the upload, if any."""
        self._raise()
        self._parts.put(part)
        self._taken.acquire()
        self._raise()

    def finish(self) -> None:
        """Complete it. Raises the error of the upload, if any."""
        self._parts.put(None)
        self._thread.join()
        self._raise()

    def give_up(self) -> None:
        """Abort it."""
        self._is_given_up = True
        self._parts.put(None)
        self._thread.join(CLOSE_SECONDS)

    def _run(self, put: Put, key: str, part_bytes: int) -> None:
        try:
            put(key, self._next_parts(), part_bytes)
        except BaseException as error:
            self._error = error
        finally:
            self._taken.release()

    def _next_parts(self) -> Iterator[bytearray]:
        """The parts as they come. An error that comes out of it is how an upload is aborted."""
        while (part := self._parts.get()) is not None and not self._is_given_up:
            self._taken.release()
            yield part
        if self._is_given_up:
            raise _GivenUpError

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
