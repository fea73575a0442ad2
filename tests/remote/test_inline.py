"""Reads in one round trip: bytes that come along with a reconstruction, and two trips wherever they do not come right.

All of it goes through a real client, a double in between, and a real server.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.faults.double_bench import PATIENCE
from tests.support import double_faults as faults
from tests.support.double import Answer, Call, Double, Fault, Kind
from tests.support.live import LiveServer, live_server
from xetstore.cancellation import Cancellation
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import IntegrityError, InterruptedCallError, NotFoundError, XetError
from xetstore.events import Damaged, Event, FellBack
from xetstore.protocol.hashes import Hash
from xetstore.protocol.inline import INLINE_HEAD_BYTES, INLINE_TYPE, InlineHead
from xetstore.remote.exchange import Exchange
from xetstore.remote.http import HttpCas
from xetstore.remote.transport import Transport
from xetstore.store import Store
from xetstore.transfer.download.file_download import FileDownload
from xetstore.transfer.download.plan import Window

MIB = 1 << 20
CONTENT = random.Random(1).randbytes(3 * MIB)
OTHER = random.Random(2).randbytes(3 * MIB)
SPAN = (1_000_001, 2_000_001)


@dataclass
class Way:
    """A client, a double, and a server with two files and some small ones."""

    server: LiveServer
    double: Double
    file: Hash
    other: Hash
    small: list[tuple[Hash, bytes]]
    events: list[Event] = field(default_factory=list)

    def cas(self) -> HttpCas:
        return HttpCas(self.double.url, transport=Transport(patience=PATIENCE), emit=self.events.append)

    def store(self) -> Store:
        return Store(self.cas(), on_event=self.events.append)

    def calls(self) -> dict[Kind, int]:
        return {kind: traffic.calls for kind, traffic in self.double.traffic.items() if traffic.calls}


@pytest.fixture(scope="module")
def stored(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[LiveServer, list[Hash], list[tuple[Hash, bytes]]]]:
    folder = tmp_path_factory.mktemp("stored")
    with EmbeddedCas.open(folder / "store") as cas, live_server(cas, auth="none") as server:
        store = Store(cas)
        small = [random.Random(number).randbytes(5_000) for number in range(10, 20)]
        paths = []
        for number, content in enumerate((CONTENT, OTHER, *small)):
            path = folder / str(number)
            path.write_bytes(content)
            paths.append(path)
        files = [store.put(path).hash for path in paths[:2]]
        hashes = [report.info.hash for report in store.put_many(paths[2:])]
        yield server, files, list(zip(hashes, small, strict=True))


@pytest.fixture
def way(stored: tuple[LiveServer, list[Hash], list[tuple[Hash, bytes]]]) -> Iterator[Way]:
    server, (file, other), small = stored
    with Double(server.url) as double:
        double.inline = double.digests = True
        yield Way(server, double, file, other, small)


def read(store: Store, file: Hash, start: int, end: int | None) -> bytes:
    return b"".join(store.iter_range(file, start, end))


def read_all(store: Store, spans: Sequence[tuple[Hash, int, int]]) -> list[bytes]:
    parts = store.read_ranges(spans)
    assert not [part for part in parts if isinstance(part, XetError)]
    return [bytes(part) for part in parts if isinstance(part, memoryview)]


def test_what_a_read_held_is_free_at_its_end(way: Way) -> None:
    """In a cycle it would stay until the collector comes by: the bytes as they came, and all around them."""
    held = (FileDownload, Window, Exchange, HttpCas)
    with way.store() as store:
        store.read(way.file, *SPAN)
        gc.collect()
        before = [sum(isinstance(thing, kind) for thing in gc.get_objects()) for kind in held]
        gc.disable()
        try:
            for _ in range(3):
                store.read(way.file, *SPAN)
            after = [sum(isinstance(thing, kind) for thing in gc.get_objects()) for kind in held]
        finally:
            gc.enable()
    assert after == before


class TestOneTrip:
    @pytest.mark.parametrize("span", [SPAN, (0, 1), (0, 3 * MIB), (3 * MIB - 1, 3 * MIB), (2 * MIB, 10 * MIB)])
    def test_a_range_takes_one_request(self, way: Way, span: tuple[int, int]) -> None:
        with way.store() as store:
            assert read(store, way.file, *span) == CONTENT[slice(*span)]
        assert way.calls() == {Kind.RECONSTRUCTION_V2: 1}

    def test_a_whole_small_file_takes_one_request(self, way: Way, tmp_path: Path) -> None:
        file, content = way.small[0]
        with way.store() as store:
            report = store.get(file, tmp_path / "out")
            assert (report.verified, report.fetched_bytes > 5_000) == (True, True)
        assert (tmp_path / "out").read_bytes() == content
        assert way.calls() == {Kind.RECONSTRUCTION_V2: 1}

    def test_a_seek_and_a_read_take_one_request(self, way: Way) -> None:
        with way.store() as store, store.open(way.file) as file:
            way.double.clear()
            for at in (2_000_000, 5):
                file.seek(at)
                assert file.read(1000) == CONTENT[at : at + 1000]
        assert way.calls() == {Kind.RECONSTRUCTION_V2: 2}

    def test_many_small_files_take_one_request(self, way: Way, tmp_path: Path) -> None:
        with way.store() as store:
            store.get_many((file, tmp_path / str(number)) for number, (file, _) in enumerate(way.small))
        assert [(tmp_path / str(number)).read_bytes() for number in range(10)] == [data for _, data in way.small]
        assert way.calls() == {Kind.BATCH: 1}

    def test_several_ranges_take_one_request(self, way: Way) -> None:
        spans = [(way.file, at, at + 10_000) for at in range(0, 3 * MIB, 300_000)]
        spans += [(file, 100, 200) for file, _ in way.small] + [(way.other, 5, 10)]
        with way.store() as store:
            parts = read_all(store, spans)
        contents = {way.file: CONTENT, way.other: OTHER, **dict(way.small)}
        assert parts == [contents[file][start:end] for file, start, end in spans]
        assert way.calls() == {Kind.RANGES: 1}

    def test_ranges_of_a_filesystem_take_one_request(self, way: Way) -> None:
        """As Parquet readers ask for the chunks of columns: near ones become one."""
        from xetstore.fs import XetFileSystem

        fs = XetFileSystem(store=way.double.url, cache=False)
        starts = [0, 40_000, 1_000_000, 2_000_000, 5]
        parts = fs.cat_ranges([f"{way.file}/table.parquet"] * 5, starts, [start + 30_000 for start in starts])
        assert parts == [CONTENT[start : start + 30_000] for start in starts]
        assert way.calls() == {Kind.RANGES: 1}
        missing = "1" * 64
        way.double.clear()
        parts = fs.cat_ranges([missing, str(way.file), str(way.other)], [0, 10, 10**8], [10, 20, 10**8 + 1])
        assert isinstance(parts[0], FileNotFoundError)
        assert parts[1:] == [CONTENT[10:20], b""]
        with pytest.raises(FileNotFoundError):
            fs.cat_ranges([missing, str(way.file)], [0, 10], [10, 20], on_error="raise")
        fs.close()

    def test_what_is_cached_is_not_asked_for_again(self, way: Way, tmp_path: Path) -> None:
        import xetstore

        with xetstore.open(way.double.url, cache=tmp_path / "cache") as store:
            assert read(store, way.file, *SPAN) == CONTENT[slice(*SPAN)]
            for span in (SPAN, (SPAN[0] + 10, SPAN[1] - 10)):
                way.double.clear()
                assert read(store, way.file, *span) == CONTENT[slice(*span)]
                assert way.calls() == {Kind.RECONSTRUCTION_V2: 1}
                assert way.double.traffic[Kind.RECONSTRUCTION_V2].down < 10_000
            parts = read_all(store, [(way.file, *SPAN), (way.other, 0, 1000)])
            assert parts == [CONTENT[slice(*SPAN)], OTHER[:1000]]
        # Another process does not know where they lie, and finds out by its first read.
        with xetstore.open(way.double.url, cache=tmp_path / "cache") as store:
            way.double.clear()
            read(store, way.file, *SPAN)
            first = way.double.traffic[Kind.RECONSTRUCTION_V2].down
            assert first > 1_000_000
            read(store, way.file, SPAN[0] - 1, SPAN[1])
            assert way.double.traffic[Kind.RECONSTRUCTION_V2].down < first + 10_000

    def test_more_than_8_mib_is_left_to_the_urls(self, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("xetstore.transfer.download.context.MOST_INLINE_BYTES", MIB)
        with way.store() as store:
            assert read(store, way.file, 0, 3 * MIB) == CONTENT
        assert way.calls()[Kind.XORB_GET] > 0

    def test_a_file_that_is_not_there_is_not_found(self, way: Way) -> None:
        missing = Hash(bytes(31) + b"1")
        with way.store() as store:
            with pytest.raises(NotFoundError):
                read(store, missing, 0, 10)
            way.double.clear()
            parts = store.read_ranges([(missing, 0, 10), (way.file, 0, 10), (missing, 100_000, 100_001)])
        assert [type(part) for part in parts] == [NotFoundError, memoryview, NotFoundError]
        assert way.calls() == {Kind.RANGES: 1, Kind.RECONSTRUCTION_V2: 2, Kind.RECONSTRUCTION_V1: 2}


class TestWithout:
    """Where it is not offered, or does not get through, two trips remain."""

    def test_a_server_that_does_not_know_of_it(self, way: Way, tmp_path: Path) -> None:
        way.double.inline = False
        with way.store() as store:
            assert read(store, way.file, *SPAN) == CONTENT[slice(*SPAN)]
            assert way.calls() == {Kind.RECONSTRUCTION_V2: 1, Kind.XORB_GET: 1}
            parts = read_all(store, [(way.file, 0, 10), (way.file, 2 * MIB, 2 * MIB + 10)])
            assert parts == [CONTENT[:10], CONTENT[2 * MIB : 2 * MIB + 10]]
            store.read_ranges([(way.file, 0, 10), (way.file, 2 * MIB, 2 * MIB + 10)])
            store.get_many((file, tmp_path / str(number)) for number, (file, _) in enumerate(way.small))
        assert way.calls()[Kind.RANGES] == 1, "it is not asked for again"
        assert way.calls()[Kind.BATCH] == 1

    def test_a_server_whose_operator_does_not_want_it(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(CONTENT)
        with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas, auth="none", max_inline_bytes=0) as server:
            file = Store(cas).put(tmp_path / "file").hash
            with Double(server.url) as double, Store(HttpCas(double.url)) as store:
                double.inline = True
                assert read(store, file, *SPAN) == CONTENT[slice(*SPAN)]
                assert double.traffic[Kind.XORB_GET].calls == 1

    def test_a_proxy_that_changes_the_media_type(self, way: Way) -> None:
        """The frame is taken for JSON, which it is not: once."""

        def change(_: Call, answer: Answer) -> bool:
            if any(value == INLINE_TYPE for _, value in answer.headers):
                answer.set_header("Content-Type", "application/octet-stream")
            return True

        way.double.plan(Kind.RECONSTRUCTION_V2, Fault("another type", change=change), times=None)
        with way.store() as store:
            for _ in range(2):
                assert read(store, way.file, *SPAN) == CONTENT[slice(*SPAN)]
        assert way.calls() == {Kind.RECONSTRUCTION_V2: 3, Kind.XORB_GET: 2}
        assert [event for event in way.events if isinstance(event, FellBack)]


def framed(edit: Callable[[Call, bytes, int, bytes], tuple[bytes, bytes]]) -> Fault:
    """A frame that ``edit`` has changed: from its JSON, number of ranges and bytes it makes a head, and the rest."""

    def change(call: Call, answer: Answer) -> bool:
        head = InlineHead.parse(answer.body[:INLINE_HEAD_BYTES])
        at = INLINE_HEAD_BYTES + head.json_bytes
        new, rest = edit(call, answer.body[INLINE_HEAD_BYTES:at], head.ranges, answer.body[at:])
        answer.body = new + rest
        return True

    return Fault("another frame", change=change)


def question(call: Call) -> str:
    return f"reconstruction {call.name} {call.header('Range')}"


def rewritten(json: Callable[[bytes], bytes], body: Callable[[bytes], bytes] = lambda body: body) -> Fault:
    """A server that lies: its frame is bound to the question as it should be."""

    def edit(call: Call, data: bytes, ranges: int, rest: bytes) -> tuple[bytes, bytes]:
        new = json(data)
        return InlineHead.of(question(call), new, ranges).serialize() + new, body(rest)

    return framed(edit)


def other_ranges(count: int) -> Fault:
    def edit(call: Call, data: bytes, _: int, rest: bytes) -> tuple[bytes, bytes]:
        return InlineHead.of(question(call), data, count).serialize() + data, rest

    return framed(edit)


def other_file(way: Way) -> Fault:
    """The answer about another file, whole and right in itself."""

    def instead(call: Call) -> Answer:
        asked = replace(call, target=call.target.replace(str(way.file), str(way.other)))
        return way.double._pass_on(asked)

    return Fault("the answer to another question", instead=instead)


def bytes_of_another_file(way: Way) -> Fault:
    def instead(call: Call) -> Answer:
        answer = way.double._pass_on(call)
        other = way.double._pass_on(replace(call, target=call.target.replace(str(way.file), str(way.other))))
        if answer.body.startswith(b"XETREAD1"):
            at = INLINE_HEAD_BYTES + InlineHead.parse(answer.body[:INLINE_HEAD_BYTES]).json_bytes
            length = len(answer.body) - at
            answer.body = answer.body[:at] + other.body[-length:].rjust(length, b"x")
        return answer

    return Fault("the bytes of another file", instead=instead)


def always(fault: Fault) -> Callable[[Way], Fault]:
    return lambda _: fault


def of_frames(fault: Fault) -> Fault:
    """The same, but that what is no frame passes."""

    def change(call: Call, answer: Answer) -> bool:
        return bool(fault.change and answer.body.startswith(b"XETREAD1") and fault.change(call, answer))

    return replace(fault, change=change) if fault.change else fault


def flipped_bits(body: bytes) -> bytes:
    return bytes([body[0] ^ 1]) + body[1:]


FAULTS: dict[str, Callable[[Way], Fault]] = {
    "garbage in the frame's place": lambda _: Fault(
        "garbage", instead=lambda _: Answer(200, [("Content-Type", INLINE_TYPE)], random.Random(1).randbytes(100_000))
    ),
    "nothing in the frame's place": lambda _: Fault(
        "nothing", instead=lambda _: Answer(200, [("Content-Type", INLINE_TYPE)], b"")
    ),
    "JSON in the frame's place": lambda _: Fault(
        "JSON", instead=lambda _: Answer(200, [("Content-Type", INLINE_TYPE)], b'{"terms": []}')
    ),
    "no HTTP": lambda _: faults.garbage(),
    "a page": lambda _: faults.html(),
    **{f"cut at {keep}": always(faults.truncate(keep, honest=True)) for keep in (1, 47, 48, 500, 0.5, 0.999999)},
    **{f"closed at {keep}": always(faults.truncate(keep, honest=False)) for keep in (1, 48, 500, 0.5, 0.999999)},
    **{f"stalled at {share}": always(faults.stall_within(share)) for share in (0.0, 0.0001, 0.5)},
    **{f"reset at {share}": always(faults.reset_within(share)) for share in (0.0001, 0.5)},
    **{f"bit of byte {at}": always(faults.flip(at)) for at in (0, 9, 13, 20, 60, 300, 0.3, 0.9999999)},
    "too much, as declared": lambda _: rewritten(lambda data: data, lambda body: body + b"more"),
    "too little, as declared": lambda _: rewritten(lambda data: data, lambda body: body[:-1]),
    "a length that is another": lambda _: faults.flip_length(),
    "ranges that are not listed": lambda _: other_ranges(7),
    "no ranges, and their bytes": lambda _: other_ranges(0),
    "four thousand million ranges": lambda _: other_ranges(2**32 - 1),
    "wrong bytes": lambda _: rewritten(lambda data: data, flipped_bits),
    "wrong hashes": lambda _: rewritten(lambda data: data.replace(b'"chunk_hashes":"', b'"chunk_hashes":"AAAA')),
    "the answer for another file": other_file,
    "the bytes of another file": bytes_of_another_file,
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_passes_costs_a_trip_and_no_wrong_byte(way: Way, name: str) -> None:
    planned = way.double.plan(Kind.RECONSTRUCTION_V2, FAULTS[name](way))
    with way.store() as store:
        assert read(store, way.file, *SPAN) == CONTENT[slice(*SPAN)]
    assert planned.hits


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_stays_gives_no_wrong_byte(way: Way, name: str) -> None:
    """Whole files, whose hash tells all."""
    fault = FAULTS[name](way)
    way.double.plan(Kind.RECONSTRUCTION_V2, of_frames(fault), times=None)
    with way.store() as store, suppress(XetError) if fault.instead else nullcontext():  # a plain answer is right
        assert read(store, way.file, 0, None) == CONTENT


def test_a_liar_about_whole_files_is_caught_by_the_file_hash(way: Way) -> None:
    """Hashes and bytes of another file, in a frame that is bound to the question."""

    def instead(call: Call) -> Answer:
        asked = replace(call, target=call.target.replace(str(way.file), str(way.other)))
        answer = way.double._pass_on(asked)
        if answer.body.startswith(b"XETREAD1"):
            head = InlineHead.parse(answer.body[:INLINE_HEAD_BYTES])
            at = INLINE_HEAD_BYTES + head.json_bytes
            data, rest = answer.body[INLINE_HEAD_BYTES:at], answer.body[at:]
            span = f" {call.header('Range')}" if call.header("Range") else ""
            new = InlineHead.of(f"reconstruction {way.file}{span}", data, head.ranges)
            answer.body = new.serialize() + data + rest
        return answer

    way.double.plan(Kind.RECONSTRUCTION_V2, Fault("another file", instead=instead), times=None)
    with way.store() as store, pytest.raises(IntegrityError):
        read(store, way.file, 0, None)


def test_a_server_that_is_too_busy_is_asked_again(way: Way) -> None:
    way.double.plan(Kind.RECONSTRUCTION_V2, faults.status(503, retry_after="0"))
    with way.store() as store:
        assert read(store, way.file, *SPAN) == CONTENT[slice(*SPAN)]
    assert way.calls() == {Kind.RECONSTRUCTION_V2: 2, Kind.XORB_GET: 1}, "for no bytes along with it the second time"


def test_silence_in_the_middle_is_left_for_the_urls(way: Way) -> None:
    """The JSON was there: what it says is believed, and not asked for again."""
    way.double.plan(Kind.RECONSTRUCTION_V2, faults.stall_within(0.5))
    with way.store() as store:
        assert read(store, way.file, *SPAN) == CONTENT[slice(*SPAN)]
    assert way.calls() == {Kind.RECONSTRUCTION_V2: 1, Kind.XORB_GET: 1}


def test_wrong_bytes_are_asked_for_once_more_by_their_url(way: Way) -> None:
    way.double.plan(Kind.RECONSTRUCTION_V2, of_frames(faults.flip(0.9)), times=None)
    with way.store() as store:
        assert read(store, way.file, *SPAN) == CONTENT[slice(*SPAN)]
    assert way.calls()[Kind.XORB_GET] == 1
    assert [event for event in way.events if isinstance(event, Damaged)]


def test_a_call_that_is_cancelled_ends(way: Way) -> None:
    way.double.plan(Kind.RECONSTRUCTION_V2, faults.stall_before())
    call = Cancellation()
    with closing(way.cas()) as cas:
        call.cancel()
        with pytest.raises(InterruptedCallError):
            cas.under(call).reconstruct(way.file, *SPAN, hashes=True, inline=MIB)


@pytest.mark.parametrize("name", ["no HTTP", "a page", "nothing in the frame's place", "garbage in the frame's place"])
def test_several_ranges_come_one_by_one_where_they_do_not_come_together(way: Way, name: str) -> None:
    way.double.plan(Kind.RANGES, FAULTS[name](way), times=None)
    spans = [(way.file, 0, 1000), (way.file, 2 * MIB, 2 * MIB + 1000)]
    with way.store() as store:
        assert read_all(store, spans) == [CONTENT[:1000], CONTENT[2 * MIB : 2 * MIB + 1000]]


def test_several_ranges_are_bound_to_their_question(way: Way) -> None:
    def instead(call: Call) -> Answer:
        return way.double._pass_on(
            replace(call, body=call.body.replace(str(way.file).encode(), str(way.other).encode()))
        )

    way.double.plan(Kind.RANGES, Fault("the answer to another question", instead=instead), times=None)
    spans = [(way.file, 0, 1000), (way.file, 2 * MIB, 2 * MIB + 1000)]
    with way.store() as store:
        assert read_all(store, spans) == [CONTENT[:1000], CONTENT[2 * MIB : 2 * MIB + 1000]]
