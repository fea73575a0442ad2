"""What may pass is tried again, in time and not for ever; what may not is not."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from xetstore.cancellation import Cancellation
from xetstore.errors import (
    AccessDeniedError,
    FormatError,
    InterruptedCallError,
    NotFoundError,
    StorageFullError,
    TimedOutError,
    TooManyRequestsError,
    UnavailableError,
    UsageError,
    XetError,
)
from xetstore.events import Event, Retrying
from xetstore.remote.retry import Patience, may_pass, retry_after_seconds, retrying

QUICK = Patience(base_delay=0.001, max_delay=0.004, attempts=4)


class _Work:
    """Fails with these errors in turn, then succeeds."""

    def __init__(self, *errors: XetError) -> None:
        self.errors = list(errors)
        self.attempts = 0
        self.events: list[Event] = []

    def __call__(self) -> str:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    def run(self, patience: Patience = QUICK, chance: float = 0.5, call: Cancellation | None = None) -> str:
        return retrying(
            "a call",
            self,
            patience=patience,
            cancellation=call or Cancellation(),
            emit=self.events.append,
            chance=lambda: chance,
        )

    @property
    def delays(self) -> list[float]:
        return [event.delay_seconds for event in self.events if isinstance(event, Retrying)]


def test_what_passes_is_tried_again_and_told() -> None:
    work = _Work(UnavailableError("busy"), TimedOutError("slow"))
    assert work.run() == "done"
    assert work.events == [Retrying("a call", "busy", 1, 0.0005), Retrying("a call", "slow", 2, 0.001)]


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("x"),
        UsageError("x"),
        AccessDeniedError("x"),
        FormatError("rule", 0, "x"),
        InterruptedCallError("x"),
    ],
)
def test_what_does_not_pass_is_not_tried_again(error: XetError) -> None:
    work = _Work(error)
    with pytest.raises(type(error)) as caught:
        work.run()
    assert caught.value is error
    assert (work.attempts, work.events) == (1, [])
    assert not may_pass(error)


def test_the_last_error_keeps_its_kind_and_tells_how_many_attempts_were_made() -> None:
    work = _Work(*(TooManyRequestsError("the server is busy", hint="wait") for _ in range(9)))
    with pytest.raises(TooManyRequestsError, match="the server is busy; 4 attempts were made") as caught:
        work.run()
    assert work.attempts == 4
    assert caught.value.hint == "wait"


def test_delays_double_up_to_a_bound_and_are_drawn_below_it() -> None:
    work = _Work(*(UnavailableError("busy") for _ in range(5)))
    work.run(Patience(base_delay=0.001, max_delay=0.004, attempts=6), chance=1.0)
    assert work.delays == [0.001, 0.002, 0.004, 0.004, 0.004]
    work = _Work(*(UnavailableError("busy") for _ in range(5)))
    work.run(Patience(base_delay=0.001, max_delay=0.004, attempts=6), chance=0.0)
    assert work.delays == [0, 0, 0, 0, 0]


def test_retry_after_is_the_least_delay() -> None:
    error = UnavailableError("busy")
    error.retry_after = 0.02
    work = _Work(error)
    work.run(chance=0.0)
    assert work.delays == [0.02]


def test_a_retry_after_beyond_patience_ends_the_call_at_once() -> None:
    error = UnavailableError("down for repairs")
    error.retry_after = 3600
    work = _Work(error)
    with pytest.raises(UnavailableError) as caught:
        work.run()
    assert work.attempts == 1
    assert "3600 seconds" in (caught.value.hint or "")


def test_a_full_disk_is_tried_once_more_only() -> None:
    work = _Work(*(StorageFullError("no room") for _ in range(9)))
    with pytest.raises(StorageFullError, match="2 attempts"):
        work.run()
    assert work.attempts == 2


def test_an_interruption_ends_the_wait_between_attempts() -> None:
    call = Cancellation()
    work = _Work(*(UnavailableError("busy") for _ in range(9)))
    timer = threading.Timer(0.05, call.cancel)
    timer.start()
    with pytest.raises(InterruptedCallError):
        work.run(Patience(base_delay=1000, max_delay=1000), chance=1.0, call=call)
    timer.join()
    assert work.attempts == 1


def test_retry_after_is_seconds_or_a_date() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    later = format_datetime(datetime(2026, 1, 2, 3, 5, 5, tzinfo=UTC), usegmt=True)
    assert retry_after_seconds("120") == 120
    assert retry_after_seconds(later, now=now.timestamp()) == 60
    assert retry_after_seconds(later, now=now.timestamp() + 3600) == 0
    for text in (None, "", "soon", "-1", "1.5.2", "Fri, 99 Foo", "٣"):
        assert retry_after_seconds(text) is None
