"""The journal: what was deleted, or given back, since the last snapshot is told by objects of its own."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from xetstore.cas import EmbeddedCas
from xetstore.cas.snapshots.journal import (
    FILES_AT_A_TIME,
    JOURNAL,
    JournalEntry,
    forget_before,
    journal_keys,
    note_deleted,
    note_restored,
    read_entry,
)
from xetstore.errors import DamagedError
from xetstore.protocol.hashes import Hash, chunk_hash
from xetstore.testing import FakeClock

FILES = tuple(chunk_hash(bytes([i])) for i in range(3))


def entries(cas: EmbeddedCas) -> list[JournalEntry]:
    with cas.index.snapshot() as reader:
        store_id = reader.store_id()
    return [read_entry(cas.blobs, blob, store_id) for _, blob in journal_keys(cas.blobs)]


def test_what_was_deleted_and_given_back_is_told_in_order(cas: EmbeddedCas, clock: FakeClock) -> None:
    start = clock()
    note_deleted(cas, "default", FILES)
    clock.advance(1)
    note_restored(cas, "default", FILES[:1])
    clock.advance(1)
    note_deleted(cas, "repos.7", None)
    note_deleted(cas, "early", FILES[:1], at=start - 5)
    assert entries(cas) == [
        JournalEntry(start - 5, True, "early", FILES[:1]),
        JournalEntry(start, True, "default", FILES),
        JournalEntry(start + 1, False, "default", FILES[:1]),
        JournalEntry(start + 2, True, "repos.7", None),
    ]
    assert forget_before(cas.blobs, start + 1) == 2
    assert [entry.at for entry in entries(cas)] == [start + 1, start + 2]


def test_many_files_are_several_objects_of_bounded_size(cas: EmbeddedCas) -> None:
    files = [Hash(i.to_bytes(32, "little")) for i in range(1, FILES_AT_A_TIME + 2)]
    note_deleted(cas, "default", files)
    assert sorted(len(entry.files or ()) for entry in entries(cas)) == [1, FILES_AT_A_TIME]
    note_deleted(cas, "default", ())
    assert len(entries(cas)) == 2


def test_an_entry_that_is_not_whole_or_of_another_store_is_refused(cas: EmbeddedCas, root: Path) -> None:
    note_deleted(cas, "default", FILES)
    [(_, blob)] = journal_keys(cas.blobs)
    with cas.index.snapshot() as reader:
        store_id = reader.store_id()
    with pytest.raises(DamagedError, match="of another store"):
        read_entry(cas.blobs, blob, "another")
    path = root / blob.key
    data = path.read_bytes()
    for place in (0, len(data) // 2, len(data) - 2):
        path.chmod(0o644)
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DamagedError):
            read_entry(cas.blobs, blob, store_id)
    path.write_bytes(data)
    assert read_entry(cas.blobs, blob, store_id).files == FILES


def test_a_deletion_that_cannot_be_noted_stands(cas: EmbeddedCas, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / JOURNAL).parent.write_text("in the way")
    with caplog.at_level(logging.WARNING, "xetstore.store"):
        note_deleted(cas, "default", FILES)
    assert "could not be noted" in caplog.text
