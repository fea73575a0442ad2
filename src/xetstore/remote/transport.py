"""Transport: requests over pooled connections, through proxies, with TLS, and within limits of rate and patience."""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import threading
import time
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

import urllib3
import urllib3.exceptions
from urllib3.util import make_headers

from xetstore.cancellation import Cancellation
from xetstore.errors import IntegrityError, TimedOutError, UnreachableError, UsageError
from xetstore.interfaces import AnswerTooLongError
from xetstore.platform import forks
from xetstore.platform.sockets import ready
from xetstore.protocol.binding import BINDING_HEADER, binding
from xetstore.remote.connections import POOLS, CarriedError, Reply, StaleConnectionError, broken
from xetstore.remote.exchange import Exchange, Wait, carrying
from xetstore.remote.network import Origin, Proxy, Route, is_loopback, origin_of, path_of, tls_context
from xetstore.remote.rate import RateLimit
from xetstore.remote.retry import Patience
from xetstore.version import __version__

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Buffer

__all__ = ["Answer", "Patience", "Transport"]

POOLED_CONNECTIONS: Final = 64
"""Idle connections to one host that are kept; there may be more in use."""
POOLED_HOSTS: Final = 32
NO_RETRIES: Final = urllib3.Retry.from_int(False, redirect=False)
"""As ``retries=False``, of which urllib3 makes such an object for each request."""
STALE_TRIES: Final = 3
READ_BYTES: Final = 64 << 10
ANSWER_RATE: Final = 64 << 10
"""Bytes for which an answer that is read whole has one more second than the time of an answer."""

_RATE_BUFFERS: Final = (16 << 10, 1 << 20)
_DIGEST: Final = re.compile(r"(?:^|,)\s*sha-256=:([^:]*):")
_GZIP: Final = 16 + zlib.MAX_WBITS
_ENCODINGS: Final = ("", "identity", "gzip")


class Answer:
    """An answer whose body is still to be read. A context manager; not thread-safe.

    ``headers`` are looked up whatever their case.
    """

    def __init__(
        self,
        response: urllib3.BaseHTTPResponse,
        exchange: Exchange,
        download: RateLimit | None,
        most_bytes: int | None,
    ) -> None:
        assert exchange.sock is not None
        assert isinstance(exchange.reply, Reply)
        self._most_bytes = most_bytes
        self._waited = 0.0
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._exchange = exchange
        self._sock = exchange.sock
        self._reply = exchange.reply
        self._download = download
        self._is_open = True
        self.peer = exchange.peer
        # TLS in TLS has no socket of its own to wait for: it waits where it is read.
        self.can_wait = isinstance(self._sock, socket.socket)
        with suppress(OSError):
            self._sock.settimeout(0 if self.can_wait else exchange.patience.answer)
        if self._reply.length == 0 and not self._reply.chunked:
            self._reply.close()

    @property
    def patience(self) -> Patience:
        """That of the call."""
        return self._exchange.patience

    @property
    def is_limited(self) -> bool:
        """True if there is a limit of rate: what comes slowly then says nothing of the network."""
        return self._download is not None

    @property
    def sock(self) -> socket.socket:
        """To wait for: whether there is more, only reading tells."""
        return self._sock

    @property
    def is_success(self) -> bool:
        """True for a status 2xx."""
        return 200 <= self.status < 300

    @property
    def declared_bytes(self) -> int | None:
        """The length of the body as its head says it; None if it does not."""
        declared = self.headers.get("content-length") or ""
        return int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 20 else None

    @property
    def is_at_end(self) -> bool:
        """True if all of the body was read, as far as is known."""
        return self._reply.isclosed()

    def take(self, view: memoryview) -> int | None:
        """Read what is there: how much, 0 at the end, None if nothing has come (only where ``can_wait``).

        Raises UnavailableError where the body breaks off, TimedOutError, InterruptedCallError.
        """
        if self.is_at_end or not view:
            return 0
        cancellation = self._exchange.cancellation
        cancellation.check()
        limit = self._download
        if limit is not None:
            view = view[: limit.slice_bytes]
            limit.take(len(view), cancellation.wait)
        count: int | None = None
        try:
            count = self._reply.take(view)
        except TimeoutError:
            raise self._silent() from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            cancellation.check()
            raise broken(self.peer, error) from None
        finally:
            if limit is not None:
                limit.give_back(len(view) - (count or 0))
        cancellation.check()
        return count

    def readinto(self, view: memoryview, /, *, has_floor: bool = True) -> int:
        """Fill some of ``view``; 0 only at the end. Raises TimedOutError for silence and, with a floor, for a drip."""
        while True:
            before = time.monotonic()
            count = self.take(view)
            if count is not None:
                if has_floor:
                    self.moved(count, 0.0 if self.can_wait else time.monotonic() - before)
                return count
            before = time.monotonic()
            is_there = not self.can_wait or bool(ready([self._sock], [], self._exchange.patience.answer))
            if has_floor:
                self.moved(0, time.monotonic() - before)
            if not is_there:
                self._exchange.cancellation.check()
                raise self._silent()

    @property
    def is_bound(self) -> bool:
        """True if it says, by a digest, what it is the answer to."""
        return BINDING_HEADER in self.headers

    def check_binding(self, question: str, content_sha256: bytes) -> None:
        """Raise IntegrityError if it is the answer to another question, and use its connection no more."""
        if self.headers.get(BINDING_HEADER) != binding(question, content_sha256):
            self._exchange.is_cut_short = True
            raise IntegrityError(f"{self.peer} answered another question than was asked", hint="try again")

    def moved(self, nbytes: int, waited_seconds: float) -> None:
        """Count bytes that came after a wait. Raises TimedOutError where they are too few for too long."""
        self._waited += waited_seconds
        floor = self._exchange.floor
        if floor.waited(waited_seconds, nbytes):
            raise TimedOutError(
                f"{self.peer} sent less than {floor.text}",
                hint="the server is too busy or the connection is bad: try again later",
            )

    def most_of(self, limit: int) -> int:
        """The most bytes of ``limit`` that may be held of an answer."""
        return limit if self._most_bytes is None else min(limit, self._most_bytes)

    def read(self, limit: int, question: str | None = None, *, within: float | None = None) -> bytes:
        """All of the body, decompressed if it is gzip.

        Raises IntegrityError if it is longer than ``limit``, or than answers may be here, is not what its
        Content-Digest says (RFC 9530), or is bound to another ``question``; TimedOutError after ``within`` seconds of
        waiting, by default the patience for an answer and what ``limit`` bytes take at :data:`ANSWER_RATE`.
        """
        is_bound = question is not None and self.is_bound
        limit = self.most_of(limit)
        seconds = self._exchange.patience.answer + limit / ANSWER_RATE if within is None else within
        digest = _DIGEST.search(self.headers.get("content-digest") or "")
        hasher = hashlib.sha256()
        encoding = (self.headers.get("content-encoding") or "").strip().lower()
        if encoding not in _ENCODINGS:
            raise IntegrityError(
                f"the answer of {self.peer} is encoded as {encoding[:40]!r}, which was not asked for",
                hint="no such answer is right: check what is between here and the server",
            )
        inflater = zlib.decompressobj(_GZIP) if encoding == "gzip" else None
        declared = self._reply.length
        if declared is not None and declared > limit:
            raise self._too_long(limit)
        body = bytearray()
        buffer = memoryview(bytearray(READ_BYTES))
        sent_bytes = 0
        while count := self.readinto(buffer):
            sent_bytes += count
            if digest is not None or is_bound:
                hasher.update(buffer[:count])
            if inflater is None:
                body += buffer[:count]
            else:
                try:
                    body += inflater.decompress(buffer[:count], limit + 1 - len(body))
                except zlib.error:
                    raise IntegrityError(
                        f"the answer of {self.peer} is said to be gzip, and is not", hint="try again"
                    ) from None
            # Blocks of gzip may stand for nothing: what came is bounded as what it stands for.
            if len(body) > limit or sent_bytes > limit + READ_BYTES:
                raise self._too_long(limit)
            if self._waited > seconds:
                raise TimedOutError(
                    f"{self.peer} did not get to the end of its answer within {seconds:g} s",
                    hint="the server is too busy or the connection is bad: try again later",
                )
        if inflater is not None and not inflater.eof:
            raise UnreachableError(f"the answer of {self.peer} ended too early", hint="try again")
        if digest is not None and digest[1] != b64encode(hasher.digest()).decode():
            raise IntegrityError(f"the answer of {self.peer} is not what its digest says", hint="try again")
        if question is not None and is_bound:
            self.check_binding(question, hasher.digest())
        return bytes(body)

    def _too_long(self, limit: int) -> AnswerTooLongError:
        because = ", the most that fits into the memory that is allowed" if limit == self._most_bytes else ""
        return AnswerTooLongError(
            f"the answer of {self.peer} is longer than {limit} bytes{because}",
            hint="no such answer is right: check the address of the server",
        )

    def move_to(self, cancellation: Cancellation) -> None:
        """Have it cancelled by another one from now on."""
        self._exchange.forget()
        self._exchange.cancellation = cancellation
        self._exchange.watch(self._sock)

    def close(self) -> None:
        """Let go of the connection: to the pool if the body was read to its end."""
        if not self._is_open:
            return
        self._is_open = False
        self._exchange.forget()
        if self.is_at_end and not self._exchange.is_cut_short and not self._exchange.cancellation.is_cancelled:
            self._response.release_conn()
            return
        self._reply.close()
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _silent(self) -> TimedOutError:
        return TimedOutError(
            f"{self.peer} sent no byte for {self._exchange.patience.answer:g} s in the middle of an answer",
            hint="the server is too busy or the connection is dead: try again later",
        )


class Transport:
    """Makes requests. Thread-safe; a context manager.

    ``rate`` is bytes per second of bodies, each way, over all connections; ``most_bytes`` the most that an answer may
    have that is read whole. Plain http is for this machine itself, unless ``allow_http``. Proxies and trusted
    certificates are those that the environment names.
    """

    def __init__(
        self,
        *,
        patience: Patience = Patience(),  # noqa: B008  # it is immutable
        rate: float | None = None,
        most_bytes: int | None = None,
        allow_http: bool = False,
        user_agent: str | None = None,
    ) -> None:
        self.patience = patience
        self._most_bytes = most_bytes
        self.allow_http = allow_http
        self.user_agent = user_agent or f"xetstore/{__version__}"
        self._upload = None if rate is None else RateLimit(rate)
        self._download = None if rate is None else RateLimit(rate)
        self._socket_options: list[tuple[int, int, int]] = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        if rate is not None:
            # What waits in the buffers of the system was moved without being counted.
            least, most = _RATE_BUFFERS
            size = int(min(max(rate / 8, least), most))
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                self._socket_options.append((socket.SOL_SOCKET, option, size))
        self._is_closed = False
        self._begin()
        forks.renew(self, Transport._begin)

    def _begin(self) -> None:
        """Have no connections. What a parent had is closed here by :mod:`xetstore.remote.connections`."""
        self._lock = threading.Lock()
        self._managers: dict[tuple[Proxy | None, bool], urllib3.PoolManager] = {}
        self._pools: dict[Origin, urllib3.HTTPConnectionPool] = {}
        self._trust: ssl.SSLContext | None = None

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] = {},
        body: Buffer | None = None,
        timeout: float | None = None,
        cancellation: Cancellation,
        wait: Wait | None = None,
    ) -> Answer:
        """Send a request and wait for the head of its answer, whatever its status; redirects are not followed.

        ``timeout`` is for the answer, and for each next part of its body (``patience.answer`` by default). ``wait``
        waits in its place until the socket it is given can be read. Raises UsageError for a URL that may not be used,
        UnavailableError and TimedOutError where there is no connection or answer, AccessDeniedError for certificates,
        InterruptedCallError.
        """
        self.check_scheme(url)
        route = Route.to(url)
        patience = self.patience if timeout is None else replace(self.patience, answer=timeout)
        sent = {"user-agent": self.user_agent, "accept-encoding": "identity", **headers}
        if body is not None or method in ("POST", "PUT"):
            body = memoryview(b"" if body is None else body).cast("B")
            sent["content-length"] = str(len(body))
        manager = self._manager(route)
        for left in reversed(range(STALE_TRIES)):
            cancellation.check()
            exchange = Exchange(cancellation, route, patience, upload=self._upload, wait=wait)
            try:
                return self._exchange(manager, method, url, sent, body, exchange)
            except StaleConnectionError:
                if not left:
                    raise broken(exchange.peer, http.client.RemoteDisconnected("")) from None
        raise AssertionError("unreachable")

    @property
    def is_limited(self) -> bool:
        """True if there is a limit of rate: what comes slowly then says nothing of the network."""
        return self._download is not None

    def check_scheme(self, url: str) -> None:
        """Raise UsageError if ``url`` is plain http to another machine, and that is not allowed."""
        origin = origin_of(url)
        if origin.scheme == "http" and not self.allow_http and not is_loopback(origin.host):
            raise UsageError(
                f"{origin.address} is to be reached by plain http, which anybody in between can read and change",
                hint="use https, or allow plain http (XET_ALLOW_HTTP=1) where the network is trusted",
            )

    def close(self) -> None:
        """Close every connection that is not in use, and those in use when they are done."""
        with self._lock:
            self._is_closed = True
            managers, self._managers = list(self._managers.values()), {}
            self._pools = {}
        for manager in managers:
            manager.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _exchange(
        self,
        manager: urllib3.PoolManager,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: memoryview | None,
        exchange: Exchange,
    ) -> Answer:
        patience = exchange.patience
        with carrying(exchange):
            try:
                target = url.partition("#")[0]
                path = None if exchange.route.proxy is not None else path_of(target)
                pool: Any = manager if path is None else self._pool(manager, exchange.route.origin)
                response = pool.urlopen(
                    method,
                    path or target,
                    body=None if body is None else _parts(body, exchange),
                    headers=dict(headers),
                    timeout=urllib3.Timeout(connect=min(patience.connect, patience.answer), read=patience.answer),
                    retries=NO_RETRIES,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
                return Answer(response, exchange, self._download, self._most_bytes)
            except BaseException as error:
                exchange.forget()
                if isinstance(error, CarriedError):
                    raise error.error from None
                if isinstance(error, urllib3.exceptions.LocationValueError | ValueError):
                    raise UsageError(
                        f"the request to {exchange.peer} cannot be written: its URL or a header is malformed",
                        hint="check the address, and what is sent with it",
                    ) from None
                if isinstance(error, urllib3.exceptions.HTTPError | OSError | http.client.HTTPException):
                    exchange.cancellation.check()
                    raise broken(exchange.peer, error) from None
                raise

    def _pool(self, manager: urllib3.PoolManager, origin: Origin) -> urllib3.HTTPConnectionPool:
        """The connections to an origin: found by it at once, where urllib3 makes a key of all settings."""
        pool = self._pools.get(origin)
        if pool is None or pool.pool is None:  # closed, as one of many hosts
            pool = manager.connection_from_host(origin.host, origin.port, origin.scheme)
            with self._lock:
                self._pools[origin] = pool
                if len(self._pools) > POOLED_HOSTS:
                    self._pools.pop(next(iter(self._pools)))
        return pool

    def _manager(self, route: Route) -> urllib3.PoolManager:
        proxy = route.proxy
        with self._lock:
            if self._is_closed:
                raise UsageError("the connections of this client have been closed", hint="open the store again")
            # Certificates take some time to load: who needs none does not wait for them.
            has_tls = route.origin.scheme == "https" or (proxy is not None and proxy.url.startswith("https"))
            found = self._managers.get((proxy, has_tls))
            if found is None:
                if has_tls and self._trust is None:
                    self._trust = tls_context()
                found = self._managers[proxy, has_tls] = self._new_manager(proxy, self._trust if has_tls else None)
            return found

    def _new_manager(self, proxy: Proxy | None, trust: ssl.SSLContext | None) -> urllib3.PoolManager:
        settings = {"maxsize": POOLED_CONNECTIONS, "block": False, "socket_options": self._socket_options}
        if trust is not None:
            settings["ssl_context"] = trust
        if proxy is None or proxy.is_socks:
            manager = urllib3.PoolManager(POOLED_HOSTS, **settings)  # type: ignore[arg-type]
        else:
            login = make_headers(proxy_basic_auth=proxy.login) if proxy.login is not None else None
            manager = urllib3.ProxyManager(
                proxy.url,
                POOLED_HOSTS,
                proxy_headers=login,
                proxy_ssl_context=trust,
                **settings,  # type: ignore[arg-type]
            )
        manager.pool_classes_by_scheme = POOLS
        return manager


def _parts(body: memoryview, exchange: Exchange) -> Iterator[memoryview]:
    """The body, for urllib3 to send; the connection cuts it into slices."""
    if len(body):
        exchange.in_body = True  # the head has been sent
        yield body
