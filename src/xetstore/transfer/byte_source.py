"""ByteSource: bytes, or a binary file object of any length, to be stored as one file; read once, a part at a time."""

from __future__ import annotations

import inspect
import io
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from xetstore.cancellation import Cancellation
from xetstore.errors import TimedOutError, UnavailableError, UsageError, WrongTypeError

if TYPE_CHECKING:
    from typing_extensions import Buffer

PART_BYTES: Final = 1 << 20
SILENT_SECONDS: Final = 60.0
"""A file object that does not block may have no bytes (None) as long as this. One that blocks is waited for."""

_TICK_SECONDS: Final = 0.02


@runtime_checkable
class Readable(Protocol):
    """A binary file object, as far as it is needed: ``read(size)`` gives the next bytes, none at the end."""

    def read(self, size: int, /) -> Any:
        """The next bytes."""


class ByteSource:
    """The content of one file: ``data``, or what a file object has from where it is on. It stays open.

    Iterated, it gives parts of about 1 MiB, valid until the next; a second time only where it can be read once more.
    What reading raises is raised as it is. ``name`` is what errors and reports call it.
    """

    def __init__(self, source: Buffer | Readable, *, name: str | None = None) -> None:
        self._data: memoryview | None = None
        self._stream: Readable | None = None
        self._is_begun = False
        self._position: int | None = None
        self.name = _name_of(source) if name is None else name
        if isinstance(source, Readable) and not isinstance(source, memoryview):
            _check_stream(source)
            self._stream = source
            return
        try:
            self._data = memoryview(source).cast("B")
        except TypeError:
            raise UsageError("these bytes do not lie one behind the other", hint="give bytes(it)") from None

    def __str__(self) -> str:
        return self.name

    @property
    def size(self) -> int | None:
        """Bytes in all, where they are known before."""
        return None if self._data is None else len(self._data)

    def parts(self, cancellation: Cancellation) -> Iterator[Buffer]:
        """The bytes in order. Raises UsageError for what is no binary file, TimedOutError after a long silence."""
        if self._data is not None:
            for at in range(0, len(self._data), PART_BYTES):
                yield self._data[at : at + PART_BYTES]
            return
        assert self._stream is not None
        self._start_again() if self._is_begun else self._start()
        while part := self._read(self._stream, cancellation):
            yield part

    def _start(self) -> None:
        self._is_begun = True
        try:
            self._position = self._stream.tell()  # type: ignore[union-attr]
        except (AttributeError, OSError, ValueError):
            self._position = None

    def _start_again(self) -> None:
        try:
            if self._position is None or not self._stream.seekable():  # type: ignore[union-attr]
                raise OSError
            self._stream.seek(self._position)  # type: ignore[union-attr]
        except (AttributeError, OSError, ValueError):
            raise UnavailableError(
                f"the store has not what was remembered of it, and {self.name} cannot be read a second time",
                hint="put it once more: what was remembered is forgotten now",
            ) from None

    def _read(self, stream: Readable, cancellation: Cancellation) -> memoryview:
        silent_since: float | None = None
        while True:
            cancellation.check()
            part = stream.read(PART_BYTES)
            if part is not None:
                return _bytes_of(part, self.name)
            # A file object that does not block, and has nothing at the moment.
            now = time.monotonic()
            silent_since = now if silent_since is None else silent_since
            if now - silent_since > SILENT_SECONDS:
                raise TimedOutError(f"no byte came of {self.name} for {SILENT_SECONDS:.0f} s")
            cancellation.wait(_TICK_SECONDS)


def _check_stream(stream: Readable) -> None:
    if isinstance(stream, io.TextIOBase):
        raise WrongTypeError(f"{_name_of(stream)} is open as text", hint='open it as bytes: open(path, "rb")')
    if getattr(stream, "closed", False) is True:
        raise UsageError(f"{_name_of(stream)} is closed")
    readable = getattr(stream, "readable", None)
    if callable(readable) and readable() is False:
        raise UsageError(f"{_name_of(stream)} is not open for reading", hint='open it by open(path, "rb")')


def _bytes_of(part: Any, name: str) -> memoryview:
    if isinstance(part, str):
        raise WrongTypeError(f"{name} gives text, not bytes", hint='open it as bytes: open(path, "rb")')
    if inspect.iscoroutine(part):
        part.close()
    try:
        return memoryview(part).cast("B")
    except TypeError:
        raise WrongTypeError(f"{name} gives no bytes: its read returns a {type(part).__name__}") from None


def _name_of(source: object) -> str:
    """A source in a message, in a few words."""
    name = getattr(source, "name", None)
    if isinstance(name, str):
        return f"the file {name[:200]!r}"
    kind = type(source).__name__
    return f"the {kind}" if hasattr(source, "read") else f"the {kind} object"
