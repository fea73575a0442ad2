"""The index: transactions, migrations, and what its errors mean."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import engines
from tests.support.postgres import PostgresServer
from xetstore.access.tenant import Tenant
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.cas import EmbeddedCas, verify_invariants
from xetstore.cas.index import MIGRATIONS, Index, Writer, XorbRow
from xetstore.cas.index.queries.rows import SEGMENT_TERMS
from xetstore.database.connection import Row
from xetstore.database.sqlite import SqliteDatabase
from xetstore.errors import IntegrityError, UsageError
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry
from xetstore.testing import Sample, read_back, upload

ENGINES = engines.BOTH


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite3"


def test_what_a_transaction_did_before_an_error_is_undone(opening: engines.Opening, sample: Sample) -> None:
    index = Index(opening())
    with pytest.raises(ZeroDivisionError), index.transaction() as writer:
        assert writer.add_xorb(sample.xorb, namespace="default", now=1.0)
        raise ZeroDivisionError
    with index.snapshot() as reader:
        assert reader.xorb(sample.xorb.hash) is None
    index.close()


def test_what_a_transaction_did_is_there_after_reopening(opening: engines.Opening, sample: Sample) -> None:
    with closing(Index(opening())) as index, index.transaction() as writer:
        assert writer.add_xorb(sample.xorb, namespace="default", now=1.0)
        assert not writer.add_xorb(sample.xorb, namespace="default", now=2.0)
    with closing(Index(opening())) as index, index.snapshot() as reader:
        row = reader.xorb(sample.xorb.hash)
    assert row == XorbRow(1, sample.xorb.hash, len(sample.body), sample.xorb.raw_bytes, sample.xorb.chunk_count)


def test_a_snapshot_sees_one_state_while_others_write(opening: engines.Opening, sample: Sample) -> None:
    with closing(Index(opening())) as index:
        with index.snapshot() as reader:
            assert reader.xorb(sample.xorb.hash) is None
            with index.transaction() as writer:
                writer.add_xorb(sample.xorb, namespace="default", now=1.0)
            assert reader.xorb(sample.xorb.hash) is None
        with index.snapshot() as reader:
            assert reader.xorb(sample.xorb.hash) is not None


def test_many_processes_may_create_the_index_at_once(opening: engines.Opening) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def open_it() -> None:
        start.wait()
        try:
            Index(opening()).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with closing(Index(opening())) as index, index.snapshot() as reader:
        assert MIGRATIONS.version(reader.connection) == MIGRATIONS.newest


@pytest.mark.parametrize("damage", ["no database at all", "a page of noise"])
def test_a_damaged_index_says_what_to_do(path: Path, sample: Sample, damage: str) -> None:
    with closing(Index(SqliteDatabase(path))) as index, index.transaction() as writer:
        writer.add_xorb(sample.xorb, namespace="default", now=1.0)
    content = bytearray(path.read_bytes())
    start = 0 if damage == "no database at all" else 100
    content[start : start + 3000] = b"\xa5" * 3000
    path.write_bytes(content)
    with (
        pytest.raises(IntegrityError) as caught,
        closing(Index(SqliteDatabase(path))) as index,
        index.snapshot() as reader,
    ):
        reader.xorb(sample.xorb.hash)
    assert "backup" in str(caught.value.hint)


def test_a_closed_index_says_so(opening: engines.Opening) -> None:
    index = Index(opening())
    index.close()
    index.close()
    with pytest.raises(UsageError, match="closed"), index.snapshot():
        pass


def test_terms_of_a_range_are_found_in_any_segment(opening: engines.Opening, sample: Sample) -> None:
    """Terms of 1, 2, 3, ... bytes: what is found for a range is what overlaps it, with its place in the file."""
    count = 3 * SEGMENT_TERMS + 7
    terms = tuple(Term(sample.xorb.hash, 0, 1, 1 + i % 5) for i in range(count))
    starts = [0]
    for term in terms:
        starts.append(starts[-1] + term.unpacked_bytes)
    name = chunk_hash(b"some file")
    with closing(Index(opening())) as index:
        with index.transaction() as writer:
            writer.add_xorb(sample.xorb, namespace="default", now=1.0)
            rows = writer.require_xorbs([sample.xorb.hash], Tenant())
            writer.add_files([FileEntry(name, terms)], rows, namespace="default", now=1.0)
        edge = starts[SEGMENT_TERMS]
        size = starts[-1]
        around = [(edge - 1, edge), (edge, edge + 1), (edge - 1, edge + 1)]
        for start, end in [(0, size), (0, 1), *around, (size - 1, size), (7, 3 * edge)]:
            with index.snapshot() as reader:
                first_byte, found, _ = reader.terms(name, start, end)
            expected = [i for i in range(count) if starts[i] < end and start < starts[i + 1]]
            assert first_byte == starts[expected[0]]
            assert found == [terms[i] for i in expected]


def test_a_range_query_reads_no_more_than_the_segments_of_the_range(opening: engines.Opening, sample: Sample) -> None:
    terms = tuple(Term(sample.xorb.hash, 0, 1, 1) for _ in range(20 * SEGMENT_TERMS))
    name = chunk_hash(b"some file")
    with closing(Index(opening())) as index:
        with index.transaction() as writer:
            writer.add_xorb(sample.xorb, namespace="default", now=1.0)
            rows = writer.require_xorbs([sample.xorb.hash], Tenant())
            writer.add_files([FileEntry(name, terms)], rows, namespace="default", now=1.0)
        # A segment that cannot be read, before and behind: the range does not need it.
        with index.transaction() as writer:
            broken = "UPDATE file_segment SET terms = :terms WHERE first_byte IN (:places)"
            writer.connection.change(broken, {"terms": b"\0", "places": [4 * SEGMENT_TERMS, 6 * SEGMENT_TERMS]})
        with index.snapshot() as reader:
            _, found, _ = reader.terms(name, 5 * SEGMENT_TERMS, 6 * SEGMENT_TERMS)
            assert len(found) == SEGMENT_TERMS
            with pytest.raises(IntegrityError):
                reader.terms(name, 5 * SEGMENT_TERMS, 6 * SEGMENT_TERMS + 1)


def test_a_lookup_of_many_names_is_split_into_statements(opening: engines.Opening, sample: Sample) -> None:
    names = [chunk_hash(str(i).encode()) for i in range(2500)]
    with closing(Index(opening())) as index:
        with index.transaction() as writer:
            writer.add_xorb(sample.xorb, namespace="default", now=1.0)
        with index.snapshot() as reader:
            assert set(reader.xorbs([*names, sample.xorb.hash])) == {sample.xorb.hash}


def test_a_file_is_seen_only_where_it_is_granted(opening: engines.Opening) -> None:
    with closing(Index(opening())) as index:
        with index.transaction() as writer:
            assert writer.add_files([FileEntry(Hash.ZERO, (), ())], {}, namespace="one", now=1.0)
        with index.snapshot() as reader:
            assert reader.file(Hash.ZERO, "one") is not None
            assert reader.file(Hash.ZERO, "two") is None
            assert reader.files_after(0, "two") == []
        with index.transaction() as writer:
            assert writer.add_files([FileEntry(Hash.ZERO, (), ())], {}, namespace="two", now=1.0)
            assert not writer.add_files([FileEntry(Hash.ZERO, (), ())], {}, namespace="two", now=1.0)
        with index.snapshot() as reader:
            assert reader.file(Hash.ZERO, "two") is not None


def test_of_two_writers_that_renew_the_dedup_key_the_first_decides(opening: engines.Opening) -> None:
    """Both saw that there is none, or an old one: what each then uses is the same."""
    with closing(Index(opening())) as index:
        keys = []
        for now, key in ((1.0, b"1"), (1.0, b"2"), (9.0, b"3"), (9.0, b"4")):
            with index.transaction() as writer:
                keys.append(writer.renew_dedup_key(key * 32, now=now, old=now - 5))
        with index.snapshot() as reader:
            assert reader.dedup_key() == (b"3" * 32, 9.0)
    assert keys == [b"1" * 32, b"1" * 32, b"3" * 32, b"3" * 32]


def test_a_file_that_another_writer_registers_first_keeps_its_terms(opening: engines.Opening, sample: Sample) -> None:
    """Where writers do not take turns: the file appears after it was looked for, before it is inserted."""
    name = chunk_hash(b"some file")
    theirs, ours = (FileEntry(name, (Term(sample.xorb.hash, 0, 1, size),)) for size in (5, 7))
    with closing(Index(opening())) as index:
        with index.transaction() as writer:
            writer.add_xorb(sample.xorb, namespace="default", now=1.0)
            rows = writer.require_xorbs([sample.xorb.hash], Tenant())
            writer.add_files([theirs], rows, namespace="theirs", now=1.0)
        with index.transaction() as writer:
            looks = []
            rows_in = writer.connection.rows_in

            def late(statement: str, *values: Any) -> Iterator[Row]:
                """As if the first look at files were from before the other writer's commit."""
                looks.append(statement)
                return iter(()) if len(looks) == 1 else rows_in(statement, *values)

            writer.connection.rows_in = late  # type: ignore[method-assign, assignment]
            # A grant is new, its terms are not.
            assert writer.add_files([ours], rows, namespace="ours", now=2.0)
        with index.snapshot() as reader:
            assert reader.terms(name, 0, 5)[1] == list(theirs.terms)
            assert reader.edges_of([1]) == {1: {rows[sample.xorb.hash].id: 0}}


def test_a_store_has_one_id_and_the_first_one_stays() -> None:
    with closing(Index.in_memory()) as index:
        with index.snapshot() as reader:
            assert reader.store_id() is None
        for store_id in ("first", "second"):
            index.change(partial(Writer.set_store_id, store_id=store_id))
        with index.snapshot() as reader:
            assert reader.store_id() == "first"


def test_a_change_gives_what_it_returns_and_after_an_error_there_is_nothing_of_it() -> None:
    def fail(writer: Writer) -> None:
        writer.set_store_id("lost")
        raise ZeroDivisionError

    def work(writer: Writer) -> str | None:
        writer.set_store_id("kept")
        return writer.store_id()

    with closing(Index.in_memory()) as index:
        with pytest.raises(ZeroDivisionError):
            index.change(fail)
        assert index.change(work) == "kept"


def test_without_a_clock_of_its_own_a_store_has_the_time_of_its_index(sample: Sample) -> None:
    class Ahead(SqliteDatabase):
        def clock(self) -> float:
            return 5.0

    with EmbeddedCas(MemoryBlobStore(), Index(Ahead(None))) as cas:
        assert cas.stat(upload(cas, sample)).created_at == 5.0


def test_the_rights_to_rows_are_enough_for_a_role_that_owns_no_table(
    postgres: PostgresServer, postgres_url: str, sample: Sample, root: Path
) -> None:
    engines.open_on_postgres(root, postgres_url).close()
    for statement in (
        "CREATE ROLE clerk LOGIN PASSWORD 'clerk'",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk",
    ):
        postgres.query(statement, url=postgres_url)
    try:
        url = postgres.url(postgres_url.rpartition("/")[2], role="clerk", password="clerk")
        with engines.open_on_postgres(root, url) as cas:
            assert read_back(cas, upload(cas, sample)) == sample.data
            first = sample.xorb.chunks.digest(sample.file.terms[0].chunk_start)
            assert cas.find_chunks(Hash(first)) is not None
            verify_invariants(cas)
    finally:
        postgres.query("DROP OWNED BY clerk", url=postgres_url)
        postgres.query("DROP ROLE clerk", url=postgres_url)
