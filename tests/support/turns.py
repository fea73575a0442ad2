"""Two calls side by side, of which the first stands still in its transaction while the second begins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

from xetstore.cas.index import Index, Writer

PATIENCE_SECONDS = 60
_HEAD_START_SECONDS = 0.2
"""The second one waits for the first by then, or is done: a test is right either way."""


def in_turns(
    index: Index, first: Callable[[], object], second: Callable[[], object], *, at: str | None = None
) -> tuple[BaseException | None, BaseException | None]:
    """Let ``first``, which changes ``index``, stop when its work is done and not committed: that of its first
    transaction, or of the first in which the verb ``at`` of the Writer is called. Begin ``second``; let both come to
    their ends. The error of each, or None. Fails where one of them hangs, or ``first`` never comes to ``at``.
    """
    arrived, go, called = threading.Event(), threading.Event(), threading.Event()
    errors: list[BaseException | None] = [None, None]
    change = index.change

    def run(number: int, call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            errors[number] = error
        finally:
            if number == 0:
                arrived.set()

    threads = [
        threading.Thread(target=run, args=(number, call), daemon=True) for number, call in enumerate((first, second))
    ]

    def stopping(work: Callable[[Writer], Any], **options: Any) -> Any:
        def stopped(writer: Writer) -> Any:
            is_first = threading.current_thread() is threads[0]
            if at is not None and is_first:
                verb = getattr(writer, at)

                def noted(*arguments: Any, **options: Any) -> Any:
                    called.set()
                    return verb(*arguments, **options)

                setattr(writer, at, noted)
            done = work(writer)
            if is_first and (at is None or called.is_set()):
                arrived.set()
                assert go.wait(PATIENCE_SECONDS)
            return done

        return change(stopped, **options)

    with mock.patch.object(index, "change", stopping):
        threads[0].start()
        assert arrived.wait(PATIENCE_SECONDS)
        threads[1].start()
        threads[1].join(_HEAD_START_SECONDS)
        go.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), "one of the two hangs"
        assert at is None or called.is_set(), f"{at} was not called"
    return errors[0], errors[1]
