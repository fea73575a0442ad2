"""ConnectionLimit: how many connections a server has, and one address, and which one goes when all are taken.

A client that comes when there is no place is not sent away because others keep connections that they do not use: of
those that no request is being answered on, the one that has been so for longest is closed. A client whose connection is
closed between two requests opens another (RFC 9112, 9.5); one that sends the head of a request a byte at a time has to.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Literal, Protocol

from xetstore.server.ops.peers import Peers, network_of
from xetstore.server.ops.shared import Shared

Event = Literal["idle_closed", "refused", "refused_address"]
"""A connection was closed to make room; one was refused because all places, or all of its address, are in use."""


class Place(Protocol):
    """A connection, as far as it matters here."""

    def give_up(self) -> None:
        """Close at once: no request is being answered."""


class ConnectionLimit:
    """The connections of one server, at most ``most`` and ``most_per_address`` of one address. One event loop's.

    Those of other workers, by ``shared``, count as well. A worker can make room by closing one of its own only.
    ``told`` is called with what happened. A proxy speaks for many: its connections count for no one address.
    """

    def __init__(
        self,
        most: int,
        most_per_address: int,
        told: Callable[[Event], None] = lambda _: None,
        shared: Shared | None = None,
        *,
        peers: Peers | None = None,
    ) -> None:
        self._shared = shared or Shared.alone()
        self.most = most
        self.told = told
        self._most_per_address = most_per_address
        self._peers = peers or Peers()
        # None for those of a proxy.
        self._address_of: dict[Place, str | None] = {}
        self._count_of: Counter[str] = Counter()
        # The one that has been idle for longest is first.
        self._idle: OrderedDict[Place, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._address_of)

    @property
    def idle(self) -> int:
        """The number of connections on which no request is being answered."""
        return len(self._idle)

    def take(self, place: Place, address: str) -> bool:
        """Take a place for a new connection, which is idle; False if there is none."""
        key = None if self._peers.is_proxy(address) else network_of(address)
        if key is not None and self._is_full_for(key) and not self._make_room(key):
            self.told("refused_address")
            return False
        if len(self) + self._shared.connections_of_others() >= self.most and not self._make_room(None):
            self.told("refused")
            return False
        self._address_of[place] = key
        if key is not None:
            self._count_of[key] += 1
        self._idle[place] = None
        self._shared.count(key, 1)
        return True

    def _is_full_for(self, key: str) -> bool:
        return self._count_of[key] + self._shared.connections_of_others_from(key) >= self._most_per_address

    def set_busy(self, place: Place) -> None:
        """A request is being answered."""
        self._idle.pop(place, None)

    def set_idle(self, place: Place) -> None:
        """From now on no request is being answered."""
        if place in self._address_of:
            self._idle[place] = None
            self._idle.move_to_end(place)

    def leave(self, place: Place) -> None:
        """The connection is closed. May be told again, and of one that had no place."""
        if place not in self._address_of:
            return
        key = self._address_of.pop(place)
        self._shared.count(key, -1)
        self._idle.pop(place, None)
        if key is not None:
            self._count_of[key] -= 1
            if not self._count_of[key]:
                del self._count_of[key]

    def _make_room(self, key: str | None) -> bool:
        """Close the longest idle connection, of one address if there is a ``key``. False if none is idle."""
        for place in self._idle:
            if key is None or self._address_of[place] == key:
                self.leave(place)
                self.told("idle_closed")
                place.give_up()
                return True
        return False
