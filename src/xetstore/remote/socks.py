"""Connections through a SOCKS proxy, with the extra ``socks`` (PySocks)."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any

from xetstore.errors import AccessDeniedError, TimedOutError, UnreachableError, UsageError, XetError
from xetstore.extras import install_hint
from xetstore.remote.exchange import Exchange
from xetstore.remote.lookup import addresses
from xetstore.remote.network import Proxy


def connect_through(
    proxy: Proxy,
    host: str,
    port: int,
    exchange: Exchange,
    deadline: float,
    options: Sequence[tuple[int, int, int | bytes]],
) -> socket.socket:
    """A connection to a host by way of ``proxy``, before a monotonic time. Raises XetError."""
    try:
        import socks
    except ImportError:
        raise UsageError(
            f"{exchange.peer} is behind the SOCKS proxy {proxy.address}, which takes the extra socks",
            hint=f"{install_hint('socks')}, or set no_proxy to go without the proxy",
        ) from None

    class Negotiating(socks.socksocket):  # type: ignore[misc]  # it has no types
        """However many bytes a proxy drips, it has to be done at the deadline."""

        def recv_into(self, *args: Any, **kw: Any) -> int:
            socket.socket.settimeout(self, max(deadline - time.monotonic(), 0.001))
            count: int = super().recv_into(*args, **kw)
            return count

    scheme, where, proxy_port = proxy.parts
    name, _, password = (proxy.login or "").partition(":")
    try:
        if scheme == "socks5":  # by socks5h the proxy looks the name up
            host = addresses(host, port, exchange.cancellation, deadline)[0][4][0]
        family, kind, protocol, _, address = addresses(where, proxy_port, exchange.cancellation, deadline)[0]
    except XetError:
        raise
    except (OSError, UnicodeError) as error:
        exchange.cancellation.check()
        reason = getattr(error, "strerror", None) or error
        raise UnreachableError(
            f"{exchange.peer}, or the proxy {proxy.address}, cannot be found: {reason}",
            hint="check the addresses and the connection to the network",
        ) from None
    sock = Negotiating(family, kind, protocol)
    try:
        exchange.watch(sock)
        for option in options:
            sock.setsockopt(*option)
        sock.set_proxy(
            socks.SOCKS5, address[0], proxy_port, rdns=True, username=name or None, password=password or None
        )
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        sock.connect((host, port))
        plain = socket.socket(fileno=sock.detach())
    except OSError as error:
        sock.close()
        exchange.forget()
        if isinstance(error, XetError):
            raise
        exchange.cancellation.check()
        raise _problem(error, proxy, exchange.peer, socks) from None
    except BaseException:
        sock.close()
        raise
    exchange.watch(plain)
    return plain


def _problem(error: OSError, proxy: Proxy, peer: str, socks: Any) -> XetError:
    cause = getattr(error, "socket_err", None) or error
    if isinstance(cause, TimeoutError):
        return TimedOutError(
            f"no connection to {peer}: the proxy {proxy.address} did not answer in time",
            hint="check the proxy, or set no_proxy to go without it",
        )
    if isinstance(cause, socks.SOCKS5AuthError):
        return AccessDeniedError(
            f"the proxy {proxy.address} refuses the login", hint="check the user and the password in its URL"
        )
    if isinstance(error, socks.ProxyConnectionError):
        return UnreachableError(
            f"the proxy {proxy.address} cannot be reached: {getattr(cause, 'strerror', None) or cause}",
            hint="check the proxy, or set no_proxy to go without it",
        )
    return UnreachableError(
        f"the proxy {proxy.address} does not connect to {peer}: {str(cause).rpartition(': ')[2]}",
        hint="check the address, and the proxy, or set no_proxy to go without it",
    )
