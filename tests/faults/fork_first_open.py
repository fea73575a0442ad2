"""Parents that have loaded nothing of a store yet: each opens it in a thread, and forks meanwhile.

``python -m tests.faults.fork_first_open WHERE HASH SIZE COUNT`` prints what went wrong, a JSON list. It imports nothing
of ours itself: every parent does, anew.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from functools import partial

from tests.support.children import failures, in_child


def use(where: str, file: str, size: str) -> None:
    import xetstore

    with xetstore.open(where, cache=False) as store:
        found = xetstore.Hash.parse(file)
        assert store.stat(found).size == int(size)
        assert sum(len(part) for part in store.iter_range(found)) == int(size)


def parent(turn: int, *arguments: str) -> None:
    import xetstore  # noqa: F401  # what takes its time comes with the first open

    failed: list[BaseException] = []

    def work() -> None:
        try:
            use(*arguments)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(random.Random(turn).random() * 0.5)
    child = in_child(partial(use, *arguments))
    thread.join()
    assert not failed, failed
    assert not failures([child])


if __name__ == "__main__":
    *given, count = sys.argv[1:]
    print(
        json.dumps([one for turn in range(int(count)) for one in failures([in_child(partial(parent, turn, *given))])])
    )
