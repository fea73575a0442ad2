"""Files through the upload and the download pipeline over an embedded store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.around import AroundCas
from tests.support.strategies import GENERATORS, splitmix64
from xetstore.cas.check import check
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import NotFoundError, RangeError, SourceChangedError, UsageError, XetError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import Shard
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.transfer.download.context import DownloadOptions
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.scan import hash_file
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.session import put_files
from xetstore.transfer.upload.sizing import XORB_BYTES, UploadSizes

MIB = 1 << 20


@pytest.fixture
def cas(tmp_path: Path) -> Iterator[EmbeddedCas]:
    opened = EmbeddedCas.open(tmp_path / "store")
    yield opened
    assert check(opened, read_data=True).problems == ()
    opened.close()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def read(
    cas: EmbeddedCas,
    file: Hash,
    start: int = 0,
    end: int | None = None,
    *,
    options: DownloadOptions = DownloadOptions(),  # noqa: B008  # it is immutable
) -> bytes:
    parts: dict[int, bytes] = {}
    downloader = Downloader(cas, options)
    done = downloader.download(file, lambda at, data: parts.update({at: bytes(data)}), start, end)
    assert done.verified
    whole = bytearray(done.size)
    for at, data in parts.items():
        whole[at : at + len(data)] = data
    assert sum(map(len, parts.values())) == done.size
    assert b"".join(map(bytes, downloader.stream(file, start, end, 3 * MIB))) == whole
    return bytes(whole)


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("policy", CompressionPolicy)
def test_every_kind_of_file_comes_back_under_every_policy(
    cas: EmbeddedCas, tmp_path: Path, kind: str, policy: CompressionPolicy
) -> None:
    data = GENERATORS[kind](9 * MIB + 5)
    [report] = put_files(cas, [write(tmp_path / "file", data)], UploadOptions(policy))
    assert report.info.hash == hash_file(tmp_path / "file").hash
    assert report.info.sha256 == hashlib.sha256(data).hexdigest()
    assert report.new_bytes + report.deduped_bytes == len(data)
    assert read(cas, report.info.hash) == data


@pytest.mark.slow
def test_a_file_larger_than_a_xorb_spans_several(cas: EmbeddedCas, tmp_path: Path) -> None:
    data = splitmix64(1, 140 * MIB)
    [report] = put_files(cas, [write(tmp_path / "file", data)])
    assert cas.totals().xorbs == -(-140 * MIB // XORB_BYTES)
    assert read(cas, report.info.hash) == data


def test_small_files_share_one_xorb_and_one_shard(cas: EmbeddedCas, tmp_path: Path) -> None:
    files = [write(tmp_path / str(i), splitmix64(i, 2000)) for i in range(300)]
    reports = list(put_files(cas, files))
    assert [r.path for r in reports] == files
    assert cas.totals().xorbs == 1
    assert all(read(cas, r.info.hash) == r.path.read_bytes() for r in reports[::50])


def test_the_empty_file_is_stored_and_comes_back(cas: EmbeddedCas, tmp_path: Path) -> None:
    [report] = put_files(cas, [write(tmp_path / "empty", b"")])
    assert report.info.hash == Hash.ZERO
    assert read(cas, Hash.ZERO) == b""
    assert cas.stat(Hash.ZERO).size == 0


def test_the_same_file_again_stores_nothing_new(cas: EmbeddedCas, tmp_path: Path) -> None:
    data = splitmix64(2, 20 * MIB)
    [first] = put_files(cas, [write(tmp_path / "a", data)])
    [again] = put_files(cas, [write(tmp_path / "b", data)])
    assert (first.new_bytes, again.new_bytes, again.stored_bytes) == (len(data), 0, 0)
    assert first.info == again.info


@pytest.mark.slow
def test_an_edited_version_stores_only_what_changed(cas: EmbeddedCas, tmp_path: Path) -> None:
    old = splitmix64(3, 150 * MIB)
    list(put_files(cas, [write(tmp_path / "old", old)]))
    new = old[: 70 * MIB] + b"inserted" + old[70 * MIB + 1000 :]
    [report] = put_files(cas, [write(tmp_path / "new", new)])
    assert report.new_bytes < MIB
    assert read(cas, report.info.hash) == new
    newer = new[: 10 * MIB] + new[11 * MIB :]
    [report] = put_files(cas, [write(tmp_path / "newer", newer)])
    assert report.new_bytes < MIB, "what only the second version brought is found too"
    assert read(cas, report.info.hash) == newer


def test_two_equal_files_of_one_upload_are_stored_once(cas: EmbeddedCas, tmp_path: Path) -> None:
    data = splitmix64(4, 5 * MIB)
    one, two = put_files(cas, [write(tmp_path / "a", data), write(tmp_path / "b", data)])
    assert (one.new_bytes, two.new_bytes) == (len(data), 0)


def test_shards_are_sent_whenever_enough_has_gathered(cas: EmbeddedCas, tmp_path: Path) -> None:
    seen: list[str] = []

    def files() -> Iterator[Path]:
        for i in range(7):
            seen.append(f"read {i}")
            yield write(tmp_path / str(i), splitmix64(i, 100_000))

    for report in put_files(cas, files(), UploadOptions(sizes=UploadSizes(files=3))):
        seen.append(f"stored {report.path.name}")
    assert seen[:6] == ["read 0", "read 1", "read 2", "stored 0", "stored 1", "stored 2"]
    assert seen[-1] == "stored 6"


@pytest.mark.slow
def test_xorbs_of_a_long_file_are_told_before_its_end(cas: EmbeddedCas, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    class Listening(AroundCas):
        def put_shard(self, shard: Shard) -> bool:
            told.append((len(shard.files), len(shard.xorbs)))
            return super().put_shard(shard)

    data = splitmix64(1, 140 * MIB)
    few = UploadOptions(sizes=UploadSizes(shard_chunks=500))
    [report] = put_files(Listening(cas), [write(tmp_path / "file", data)], few)
    *before, (files, _) = told
    assert before
    assert all(shard_files == 0 for shard_files, _ in before)
    assert files == 1
    assert sum(count for _, count in told) == -(-140 * MIB // XORB_BYTES)
    assert read(cas, report.info.hash) == data


def test_a_bad_file_does_not_stop_the_others(cas: EmbeddedCas, tmp_path: Path) -> None:
    good = [write(tmp_path / name, splitmix64(i, 70_000)) for i, name in enumerate("abc")]
    failed: list[tuple[Path, XetError]] = []
    paths = [good[0], tmp_path / "missing", good[1], tmp_path, good[2]]
    reports = list(put_files(cas, paths, on_error=lambda path, error: failed.append((path, error))))
    assert [r.path for r in reports] == good
    assert [(path, type(error)) for path, error in failed] == [
        (tmp_path / "missing", NotFoundError),
        (tmp_path, UsageError),
    ]


def test_without_a_handler_what_came_before_is_stored_and_the_error_raised(cas: EmbeddedCas, tmp_path: Path) -> None:
    good = write(tmp_path / "good", b"good")
    done = []
    with pytest.raises(NotFoundError):
        for report in put_files(cas, [good, tmp_path / "missing", good]):
            done.append(report)
    assert [read(cas, r.info.hash) for r in done] == [b"good"]


def test_a_file_that_changes_while_it_is_stored_is_not_registered(cas: EmbeddedCas, tmp_path: Path) -> None:
    path = write(tmp_path / "file", splitmix64(6, 9 * MIB))

    class Meddling(AroundCas):
        def find_chunks(self, *chunks: Hash) -> Shard | None:
            os.utime(path, ns=(1, 1))
            return super().find_chunks(*chunks)

    with pytest.raises(SourceChangedError):
        list(put_files(Meddling(cas), [path]))
    assert list(cas.files()) == []


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedCas, Hash, bytes]]:
    """A file whose terms come from several xorbs, some chunks used twice."""
    folder = tmp_path_factory.mktemp("ranges")
    cas = EmbeddedCas.open(folder / "store")
    a, b = splitmix64(7, 2 * MIB), splitmix64(8, 1 * MIB)
    for i, part in enumerate((a, b)):
        list(put_files(cas, [write(folder / f"part{i}", part)]))
    data = a + b + bytes(3 * MIB) + a[: MIB + 7] + b"end"
    [report] = put_files(cas, [write(folder / "file", data)])
    yield cas, report.info.hash, data
    cas.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_any_range_is_the_files(stored: tuple[EmbeddedCas, Hash, bytes], data: st.DataObject) -> None:
    cas, file, content = stored
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start, len(content) + 1000) | st.none())
    assert read(cas, file, start, end) == content[start:end]


@pytest.mark.parametrize("window", [MIB, 2 * MIB + 1])
def test_windows_meet_without_gap_or_overlap(stored: tuple[EmbeddedCas, Hash, bytes], window: int) -> None:
    cas, file, content = stored
    windows = DownloadOptions(window_bytes=window)
    assert read(cas, file, options=windows) == content
    assert read(cas, file, 12_345, options=windows) == content[12_345:]


def test_ranges_outside_the_file_are_refused(stored: tuple[EmbeddedCas, Hash, bytes]) -> None:
    cas, file, content = stored
    with pytest.raises(RangeError):
        read(cas, file, len(content))
    with pytest.raises(UsageError):
        read(cas, file, 5, 4)
    with pytest.raises(UsageError):
        read(cas, file, -1)
    with pytest.raises(NotFoundError):
        read(cas, Hash(b"x" * 32))
    with pytest.raises(NotFoundError):
        read(cas, Hash(b"x" * 32), 3, 3)
