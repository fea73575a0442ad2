"""RangeStream: the bytes of one range of a xorb, whatever happens to the connections they come over."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from xetstore.cancellation import Cancellation
from xetstore.errors import (
    ForbiddenError,
    FormatError,
    IntegrityError,
    InterruptedCallError,
    TimedOutError,
    UnavailableError,
    UnreachableError,
    UsageError,
    XetError,
)
from xetstore.events import Hedged, Retrying
from xetstore.platform.sockets import ready
from xetstore.platform.threads import start_thread
from xetstore.remote.exchange import Wait
from xetstore.remote.multipart import Part, open_part
from xetstore.remote.network import origin_of
from xetstore.remote.problems import problem_of
from xetstore.remote.retry import Backoff
from xetstore.remote.transport import Answer
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.protocol.reconstruction import FetchRange
    from xetstore.remote.server import Server

CALL: Final = "GET xorb"
PROGRESS_BYTES: Final = 1 << 20
"""Bytes after which attempts are counted anew."""
SKIP_BYTES: Final = 256 << 10

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,20})-([0-9]{1,20})/(?:[0-9]{1,20}|\*)", re.IGNORECASE)


class _HedgeCameFirstError(Exception):
    """The second request was answered while the first is still silent."""


class _Source:
    """An answer that goes on where the bytes given so far end, once ``skip`` more were read. ``part`` is the only one
    of a multipart answer.
    """

    def __init__(self, answer: Answer, skip: int, part: Part | None) -> None:
        self.answer = answer
        self.skip = skip
        self.part = part


class RangeStream:
    """A ByteStream of the range that ``fetch`` names, wherever ``server`` has put it. Not thread-safe.

    A connection that breaks or falls silent is replaced by another one, which goes on where it ended. A range that is
    silent for ``patience.hedge`` is asked for a second time, once. Raises UnavailableError and TimedOutError after
    ``patience.attempts``, IntegrityError for another range or size than was asked for, ForbiddenError for a URL that
    has expired, NotFoundError, InterruptedCallError, and FormatError for what is no URL.

    The token goes with a request only if the URL is the server's own and has no query that could authorize it.
    """

    def __init__(self, server: Server, fetch: FetchRange) -> None:
        self._name = f"xorb {fetch.xorb}"
        try:
            self._host = origin_of(fetch.url).address
        except UsageError as error:
            raise FormatError("fetch.url", 0, f"{error}: it is where {self._name} should be") from None
        self._server = server
        self._url = fetch.url.partition("#")[0]
        self._start, self._end = fetch.byte_start, fetch.byte_end
        self._length = self._end - self._start
        self._patience = patience = server.transport.patience
        self._is_limited = server.transport.is_limited
        self._cancellation = server.cancellation
        self._pace = server.pace_of(self._host)
        self._hedge_after = patience.hedge
        self._waited = 0.0
        self._window = (0, 0.0)
        self._is_replaced = False
        self._backoff = Backoff(CALL, patience=patience, cancellation=self._cancellation, emit=server.emit)
        self._given = 0
        self._progress_from = 0
        self._whole_only = False
        self._source: _Source | None = None
        self._failure: XetError | None = None
        self._second: _Second | None = None
        self._is_hedged = False
        self._is_closed = False
        self._last_byte_at = time.monotonic()
        try:
            while self._source is None:
                try:
                    self._reopen()
                except UnavailableError as error:
                    self._drop()
                    self._backoff.failed(error)
        except BaseException:
            self.close()
            raise

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of ``buffer``, 0 only at the end."""
        view = memoryview(buffer).cast("B")[: self._length - self._given]
        if self._is_closed:
            raise ValueError("the stream is closed")
        self._cancellation.check()
        self._last_byte_at = time.monotonic()  # what the reader did meanwhile is not the network's silence
        self._hedge_after = self._patience.hedge
        got = 0
        while got < len(view):
            try:
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    raise failure
                if self._source is None:
                    self._reopen()
                count = self._take(view[got:], may_wait=not got)
            except UnavailableError as error:
                self._drop()
                if got:
                    self._failure = error
                    break
                self._backoff.failed(error)
                continue
            except BaseException:
                self._drop()
                raise
            if count is None:
                break
            got += count
            self._given += count
            if self._given - self._progress_from >= PROGRESS_BYTES:
                self._progress_from = self._given
                self._backoff.progressed()
            if self._is_limited:
                break  # filling the buffer may take long
        if self._given == self._length:
            self._finish()
        return got

    def close(self) -> None:
        """Let go of the connections."""
        self._is_closed = True
        self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Opening

    def _reopen(self) -> None:
        """Have a source, by one attempt."""
        self._last_byte_at = time.monotonic()
        try:
            self._source = self._open(self._cancellation, self._wait)
        except _HedgeCameFirstError:
            self._switch()
        self._window = self._given, self._waited

    def _open(self, cancellation: Cancellation, wait: Wait | None) -> _Source:
        """Ask for what is missing; or for all of it, where the URL is for nothing else."""
        given = self._given
        if given and not self._whole_only:
            answer = self._request(self._start + given, cancellation, wait)
            if answer.status not in (400, 403, 416):
                return self._checked(answer, self._start + given, given)
            # It may be that the signature is for the whole range alone.
            answer.close()
            source = self._checked(self._request(self._start, cancellation, wait), self._start, given)
            self._whole_only = True
            return source
        return self._checked(self._request(self._start, cancellation, wait), self._start, given)

    def _request(self, first: int, cancellation: Cancellation, wait: Wait | None) -> Answer:
        """Ask for the bytes from ``first`` on to the end of the range; any answer that is no redirect."""
        return self._server.under(cancellation).follow(
            "GET",
            self._url,
            credentials=self._server.credentials(write=False),
            headers={"range": f"bytes={first}-{self._end - 1}"},
            timeout=self._patience.idle,
            wait=wait,
            takes_token=lambda url: "?" not in url and origin_of(url) == self._server.origin,
        )

    def _checked(self, answer: Answer, first: int, given: int) -> _Source:
        try:
            return self._source_of(answer, first, given)
        except BaseException:
            answer.close()
            raise

    def _source_of(self, answer: Answer, first: int, given: int) -> _Source:
        """Raises IntegrityError if an answer is seen not to be bytes from ``first`` on, or all of the range.

        One that does not say which bytes it is is known by its length alone; the hashes of its chunks decide.
        """
        end = self._end
        if answer.is_success:
            part = open_part(answer)
            span = _CONTENT_RANGE.fullmatch(part.content_range if part else answer.headers.get("content-range") or "")
            if span is None and part is not None:
                raise self._wrong("a part of the answer does not say which bytes it is")
            if span is not None and (answer.status == 206 or part is not None):
                start, stop = int(span[1]), int(span[2]) + 1
                if (start, stop) != (first, end):
                    raise self._wrong(f"bytes {first} to {end} were asked for, and bytes {start} to {stop} came")
            length = answer.declared_bytes if part is None else end - first
            is_whole = length == self._length or (length is None and answer.status != 206 and not self._start)
            if not is_whole and length != end - first and (length is not None or answer.status != 206):
                size = "all of it" if length is None else f"{length} bytes"
                raise self._wrong(f"bytes {first} to {end} were asked for, and {size} came")
            return _Source(answer, given if is_whole else self._start + given - first, part)
        if answer.status == 416:
            raise self._wrong(f"it is shorter than {end} bytes (HTTP 416)")
        error = problem_of(answer, f"{self._name} at {self._host}", bad_request=IntegrityError)
        if isinstance(error, ForbiddenError):
            error.hint = "the URL may have expired: ask for the file again"
        raise error

    def _wrong(self, what: str) -> IntegrityError:
        return IntegrityError(
            f"{self._name} at {self._host}: {what}",
            hint="the server, or a cache before it, gives wrong bytes: try again, then tell who runs it",
        )

    # Reading

    def _take(self, view: memoryview, *, may_wait: bool) -> int | None:
        """Bytes of the source, at least one of them; None if there are none yet and it may not wait."""
        while True:
            source = self._source
            assert source is not None
            answer = source.answer
            target = view if not source.skip else memoryview(bytearray(min(source.skip, SKIP_BYTES)))
            before = self._waited
            try:
                count = answer.take(target)
                if count is None:
                    if not may_wait:
                        return None
                    self._wait(answer.sock)
            except _HedgeCameFirstError:
                self._switch()
                continue
            except TimedOutError:
                raise self._silence() from None
            answer.moved(count or 0, self._waited - before)
            if count is None:
                continue
            if count == 0:
                raise UnreachableError(
                    f"{self._name} at {self._host} ended after {self._progress_text()}",
                    hint="try again; if it stays so, something in between cuts connections",
                )
            self._last_byte_at = time.monotonic()
            if self._second is not None:
                self._cancel_second()
            if not source.skip:
                self._watch_pace(count)
                return count
            source.skip -= count

    def _watch_pace(self, count: int) -> None:
        """Ask anew, once, where the range has become a trickle."""
        given, waited = self._given + count - self._window[0], self._waited - self._window[1]
        if self._is_limited or waited < self._patience.trickle:
            return
        if self._pace.is_trickle(given, waited) and not self._is_replaced:
            self._is_replaced = True
            self._server.emit(
                Retrying(CALL, f"{size_text(given)} in {waited:.0f} s from {self._host} are a trickle", 1, 0.0)
            )
            self._drop()
        self._window = self._given + count, self._waited

    def _finish(self) -> None:
        """All is there: whether there is more than that shows before the last byte is believed."""
        self._pace.finished(self._length, self._waited)
        source, self._source = self._source, None
        self._cancel_second()
        if source is None:
            return
        with source.answer as answer:
            if answer.is_at_end or (source.part is not None and source.part.ends(answer)):
                return
            # The end was not announced: it has to come now.
            with suppress(UnavailableError):
                if answer.readinto(memoryview(bytearray(1))):
                    raise self._wrong(f"more than {self._length} bytes came")

    def _drop(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.answer.close()
        self._cancel_second()

    # Waiting

    def _wait(self, sock: socket.socket) -> None:
        """Wait for ``sock``; after some silence for a second answer as well."""
        patience = self._patience
        while True:
            silent = time.monotonic() - self._last_byte_at
            if silent >= patience.idle:
                raise self._silence()
            if silent >= self._hedge_after and not self._is_hedged:
                self._hedge(silent)
            next_look = patience.idle if self._is_hedged else min(self._hedge_after, patience.idle)
            bell = [] if self._second is None else [self._second.bell]
            before = time.monotonic()
            rung = ready([sock, *bell], [], next_look - silent)
            self._waited += time.monotonic() - before
            self._cancellation.check()
            if sock.fileno() in rung:
                return
            if self._second is not None and rung:
                if self._second.has_source:
                    raise _HedgeCameFirstError
                self._cancel_second()

    def _hedge(self, silent: float) -> None:
        if not self._pace.begin_hedge():
            self._hedge_after = silent + self._patience.hedge
            return
        self._is_hedged = True
        self._server.emit(Hedged(CALL, silent))
        second = self._cancellation.child()
        self._second = _Second(second, lambda: self._open(second, None))

    def _switch(self) -> None:
        """Go on with the second answer instead of the first."""
        second, self._second = self._second, None
        assert second is not None
        self._pace.end_hedge()
        if self._source is not None:
            self._source.answer.close()
            self._source = None
        self._source = second.take()
        self._last_byte_at = time.monotonic()
        self._source.answer.move_to(self._cancellation)

    def _cancel_second(self) -> None:
        second, self._second = self._second, None
        if second is not None:
            self._pace.end_hedge()
            second.cancel()

    def _silence(self) -> TimedOutError:
        return TimedOutError(
            f"no byte for {self._patience.idle:g} s after {self._progress_text()} from {self._host}",
            hint="the server is too busy or the connection is dead: try again later",
        )

    def _progress_text(self) -> str:
        return f"{size_text(self._given)} of {size_text(self._length)}"


class _Second:
    """A second request for the same bytes, on its way in a thread of its own.

    ``bell`` can be read once it is answered, or has failed.
    """

    def __init__(self, cancellation: Cancellation, open_source: Callable[[], _Source]) -> None:
        self._cancellation = cancellation
        self._open_source = open_source
        self._lock = threading.Lock()
        self._source: _Source | None = None
        self._is_cancelled = False
        self.bell, self._rings = socket.socketpair()
        try:
            start_thread(self._run, name="xetstore hedge")
        except UnavailableError:
            self._rings.close()  # as after a request that failed

    @property
    def has_source(self) -> bool:
        """True if it was answered, and well."""
        with self._lock:
            return self._source is not None

    def take(self) -> _Source:
        """The answer: the taker's from now on."""
        self.bell.close()
        with self._lock:
            source, self._source = self._source, None
        assert source is not None
        return source

    def cancel(self) -> None:
        """It is not wanted any more."""
        with self._lock:
            self._is_cancelled = True
            source, self._source = self._source, None
        self._cancellation.cancel()
        if source is not None:
            source.answer.close()
        self.bell.close()

    def _run(self) -> None:
        with self._rings:
            try:
                source = self._open_source()
            except (XetError, InterruptedCallError):
                return  # the first request is still there
            with self._lock:
                if not self._is_cancelled:
                    self._source = source
                    return
            source.answer.close()
