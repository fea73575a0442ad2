"""Budgets: the most that all requests, and each holder, may hold of one thing, bytes in memory or places to work in.

A *holder* is a namespace, a token or an address; a request is counted against all of its own. One holder has at most a
share of a budget, so that what is left is for others however much it asks for.

*Order.* Of the requests that wait, the one goes first whose holders hold the least; of equals the one whose holders
were served the longest ago; of their own the one that came first. A request that waits only because its own holders
have their share lets all others pass. One that waits because the budget is spent is not overtaken by smaller ones.

*No deadlock.* A reservation does not grow. A body that is coming in holds a block, whatever length it declares,
because what has arrived of it is on disk, of a xorb as of a shard. What is made of a whole body is reserved at once,
when the body is there. So a request never waits for more of a budget of which it holds some. It may hold some of one
and wait for another, but always in the same order: receiving, then a place, then the bytes to parse and commit in.
A request with a place waits for no client, so it ends.

*Larger than a share.* One such reservation at a time is admitted, if its holders hold nothing else, and it leaves a
share to others: else the biggest shard could not be taken in at all. It waits until there is room, and lets all others
pass meanwhile, because otherwise one request in ``queue_seconds`` could stop the server.

*Several workers.* Each has a part of the budget, and no more than the budget is held in all. What takes more than can
be counted in a part has the turn of all workers, too: so what is beyond the budget is that of one request, as with one
worker. It is asked for last, and its holder waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from xetstore.errors import UnavailableError

if TYPE_CHECKING:
    from xetstore.server.ops.shared import Turn

RETRY_SECONDS: Final = 5.0
"""The wait that a client is told when all of the budget stayed in use."""

TURN_SECONDS: Final = 0.05
"""The pause before the turn of all workers is asked for again."""

Holders = tuple[str, ...]


@dataclass(eq=False, slots=True)
class _Waiter:
    amount: int
    number: int
    granted: asyncio.Future[None]


@dataclass(eq=False, slots=True)
class _Line:
    """Those that wait for the same holders."""

    waiters: deque[_Waiter] = field(default_factory=deque)
    served: int = 0


class Budget:
    """``total`` of something, of which each holder has at most ``share`` (0 to 1). For one event loop.

    ``on_refused`` is called when a request got no part of it within ``queue_seconds``. ``turn`` is that of the workers
    of a server, of whose budget this is the part of one.
    """

    def __init__(
        self, name: str, total: int, *, queue_seconds: float, share: float = 1.0, turn: Turn | None = None
    ) -> None:
        self.name = name
        self.total = total
        self.most = max(1, min(total, int(total * share)))
        """The most that one holder may have."""
        self.used = 0
        self.on_refused: Callable[[], None] = lambda: None
        self._queue_seconds = queue_seconds
        self._turn = turn
        self._held: Counter[str] = Counter()
        self._lines: dict[Holders, _Line] = {}
        self._large_is_held = False
        self._count = 0

    @property
    def waiting(self) -> int:
        """The number of reservations that wait."""
        return sum(len(line.waiters) for line in self._lines.values())

    def holds(self, holder: str) -> int:
        """The amount that one holder has."""
        return self._held[holder]

    @asynccontextmanager
    async def reserve(self, amount: int, holders: Sequence[str] = ()) -> AsyncIterator[None]:
        """Hold ``amount`` while the context is open; where it is more than there can be, as much as that is.

        Raises UnavailableError if it does not become free within ``queue_seconds``.
        """
        if amount <= 0:
            yield
            return
        names = tuple(holders)
        wanted, amount = amount, min(amount, self.total)
        if amount > self.most and self.most < self.total:
            amount = max(self.most + 1, min(amount, self.total - self.most))
        if self._lines or not self._fits(amount, names) or self.used + amount > self.total:
            await self._wait_for(amount, names)
        else:
            self._take(amount, names)
        try:
            if wanted > amount and self._turn is not None:
                async with self._having(self._turn):
                    yield
            else:
                yield
        finally:
            self._give_back(amount, names)

    @asynccontextmanager
    async def _having(self, turn: Turn) -> AsyncIterator[None]:
        """Have the turn of all workers while the context is open."""
        try:
            async with asyncio.timeout(self._queue_seconds):
                while not turn.try_take():
                    await asyncio.sleep(TURN_SECONDS)
        except TimeoutError:
            raise self._refusal() from None
        try:
            yield
        finally:
            turn.give_back()

    def _refusal(self) -> UnavailableError:
        self.on_refused()
        busy = UnavailableError("the server is busy with other transfers", hint="try again in a moment")
        busy.retry_after = RETRY_SECONDS
        return busy

    def _fits(self, amount: int, holders: Holders) -> bool:
        """True if no holder has more than its share with it; of one that is larger, if it could be let in now."""
        if not holders or amount <= self.most:
            return not any(self._held[holder] + amount > self.most for holder in holders)
        if self._large_is_held or self.used + amount > self.total:
            return False
        return not any(self._held[holder] for holder in holders)

    def _take(self, amount: int, holders: Holders) -> None:
        self.used += amount
        for holder in holders:
            self._held[holder] += amount
        if holders and amount > self.most:
            self._large_is_held = True

    def _give_back(self, amount: int, holders: Holders) -> None:
        self.used -= amount
        for holder in holders:
            self._held[holder] -= amount
            if not self._held[holder]:
                del self._held[holder]
        if holders and amount > self.most:
            self._large_is_held = False
        self._grant()

    async def _wait_for(self, amount: int, holders: Holders) -> None:
        self._count += 1
        waiter = _Waiter(amount, self._count, asyncio.get_running_loop().create_future())
        line = self._lines.setdefault(holders, _Line())
        line.waiters.append(waiter)
        try:
            self._grant()
            async with asyncio.timeout(self._queue_seconds):
                await waiter.granted
        except BaseException as error:
            if waiter in line.waiters:
                line.waiters.remove(waiter)
                self._forget(holders)
                self._grant()
            elif waiter.granted.done() and not waiter.granted.cancelled():
                self._give_back(amount, holders)  # it came in the very moment in which we gave up
            if isinstance(error, TimeoutError):
                raise self._refusal() from None
            raise

    def _grant(self) -> None:
        """Let in those that come next, as long as there is room."""
        while (holders := self._next()) is not None:
            line = self._lines[holders]
            if self.used + line.waiters[0].amount > self.total:
                return
            waiter = line.waiters.popleft()
            self._count += 1
            line.served = self._count
            self._forget(holders)
            if waiter.granted.done():
                continue  # cancelled: it will not use it
            self._take(waiter.amount, holders)
            waiter.granted.set_result(None)

    def _next(self) -> Holders | None:
        """The line whose first is next; None if each of them waits for what its own holders have, or is too large."""

        def place(holders: Holders) -> tuple[int, int, int]:
            line = self._lines[holders]
            held = max((self._held[holder] for holder in holders), default=0)
            return held, line.served, line.waiters[0].number

        fitting = (holders for holders, line in self._lines.items() if self._fits(line.waiters[0].amount, holders))
        return min(fitting, key=place, default=None)

    def _forget(self, holders: Holders) -> None:
        if not self._lines[holders].waiters:
            del self._lines[holders]
