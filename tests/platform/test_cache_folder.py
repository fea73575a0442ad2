"""The folder of a cache: who may write."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from xetstore.platform.cache_folder import CacheFolder

THREADS = 4


def test_threads_that_begin_together_may_all_write(tmp_path: Path) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for attempt in range(50):
            folder = CacheFolder(tmp_path / str(attempt), 1 << 30, lambda _: True)
            together = threading.Barrier(THREADS)

            def ask(_: int, folder: CacheFolder = folder, together: threading.Barrier = together) -> bool:
                together.wait(30)
                return folder.make_room(100)

            assert all(pool.map(ask, range(THREADS)))
