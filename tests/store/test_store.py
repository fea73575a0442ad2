"""Store: the public verbs, as README shows them; over a server they do what they do over a directory."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import xetstore
from tests.store.conftest import Place
from tests.support.strategies import splitmix64
from xetstore.errors import IntegrityError, InterruptedCallError, NotFoundError, RangeError, UsageError
from xetstore.events import Event, RangeFetched, XorbStored
from xetstore.protocol.hashes import Hash


def test_put_get_open_stat(place: Place, tmp_path: Path, source: Path, data: bytes) -> None:
    with place.open() as store:
        assert store.location == str(place.where)
        info = store.put(source)
        assert info.hash == xetstore.hash_file(source).hash
        report = store.get(info.hash, tmp_path / "copy")
        assert (report.hash, report.size, report.verified) == (info.hash, len(data), True)
        assert len(data) <= report.fetched_bytes < 1.01 * len(data)
        assert report.reused_bytes == 0
        assert (tmp_path / "copy").read_bytes() == data
        with store.open(info.hash) as opened:
            opened.seek(1_000_000)
            assert opened.read(100) == data[1_000_000:1_000_100]
        record = store.stat(str(info.hash))
        assert (record.hash, record.size) == (info.hash, len(data))
        assert b"".join(store.iter_range(info.hash, 5, 1_000_000)) == data[5:1_000_000]


def test_many_files_come_at_once(place: Place, tmp_path: Path, source: Path, data: bytes) -> None:
    contents = [data, b"", *(splitmix64(number, number * 100) for number in range(1, 200)), b"", data[:100_000]]
    paths = [tmp_path / f"in{number}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    failed: list[Path] = []
    with place.open() as store:
        files = [report.info.hash for report in store.put_many(paths)]
        (tmp_path / "out").mkdir()
        targets = [tmp_path / "out" / str(number) for number in range(len(files))]
        named: list[tuple[Hash | str, Path]] = [
            *zip(files, targets, strict=True),
            ("ab" * 32, tmp_path / "out" / "missing"),
        ]
        reports = store.get_many(named, on_error=lambda path, _: failed.append(path))
        assert [(report.hash, report.size, report.verified) for report in reports] == [
            (file, len(content), True) for file, content in zip(files, contents, strict=True)
        ]
        assert [target.read_bytes() for target in targets] == contents
        assert failed == [tmp_path / "out" / "missing"]
        assert len(list((tmp_path / "out").iterdir())) == len(files)
        with pytest.raises(NotFoundError):
            store.get_many(named[-1:])


def test_verbs_for_many_files_act_when_they_are_called(place: Place, tmp_path: Path, source: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    stored: list[xetstore.PutReport] = []
    written: list[xetstore.GetReport] = []
    with place.open() as store:
        store.put_many([source, tmp_path / "other"], on_report=stored.append)
        assert [report.path for report in stored] == [source, tmp_path / "other"]
        named = [(report.info.hash, tmp_path / f"copy of {report.path.name}") for report in stored]
        store.get_many(named, on_report=written.append)
        assert [report.hash for report in written] == [file for file, _ in named]
        assert [path.read_bytes() for _, path in named] == [source.read_bytes(), b"other"]


def test_reports_can_be_taken_one_by_one(place: Place, tmp_path: Path, source: Path) -> None:
    with place.open() as store:
        reports = store.iter_put([source, source])
        first = next(reports)
        assert store.stat(first.info.hash).size == first.info.size
        assert [report.info for report in reports] == [first.info]
        named = [(first.info.hash, tmp_path / "a"), (first.info.hash, tmp_path / "b")]
        assert [report.hash for report in store.iter_get(named)] == [first.info.hash] * 2


def test_a_watcher_that_fails_ends_the_call_and_leaves_nothing_under_way(
    place: Place, tmp_path: Path, source: Path
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("enough")

    with place.open() as store:
        file = store.put(source).hash
        threads = set(threading.enumerate())
        with pytest.raises(RuntimeError, match="enough") as caught:
            store.get_many([(file, tmp_path / "a"), (file, tmp_path / "b")], on_report=fail)
        assert not [thread for thread in set(threading.enumerate()) - threads if thread.name.startswith("fetch")]
        with pytest.raises(RuntimeError, match="enough"):
            store.put_many([source], on_report=fail)
    assert caught.traceback


def test_a_call_for_many_files_is_given_up_with_its_store(place: Place, tmp_path: Path, source: Path) -> None:
    with place.open() as store:
        file = store.put(source).hash
        for_one_call = store.for_one_call()
        found = for_one_call.iter_get([(file, tmp_path / "a"), (file, tmp_path / "b")])
        for_one_call.interrupt()
        with pytest.raises(InterruptedCallError):
            next(found)
        assert len(store.get_many([(file, tmp_path / "a"), (str(file), tmp_path / "b")])) == 2


def test_the_same_again_is_not_stored_again(place: Place, source: Path, data: bytes) -> None:
    with place.open() as store:
        [first] = store.put_many([source])
    seen: list[Event] = []
    with place.open(on_event=seen.append) as store:
        [second] = store.put_many([source])
    assert (first.new_bytes, second.new_bytes, second.deduped_bytes) == (len(data), 0, len(data))
    assert not any(isinstance(event, XorbStored) for event in seen)
    assert len(place.xorbs()) == 1


def test_a_dry_run_tells_and_stores_nothing(place: Place, tmp_path: Path, source: Path, data: bytes) -> None:
    with place.open() as store:
        [report] = store.put_many([source], dry_run=True)
        assert (report.info.size, report.new_bytes) == (len(data), len(data))
        assert report.stored_bytes == 0
        assert place.xorbs() == []
        with pytest.raises(NotFoundError):
            store.stat(report.info.hash)
        assert store.put(source) == report.info
        [again] = store.put_many([source], dry_run=True)
        assert again.new_bytes == 0
        told = store.forecast(report.info.hash)
        assert (told.size, told.xorbs) == (len(data), 1)
        assert store.get(report.info.hash, tmp_path / "copy").fetched_bytes == told.fetched_bytes


def test_an_estimate_knows_what_is_stored(place: Place, source: Path, data: bytes) -> None:
    with place.open() as store:
        assert store.estimate([source]).new_bytes == len(data)
        store.put(source)
        assert store.estimate([source]).stored_bytes > 0.9 * len(data)


def test_a_range_is_written_and_verified(place: Place, tmp_path: Path, source: Path, data: bytes) -> None:
    with place.open() as store:
        info = store.put(source)
        report = store.get(info.hash, tmp_path / "part", start=100, end=2_000_000)
        assert (report.size, report.verified) == (1_999_900, True)
        assert (tmp_path / "part").read_bytes() == data[100:2_000_000]
        assert store.get(info.hash, tmp_path / "part", start=2_999_999, end=9_999_999).size == 1
        assert store.get(info.hash, tmp_path / "part", start=7, end=7).size == 0
        with pytest.raises(RangeError):
            store.get(info.hash, tmp_path / "part", start=3_000_000)
        assert store.forecast(info.hash, 100, 200).fetched_bytes < 200_000


def test_what_an_older_version_holds_is_not_fetched(place: Place, tmp_path: Path, source: Path, data: bytes) -> None:
    newer = data[:1_500_000] + b"changed" + data[1_500_000:]
    (tmp_path / "newer").write_bytes(newer)
    with place.open() as store:
        info = store.put(tmp_path / "newer")
        report = store.get(info.hash, tmp_path / "copy", base=source)
        assert (tmp_path / "copy").read_bytes() == newer
        assert report.reused_bytes > 2_500_000
        assert report.fetched_bytes < 500_000
        onto_itself = store.get(info.hash, source, base=source, fsync=True)
        assert source.read_bytes() == newer
        assert onto_itself.verified


def test_the_empty_file_is_one_too(place: Place, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with place.open() as store:
        info = store.put(tmp_path / "empty")
        assert store.get(info.hash, tmp_path / "copy").size == 0
        assert (tmp_path / "copy").read_bytes() == b""
        assert store.stat(info.hash).size == 0
        assert store.open(info.hash).read() == b""


def test_what_is_not_there_is_not_found(place: Place, tmp_path: Path) -> None:
    with place.open() as store:
        with pytest.raises(NotFoundError):
            store.get("a" * 64, tmp_path / "copy")
        with pytest.raises(NotFoundError):
            store.open("a" * 64)
        with pytest.raises(UsageError, match="not a hash"):
            store.get("nonsense", tmp_path / "copy")
    assert list(tmp_path.glob("*copy*")) == []


def test_damage_is_named_and_never_delivered(place: Place, tmp_path: Path, source: Path) -> None:
    with place.open() as store:
        info = store.put(source)
        [xorb] = place.xorbs()
        body = bytearray(xorb.read_bytes())
        body[1_500_000] ^= 1
        xorb.chmod(0o600)
        xorb.write_bytes(body)
        (tmp_path / "copy").write_bytes(b"precious")
        with pytest.raises(IntegrityError, match=f"xorb {xorb.name[:64]}") as caught:
            store.get(info.hash, tmp_path / "copy")
        assert caught.value.hint
        assert (tmp_path / "copy").read_bytes() == b"precious"
        with store.open(info.hash) as opened, pytest.raises(IntegrityError):
            opened.seek(1_499_000)
            opened.read(2000)
    assert not list(tmp_path.glob(".copy*")), "what is damaged is not continued"


def test_a_call_that_is_given_up_ends_alone(place: Place, tmp_path: Path, source: Path) -> None:
    seen: list[Event] = []
    with place.open(on_event=seen.append) as store:
        info = store.put(source)
        one, other = store.for_one_call(), store.for_one_call()
        one.interrupt()
        for failing in (
            lambda: one.get(info.hash, tmp_path / "copy"),
            lambda: one.put(source),
            lambda: one.stat("0" * 64),
        ):
            with pytest.raises(InterruptedCallError):
                failing()
        assert other.get(info.hash, tmp_path / "copy").verified
        assert store.stat(info.hash).size == other.stat(info.hash).size
        other.close()
        assert store.get(info.hash, tmp_path / "copy").verified, "the view of a call closes nothing"
    assert any(isinstance(event, RangeFetched) for event in seen)


def test_a_call_that_fails_disturbs_no_other(place: Place, tmp_path: Path, source: Path, data: bytes) -> None:
    (tmp_path / "other").write_bytes(splitmix64(10, 500_000))
    with place.open() as store:
        info, before = store.put(source), place.xorbs()
        other = store.put(tmp_path / "other")
        [xorb] = set(place.xorbs()) - set(before)
        xorb.chmod(0o600)
        xorb.write_bytes(xorb.read_bytes()[::-1])
        with store.open(info.hash) as reading:
            blocks = [reading.read(1_000_000)]
            running = store.iter_range(info.hash)
            rest = [bytes(next(running))]
            with pytest.raises(IntegrityError):
                store.get(other.hash, tmp_path / "copy")
            rest += map(bytes, running)
            blocks.append(reading.read())
    assert b"".join(rest) == b"".join(blocks) == data


def test_what_is_under_way_ends_with_the_store(place: Place, source: Path) -> None:
    with place.open() as store:
        view = store.for_one_call()
        info = store.put(source)
    with pytest.raises(InterruptedCallError):
        view.stat(info.hash)
    with pytest.raises(InterruptedCallError):
        store.get(info.hash, source)
    store.interrupt()  # as from another thread, which does not know


def test_an_interruption_is_over_when_the_next_call_begins(place: Place, tmp_path: Path, source: Path) -> None:
    with place.open() as store:
        store.interrupt()
        assert store.get(store.put(source).hash, tmp_path / "copy").verified


def test_a_directory_lists_adds_up_and_checks(tmp_path: Path, source: Path, data: bytes) -> None:
    with pytest.raises(NotFoundError):
        xetstore.open(tmp_path / "store", create=False)
    with xetstore.open(tmp_path / "store") as store:
        info = store.put(source)
        assert [record.hash for record in store.files()] == [info.hash]
        assert [record.hash for record in store.for_one_call().files()] == [info.hash]
        assert store.totals().logical_bytes == len(data)
        assert store.check(read_data=True).problems == ()


def test_a_server_does_not_and_says_so(tmp_path: Path) -> None:
    with xetstore.open("http://127.0.0.1:9", cache=False) as store:
        for verb in (store.totals, store.usage, store.check):
            with pytest.raises(UsageError, match="is on a server") as caught:
                verb()
            assert caught.value.hint
    assert list(tmp_path.iterdir()) == []
