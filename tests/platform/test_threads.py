"""Threads: as many as there are calls, refusals that are said, and no wait without end."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import wait

import pytest

from xetstore.errors import UnavailableError
from xetstore.platform import threads as module
from xetstore.platform.threads import Threads, start_thread

PATIENCE_SECONDS = 60


@pytest.fixture
def pool() -> Iterator[Threads]:
    with Threads(3, "test") as made:
        yield made


@pytest.fixture
def still_born(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Threads that end before their first step, as for want of memory; who started them is not told."""
    monkeypatch.setattr(module._Thread, "_bootstrap", lambda _: None)
    monkeypatch.setattr(module, "BEGIN_SECONDS", 0.05)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    return monkeypatch


def test_a_thread_that_dies_before_it_begins_is_refused(still_born: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError, match="refuses to start another thread"):
        start_thread(print, name="still-born")
    still_born.undo()
    start_thread(print, name="born").join(PATIENCE_SECONDS)


def test_a_pool_without_a_thread_refuses_and_later_does_its_work(still_born: pytest.MonkeyPatch, pool: Threads) -> None:
    done: list[int] = []
    with pytest.raises(UnavailableError):
        pool.submit(done.append, 1)
    still_born.undo()
    pool.submit(done.append, 2).result(PATIENCE_SECONDS)
    assert done == [2], "what was refused is not done"


def test_a_pool_does_with_the_threads_it_has(pool: Threads, request: pytest.FixtureRequest) -> None:
    go_on = threading.Event()
    first = pool.submit(go_on.wait, PATIENCE_SECONDS)
    request.getfixturevalue("still_born")
    second, third = pool.submit(threading.get_ident), pool.submit(threading.get_ident)
    go_on.set()
    assert first.result(PATIENCE_SECONDS)
    assert second.result(PATIENCE_SECONDS) == third.result(PATIENCE_SECONDS)


def test_a_thread_that_begins_too_late_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, go_on = module._Thread._bootstrap, threading.Event()  # type: ignore[attr-defined]
    done: list[int] = []

    def late(thread: threading.Thread) -> None:
        go_on.wait(PATIENCE_SECONDS)
        begin(thread)
        done.append(2)

    monkeypatch.setattr(module._Thread, "_bootstrap", late)
    monkeypatch.setattr(module, "BEGIN_SECONDS", 0.05)
    with pytest.raises(UnavailableError):
        start_thread(done.append, 1, name="late")
    go_on.set()
    while not done:
        time.sleep(0.01)
    assert done == [2]


def test_while_a_thread_is_asked_for_the_others_go_on(pool: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    first = pool.submit(go_on.wait, PATIENCE_SECONDS)
    monkeypatch.setattr(module._Thread, "_bootstrap", lambda _: None)
    second = threading.Thread(target=pool.submit, args=(int,))
    second.start()
    go_on.set()
    assert first.result(PATIENCE_SECONDS)
    assert second.is_alive(), "it still waits for its thread"
    second.join(PATIENCE_SECONDS)


def test_calls_one_after_the_other_need_one_thread_and_calls_at_once_one_each(pool: Threads) -> None:
    assert len({pool.submit(threading.get_ident).result(PATIENCE_SECONDS) for _ in range(50)}) == 1
    together = threading.Barrier(3)
    wait([pool.submit(together.wait, PATIENCE_SECONDS) for _ in range(3)], PATIENCE_SECONDS)
    assert not together.broken
    assert len({pool.submit(threading.get_ident).result(PATIENCE_SECONDS) for _ in range(50)}) <= 3


def test_an_error_is_the_callers_and_is_let_go_of_with_the_future(pool: Threads) -> None:
    class Thing:
        pass

    def fail(thing: Thing) -> None:
        raise ValueError(f"about {thing}")

    thing = Thing()
    alive = weakref.ref(thing)
    gc.disable()
    try:
        future = pool.submit(fail, thing)
        with pytest.raises(ValueError, match="about"):
            future.result(PATIENCE_SECONDS)
        del future, thing
        pool.submit(int).result(PATIENCE_SECONDS)  # the thread has turned to something else
        assert alive() is None
    finally:
        gc.enable()


def test_after_a_shutdown_no_call_is_taken_and_those_that_wait_are_done_or_cancelled() -> None:
    for cancel in (False, True):
        pool, begun, go_on = Threads(1, "test"), threading.Event(), threading.Event()

        def work(begun: threading.Event = begun, go_on: threading.Event = go_on) -> bool:
            begun.set()
            return go_on.wait(PATIENCE_SECONDS)

        first = pool.submit(work)
        second = pool.submit(int)
        begun.wait(PATIENCE_SECONDS)
        pool.shutdown(wait=False, cancel_futures=cancel)
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(int)
        go_on.set()
        pool.shutdown()
        assert first.result(0)
        assert second.cancelled() == cancel
        assert second.done()


def test_the_threads_of_a_pool_that_is_dropped_end() -> None:
    pool = Threads(1, "dropped")
    pool.submit(int).result(PATIENCE_SECONDS)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "dropped_0")
    del pool
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_pool_has_threads_of_its_own_in_a_child(pool: Threads) -> None:
    assert pool.submit(int).result(PATIENCE_SECONDS) == 0
    child = os.fork()
    if not child:
        try:
            code = pool.submit(lambda: 7).result(PATIENCE_SECONDS)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
