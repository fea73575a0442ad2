"""Small files of an upload: read one by one, looked for together, placed and reported in their order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.around import AroundCas
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import verify_invariants
from xetstore.errors import NotFoundError, SourceChangedError, XetError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import Shard
from xetstore.transfer.byte_source import ByteSource
from xetstore.transfer.scan import FileScan
from xetstore.transfer.upload.pending import PutReport
from xetstore.transfer.upload.session import GATHERED_FILE_BYTES, GATHERED_FILES, put_files


class Asked(AroundCas):
    """A store in this process that counts the questions for chunks."""

    def __init__(self, cas: EmbeddedCas) -> None:
        super().__init__(cas)
        self.questions = 0

    def find_chunks(self, *chunks: Hash) -> Shard | None:
        self.questions += 1
        return super().find_chunks(*chunks)


def files_in(folder: Path, count: int, first: int = 0) -> list[Path]:
    paths = [folder / f"{number:04}" for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        path.write_bytes(splitmix64(number + 1, 100 + number))
    return paths


def put(cas: AroundCas | EmbeddedCas, paths: Iterable[Path | ByteSource]) -> list[PutReport]:
    return [*put_files(cas, paths)]


def test_new_files_are_asked_for_many_at_once(tmp_path: Path) -> None:
    with EmbeddedCas.in_memory() as cas:
        asked = Asked(cas)
        reports = put(asked, files_in(tmp_path, 2 * GATHERED_FILES))
        assert asked.questions == 2
        assert all(report.new_bytes == report.info.size for report in reports)


def test_files_in_more_xorbs_than_an_answer_tells_of_are_found_all_the_same(tmp_path: Path) -> None:
    paths = files_in(tmp_path, 150)
    with EmbeddedCas.in_memory() as cas:
        for path in paths:  # each is alone in a xorb
            put(cas, [path])
        asked = Asked(cas)
        reports = put(asked, paths)
        assert [report.new_bytes for report in reports] == [0] * len(paths)
        assert asked.questions < 10


def test_known_and_new_ones_among_each_other(tmp_path: Path) -> None:
    old, new = files_in(tmp_path, 100), files_in(tmp_path, 100, first=100)
    with EmbeddedCas.in_memory() as cas:
        put(cas, old)
        mixed = [path for pair in zip(old, new, strict=True) for path in pair]
        reports = put(cas, [*mixed, *new])
        assert [report.path for report in reports] == [*mixed, *new]
        assert [report.new_bytes > 0 for report in reports] == [False, True] * 100 + [False] * 100
        verify_invariants(cas)


def test_reports_are_in_order_whatever_the_sizes(tmp_path: Path) -> None:
    paths = files_in(tmp_path, 9)
    for number in (2, 6):
        paths[number].write_bytes(splitmix64(500 + number, GATHERED_FILE_BYTES + 1))
    paths[4].write_bytes(b"")
    sources: list[Path | ByteSource] = [*paths[:3], ByteSource(b"from memory", name="bytes"), *paths[3:]]
    with EmbeddedCas.in_memory() as cas:
        reports = put(cas, sources)
        assert [report.path.name for report in reports] == [
            source.name if isinstance(source, Path) else "bytes" for source in sources
        ]
        for report in reports:
            size = len(b"from memory") if report.path.name == "bytes" else report.path.stat().st_size
            assert cas.stat(report.info.hash).size == size


def test_one_that_cannot_be_read_leaves_the_others(tmp_path: Path) -> None:
    paths = files_in(tmp_path, 5)
    paths[2].unlink()
    errors: list[tuple[Path, XetError]] = []
    with EmbeddedCas.in_memory() as cas:
        reports = [*put_files(cas, paths, on_error=lambda path, error: errors.append((path, error)))]
        assert [report.path for report in reports] == paths[:2] + paths[3:]
        assert [(path, type(error)) for path, error in errors] == [(paths[2], NotFoundError)]


def test_the_files_before_an_error_are_stored(tmp_path: Path) -> None:
    paths = files_in(tmp_path, 5)
    paths[3].unlink()
    reports: list[PutReport] = []
    with EmbeddedCas.in_memory() as cas:
        with pytest.raises(NotFoundError):
            reports.extend(put_files(cas, paths))
        assert [report.path for report in reports] == paths[:3]


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_a_file_that_grows_between_the_look_and_the_read_is_noticed(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    with FileScan(path) as scan, path.open("ab") as file:
        file.write(b"more")
        file.flush()
        with pytest.raises(SourceChangedError):
            list(scan)


def test_a_file_whose_size_the_system_does_not_tell_is_not_taken_for_empty() -> None:
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("there is no /proc")
    with FileScan(path) as scan, pytest.raises(SourceChangedError):
        list(scan)
