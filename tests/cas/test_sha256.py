"""Claims of SHA-256, one namespace's apart from another's, and what was computed, which no claim changes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from tests.support import engines
from xetstore.cas.index import Index, Reader
from xetstore.cas.index.queries.sha256 import CANDIDATES
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.shard import FileEntry

ENGINES = engines.BOTH
ONE, OTHER, TRUTH = (bytes([number]) * 32 for number in (1, 2, 3))


def register(
    index: Index, file: Hash, sha256: bytes | None, namespace: str = "anna", *, is_checked: bool = False
) -> None:
    """Register a file without terms, as a shard that claims this SHA-256 does."""
    entry = FileEntry(file, (), (), sha256)
    index.change(
        lambda writer: writer.add_files([entry], {}, namespace=namespace, now=1.0, is_checked=is_checked) or None
    )


def found(index: Index, sha256: bytes, namespace: str = "anna") -> tuple[Hash, bool] | None:
    with index.snapshot() as reader:
        answer = reader.file_by_sha256(namespace, sha256)
    return None if answer is None else (answer[0].hash, answer[1])


def claims(index: Index, file: Hash) -> set[tuple[str, bytes]]:
    with index.snapshot() as reader:
        return {(namespace, sha256) for _, namespace, sha256 in reader.claims_of([file])}


@pytest.fixture
def file() -> Hash:
    return chunk_hash(b"some file")


def test_claims_stand_side_by_side_until_one_is_computed(opening: engines.Opening, file: Hash) -> None:
    with closing(Index(opening())) as index:
        register(index, file, None)
        assert claims(index, file) == set()
        for namespace, sha256 in [("anna", ONE), ("anna", OTHER), ("bert", ONE)]:
            register(index, file, sha256, namespace)
        register(index, file, None, "carl")
        assert claims(index, file) == {("anna", ONE), ("anna", OTHER), ("bert", ONE)}
        assert found(index, ONE) == found(index, OTHER) == found(index, ONE, "bert") == (file, False)
        assert found(index, OTHER, "bert") is None
        index.change(lambda writer: writer.note_sha256(file, TRUTH))
        assert claims(index, file) == {(namespace, TRUTH) for namespace in ("anna", "bert", "carl")}
        assert found(index, TRUTH, "carl") == (file, True)
        assert found(index, ONE) is None
        for namespace, claimed in [("anna", ONE), ("dora", OTHER), ("emil", None)]:
            register(index, file, claimed, namespace)
            assert found(index, TRUTH, namespace) == (file, True)
        index.change(lambda writer: writer.note_sha256(file, ONE))
        assert claims(index, file) == {(namespace, TRUTH) for namespace in ("anna", "bert", "carl", "dora", "emil")}


def test_what_a_process_has_hashed_itself_counts_as_computed(opening: engines.Opening, file: Hash) -> None:
    """Of a new file, and of one that others have claimed something of."""
    with closing(Index(opening())) as index:
        register(index, file, TRUTH, is_checked=True)
        assert found(index, TRUTH) == (file, True)
        known = chunk_hash(b"known")
        register(index, known, ONE, "bert")
        register(index, known, TRUTH, is_checked=True)
        assert claims(index, known) == {("anna", TRUTH), ("bert", TRUTH)}
        assert found(index, TRUTH, "bert") == (known, True)
        untold = chunk_hash(b"untold")
        register(index, untold, None, is_checked=True)
        assert claims(index, untold) == set()


def test_of_many_files_with_one_sha256_one_that_was_computed_is_told_else_the_newest(
    opening: engines.Opening,
) -> None:
    files = [chunk_hash(b"%d" % number) for number in range(2 * CANDIDATES)]
    with closing(Index(opening())) as index:
        for file in files:
            register(index, file, ONE)
        with index.snapshot() as reader:
            told = reader.claimed("anna", {ONE: None, OTHER: None})
            assert reader.claimed("anna", {ONE: 1}) == {}
        assert [record.hash for record, _ in told.pop(ONE)] == files[: CANDIDATES - 1 : -1]
        assert told == {}
        index.change(lambda writer: writer.note_sha256(files[0], ONE))
        assert found(index, ONE) == (files[0], True)


def test_many_are_found_at_once(opening: engines.Opening) -> None:
    digests = [bytes([number // 256, number % 256]) * 16 for number in range(5000)]
    files = [chunk_hash(digest) for digest in digests]
    with closing(Index(opening())) as index:
        entries = [FileEntry(file, (), (), sha256) for file, sha256 in zip(files, digests, strict=True)]
        index.change(lambda writer: writer.add_files(entries, {}, namespace="anna", now=1.0))
        some = dict(zip(files[:2000], digests, strict=False))
        index.change(lambda writer: writer.note_many({**some, chunk_hash(b"not there"): ONE}))
        with index.snapshot() as reader:
            told = reader.files_by_sha256("anna", digests)
        assert {sha256: record.hash for sha256, (record, _) in told.items()} == dict(zip(digests, files, strict=True))
        assert sum(is_checked for _, is_checked in told.values()) == 2000


def test_a_grant_that_is_gone_takes_its_claims_along(opening: engines.Opening, file: Hash) -> None:
    with closing(Index(opening())) as index:
        register(index, file, ONE)
        register(index, file, ONE, "bert")
        index.change(lambda writer: writer.connection.change("DELETE FROM file_grant WHERE namespace = 'anna'"))
        assert found(index, ONE) is None
        assert claims(index, file) == {("bert", ONE)}


def test_a_claim_that_comes_beside_the_note_is_not_believed(opening: engines.Opening, file: Hash) -> None:
    """Writers side by side: the one does not see that the other has just noted what was computed."""
    with closing(Index(opening())) as index, index.snapshot() as reader:
        if not reader.connection.dialect.keeps_rows:
            pytest.skip("writers take turns")
    with closing(Index(opening())) as index, closing(Index(opening())) as other:
        register(index, file, None)
        with other.transaction() as writer:
            writer.add_files([FileEntry(file, (), (), ONE)], {}, namespace="bert", now=1.0)
            index.change(lambda beside: beside.note_sha256(file, TRUTH))
        assert ("bert", ONE) in claims(index, file)
        assert found(index, ONE, "bert") is None
        register(index, file, ONE, "bert")
        assert found(index, TRUTH, "bert") == (file, True)


def test_writers_of_the_same_claims_and_notes_all_come_through(opening: engines.Opening) -> None:
    files = [chunk_hash(b"%d" % number) for number in range(60)]
    entries = [FileEntry(file, (), (), file.digest) for file in files]
    with closing(Index(opening())) as index:
        index.change(lambda writer: writer.add_files(entries, {}, namespace="anna", now=1.0))
        writers = 6
        together = threading.Barrier(writers)

        def write(number: int) -> None:
            together.wait(60)
            namespace, some = ["anna", "bert"][number % 2], entries[number:] if number % 3 else entries
            for _ in range(5):
                index.change(
                    lambda writer: writer.add_files(some, {}, namespace=namespace, now=1.0, is_checked=number > 3)
                )
                index.change(lambda writer: writer.note_many({file: file.digest for file in files[number::7]}))

        with ThreadPoolExecutor(writers) as pool:
            for done in [pool.submit(write, number) for number in range(writers)]:
                done.result(120)
        with index.snapshot() as reader:
            told = reader.files_by_sha256("anna", [file.digest for file in files])
        assert len(told) == len(files)
        assert all(is_checked for _, is_checked in told.values())


def test_pages_and_records_tell_what_the_namespace_claims_or_what_was_computed(
    opening: engines.Opening, file: Hash
) -> None:
    with closing(Index(opening())) as index:
        register(index, file, ONE)
        register(index, file, OTHER, "bert")

        def told(reader: Reader, namespace: str | None) -> list[str | None]:
            return [record.sha256 for _, record in reader.files_after(0, namespace)]

        with index.snapshot() as reader:
            assert [told(reader, namespace) for namespace in ("anna", "bert", None)] == [
                [ONE.hex()],
                [OTHER.hex()],
                [None],
            ]
        index.change(lambda writer: writer.note_sha256(file, TRUTH))
        with index.snapshot() as reader:
            assert [told(reader, namespace) for namespace in ("anna", "bert", None)] == [[TRUTH.hex()]] * 3
