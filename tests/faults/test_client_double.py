"""The client downloads from a server double that goes wrong on every call, in every way: never a wrong byte."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.double_bench import (
    AWAY,
    DENIED,
    INTEGRITY,
    MISSING,
    OK,
    OTHER,
    USAGE,
    Bench,
    Row,
    Transfer,
    Try,
    bench_with_a_file,
    of_a_json_answer,
    of_any_call,
    row,
    transient,
)
from tests.support import double_faults as faults
from tests.support.double import Kind
from xetstore.errors import IntegrityError, XetError
from xetstore.remote.http import HttpCas
from xetstore.remote.hub.client import Hub
from xetstore.remote.hub.locators import HubLocator
from xetstore.remote.transport import Transport
from xetstore.store import Store


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with bench_with_a_file() as made:
        yield made


def reconstruction_rows(kind: Kind, fine: Iterable[int], *, whole: bool = True) -> list[Row]:
    """``whole``: of a file, whose hash tells in the end. Where a range lies in its file only the server knows, and
    nobody but it can tell that there are more terms: of an answer without a digest this is believed.
    """
    anything = {OK, MISSING, INTEGRITY, DENIED, AWAY, USAGE}
    rows = [*of_a_json_answer(kind), *(of_any_call(kind, fine) if whole else [])]
    rows += [row(kind, faults.flip(share / 31, share % 8), anything, anything) for share in range(31)]
    changes = [(pick, (1, -1, 1 << 40)[pick % 3]) for pick in range(0 if whole else 1, 24)]
    rows += [row(kind, faults.change_number(pick, by), anything, anything) for pick, by in changes]

    def edit(name: str, change: Callable[[Any], object]) -> None:
        rows.append(row(kind, faults.change_json(name, change), {OK, INTEGRITY, AWAY}, {INTEGRITY, AWAY}))

    edit("no places to fetch from", lambda told: told.get("xorbs", told.get("fetch_info")).clear())
    edit("no terms at all", lambda told: told.pop("terms"))
    edit("no terms", lambda told: told["terms"].clear())
    if whole:
        edit("the last term is gone", lambda told: told["terms"].pop())
        edit("a term is there twice", lambda told: told["terms"].append(told["terms"][0]))
        edit("the terms are turned round", lambda told: told["terms"].reverse())
    return rows


def xorb_rows() -> list[Row]:
    """No bytes come."""
    kind = Kind.XORB_GET
    rows = [row(kind, fault, {OK}, {AWAY}) for fault in transient()]
    rows += [
        row(kind, faults.garbage(), {OK}, {AWAY}),
        row(kind, faults.status(403), {OK}, {DENIED}),
        row(kind, faults.status(401), {OK, DENIED}, {DENIED}),
        row(kind, faults.status(404), {OK, MISSING}, {MISSING}),
        row(kind, faults.status(405), {OK, USAGE}, {USAGE}),
        row(kind, faults.status(416), {OK, USAGE, INTEGRITY}, {USAGE, INTEGRITY}),
        row(kind, faults.status(501), {OK, USAGE, AWAY}, {USAGE, AWAY}),
        row(kind, faults.redirect_loop(), {OK, AWAY, OTHER, INTEGRITY}, {AWAY, OTHER, INTEGRITY}),
        row(kind, faults.stall_within(), {OK}, {OK, AWAY}),
        row(kind, faults.stall_within(0.0), {OK}, {AWAY}),
        row(kind, faults.reset_within(), {OK}, {OK, AWAY}),
        row(kind, faults.reset_within(0.01), {OK}, {OK, AWAY}),
        row(kind, faults.truncate(3, honest=False), {OK}, {OK, AWAY}),
        row(kind, faults.truncate(0.9, honest=False), {OK}, {OK, AWAY}),
    ]
    return rows


def damage_rows() -> list[Row]:
    """Wrong bytes come."""
    kind = Kind.XORB_GET
    damaged = [
        faults.html(),
        faults.empty(),
        faults.truncate(0.5, honest=True),
        faults.truncate(0.999, honest=True),
        faults.longer(),
        faults.wrong_range(),
        faults.swapped(),
        *(faults.flip_chunk(where, scheme) for where in ("header", "payload") for scheme in (0, 1, 2)),
        faults.flip(0),
        faults.flip(4, 1),
        faults.flip(0.5, 3),
        faults.flip(1.0 - 1e-6, 7),
    ]
    rows = [row(kind, fault, {OK}, {INTEGRITY}) for fault in damaged]
    rows += [
        row(kind, faults.whole(), {OK}, {OK, INTEGRITY}),
        row(kind, faults.flip_length(), {OK}, {OK, AWAY, INTEGRITY}),
    ]
    return rows


# --- Downloads -----------------------------------------------------------------------------------------------------

_INCOMPLETE = re.compile(r"\.out\..*\.incomplete(\.journal)?")


class Destination:
    """A file that a download is to replace."""

    def __init__(self, bench: Bench) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=bench.folder)
        self.path = Path(self._folder.name, "out")

    def __enter__(self) -> Path:
        self.path.write_bytes(b"old")
        return self.path

    def expect(self, content: bytes, error: XetError | None) -> None:
        found = self.path.read_bytes()
        assert found == (content if error is None else b"old"), "the destination is wrong"
        beside = sorted(path.name for path in self.path.parent.iterdir() if path != self.path)
        if error is None or isinstance(error, IntegrityError):
            assert beside == [], "something is left beside the destination"
        assert all(_INCOMPLETE.fullmatch(name) for name in beside), beside

    def __exit__(self, *exc: object) -> None:
        self._folder.cleanup()


def get_whole(bench: Bench, start: int = 0, end: int | None = None) -> Transfer:
    def transfer(trying: Try) -> None:
        destination = Destination(bench)
        with trying.cas() as cas, destination as out:
            error = None
            try:
                report = Store(cas).get(bench.file, out, start=start, end=end)
                assert report.size == len(bench.content[start:end])
            except XetError as caught:
                error = caught
            destination.expect(bench.content[start:end], error)
            if error is not None:
                raise error

    return transfer


def test_a_download_over_a_broken_xorb_fetch_is_right_or_says_why(bench: Bench) -> None:
    bench.try_all(xorb_rows(), get_whole(bench))


@pytest.mark.parametrize("hashes", [True, False])
def test_a_download_of_damaged_xorbs_is_right_or_says_why(bench: Bench, hashes: bool) -> None:
    bench.try_all(damage_rows(), get_whole(bench), hashes=hashes)


@pytest.mark.parametrize(("kind", "hashes"), [(Kind.RECONSTRUCTION_V2, True), (Kind.RECONSTRUCTION_V1, False)])
def test_a_download_over_a_broken_reconstruction_is_right_or_says_why(bench: Bench, kind: Kind, hashes: bool) -> None:
    fine = (404, 501) if kind is Kind.RECONSTRUCTION_V2 else ()
    bench.try_all(reconstruction_rows(kind, fine), get_whole(bench), hashes=hashes)


def read_range(bench: Bench, start: int, end: int) -> Transfer:
    def transfer(trying: Try) -> None:
        with trying.cas() as cas:
            assert b"".join(Store(cas).iter_range(bench.file, start, end)) == bench.content[start:end]

    return transfer


def test_a_range_read_of_damaged_xorbs_is_right_or_says_why(bench: Bench) -> None:
    bench.try_all(damage_rows(), read_range(bench, 100_000, 800_000))


def test_a_range_read_over_a_broken_reconstruction_is_right_or_says_why(bench: Bench) -> None:
    rows = reconstruction_rows(Kind.RECONSTRUCTION_V2, (404, 501), whole=False)
    bench.try_all(rows, read_range(bench, 100_000, 800_000))


def test_where_a_range_lies_in_its_file_is_held_by_the_digest_of_the_answer(bench: Bench) -> None:
    rows = reconstruction_rows(Kind.RECONSTRUCTION_V2, (404, 501))
    bench.try_all(rows, read_range(bench, 100_000, 800_000), digests=True)


def test_a_range_that_cannot_be_verified_is_said_to_be_unverified(bench: Bench) -> None:
    """Without chunk hashes nobody knows better than the server; a flipped bit is not seen, and not vouched for."""

    def transfer(trying: Try) -> None:
        with trying.cas() as cas, Destination(bench) as out:
            assert not Store(cas).get(bench.file, out, start=100_000, end=200_000).verified

    bench.try_all([row(Kind.XORB_GET, faults.flip_chunk("payload", 0), {OK}, {OK})], transfer, hashes=False)


def test_a_file_opened_over_a_broken_network_reads_right_or_says_why(bench: Bench) -> None:
    def transfer(trying: Try) -> None:
        with trying.cas() as cas, Store(cas).open(bench.file) as opened:
            for at in (500_000, 5, len(bench.content) - 100):
                opened.seek(at)
                assert opened.read(1000) == bench.content[at : at + 1000]

    # The size is known in another way too.
    sizes = [
        *of_any_call(Kind.FILE, (404, 405, 501)),
        row(Kind.FILE, faults.flip_length(), {OK, INTEGRITY, USAGE}, {OK, INTEGRITY, USAGE}),
    ]
    bench.try_all(sizes, transfer)
    bench.try_all([*xorb_rows()[::5], *damage_rows()[::4]], transfer)


def test_a_download_over_a_broken_token_route_is_right_or_says_why(bench: Bench) -> None:
    """The server's address comes with the token, from a Hub; nothing of it is believed that cannot be."""
    locator = HubLocator.parse("hf://models/ns/name@main")

    def transfer(trying: Try) -> None:
        with Transport(patience=trying.patience) as transport, Destination(bench) as out:
            hub = Hub(endpoint=trying.double.url, token=trying.token, transport=transport, emit=trying.events.append)
            tokens = hub.tokens(locator)
            cas = HttpCas(hub.cas_url(locator), tokens=tokens, transport=transport, emit=trying.events.append)
            with Store(cas) as store:
                store.get(bench.file, out, start=100_000, end=200_000)
            assert out.read_bytes() == bench.content[100_000:200_000]

    # What is in the headers is enough: a Hub sends it in both.
    anything = {OK, USAGE, INTEGRITY, DENIED, AWAY}
    rows = [item for item in of_any_call(Kind.TOKEN) if "redirect" not in item.fault.name]
    rows.append(row(Kind.TOKEN, faults.redirect_loop(), {OK}, {USAGE, AWAY}))  # within a Hub they are followed
    rows += [row(Kind.TOKEN, item.fault, anything, anything) for item in of_a_json_answer(Kind.TOKEN)]
    rows += [row(Kind.TOKEN, faults.flip(share / 9, share % 8), anything, anything) for share in range(9)]
    bench.try_all(rows, transfer)


def test_whatever_bit_is_flipped_no_wrong_byte_is_delivered(bench: Bench) -> None:
    """A few hundred flips at random offsets of random answers, one or two in a download."""
    chance = random.Random(5)
    rows = []
    anything = {OK, MISSING, INTEGRITY, DENIED, AWAY, USAGE, OTHER}
    for _ in range(210):
        kind = chance.choice([Kind.RECONSTRUCTION_V2, Kind.XORB_GET, Kind.XORB_GET])
        fault = faults.flip(chance.random(), chance.randrange(8))
        rows.append(Row(kind, fault, frozenset(anything), frozenset(anything), at=chance.randrange(3)))
    bench.try_all(rows[::6], get_whole(bench), how_often=(1,), hashes=False)
    bench.try_all(rows, get_whole(bench), how_often=(1,))
    of_json = [item for item in rows if item.kind is Kind.RECONSTRUCTION_V2]
    bench.try_all(of_json, get_whole(bench), how_often=(1,), compressed=True)
