"""Peers: the address of the client of a request, which may call through proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from xetstore.server.settings import is_loopback

if TYPE_CHECKING:
    from starlette.types import Scope as ConnectionScope

_OWN_PROXIES: Final = frozenset({"127.0.0.1", "::1"})
"""The addresses from which a proxy on this machine calls."""
_UNKNOWN: Final = "unknown"
_REMEMBERED: Final = 4096


class Peers:
    """The addresses from which proxies call: 127.0.0.1, ::1, and the networks in ``proxies``. Thread-safe.

    A proxy puts the address it was called from last in X-Forwarded-For. No other client is believed what is in it.

    >>> peers = Peers(["10.1.0.0/16"])
    >>> peers.key("10.1.0.7", b"192.0.2.1, 198.51.100.9, 10.1.0.8")
    '198.51.100.9'
    >>> peers.key("203.0.113.5", b"192.0.2.1")
    '203.0.113.5'
    """

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        self._networks = tuple(ipaddress.ip_network(proxy) for proxy in proxies)
        self.is_proxy = lru_cache(maxsize=_REMEMBERED)(self._is_proxy)

    def key(self, address: str, forwarded_for: bytes | None) -> str:
        """The client by whose address a request is counted: the last one in the header that is no proxy."""
        if not forwarded_for or not self.is_proxy(address):
            return network_of(address)
        named = [part.strip() for part in forwarded_for.decode("latin-1").split(",")]
        client = next((part for part in reversed(named) if not self._is_other_proxy(part)), named[0])
        return _network(client)

    def _is_proxy(self, address: str) -> bool:
        return address in _OWN_PROXIES or self._is_other_proxy(address)

    def _is_other_proxy(self, address: str) -> bool:
        if not self._networks:
            return False
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def address_of(scope: ConnectionScope) -> str:
    """The IP address at the other end of the connection."""
    client = scope.get("client")
    # On a socket for both, an IPv4 address is written as an IPv6 one.
    return str(client[0]).removeprefix("::ffff:") if client else "127.0.0.1"


def network_of(address: str) -> str:
    """The key of the address of a connection: itself, or the IPv6 network of a client."""
    return address if ":" not in address or is_loopback(address) else _network(address)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address; that of IPv4, if it is written as one of IPv6, as proxies do that listen on a socket for both."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, ipaddress.IPv6Address) else parsed


def _network(address: str) -> str:
    parsed = _parsed(address)
    if parsed is None:
        return _UNKNOWN
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))
