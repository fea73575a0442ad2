"""The client of a request by its address: an IPv6 network is one; X-Forwarded-For counts where a proxy is trusted."""

from __future__ import annotations

import pytest

from xetstore.errors import UsageError
from xetstore.server.ops.connection_limit import ConnectionLimit
from xetstore.server.ops.peers import Peers, address_of
from xetstore.server.settings import ServerSettings


def key(address: str, forwarded_for: bytes | None = None, *proxies: str) -> str:
    return Peers(proxies).key(address_of({"client": (address, 1)}), forwarded_for)


def test_an_ipv6_network_is_one_client() -> None:
    assert key("2001:db8::1") == key("2001:db8::2:3:4:5") != key("2001:db8:0:1::1")
    assert key("::ffff:192.0.2.1") == key("127.0.0.1", b" 10.0.0.1 ,192.0.2.1") != key("192.0.2.2")


def test_only_a_trusted_proxy_is_believed() -> None:
    assert key("192.0.2.1", b"10.0.0.1") == "192.0.2.1"
    assert key("192.0.2.1", b"10.0.0.1", "192.0.2.0/24") == "10.0.0.1"
    assert key("2001:db8::5", b"10.0.0.1", "192.0.2.0/24", "2001:db8::/32") == "10.0.0.1"
    assert key("127.0.0.1", b"10.0.0.1") == key("::1", b"10.0.0.1") == key("127.0.0.2", b"10.0.0.1", "127.0.0.0/8")
    assert key("127.0.0.2", b"10.0.0.1") == "127.0.0.2"
    assert key("127.0.0.1", b"nonsense") == key("127.0.0.1", b"\xff")


def test_an_address_of_ipv4_is_one_however_a_proxy_writes_it() -> None:
    assert key("127.0.0.1", b"::ffff:198.51.100.1") == "198.51.100.1"
    assert key("192.0.2.1", b"10.0.0.1, ::ffff:192.0.2.2", "192.0.2.0/24") == "10.0.0.1"


def test_what_a_client_puts_before_its_own_address_does_not_count() -> None:
    assert key("192.0.2.1", b"10.9.9.9, 10.0.0.1, 192.0.2.2", "192.0.2.0/24") == "10.0.0.1"
    assert key("192.0.2.1", b"192.0.2.3, 192.0.2.2", "192.0.2.0/24") == "192.0.2.3", "a proxy that asks itself"


class _Place:
    def give_up(self) -> None:
        raise AssertionError("it is in use")


def test_the_connections_of_a_trusted_proxy_are_those_of_many_clients() -> None:
    limit = ConnectionLimit(100, 2, peers=Peers(["192.0.2.0/24"]))
    for address, expected in (("192.0.2.1", [True] * 5), ("198.51.100.1", [True, True, False])):
        places = [_Place() for _ in expected]
        taken = []
        for place in places:
            taken.append(limit.take(place, address))
            limit.set_busy(place)
        assert taken == expected


@pytest.mark.parametrize("proxy", ["proxy.example.org", "10.1.2.3/16", "10.0.0.0/33", "*"])
def test_a_proxy_is_named_by_its_network(proxy: str) -> None:
    with pytest.raises(UsageError, match="trusted_proxies"):
        ServerSettings(trusted_proxies=(proxy,))
