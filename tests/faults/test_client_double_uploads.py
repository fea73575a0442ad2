"""The client uploads to a server double that goes wrong on every call, in every way: stored right, or it says why."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.double_bench import (
    AWAY,
    INTEGRITY,
    KIB,
    OK,
    XORB_BYTES,
    Bench,
    Transfer,
    Try,
    bench_with_a_file,
    of_a_json_answer,
    of_an_upload,
    of_any_call,
    row,
)
from tests.support import double_faults as faults
from tests.support.double import Kind
from tests.support.strategies import splitmix64, text
from xetstore.store import Store
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.session import put_files
from xetstore.transfer.upload.sizing import UploadSizes

SMALL_XORBS = UploadOptions(sizes=UploadSizes(XORB_BYTES, in_flight=20))


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with bench_with_a_file() as made:
        yield made


class Sources:
    """Files that nobody has stored yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._made = 0

    def new(self, kib: int) -> tuple[Path, bytes]:
        with self._lock:
            self._made += 1
            number = self._made
        content = splitmix64(1000 + number, kib * KIB) + f"{number} ".encode() + text(50 * KIB)
        path = self._folder / f"source{number}"
        path.write_bytes(content)
        return path, content


@pytest.fixture(scope="module")
def sources(bench: Bench) -> Sources:
    return Sources(bench.folder)


def put(bench: Bench, sources: Sources, kib: int = 100) -> Transfer:
    """An upload of one xorb, or of more where there are more than 256 KiB."""

    def transfer(trying: Try) -> None:
        path, content = sources.new(kib)
        with trying.cas() as cas:
            [report] = put_files(
                cas, [path], UploadOptions(sizes=UploadSizes(XORB_BYTES, in_flight=20)), emit=trying.events.append
            )
        path.unlink()
        assert b"".join(Store(bench.server.site.cas).iter_range(report.info.hash)) == content, "it is stored wrong"

    return transfer


def test_an_upload_over_a_broken_xorb_post_is_stored_or_says_why(bench: Bench, sources: Sources) -> None:
    kind = Kind.XORB_POST
    bench.try_all([*of_any_call(kind), *of_an_upload(kind), *of_a_json_answer(kind)], put(bench, sources, kib=300))


def test_an_upload_without_a_working_dedup_endpoint_is_stored(bench: Bench, sources: Sources) -> None:
    kind = Kind.CHUNK
    rows = [*of_any_call(kind), *of_a_json_answer(kind)]
    bench.try_all([row(kind, item.fault, {OK}, {OK}) for item in rows], put(bench, sources), how_often=(None,))


@pytest.mark.parametrize("kind", [Kind.SHARD_V2, Kind.SHARD_V1])
def test_an_upload_over_a_broken_shard_post_is_stored_or_says_why(bench: Bench, sources: Sources, kind: Kind) -> None:
    fine = (404, 501) if kind is Kind.SHARD_V2 else ()
    rows = [*of_any_call(kind, fine), *of_an_upload(kind), *of_a_json_answer(kind)]
    anything = {OK, INTEGRITY, AWAY}
    rows += [row(kind, faults.flip(share / 13, share % 8), anything, anything) for share in range(13)]
    bench.try_all(rows, put(bench, sources))


def test_an_upload_by_grants_over_broken_calls_is_stored_or_says_why(bench: Bench, sources: Sources) -> None:
    rows = [
        *of_any_call(Kind.GRANT, (404,)),
        *of_an_upload(Kind.GRANT),
        *of_a_json_answer(Kind.GRANT),
        *of_any_call(Kind.COMMIT, (404,)),
    ]
    # Where bytes cannot be put there is still the call without a grant.
    to_the_grant = [*of_any_call(Kind.GRANT_PUT), *of_an_upload(Kind.GRANT_PUT)]
    fall_back = [row(Kind.GRANT_PUT, item.fault, {OK}, {OK}) for item in to_the_grant]
    bench.try_all(fall_back, put(bench, sources), how_often=(None,), grants=True)
    bench.try_all(rows, put(bench, sources), grants=True)
