"""check() finds every kind of damage, names what it affects, and reports nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import rot
from tests.support.objects import xorb_path
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import CheckReport, check, verify_invariants
from xetstore.cas.checking.selection import Selection
from xetstore.cas.layout import shard_key, xorb_key
from xetstore.errors import IntegrityError
from xetstore.protocol.hashes import chunk_hash
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.testing import Sample, make_sample, random_bytes, read_back, upload
from xetstore.testing.embedded import data_in


@pytest.fixture
def samples(cas: EmbeddedCas) -> list[Sample]:
    """Three files in three xorbs, stored; the first xorb holds more than one chunk, uncompressed."""
    samples = [make_sample(random_bytes(size, size), policy=CompressionPolicy.NONE) for size in (400_000, 5000, 6000)]
    for sample in samples:
        upload(cas, sample)
    return samples


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def problems_of(report: CheckReport) -> list[tuple[str, tuple[str, ...]]]:
    return [(problem.name, tuple(map(str, problem.files))) for problem in report.problems]


def test_a_store_in_order_has_no_problem(cas: EmbeddedCas, samples: list[Sample]) -> None:
    stored = sum(blob.size for blob in data_in(cas.blobs))
    assert check(cas) == CheckReport((), (), xorbs=3, files=3, bytes_read=0)
    assert check(cas, read_data=True) == CheckReport((), (), xorbs=3, files=3, bytes_read=stored)
    verify_invariants(cas)


def test_a_flipped_bit_in_the_data_is_found_by_reading_it(cas: EmbeddedCas, root: Path, samples: list[Sample]) -> None:
    hurt = samples[0]
    flip(xorb_path(root, hurt.xorb.hash), 250_000)
    assert check(cas).problems == ()
    report = check(cas, read_data=True)
    assert problems_of(report) == [(f"xorb {hurt.xorb.hash}", (str(hurt.file.hash),))]
    assert str(hurt.file.hash) in str(report.problems[0])
    with pytest.raises(IntegrityError, match=str(hurt.xorb.hash)):
        verify_invariants(cas)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip_in_footer(path: Path) -> None:
    flip(path, path.stat().st_size - 100)


@pytest.mark.parametrize("read_data", [False, True])
@pytest.mark.parametrize(
    ("damage", "finding"),
    [(Path.unlink, "missing"), (_truncate, "bytes instead of"), (_flip_in_footer, "footer")],
)
def test_a_damaged_object_is_found_without_reading_it(
    cas: EmbeddedCas,
    root: Path,
    samples: list[Sample],
    damage: Callable[[Path], None],
    finding: str,
    read_data: bool,
) -> None:
    hurt = samples[1]
    damage(xorb_path(root, hurt.xorb.hash))
    [problem] = check(cas, read_data=read_data).problems
    assert problem.name == f"xorb {hurt.xorb.hash}"
    assert finding in problem.what
    assert problem.files == (hurt.file.hash,)


def test_an_object_that_holds_another_xorb_is_found(cas: EmbeddedCas, root: Path, samples: list[Sample]) -> None:
    other = make_sample(random_bytes(5000, 77), policy=CompressionPolicy.NONE)
    path = xorb_path(root, samples[1].xorb.hash)
    path.write_bytes(other.body + other.xorb.serialize_footer())
    for read_data in (False, True):
        [problem] = check(cas, read_data=read_data).problems
        assert str(other.xorb.hash) in problem.what


def test_every_file_of_a_damaged_xorb_is_named(cas: EmbeddedCas, root: Path) -> None:
    one, two = random_bytes(200_000, 1), random_bytes(200_000, 2)
    second = make_sample(two, before=one)
    upload(cas, second)
    first_alone = make_sample(one + two)
    upload(cas, first_alone)
    with cas.index.snapshot() as reader:
        row = reader.xorb(second.xorb.hash)
        assert row is not None
        users = reader.users_of(row.id)
    xorb_path(root, second.xorb.hash).unlink()
    [problem] = check(cas).problems
    assert list(problem.files) == users
    assert second.file.hash in users


# What could only come from a fault of ours, or from a hand in the database.
_TAMPERINGS = {
    "a file of another size": ("UPDATE file SET size = size + 1 WHERE id = 2", "bytes"),
    "a file of another name": ("UPDATE file SET hash = randomblob(32) WHERE id = 2", "make file"),
    "a term past its xorb": (
        "UPDATE file_segment SET terms = CAST(substr(terms, 1, 12) || X'09000000' || substr(terms, 17) AS BLOB)"
        " WHERE file_id = 2",
        "takes chunks",
    ),
    "a term of another length": (
        "UPDATE file_segment SET terms = CAST(substr(terms, 1, 16) || X'09000000' AS BLOB) WHERE file_id = 2",
        "claims 9 bytes",
    ),
    "a term of an unknown xorb": (
        "UPDATE file_segment SET terms = CAST(X'63' || substr(terms, 2) AS BLOB) WHERE file_id = 2",
        "unknown xorb",
    ),
    "terms cut off": ("UPDATE file_segment SET terms = X'00' WHERE file_id = 2", "broken list"),
    "terms of another type": ("UPDATE file_segment SET terms = CAST(X'FF' AS TEXT) WHERE file_id = 2", "UTF-8"),
    "terms from another byte on": (
        "UPDATE file_segment SET first_byte = 1 WHERE file_id = 2",
        "from byte 0 on at byte 1",
    ),
    "no terms": ("DELETE FROM file_segment WHERE file_id = 2", "make file"),
    "an edge missing": ("DELETE FROM edge WHERE file_id = 2", "counts other"),
    "an edge elsewhere": ("UPDATE edge SET first_byte = 1 WHERE file_id = 2", "counts other"),
    "a miscounted file": ("UPDATE file SET term_count = 7 WHERE id = 2", "counts other"),
    "a miscounted xorb": ("UPDATE xorb SET raw_bytes = 7 WHERE id = 2", "another number"),
    "a chunk it does not hold": ("UPDATE dedup SET chunk_key = 7 WHERE xorb_id = 2", "dedup"),
    "a shard of another size": ("UPDATE shard SET size = size + 1 WHERE rowid = 2", "instead of"),
    "a shard that is not stored": ("INSERT INTO shard (hash, size, created_at) VALUES (zeroblob(32), 1, 0)", "missing"),
}


@pytest.mark.parametrize("tampering", _TAMPERINGS)
def test_an_index_that_lies_is_found_out(cas: EmbeddedCas, root: Path, samples: list[Sample], tampering: str) -> None:
    statement, finding = _TAMPERINGS[tampering]
    with closing(sqlite3.connect(root / "index.sqlite3")) as connection, connection:
        assert connection.execute(statement).rowcount == 1
    [problem] = check(cas).problems
    assert finding in problem.what
    with pytest.raises(IntegrityError):
        verify_invariants(cas)


def test_a_damaged_shard_is_found(cas: EmbeddedCas, root: Path, samples: list[Sample]) -> None:
    with cas.index.snapshot() as reader:
        [one, two, _] = reader.shards_after(None)
    flip(root / one.key, 60)
    (root / two.key).unlink()
    assert [problem.what for problem in check(cas).problems] == ["the object is missing"]
    found = check(cas, read_data=True).problems
    assert len(found) == 2
    assert "hashes to" in found[0].what
    assert ["found damaged before" in problem.what for problem in check(cas).problems] == [True, False]


@pytest.mark.parametrize("generation", ["", "0123456789abcdef"])
def test_leftovers_of_an_interrupted_upload_are_notes_and_stand_in_no_way(
    cas: EmbeddedCas, samples: list[Sample], generation: str
) -> None:
    """Also those of an older release, which have no generation; nothing takes them up, so they need not be whole."""
    new = make_sample(random_bytes(10_000, 5))
    left = [xorb_key(new.xorb.hash, generation), shard_key(chunk_hash(b"a shard"), generation)]
    for key in left:
        cas.blobs.put_new(key, [b"half of"])
    cas.blobs.put_new("xorbs/readme.txt", [b"hello"])
    report = check(cas, read_data=True)
    assert report.problems == ()
    assert [note.split(maxsplit=1) for note in report.notes] == [
        [left[0], "is stored but not registered: an upload was interrupted, or is under way"],
        ["xorbs/readme.txt", "is not the name of an object"],
        [left[1], "is stored but not registered: an upload was interrupted, or is under way"],
    ]
    assert read_back(cas, upload(cas, new)) == new.data
    verify_invariants(cas)
    assert check(cas).notes[0] == f"{left[0]} is not used: another object counts in place of it"
    assert cas.blobs.get(left[0]) == b"half of"


def test_a_damaged_database_is_a_problem_of_the_index(root: Path, cas: EmbeddedCas) -> None:
    for seed in range(40):
        upload(cas, make_sample(random_bytes(2000, seed)))
    cas.close()
    path = root / "index.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        [page] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'edge_by_xorb'").fetchone()
        [page_bytes] = connection.execute("PRAGMA page_size").fetchone()
    data = bytearray(path.read_bytes())
    data[page * page_bytes - 200 : page * page_bytes] = bytes(200)
    path.write_bytes(data)
    with EmbeddedCas.open(root) as hurt:
        report = check(hurt)
    assert "index" in {problem.name for problem in report.problems}


def test_progress_ends_at_the_bytes_that_are_stored(cas: EmbeddedCas, samples: list[Sample]) -> None:
    class Recorded:
        expected = 0
        done = 0

        def total(self, nbytes: int) -> None:
            self.expected += nbytes

        def advance(self, *, logical: int = 0) -> None:
            self.done += logical

    for read_data in (False, True):
        progress = Recorded()
        check(cas, read_data=read_data, progress=progress)
        assert progress.done == progress.expected == cas.totals().stored_bytes


def test_a_sha256_that_was_not_computed_from_the_bytes_is_found_out(cas: EmbeddedCas, samples: list[Sample]) -> None:
    """By the invariants, which read every file that has one. A check takes the word of its own store."""
    one, other = samples[:2]
    assert one.file.sha256 is not None
    cas.index.change(lambda writer: writer.note_sha256(one.file.hash, one.file.sha256 or b""))
    verify_invariants(cas)
    cas.index.change(lambda writer: writer.note_sha256(other.file.hash, bytes(32)))
    with pytest.raises(IntegrityError, match=f"file {other.file.hash}: its SHA-256 is"):
        verify_invariants(cas)


@pytest.mark.parametrize("where", [*rot.OF_A_XORB, *(f"shard: {where}" for where in rot.OF_A_SHARD)])
def test_rot_at_every_kind_of_place_is_found_and_named(
    cas: EmbeddedCas, root: Path, samples: list[Sample], where: str
) -> None:
    """By a check that compares checksums: that of the bytes alone, of a part of them, and of a store in use."""
    kind, _, place = where.rpartition(": ")
    hurt = samples[0]
    expected: tuple[str, tuple[str, ...]]
    if kind:
        with cas.index.snapshot() as reader:
            [shard] = reader.shards(reader.shards_of(hurt.file.hash)).values()
        rot.OF_A_SHARD[place](root / shard.key)
        expected = f"shard {shard.hash}", ()
    else:
        rot.OF_A_XORB[place](xorb_path(root, hurt.xorb.hash))
        expected = f"xorb {hurt.xorb.hash}", (str(hurt.file.hash),)
    for report in (
        check(cas, checksums=True, dry_run=True),
        check(cas, checksums=True, selection=Selection(share=1.0)),
        check(cas, read_data=True),
    ):
        assert problems_of(report) == [expected]
