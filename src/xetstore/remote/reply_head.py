"""ReplyHead: the head of an answer, read line by line from a socket that does not block, until a deadline."""

from __future__ import annotations

import io
import socket
import ssl
import time
from typing import Final

from xetstore.errors import UnavailableError
from xetstore.remote.exchange import Exchange

MAX_HEAD_BYTES: Final = 1 << 20
"""All lines before a body, those of interim answers (1xx) among them."""


class ReplyHead:
    """The lines of a head, as http.client reads them. ``reader`` buffers what comes from ``sock``.

    Raises TimedOutError at the exchange's deadline, however many bytes or interim answers came before it, and
    UnavailableError for a head without end.
    """

    def __init__(self, reader: io.BufferedReader, sock: socket.socket, exchange: Exchange) -> None:
        self.reader = reader
        self._sock = sock
        self._exchange = exchange
        self._left = MAX_HEAD_BYTES
        # The bytes in the buffer up to the end of a head: as a rule all of it comes at once.
        self._there = 0

    def readline(self, limit: int) -> bytes:
        """The next line with its end; less where the connection, or ``limit``, ends before."""
        if self._there > 0:
            whole = self.reader.readline(limit)
            self._there -= len(whole)
            self._left -= len(whole)
            return whole
        line = bytearray()
        while len(line) < limit:
            there = self._peek()
            if not there:
                break
            if not line and (head_end := there.find(b"\r\n\r\n")) >= 0 and head_end < self._left:
                self._there = head_end + 4
                return self.readline(limit)
            end = there.find(b"\n") + 1
            line += self.reader.read(min(end or len(there), limit - len(line)))
            if line.endswith(b"\n"):
                break
        self._left -= len(line)
        if self._left < 0:
            raise UnavailableError(
                f"the head of an answer of {self._exchange.peer} is longer than {MAX_HEAD_BYTES} bytes",
                hint="try again; if it stays so, the server does not speak HTTP as it should",
            )
        return bytes(line)

    def close(self) -> None:
        """Close what it reads from."""
        self.reader.close()

    def flush(self) -> None:
        """Nothing: http.client calls it."""

    def _peek(self) -> bytes:
        """The bytes that are there, at least one; empty at the end of the connection."""
        exchange = self._exchange
        may_be_end = False
        while True:
            if exchange.is_late:
                raise exchange.timed_out()
            if not isinstance(self._sock, socket.socket):  # TLS in TLS: only a timeout ends a wait for it
                self._sock.settimeout(max(exchange.deadline - time.monotonic(), 0.001))
                there = self.reader.peek(1)
                exchange.has_begun = exchange.has_begun or bool(there)
                return there
            try:
                there = self.reader.peek(1)
                if there:
                    exchange.has_begun = True
                    return there
                if may_be_end or isinstance(self._sock, ssl.SSLSocket):
                    return b""
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            # Nothing of a plain socket may be its end, or that it does not block: after a wait it is the end.
            exchange.wait_for_head(self._sock)
            may_be_end = True
