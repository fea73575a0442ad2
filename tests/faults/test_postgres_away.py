"""The PostgreSQL server is restarted, killed, and throws connections out, under writers: no acknowledgement is lost."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.support.engines import open_on_postgres
from tests.support.live import PATIENCE_SECONDS
from tests.support.postgres import PostgresServer
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.errors import UnavailableError
from xetstore.testing import Sample, make_sample, random_bytes, read_back, upload

WRITERS = 4


class Writers:
    """Threads that put file after file; one that was refused is put again."""

    def __init__(self, cas: EmbeddedCas) -> None:
        self._cas = cas
        self._is_over = threading.Event()
        self.acknowledged: list[list[Sample]] = [[] for _ in range(WRITERS)]
        self.failures: list[BaseException] = []
        self.refused = 0
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def wait_for_more(self) -> None:
        """Until each has had two more files acknowledged: one of them was begun since."""
        before = [len(samples) for samples in self.acknowledged]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.failures and any(
            len(samples) < count + 2 for samples, count in zip(self.acknowledged, before, strict=True)
        ):
            assert time.monotonic() < deadline, "a writer did not go on"
            time.sleep(0.01)

    def end(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        try:
            while not self._is_over.is_set():
                mine = self.acknowledged[number]
                # Two and two have the same files, and so get in each other's way.
                sample = make_sample(random_bytes(3_000, 1000 * (number // 2) + len(mine)))
                try:
                    upload(self._cas, sample)
                except UnavailableError:
                    self.refused += 1
                    time.sleep(0.02)
                else:
                    mine.append(sample)
        except BaseException as error:
            self.failures.append(error)


@pytest.mark.slow
def test_every_acknowledged_file_is_whole_however_the_server_goes_away(
    root: Path, postgres: PostgresServer, postgres_url: str
) -> None:
    with open_on_postgres(root, postgres_url) as cas:
        writers = Writers(cas)
        try:
            writers.wait_for_more()
            for end in (postgres.stop, postgres.kill, postgres.kill):
                end()
                refused = writers.refused
                while writers.refused < refused + WRITERS and not writers.failures:
                    time.sleep(0.01)
                postgres.start()
                writers.wait_for_more()
            for _ in range(10):
                postgres.terminate(postgres_url)
                writers.wait_for_more()
        finally:
            writers.end()
        assert writers.failures == []
        for samples in writers.acknowledged:
            assert len(samples) > 2 * 14
            for sample in samples:
                assert read_back(cas, sample.file.hash) == sample.data
        verify_invariants(cas)
