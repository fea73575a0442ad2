"""One cancellation ends all that was handed it, or a child of it, and nothing beside it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from tests.platform.test_forks import in_a_child
from xetstore.cancellation import Cancellation
from xetstore.errors import InterruptedCallError

PATIENCE_SECONDS = 30.0


def test_it_reaches_what_is_below_and_nothing_beside_or_above() -> None:
    store = Cancellation()
    call, other = store.child(), store.child()
    transfer = call.child()
    call.cancel()
    assert [each.is_cancelled for each in (store, call, transfer, other)] == [False, True, True, False]
    store.cancel()
    assert other.is_cancelled


@pytest.mark.parametrize(
    "use", [Cancellation.check, Cancellation.child, lambda call: call.on_cancel(print), lambda call: call.wait(9)]
)
def test_what_comes_later_is_refused(use: Callable[[Cancellation], object]) -> None:
    call = Cancellation()
    call.cancel()
    call.cancel()
    with pytest.raises(InterruptedCallError):
        use(call)


def test_what_is_to_be_woken_is_woken_unless_it_was_undone() -> None:
    call, woken = Cancellation(), list[str]()
    call.child().on_cancel(lambda: woken.append("gone: nothing holds the child"))
    child = call.child()
    child.on_cancel(lambda: woken.append("child"))
    call.on_cancel(lambda: woken.append("call"))
    call.on_cancel(lambda: woken.append("undone"))()
    call.cancel()
    assert sorted(woken) == ["call", "child"]


def test_a_wait_ends_with_it() -> None:
    call = Cancellation()
    call.wait(0.001)
    call.wait(-1)
    threading.Timer(0.05, call.cancel).start()
    with pytest.raises(InterruptedCallError):
        call.wait(PATIENCE_SECONDS * 100)


def test_a_signal_handler_may_cancel_what_its_own_thread_waits_for() -> None:
    call = Cancellation()
    before = signal.signal(signal.SIGALRM, lambda *_: call.cancel())
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(InterruptedCallError):
            call.wait(PATIENCE_SECONDS)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_in_a_child_process_it_is_over_and_wakes_nothing_of_the_parent() -> None:
    call, woken = Cancellation(), list[int]()
    call.on_cancel(lambda: woken.append(1))

    def refused() -> None:
        with pytest.raises(InterruptedCallError, match="another process"):
            call.check()
        call.cancel()
        assert woken == []

    in_a_child(refused)
    call.check()
    call.cancel()
    assert woken == [1]
