"""The memory of an upload's xorbs: no more than the network needs, and as much as it is worth."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from xetstore.events import ConcurrencyChanged, Event
from xetstore.protocol.xorb import XorbBuilder
from xetstore.transfer.upload.slots import FIRST_BUILDERS, XorbSlots

XORB = 24_000_000
MOST = 12
TICK = 0.01


class Upload:
    """One that fills xorbs at some rate, over a network whose connections share what it carries."""

    def __init__(self, fill_rate: float, network_rate: Callable[[int], float], most: int = MOST) -> None:
        self.seconds = 0.0
        self.events: list[Event] = []
        self.slots = XorbSlots(XorbBuilder, most, emit=self.events.append, clock=lambda: self.seconds)
        self._fill_rate = fill_rate
        self.network_rate = network_rate
        self._filling: XorbBuilder | None = None
        self._filled = 0.0
        self._waiting_since = 0.0
        self._queue: deque[XorbBuilder] = deque()
        self._sending: list[tuple[XorbBuilder, float, float]] = []
        self.sent = 0
        self.used: set[int] = set()
        self.most_made = 0

    def run(self, seconds: float) -> None:
        end = self.seconds + seconds
        while self.seconds < end:
            self.seconds += TICK
            self._send()
            self._fill()
            self.most_made = max(self.most_made, self.slots.made)

    def _fill(self) -> None:
        if self._filling is None:
            self._filling, self._filled = self.slots.take_now(self._waiting_since), 0.0
            if self._filling is None:
                return
            self.used.add(id(self._filling))
        self._filled += self._fill_rate * TICK
        if self._filled >= XORB:
            self._sending.append((self._filling, self.seconds, 0.0))
            self._filling, self._waiting_since = None, self.seconds

    def _send(self) -> None:
        if not self._sending:
            return
        each = self.network_rate(len(self._sending)) / len(self._sending) * TICK
        left = []
        for builder, begun, done in self._sending:
            if done + each < XORB:
                left.append((builder, begun, done + each))
                continue
            self.sent += XORB
            self.slots.give_back(builder, XORB, self.seconds - begun)
        self._sending = left


def test_where_sending_is_quick_there_is_one_to_fill_and_one_on_its_way() -> None:
    upload = Upload(300e6, lambda _: 900e6)
    upload.run(20)
    assert (upload.slots.made, len(upload.used), upload.events) == (2, 2, [])


def test_where_sending_holds_up_filling_two_are_on_their_way() -> None:
    upload = Upload(900e6, lambda _: 400e6)
    upload.run(20)
    assert (upload.most_made, upload.events) == (FIRST_BUILDERS, []), "a fast connection is not the limit"


def test_over_a_long_way_as_many_are_on_their_way_as_bring_more() -> None:
    upload = Upload(900e6, lambda requests: min(requests, 6) * 8e6)
    upload.run(400)
    assert 5 <= upload.slots.made - 1 <= 9
    assert all(isinstance(event, ConcurrencyChanged) for event in upload.events)
    before = upload.sent
    upload.run(100)
    assert upload.sent - before > 0.85 * 100 * 48e6


def test_where_more_bring_nothing_memory_is_given_back() -> None:
    upload = Upload(900e6, lambda _: 20e6)
    upload.run(300)
    assert upload.slots.made <= FIRST_BUILDERS + 1
    assert upload.most_made <= FIRST_BUILDERS + 1


def test_there_are_never_more_than_is_allowed() -> None:
    for most in (1, 2, 5):
        upload = Upload(900e6, lambda requests: requests * 8e6, most=most)
        upload.run(300)
        assert upload.most_made == most + 1


def test_a_builder_that_failed_can_be_filled_again() -> None:
    slots = XorbSlots(XorbBuilder, 1)
    first, second = slots.take(), slots.take()
    assert slots.take_now(0.0) is None
    slots.give_back(second)
    assert slots.take() is second
    assert first is not second
