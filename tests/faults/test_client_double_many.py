"""The client downloads many files over a double that goes wrong: each is right, or its place is left as it was."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.double_bench import (
    AWAY,
    DENIED,
    INTEGRITY,
    OK,
    Bench,
    Row,
    Transfer,
    Try,
    bench_with_files,
    of_a_json_answer,
    of_any_call,
    row,
)
from tests.faults.test_client_double import damage_rows, xorb_rows
from tests.support import double_faults as faults
from tests.support.double import Double, Kind
from tests.support.live import live_server
from tests.support.strategies import float32, splitmix64, text
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import XetError
from xetstore.limits import Limits
from xetstore.remote.http import HttpCas
from xetstore.remote.tokens import FixedToken
from xetstore.store import Store

CONTENTS = [splitmix64(number, 1 + number * 7919 % 30_000) for number in range(7)]
CONTENTS[3:3] = [text(20_000), float32(40_000), text(300_000)]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with bench_with_files(CONTENTS) as made:
        yield made


def get_all(bench: Bench) -> Transfer:
    """All files of the bench; the first error, when all that is there is known to be right."""

    def transfer(trying: Try) -> None:
        failed: dict[Path, XetError] = {}
        with trying.cas() as cas, tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            wanted = {Path(folder, str(number)): file for number, file in enumerate(bench.files)}
            for path in wanted:
                path.write_bytes(b"old")
            # A few at a time: the doubles are slow, and what they keep waiting is given up soon.
            store = Store(cas, limits=Limits(jobs=2))
            reports = store.get_many([(file, path) for path, file in wanted.items()], on_error=failed.__setitem__)
            assert [report.hash for report in reports] == [wanted[path] for path in wanted if path not in failed]
            assert {*Path(folder).iterdir()} == {*wanted}, "something is left beside the destinations"
            for path, content in zip(wanted, CONTENTS, strict=True):
                assert path.read_bytes() == (b"old" if path in failed else content), "a destination is wrong"
        for error in failed.values():
            raise error

    return transfer


def batch_rows() -> list[Row]:
    """Whatever is wrong with the call for several files, they come one by one."""
    kind = Kind.BATCH
    rows = [row(kind, item.fault, {OK}, {OK}) for item in [*of_a_json_answer(kind), *of_any_call(kind)]]
    rows += [row(kind, faults.flip(share / 31, share % 8), {OK}, {OK}) for share in range(1, 31, 2)]
    rows += [row(kind, faults.change_number(pick, (1, -1, 1 << 40)[pick % 3]), {OK}, {OK}) for pick in range(0, 24, 2)]

    def edit(name: str, change: Callable[[Any], object]) -> None:
        rows.append(row(kind, faults.change_json(name, change), {OK}, {OK}))

    def other_file(told: Any) -> None:
        told["files"]["ab" * 32] = told["files"].pop(next(iter(told["files"])))

    def swapped(told: Any) -> None:
        one, other, *_ = told["files"]
        told["files"][one], told["files"][other] = told["files"][other], told["files"][one]

    edit("no files", lambda told: told["files"].clear())
    edit("a file is gone", lambda told: told["files"].popitem())
    edit("another file", other_file)
    edit("a file more", lambda told: told["files"].update({"ab" * 32: []}))
    edit("two files swapped", swapped)
    edit("no terms", lambda told: [terms.clear() for terms in told["files"].values()])
    edit("terms twice", lambda told: [terms.extend(terms) for terms in told["files"].values()])
    edit("no places to fetch from", lambda told: told["fetch_info"].clear())
    edit("places of another xorb", lambda told: told["fetch_info"].update({"ab" * 32: told["fetch_info"].popitem()[1]}))
    edit("no URLs", lambda told: [each.update(url="") for listed in told["fetch_info"].values() for each in listed])
    return rows


def test_files_come_right_whatever_is_wrong_with_the_call_for_several(bench: Bench) -> None:
    bench.try_all(batch_rows(), get_all(bench))


def test_many_files_over_a_broken_xorb_fetch_are_right_or_say_why(bench: Bench) -> None:
    anyway = [row(item.kind, item.fault, item.once | {OK}, item.always | {OK}) for item in xorb_rows()[::3]]
    bench.try_all(anyway, get_all(bench))


def test_many_damaged_files_are_right_or_say_why(bench: Bench) -> None:
    rows = [row(item.kind, item.fault, {OK}, {OK, INTEGRITY, AWAY, DENIED}) for item in damage_rows()]
    bench.try_all(rows, get_all(bench))


def test_a_thousand_small_files_take_some_dozens_of_requests(tmp_path: Path) -> None:
    contents = [splitmix64(number, 4096) for number in range(1000)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number:04}").write_bytes(content)
    (tmp_path / "out").mkdir()
    with (
        EmbeddedCas.open(tmp_path / "store") as cas,
        Store(cas) as local,
        live_server(cas, rate_per_address=0, rate_per_token=0, log_level="error") as server,
        Double(server.url) as double,
    ):
        files = [report.info.hash for report in local.put_many(sorted(tmp_path.glob("0*")))]
        for status, count, most in ((200, 1000, 36), (404, 100, 202), (405, 100, 202), (501, 100, 202)):
            double.clear()
            if status != 200:
                double.plan(Kind.BATCH, faults.status(status), times=None)
            wanted = {tmp_path / "out" / str(number): file for number, file in enumerate(files[:count])}
            with Store(HttpCas(double.url, tokens=FixedToken(server.token("read")))) as store:
                reports = store.get_many((file, path) for path, file in wanted.items())
            assert [report.hash for report in reports] == files[:count]
            assert [path.read_bytes() for path in wanted] == contents[:count]
            assert sum(report.fetched_bytes for report in reports) == double.xorb_bytes_down
            assert sum(traffic.calls for traffic in double.traffic.values()) <= most
            assert double.traffic[Kind.BATCH].calls <= 16
