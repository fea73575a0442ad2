"""An index or objects that are away: 503 at once for those who need them, the rest goes on, and it comes back."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.live import Response, ServerProcess, until
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.parts import StoreParts
from xetstore.testing import Sample, make_sample, random_bytes, read_back, upload

REQUESTS = 120
"""Three times as many as there are threads for calls that ask the index."""


@dataclass(frozen=True)
class Served:
    """A server over objects in one place, an index in another; a file in it, and a URL of its xorb."""

    server: ServerProcess
    parts: StoreParts
    sample: Sample
    token: str

    def reconstruct(self) -> Response:
        return self.server.request("GET", f"/v1/reconstructions/{self.sample.file.hash}", token=self.token)

    def urls(self) -> list[tuple[str, str]]:
        """The signed URLs of the file, and the Range of each."""
        fetches = self.reconstruct().json()["fetch_info"].values()
        return [
            (fetch["url"], f"bytes={fetch['url_range']['start']}-{fetch['url_range']['end']}")
            for listed in fetches
            for fetch in listed
        ]

    def get(self, url: str, span: str) -> Response:
        return self.server.request("GET", url, headers={"Range": span})

    def ready(self) -> tuple[int, str | None]:
        answer = self.server.request("GET", "/health/ready")
        return answer.status, answer.json()["reason"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    parts = StoreParts(tmp_path / "objects", tmp_path / "index" / "index.sqlite3")
    sample = make_sample(random_bytes(300_000, 5))
    with EmbeddedCas.open(parts) as cas:
        upload(cas, sample)
    # Each worker remembers what it has read itself: of several, another one might be asked.
    flags = ("--objects", str(parts.objects), "--index", str(parts.index), "--workers", "1")
    with ServerProcess(None, *flags) as server:
        yield Served(server, parts, sample, server.admin_token)


@contextmanager
def locked(index: Path) -> Iterator[None]:
    """Hold all locks of the log of a SQLite file, as no writer of it would: no snapshot can be read."""
    with index.with_name(f"{index.name}-shm").open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 8, 120)
        yield


def test_while_the_index_is_away_callers_are_told_and_bytes_are_served(served: Served) -> None:
    [(url, span)] = served.urls()
    whole = served.get(url, span)
    assert (whole.status, whole.body) == (206, served.sample.body)
    assert isinstance(served.parts.index, Path)
    with locked(served.parts.index):
        until(lambda: served.ready() == (503, "the index does not answer"))
        with ThreadPoolExecutor(REQUESTS) as pool:
            answers = list(pool.map(lambda _: served.reconstruct(), range(REQUESTS)))
        assert {answer.status for answer in answers} == {503}
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
        assert any(b"the index does not answer" in answer.body for answer in answers), "at once: the circuit is open"
        again = served.get(url, span)
        assert again.status == 206, again.body
        assert again.body == whole.body, "its footer was read lately"
        replaced = re.sub(r"-[0-9a-f]{16}", f"-{'0' * 16}", url)
        assert served.get(replaced, span).status == 403, "signed for this object"
        assert served.server.request("GET", "/health/live").status == 200
    until(lambda: served.reconstruct().status == 200)
    until(lambda: served.ready() == (200, None))
    assert served.server.log.count("the index does not answer, and calls fail at once") <= max(
        1, len(served.server.workers)
    )


def test_a_server_that_has_not_read_a_footer_cannot_serve_its_object_without_the_index(served: Served) -> None:
    [(url, span)] = served.urls()
    flags = ("--objects", str(served.parts.objects), "--index", str(served.parts.index))
    assert isinstance(served.parts.index, Path)
    with ServerProcess(None, *flags) as other, locked(served.parts.index):
        answer = other.request("GET", url.removeprefix(served.server.url), headers={"Range": span})
        assert (answer.status, answer.json()["code"]) == (503, "unavailable")
        assert "Retry-After" in answer.headers


def test_while_the_objects_are_away_callers_are_told_and_nothing_is_taken_for_damaged(
    served: Served, tmp_path: Path
) -> None:
    [(url, span)] = served.urls()
    assert isinstance(served.parts.objects, Path)
    served.parts.objects.rename(tmp_path / "aside")
    until(lambda: served.ready() == (503, "the objects do not answer"))
    answer = served.get(url, span)
    assert (answer.status, answer.json()["code"]) == (503, "unavailable")
    assert "Retry-After" in answer.headers
    other = make_sample(b"something new")
    put = served.server.request("POST", f"/v1/xorbs/default/{other.xorb.hash}", body=other.body, token=served.token)
    assert put.status == 503
    (tmp_path / "aside").rename(served.parts.objects)
    until(lambda: served.ready() == (200, None))
    assert served.get(url, span).body == served.sample.body
    with EmbeddedCas.open(served.parts, create=False) as cas:
        assert check(cas).problems == ()
        verify_invariants(cas)
        assert read_back(cas, served.sample.file.hash) == served.sample.data


def test_both_parts_are_named(served: Served, tmp_path: Path) -> None:
    assert isinstance(served.parts.objects, Path)
    assert isinstance(served.parts.index, Path)
    served.parts.objects.rename(tmp_path / "aside")
    with locked(served.parts.index):
        until(lambda: served.ready() == (503, "the index does not answer, and the objects do not answer"))
