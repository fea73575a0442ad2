"""Budgets: what is held is given back, nobody has more than a share, and those that hold least come first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetstore.errors import UnavailableError
from xetstore.server.ops.budgets import Budget


def test_the_budget_is_given_back() -> None:
    async def play() -> None:
        budget = Budget("room", 100, queue_seconds=0.01)
        with pytest.raises(KeyError):
            async with budget.reserve(100):
                assert budget.used == 100
                raise KeyError
        assert budget.used == 0

    asyncio.run(play())


def test_who_gets_no_part_of_the_budget_in_time_is_told_when_to_come_back() -> None:
    async def play() -> None:
        budget = Budget("room", 100, queue_seconds=0.01)
        async with budget.reserve(60):
            with pytest.raises(UnavailableError) as refused:
                async with budget.reserve(60):
                    pass
            assert refused.value.retry_after
            assert (budget.used, budget.waiting) == (60, 0)
        assert budget.used == 0

    asyncio.run(play())


def test_more_than_the_whole_budget_is_admitted_alone() -> None:
    async def play() -> None:
        budget = Budget("room", 100, queue_seconds=0.01)
        async with budget.reserve(1000):
            assert budget.used == 100
            with pytest.raises(UnavailableError):
                async with budget.reserve(1):
                    pass
        assert budget.used == 0

    asyncio.run(play())


def test_a_large_reservation_is_not_starved_by_small_ones() -> None:
    async def play() -> None:
        budget = Budget("room", 100, queue_seconds=60)
        order: list[str] = []

        async def take(name: str, n_bytes: int) -> None:
            async with budget.reserve(n_bytes):
                order.append(name)

        async with budget.reserve(50):
            large = asyncio.create_task(take("large", 100))
            await asyncio.sleep(0)
            small = asyncio.create_task(take("small", 10))
            await asyncio.sleep(0)
            assert order == []
            assert budget.waiting == 2
        await asyncio.gather(large, small)
        assert order == ["large", "small"]

    asyncio.run(play())


def test_who_gives_up_waiting_lets_the_next_one_through() -> None:
    async def play() -> None:
        budget = Budget("room", 100, queue_seconds=60)
        got = asyncio.Event()

        async def take(n_bytes: int) -> None:
            async with budget.reserve(n_bytes):
                got.set()

        async with budget.reserve(50):
            large = asyncio.create_task(take(100))
            await asyncio.sleep(0)
            small = asyncio.create_task(take(10))
            await asyncio.sleep(0)
            large.cancel()
            await got.wait()
            await small
            with pytest.raises(asyncio.CancelledError):
                await large
        assert (budget.used, budget.waiting) == (0, 0)

    asyncio.run(play())


def test_a_grant_that_comes_as_the_waiter_is_cancelled_is_not_lost() -> None:
    async def play() -> None:
        budget = Budget("room", 100, queue_seconds=60)

        async def take() -> None:
            async with budget.reserve(100):
                pass

        holder = budget.reserve(100)
        await holder.__aenter__()
        waiter = asyncio.create_task(take())
        await asyncio.sleep(0)
        await holder.__aexit__(None, None, None)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert (budget.used, budget.waiting) == (0, 0)

    asyncio.run(play())


@given(st.lists(st.tuples(st.integers(0, 150), st.sampled_from(["use", "cancel", "fail"])), max_size=30))
def test_whatever_happens_to_who_uses_it_the_budget_is_whole_in_the_end(plan: list[tuple[int, str]]) -> None:
    async def play() -> None:
        budget = Budget("room", 100, queue_seconds=60)

        async def use(n_bytes: int, how: str) -> None:
            async with budget.reserve(n_bytes):
                assert budget.used <= 100
                await asyncio.sleep(0)
                if how == "fail":
                    raise KeyError

        tasks = [asyncio.create_task(use(n_bytes, how)) for n_bytes, how in plan]
        for task, (n_bytes, how) in zip(tasks, plan, strict=True):
            if n_bytes % 3:
                await asyncio.sleep(0)
            if how == "cancel":
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (budget.used, budget.waiting) == (0, 0)

    asyncio.run(play())


# Shares


def test_a_holder_has_no_more_than_its_share_and_holds_up_nobody_else() -> None:
    async def play() -> None:
        budget = Budget("room", 100, queue_seconds=60, share=0.25)
        tasks = [asyncio.create_task(hold(budget, 10, ("greedy",))) for _ in range(10)]
        await asyncio.sleep(0)
        assert (budget.holds("greedy"), budget.waiting) == (20, 8)
        async with budget.reserve(25, ("other",)):
            assert budget.used == 45
        await end(tasks)
        assert (budget.used, budget.waiting) == (0, 0)

    asyncio.run(play())


def test_a_share_counts_for_each_of_the_holders() -> None:
    async def play() -> None:
        budget = Budget("room", 100, queue_seconds=60, share=0.25)
        tasks = [asyncio.create_task(hold(budget, 10, ("address", f"token {number}"))) for number in range(5)]
        await asyncio.sleep(0)
        assert budget.holds("address") == 20
        async with budget.reserve(10, ("another address", "token 4")):
            pass
        await end(tasks)

    asyncio.run(play())


def test_of_those_that_wait_who_holds_least_is_next() -> None:
    async def play() -> None:
        budget = Budget("places", 4, queue_seconds=60, share=0.5)
        order: list[str] = []
        gates: list[asyncio.Event] = []

        async def work(name: str) -> None:
            async with budget.reserve(1, (name,)):
                order.append(name)
                gates.append(asyncio.Event())
                await gates[-1].wait()

        tasks = [asyncio.create_task(work(name)) for name in "aabb" + "aaabbb" + "cd"]
        await asyncio.sleep(0)
        assert order == list("aabb")
        for place, expected in ((0, "aabbc"), (4, "aabbcd"), (5, "aabbcda")):
            gates[place].set()
            await until(lambda expected=expected: len(order) == len(expected))
            assert order == list(expected)
        await end(tasks)
        assert budget.used == 0

    asyncio.run(play())


def test_those_that_hold_as_much_take_turns() -> None:
    async def play() -> None:
        budget = Budget("places", 1, queue_seconds=60)
        order: list[str] = []

        async def work(name: str) -> None:
            async with budget.reserve(1, (name,)):
                order.append(name)
                await asyncio.sleep(0)

        await asyncio.gather(*(asyncio.create_task(work(name)) for name in "aaaaaabbcc"))
        assert order == list("aabcabcaaa")

    asyncio.run(play())


def test_what_is_larger_than_a_share_is_let_in_alone_and_leaves_a_share() -> None:
    async def play() -> None:
        budget = Budget("room", 100, queue_seconds=60, share=0.25)
        async with budget.reserve(1000, ("large",)):
            assert budget.used == 75
            another = asyncio.create_task(hold(budget, 60, ("large too",)))
            await asyncio.sleep(0)
            assert budget.waiting == 1
            async with budget.reserve(25, ("small",)):
                assert budget.used == 100
        await until(lambda: budget.holds("large too") == 60)
        await end([another])
        assert budget.used == 0

    asyncio.run(play())


def test_what_is_larger_than_a_share_holds_up_nobody_while_it_waits() -> None:
    async def play() -> None:
        budget = Budget("room", 100, queue_seconds=60, share=0.25)
        tasks = [asyncio.create_task(hold(budget, 20, (f"slow {number}",))) for number in range(3)]
        tasks.append(asyncio.create_task(hold(budget, 70, ("large",))))
        await asyncio.sleep(0)
        assert (budget.used, budget.waiting) == (60, 1)
        async with budget.reserve(25, ("small",)):
            assert (budget.used, budget.waiting) == (85, 1)
        await end(tasks[:2])
        await until(lambda: budget.used == 90)
        await end(tasks[2:])
        assert budget.used == 0

    asyncio.run(play())


_RESERVATIONS = st.lists(
    st.tuples(st.integers(0, 150), st.sets(st.sampled_from("abc"), min_size=1), st.sampled_from(["use", "cancel"])),
    max_size=40,
)


@given(_RESERVATIONS)
def test_nobody_has_more_than_a_share_but_for_one(plan: list[tuple[int, set[str], str]]) -> None:
    async def play() -> None:
        budget = Budget("room", 100, queue_seconds=60, share=0.3)
        finished = 0

        async def use(amount: int, holders: tuple[str, ...]) -> None:
            nonlocal finished
            async with budget.reserve(amount, holders):
                assert budget.used <= 100
                assert sum(budget.holds(holder) > 30 for holder in "abc") <= len(holders) or amount <= 30
                await asyncio.sleep(0)
            finished += 1

        tasks = [asyncio.create_task(use(amount, tuple(sorted(holders)))) for amount, holders, _ in plan]
        for task, (amount, _, how) in zip(tasks, plan, strict=True):
            if amount % 3:
                await asyncio.sleep(0)
            if how == "cancel":
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert finished == sum(result is None for result in results)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
        assert (budget.used, budget.waiting, *map(budget.holds, "abc")) == (0, 0, 0, 0, 0)

    asyncio.run(play())


async def hold(budget: Budget, amount: int, holders: tuple[str, ...]) -> None:
    """Until it is cancelled."""
    async with budget.reserve(amount, holders):
        await asyncio.Event().wait()


async def end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[..., bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)
