"""Estimates: they say what an upload then does, draw it, and change nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.strategies import splitmix64, text
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import NotFoundError, UnavailableError, XetError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.shard import Shard
from xetstore.transfer.estimate.estimation import Estimate, Kind, estimate
from xetstore.transfer.scan import hash_file
from xetstore.transfer.upload.session import put_files

MIB = 1 << 20


@pytest.fixture
def cas(tmp_path: Path) -> Iterator[EmbeddedCas]:
    opened = EmbeddedCas.open(tmp_path / "store")
    yield opened
    opened.close()


def write(folder: Path, **files: bytes) -> list[Path]:
    """Files in the order in which they are given."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def kinds(found: Estimate, file: int) -> list[Kind]:
    """The runs of a picture."""
    return [kind for kind, _ in groupby(found.files[file].picture)]


def test_bytes_are_known_from_the_file_itself_from_another_or_from_nowhere(tmp_path: Path) -> None:
    a, b = splitmix64(1, 6 * MIB), splitmix64(2, 3 * MIB)
    paths = write(tmp_path, first=a + a, second=a, third=b + a[: 2 * MIB], alone=b"")
    found = estimate(paths)
    first, second, third, alone = found.files
    assert [file.info.size for file in found.files] == [path.stat().st_size for path in paths]
    assert first.info == hash_file(paths[0])
    assert abs(first.repeated_bytes - 6 * MIB) < 300_000
    assert first.new_bytes + first.repeated_bytes == 12 * MIB
    assert first.shared_bytes == second.repeated_bytes == third.repeated_bytes == 0
    assert (second.new_bytes, second.shared_bytes) == (0, 6 * MIB)
    assert 3 * MIB <= third.new_bytes <= 3 * MIB + 300_000
    assert (alone.info.size, alone.new_bytes, alone.picture) == (0, 0, ())
    assert found.size == found.new_bytes + found.repeated_bytes + found.shared_bytes
    assert found.deduped_bytes == found.size - found.new_bytes
    assert found.stored_bytes == found.queries == 0


def test_the_picture_shows_where_in_a_file_the_new_bytes_are(tmp_path: Path) -> None:
    a, b = splitmix64(1, 4 * MIB), splitmix64(2, 4 * MIB)
    paths = write(tmp_path, first=a + a, second=a + b + a, tiny=b"abc")
    found = estimate(paths, cells=48)
    assert kinds(found, 0) == [Kind.NEW, Kind.REPEATED]
    assert kinds(found, 1) == [Kind.SHARED, Kind.NEW, Kind.SHARED]
    assert kinds(found, 2) == [Kind.NEW]
    assert [len(file.picture) for file in found.files] == [48, 48, 48]
    second = found.files[1].picture
    assert [second.index(Kind.NEW), second[::-1].index(Kind.NEW)] == pytest.approx([16, 16], abs=1)


def test_an_estimate_says_what_the_upload_then_does(tmp_path: Path, cas: EmbeddedCas) -> None:
    old = splitmix64(1, 9 * MIB)
    list(put_files(cas, write(tmp_path, old=old)))
    edited = bytearray(old)
    edited[3 * MIB : 3 * MIB + 10] = b"0123456789"
    paths = write(
        tmp_path,
        edited=bytes(edited),
        text=b"".join(b"%d: %s" % (i, text(60)) for i in range(50_000)),
        noise=splitmix64(3, 2 * MIB),
        copy=splitmix64(3, 2 * MIB),
    )
    before = cas.totals()
    found = estimate(paths, cas)
    assert cas.totals() == before
    assert found.queries > 0
    assert kinds(found, 0) == [Kind.STORED, Kind.NEW, Kind.STORED]
    reports = list(put_files(cas, paths))
    assert [(file.info.hash, file.new_bytes) for file in found.files] == [
        (report.info.hash, report.new_bytes) for report in reports
    ]
    for file, report in zip(found.files, reports, strict=True):
        assert file.compressed_bytes == pytest.approx(report.stored_bytes, rel=0.1)
    assert found.files[3].compressed_bytes == 0
    assert found.files[1].compressed_bytes < found.files[1].new_bytes / 2
    again = estimate(paths, cas)
    assert again.new_bytes == again.compressed_bytes == 0
    assert again.stored_bytes == again.size


def test_many_small_files_are_estimated_together(tmp_path: Path) -> None:
    paths = write(tmp_path, **{f"f{i}": splitmix64(i % 100, 3000) for i in range(300)})
    found = estimate(paths)
    assert found.new_bytes == 300_000
    assert found.shared_bytes == 600_000
    assert found.compressed_bytes == pytest.approx(300_000, rel=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_what_an_upload_would_drop_again_is_not_counted_as_new(cas: EmbeddedCas, tmp_path: Path, seed: int) -> None:
    old = splitmix64(seed, 24 * MIB)
    list(put_files(cas, write(tmp_path, old=old)))
    paths = write(tmp_path, other=splitmix64(99, MIB), edited=b"edited" + old[6:], longer=splitmix64(98, 2 * MIB) + old)
    found = estimate(paths, cas)
    reports = list(put_files(cas, paths))
    assert [file.new_bytes for file in found.files] == [report.new_bytes for report in reports]
    assert found.files[1].new_bytes < 300_000
    for file in found.files:
        assert file.new_bytes + file.deduped_bytes == file.info.size
    assert kinds(found, 2) == [Kind.NEW, Kind.STORED]


def test_a_sparse_file_is_one_chunk_over_and_over(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as out:
        out.truncate(40 * MIB)
    found = estimate([tmp_path / "sparse"], cells=10)
    [file] = found.files
    assert file.new_bytes + file.repeated_bytes == 40 * MIB
    assert file.repeated_bytes > 20 * MIB
    assert file.compressed_bytes < 100_000


def test_a_file_that_cannot_be_read_is_left_out_or_ends_it(tmp_path: Path) -> None:
    paths = write(tmp_path, one=b"1" * 100, two=b"2" * 100)
    paths.insert(1, tmp_path / "missing")
    missed: list[tuple[Path, XetError]] = []
    found = estimate(paths, on_error=lambda path, error: missed.append((path, error)))
    assert [file.path.name for file in found.files] == ["one", "two"]
    [(path, error)] = missed
    assert path == paths[1]
    assert isinstance(error, NotFoundError)
    with pytest.raises(NotFoundError):
        estimate(paths)


def test_a_store_that_fails_ends_it_whatever_the_files(tmp_path: Path, cas: EmbeddedCas) -> None:
    class OutOfReach(EmbeddedCas):
        def find_chunks(self, *chunks: Hash) -> Shard | None:
            raise UnavailableError("out of reach")

    broken = OutOfReach(cas.blobs, cas.index)
    with pytest.raises(UnavailableError):
        estimate(write(tmp_path, one=b"1"), broken, on_error=lambda path, error: None)


# --- The drawing ----------------------------------------------------------------------------------------


def drawn(found: Estimate) -> ElementTree.Element:
    document = found.svg()
    assert "href" not in document
    assert "<script" not in document
    return ElementTree.fromstring(document)


def test_the_drawing_is_a_document_of_its_own(tmp_path: Path) -> None:
    a = splitmix64(1, 2 * MIB)
    root = drawn(estimate(write(tmp_path, first=a + a, second=a)))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert str(tmp_path / "first") in texts
    assert "2.0 MiB, 0 B new" in texts
    assert texts[0] is not None
    assert texts[0].startswith("6.0 MiB in all files; about 2.0 MiB to store")
    assert {"2.0 MiB new", "2.0 MiB seen before in this file", "2.0 MiB in another of the files"} < set(texts)
    assert "0 B in the store" in texts
    colours = [element.get("fill") for element in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(colours) == 1 + 4 + 2 + 1


@pytest.mark.parametrize("name", ["<a&b>", "quote\"'", "bell\x07", "�\ufffe", os.fsdecode(b"\xff\xfe"), "n" * 200])
def test_no_file_name_breaks_the_drawing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    root = drawn(estimate([tmp_path / name]))
    assert root.get("height") == "128"
    assert estimate([tmp_path / name]).svg().encode()


def test_the_drawing_of_many_files_counts_the_rest(tmp_path: Path) -> None:
    [path] = write(tmp_path, one=b"x")
    root = drawn(estimate([path] * 510))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[-1] == "and 10 more files"


def test_the_drawing_of_nothing_is_a_drawing() -> None:
    drawn(estimate([]))
