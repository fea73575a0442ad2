"""Connections: those of urllib3, with sockets that can be interrupted, bodies in slices, reads that take what is there.

urllib3 keeps the pools, speaks to proxies and sets up TLS. What is added needs the socket itself: an interruption
shuts it down; a server that answers before a body is sent is heard; a caller that waits for one can do other things
meanwhile, such as asking a second time. Errors leave here as errors of ours.
"""

from __future__ import annotations

import errno
import http.client
import io
import logging
import os
import queue
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import urllib3.connection
import urllib3.connectionpool
import urllib3.exceptions
from urllib3.util.ssl_match_hostname import CertificateError

from xetstore.cancellation import Cancellation
from xetstore.errors import AccessDeniedError, TimedOutError, UnreachableError, UsageError, XetError
from xetstore.platform import forks
from xetstore.platform.sockets import ready
from xetstore.remote.chunked import ChunkedBody
from xetstore.remote.exchange import Exchange, current, is_ours
from xetstore.remote.lookup import addresses
from xetstore.remote.reply_head import ReplyHead
from xetstore.remote.socks import connect_through

if TYPE_CHECKING:
    from typing_extensions import Buffer

SLICE_BYTES: Final = 1 << 20
"""Bytes of a body that are sent before anything else is looked at."""
CONNECT_TICK_SECONDS: Final = 0.05
"""Seconds after which a connection that is being made looks whether it is still wanted."""

_MAX_LINE: Final = 1 << 16
_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class StaleConnectionError(Exception):
    """A connection from the pool had been closed by the server in the meantime: nothing was answered."""


class AnsweredEarlyError(BrokenPipeError):
    """The server has answered, or gone, before all of the body was sent. urllib3 reads the answer after this."""


class CarriedError(Exception):
    """An error of ours on its way through urllib3, which would make another one of an OSError."""

    def __init__(self, error: XetError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _carried() -> Iterator[None]:
    """Errors of ours leave as CarriedError."""
    try:
        yield
    except XetError as error:
        raise CarriedError(error) from None


class _Resumed(io.RawIOBase):
    """The rest of a socket of which something was read already."""

    def __init__(self, heard: bytes, rest: io.RawIOBase) -> None:
        self._heard = heard
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if not self._heard:
            return self._rest.readinto(buffer)
        count = min(len(self._heard), len(buffer))
        buffer[:count], self._heard = self._heard[:count], self._heard[count:]
        return count

    def close(self) -> None:
        self._rest.close()
        super().close()


class Reply(http.client.HTTPResponse):
    """An answer of http.client whose head has a deadline, and whose body can be read without waiting for more."""

    def __init__(self, sock: socket.socket, *args: Any, **kw: Any) -> None:
        super().__init__(sock, *args, **kw)
        exchange = current()
        self._head_sock = sock
        if exchange.heard:
            self.fp = io.BufferedReader(_Resumed(exchange.heard, self.fp.detach()))
        self._reader = self.fp
        # Lines of the head, those of a proxy's too, come with a deadline; the body does not go through this.
        self.fp = ReplyHead(self._reader, sock, exchange)  # type: ignore[assignment]
        self._chunks: ChunkedBody | None = None

    def begin(self) -> None:
        """Read the head, waiting for it as the exchange has it."""
        sock = self._head_sock
        before = sock.gettimeout()
        if isinstance(sock, socket.socket):
            sock.settimeout(0)
        try:
            super().begin()
        finally:
            with suppress(OSError):
                sock.settimeout(before)
        if self.fp is not None:
            self.fp = self._reader
        if self.chunked:
            self._chunks = ChunkedBody(self._read_some)

    def _read_status(self) -> tuple[str, int, str]:
        """The status line of the answer itself: interim ones (RFC 9110, 15.2) are passed over, whatever they say."""
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # it is not in the stubs
            if not 100 <= status < 200:
                return version, status, reason
            if status == 101:
                raise http.client.BadStatusLine("101 that was not asked for")
            while self.fp.readline(_MAX_LINE) not in (b"\r\n", b"\n", b""):
                pass

    def take(self, view: memoryview) -> int | None:
        """Read what is there, into ``view``: how much, 0 at the end, None if nothing has come yet.

        None only of a socket that does not block. Raises OSError or HTTPException where the body breaks off.
        """
        if self.fp is None:
            return 0
        if self._chunks is not None:
            count = self._chunks.take(view)
            if self._chunks.is_at_end:
                self.close()
            return count
        if self.length is not None:
            view = view[: self.length]
        count = self._read_some(view)
        if count is None:
            return None
        if self.length is not None:
            if count == 0 and self.length:
                raise http.client.IncompleteRead(b"", self.length)
            self.length -= count
        if count == 0 or self.length == 0:
            self.close()
        return count

    def _read_some(self, view: memoryview) -> int | None:
        try:
            count: int | None = self.fp.readinto1(view)
        except _WOULD_BLOCK:
            return None
        return count


class _Carrier(urllib3.connection.HTTPConnection):
    """The common part of the connections of both schemes."""

    response_class = Reply
    _is_fresh = False
    _lever: socket.socket | None = None

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        forks.renew(self, _Carrier._leave)

    def _leave(self) -> None:
        """In a child: close what it has of the parent's connection, and nothing more: the server hears of no end."""
        for sock in (self.sock, self._lever):
            if isinstance(sock, socket.socket) and sock.fileno() >= 0:
                os.close(sock.detach())
        self.sock = self._lever = None

    def _new_conn(self) -> socket.socket:
        exchange = current()
        who = exchange.peer if self.proxy is None else f"the proxy {self.host}"
        timeout = float(self.timeout or 10)
        deadline = time.monotonic() + timeout
        if (socks := exchange.route.socks) is not None:
            sock = connect_through(socks, self._dns_host, self.port, exchange, deadline, self.socket_options or ())
            return self._opened(exchange, sock, timeout)
        try:
            found = addresses(self._dns_host, self.port, exchange.cancellation, deadline)
        except XetError:
            raise
        except (OSError, UnicodeError) as error:
            exchange.cancellation.check()
            reason = error.strerror or error if isinstance(error, OSError) else "not a host name"
            raise UnreachableError(
                f"{who} cannot be found: {reason}", hint="check the address and the connection to the network"
            ) from None
        failure: OSError | None = None
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                exchange.watch(sock)
                _connect(sock, address, deadline, exchange.cancellation)
                return self._opened(exchange, sock, timeout)
            except OSError as error:
                sock.close()
                failure = error
                exchange.cancellation.check()
            except BaseException:
                sock.close()
                raise
        if failure is None or isinstance(failure, TimeoutError):
            raise TimedOutError(
                f"no connection to {who} within {timeout:g} s", hint="check the address and the connection"
            ) from None
        raise UnreachableError(
            f"{who} cannot be reached: {failure.strerror or failure}",
            hint="check the address, and that the server is running",
        ) from None

    def _opened(self, exchange: Exchange, sock: socket.socket, timeout: float) -> socket.socket:
        sock.settimeout(timeout)
        self._is_fresh = True
        # TLS takes the socket over: a second handle on it is what can be interrupted meanwhile.
        self._lever = sock.dup()
        exchange.watch(self._lever)
        return sock

    def connect(self) -> None:
        """Connect, through a proxy and with TLS where it is to be."""
        with _carried():
            self._connect_as_ours()

    def _connect_as_ours(self) -> None:
        exchange = current()
        exchange.begin_head(float(self.timeout or 10), is_connecting=True)
        try:
            super().connect()
        except XetError:
            raise
        except ssl.SSLCertVerificationError as error:
            raise _untrusted(exchange.peer, error.verify_message or str(error)) from None
        except CertificateError as error:
            raise _untrusted(exchange.peer, str(error)) from None
        except (ssl.SSLError, urllib3.exceptions.SSLError) as error:
            exchange.cancellation.check()
            raise _tls_failure(exchange.peer, error) from None
        except TimeoutError:
            raise TimedOutError(
                f"no connection to {exchange.peer} within {self.timeout:g} s: it stopped answering in the middle",
                hint="check the address and the connection",
            ) from None
        except (OSError, http.client.HTTPException) as error:
            exchange.cancellation.check()
            raise self._tunnel_failure(exchange.peer, error) from None
        finally:
            exchange.forget()
            if self._lever is not None:
                self._lever.close()
                self._lever = None

    def _tunnel_failure(self, peer: str, error: Exception) -> UnreachableError | AccessDeniedError:
        refused = re.match(r"Tunnel connection failed: ([0-9]{3})", str(error))
        if refused is None:
            return UnreachableError(
                f"the connection to {peer} broke while it was made: {_reason(error)}",
                hint="try again; if it stays so, something in between cuts connections",
            )
        message = f"the proxy {self.host} refuses to connect to {peer} (HTTP {refused[1]})"
        if refused[1] in ("401", "403", "407"):
            return AccessDeniedError(message, hint="check the proxy's login, or set no_proxy to go without it")
        return UnreachableError(message, hint="check the proxy, or set no_proxy to go without it")

    def request(self, *args: Any, **kw: Any) -> None:
        """Send a request; its body, if any, comes last."""
        exchange = current()
        exchange.is_reused = not self._is_fresh and self.sock is not None
        if self.sock is not None:
            exchange.watch(self.sock)
        try:
            with _carried():
                super().request(*args, **kw)
        except AnsweredEarlyError:
            exchange.is_cut_short = True
            raise
        except (BrokenPipeError, ConnectionResetError):
            # What the server said before may be there to be read.
            exchange.is_cut_short = True
            raise
        except ssl.SSLError as error:
            exchange.is_cut_short = True
            raise AnsweredEarlyError(errno.EPIPE, "the server has gone") from error
        finally:
            self._is_fresh = False

    def send(self, data: Buffer) -> None:  # type: ignore[override]  # urllib3 gives bytes only
        """Send bytes in slices: at the rate that is allowed, as long as the call is wanted and not answered."""
        exchange = current()
        if self.sock is None:
            self.connect()
        sock: socket.socket = self.sock
        if exchange.sock is None:
            exchange.watch(sock)
        view = memoryview(data).cast("B")
        limit = exchange.upload if exchange.in_body else None
        size = SLICE_BYTES if limit is None else limit.slice_bytes
        while view:
            exchange.cancellation.check()
            piece = view[:size]
            if limit is not None:
                limit.take(len(piece), exchange.cancellation.wait)
            self._send_slice(exchange, sock, piece)
            view = view[len(piece) :]

    def _send_slice(self, exchange: Exchange, sock: socket.socket, piece: memoryview) -> None:
        if not isinstance(sock, socket.socket):  # TLS through a proxy that speaks TLS itself
            sock.settimeout(exchange.patience.idle)
            sock.sendall(piece)
            return
        listens = exchange.in_body
        before = sock.gettimeout()
        sock.settimeout(0)
        try:
            if listens:
                _listen(exchange, sock)
            while piece:
                try:
                    count = sock.send(piece)
                    piece = piece[count:]
                    exchange.floor.moved(count)
                except _WOULD_BLOCK:
                    before_wait = time.monotonic()
                    is_ready = ready([sock] if listens else [], [sock], exchange.patience.idle)
                    is_slow = exchange.floor.waited(time.monotonic() - before_wait)
                    exchange.cancellation.check()
                    if not is_ready or is_slow:
                        silence = f"no byte for {exchange.patience.idle:g} s"
                        raise TimedOutError(
                            f"{exchange.peer} took {f'less than {exchange.floor.text}' if is_slow else silence}",
                            hint="the server is too busy or the connection is dead: try again later",
                        ) from None
                    if listens:
                        _listen(exchange, sock)
        finally:
            with suppress(OSError):
                sock.settimeout(before)

    def getresponse(self) -> urllib3.response.HTTPResponse:  # type: ignore[override]
        """The answer, once its head is there."""
        exchange = current()
        exchange.in_body = False
        exchange.begin_head(exchange.patience.answer, is_connecting=False)
        with _carried():
            response = self._getresponse_as_ours(exchange)
        exchange.reply = response._original_response  # made by response_class
        return response

    def _getresponse_as_ours(self, exchange: Exchange) -> urllib3.response.HTTPResponse:
        try:
            return super().getresponse()
        except XetError:
            raise
        except (OSError, http.client.HTTPException) as error:
            exchange.cancellation.check()
            gone = isinstance(error, ConnectionError | http.client.RemoteDisconnected | ssl.SSLEOFError)
            if gone and exchange.is_reused:
                raise StaleConnectionError from None
            if isinstance(error, TimeoutError):
                raise exchange.timed_out() from None
            raise broken(exchange.peer, error) from None


class PlainConnection(_Carrier):
    """http."""


class TlsConnection(_Carrier, urllib3.connection.HTTPSConnection):
    """https."""


class _Idle(queue.LifoQueue[Any]):
    """The connections of a pool that are not in use. urllib3 empties it when the pool is finalized, in a child too."""

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        forks.free(self.mutex)


class PlainPool(urllib3.connectionpool.HTTPConnectionPool):
    """Connections to one host."""

    ConnectionCls = PlainConnection
    QueueCls = _Idle


class TlsPool(urllib3.connectionpool.HTTPSConnectionPool):
    """Connections to one host."""

    ConnectionCls = TlsConnection
    QueueCls = _Idle


POOLS: Final = {"http": PlainPool, "https": TlsPool}


def broken(peer: str, error: Exception) -> UnreachableError:
    """A connection broke, or what came is no HTTP."""
    return UnreachableError(
        f"the connection to {peer} broke: {_reason(error)}",
        hint="try again; if it stays so, something in between cuts connections",
    )


def _listen(exchange: Exchange, sock: socket.socket) -> None:
    """Raise AnsweredEarlyError if the server has said something while a body is being sent."""
    if not ready([sock], [], 0):
        return
    if isinstance(sock, ssl.SSLSocket):
        # What can be read may be TLS's own: only reading tells, and what was read is kept for the reply.
        try:
            exchange.heard = sock.recv(1)
        except _WOULD_BLOCK:
            return
    raise AnsweredEarlyError(errno.EPIPE, "the server has answered already")


def _connect(sock: socket.socket, address: Any, deadline: float, cancellation: Cancellation) -> None:
    sock.setblocking(False)
    code = sock.connect_ex(address)
    if code not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
        raise OSError(code, os.strerror(code))
    while code and not ready([], [sock], CONNECT_TICK_SECONDS):
        cancellation.check()
        if time.monotonic() >= deadline:
            raise TimeoutError
    cancellation.check()
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "it ended before the body did"
    if isinstance(error, http.client.RemoteDisconnected | ssl.SSLEOFError):
        return "it was closed without an answer"
    if isinstance(error, http.client.HTTPException):
        return "what came is not HTTP"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _untrusted(peer: str, reason: str) -> AccessDeniedError:
    return AccessDeniedError(
        f"the certificate of {peer} is not to be trusted: {reason}",
        hint="check the address; where the server has a certificate of its own, name its file in SSL_CERT_FILE",
    )


def _tls_failure(peer: str, error: Exception) -> UnreachableError | UsageError:
    reason = getattr(error, "reason", None) or type(error).__name__
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return broken(peer, error)
    return UsageError(
        f"there is no TLS with {peer}: {str(reason).replace('_', ' ').lower()}",
        hint="check that the address is that of an https server",
    )


class _NoQueries(logging.Filter):
    """Takes the query of URLs out of what urllib3 logs of our requests: it may be a signature."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes."""
        if is_ours() and isinstance(record.args, tuple):
            record.args = tuple(
                re.sub(r"\?\S*", "?…", argument) if isinstance(argument, str) else argument for argument in record.args
            )
        return True


for _name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.poolmanager"):
    logging.getLogger(_name).addFilter(_NoQueries())
