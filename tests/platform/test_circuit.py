"""A circuit: it opens after failures one after the other, lets trials through, and closes with the first answer."""

from __future__ import annotations

import logging

import pytest

from xetstore.errors import NotFoundError, StorageFullError, UnavailableError, XetError
from xetstore.platform.circuit import Circuit


class Part:
    """A part of a store that answers as it is told to, at the times of a clock of its own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.error: XetError | None = None
        self.calls = 0
        self.circuit = Circuit("it does not answer", failures=3, pause_seconds=2.0, clock=lambda: self.now)

    def call(self) -> None:
        with self.circuit.entered():
            self.calls += 1
            if self.error is not None:
                raise self.error

    def fails(self) -> UnavailableError:
        with pytest.raises(UnavailableError) as caught:
            self.call()
        return caught.value


def test_it_opens_after_failures_one_after_the_other(caplog: pytest.LogCaptureFixture) -> None:
    part = Part()
    part.error = UnavailableError("no route")
    for _ in range(2):
        assert part.fails() is part.error
    part.error = NotFoundError("nothing there")  # which is an answer
    with pytest.raises(NotFoundError):
        part.call()
    part.error = UnavailableError("no route")
    for _ in range(3):
        assert part.fails() is part.error
    assert part.calls == 6
    for _ in range(10):
        refusal = part.fails()
        assert (str(refusal), refusal.retry_after) == ("it does not answer", 2.0)
    assert part.calls == 6, "not even tried"
    [line] = caplog.records
    assert "it does not answer" in line.getMessage()
    assert "no route" in line.getMessage()


def test_one_call_in_a_while_is_a_trial_and_an_answer_closes_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    part = Part()
    part.error = UnavailableError("no route")
    for _ in range(3):
        part.fails()
    for _ in range(5):
        part.now += 2.0
        for _ in range(5):
            part.fails()
    assert part.calls == 3 + 5
    part.error = None
    part.fails()
    part.now += 2.0
    part.call()
    assert not part.circuit.is_open
    for _ in range(5):
        part.call()
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.INFO]


def test_a_trial_that_hangs_keeps_no_other_from_being_made() -> None:
    part = Part()
    part.error = UnavailableError("no route")
    for _ in range(3):
        part.fails()
    part.now += 2.0
    with part.circuit.entered():  # which does not come back
        part.fails()
        part.now += 2.0
        part.error = None
        part.call()
        assert not part.circuit.is_open


def test_a_full_disk_is_an_answer() -> None:
    part = Part()
    part.error = StorageFullError("full")
    for _ in range(10):
        assert part.fails() is part.error
