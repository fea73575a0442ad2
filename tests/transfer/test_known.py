"""What is remembered of a server's xorbs: found again, until it expires; and never in the way of an upload."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.strategies import splitmix64
from xetstore import _kernel
from xetstore.events import CacheDisabled, Event
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash, xorb_hash
from xetstore.protocol.shard import Shard, XorbEntry
from xetstore.testing.clock import FakeClock
from xetstore.transfer.upload.known import MAX_FOUND_XORBS, MAX_KEYS, UPLOADED_SECONDS, KnownXorbs

DAY = 24 * 3600
KEY = b"k" * 32


def xorb(seed: int, count: int = 50) -> XorbEntry:
    """A xorb of made-up chunks, under its right name."""
    hashes = splitmix64(seed, 32 * count)
    lengths = b"".join((1000 + i).to_bytes(8, sys.byteorder) for i in range(count))
    return XorbEntry(xorb_hash(hashes, lengths), ChunkList(hashes, lengths))


def digests(entry: XorbEntry, start: int = 0, end: int | None = None) -> bytes:
    return entry.chunks.slice(start, len(entry.chunks) if end is None else end).hashes


def found(known: KnownXorbs, hashes: bytes) -> list[XorbEntry]:
    return [entry for shard in known.find(hashes) for entry in shard.xorbs]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server" / "known.sqlite3"


def test_an_uploaded_xorb_is_found_by_any_of_its_chunks(path: Path) -> None:
    entry = xorb(1)
    with KnownXorbs(path) as known:
        known.uploaded(entry)
        assert found(known, digests(entry, 7, 8)) == [entry]
        assert found(known, digests(xorb(2))) == []
    with KnownXorbs(path) as known:
        assert found(known, digests(xorb(2)) + digests(entry, 49, 50)) == [entry]


def test_a_file_is_made_only_when_there_is_something_to_remember(path: Path) -> None:
    with KnownXorbs(path) as known:
        assert known.find(digests(xorb(1))) == []
        assert known.unregistered([xorb(1).hash]) == []
        known.registered([xorb(1).hash])
        known.forget_all()
        assert not path.parent.exists()
        known.uploaded(xorb(1))
        assert path.exists()


def test_as_few_xorbs_as_hold_the_chunks_are_found(path: Path) -> None:
    whole = xorb(1)
    hashes, lengths = whole.chunks.hashes, whole.chunks.lengths
    with KnownXorbs(path) as known:
        for i in range(0, 50, 5):
            part = ChunkList(hashes[32 * i : 32 * (i + 5)], lengths[8 * i : 8 * (i + 5)])
            known.uploaded(XorbEntry(xorb_hash(part.hashes, part.lengths), part))
        assert len(found(known, hashes)) == 10
        known.uploaded(whole)
        assert found(known, hashes) == [whole]
        assert len(found(known, hashes[:64])) == 1


def test_a_chunk_that_is_everywhere_brings_a_bounded_number_of_xorbs(path: Path) -> None:
    everywhere = xorb(0, 1).chunks
    with KnownXorbs(path) as known:
        others = [xorb(seed, 3).chunks for seed in range(1, 40)]
        for other in others:
            chunks = ChunkList.concat([everywhere, other])
            known.uploaded(XorbEntry(xorb_hash(chunks.hashes, chunks.lengths), chunks))
        assert len(found(known, everywhere.hashes)) == 1
        asked = b"".join(other.hashes for other in others)
        assert len(found(known, asked)) == MAX_FOUND_XORBS


def test_a_keyed_answer_is_found_by_plain_hashes_until_it_expires(path: Path) -> None:
    clock = FakeClock(1000.0)
    entry = xorb(1)
    answer = Shard(xorbs=(entry,)).keyed(KEY, 1000, 1000 + DAY)
    with KnownXorbs(path, clock=clock) as known:
        known.learn(answer)
        [told] = known.find(digests(entry, 3, 5))
        assert (told.key, told.xorbs) == (KEY, answer.xorbs)
        clock.advance(DAY)
        assert known.find(digests(entry)) == []


def test_an_answer_that_has_expired_is_not_remembered(path: Path) -> None:
    entry = xorb(1)
    with KnownXorbs(path, clock=FakeClock(1000.0)) as known:
        known.learn(Shard(xorbs=(entry,)).keyed(KEY, 0, 1000))
        known.learn(Shard(xorbs=(entry,)).keyed(KEY, 0, 0))
        assert known.find(digests(entry)) == []


def test_the_newest_keys_are_looked_up(path: Path) -> None:
    entries = [xorb(seed) for seed in range(MAX_KEYS + 2)]
    with KnownXorbs(path) as known:
        for number, entry in enumerate(entries):
            known.learn(Shard(xorbs=(entry,)).keyed(bytes([number + 1]) * 32, 0, 1 << 40))
        assert [bool(known.find(digests(entry))) for entry in entries] == [False] * 2 + [True] * MAX_KEYS
    with KnownXorbs(path) as known:
        assert known.find(digests(entries[-1])), "another session knows them, too"


def test_an_own_xorb_is_forgotten_after_three_weeks(path: Path) -> None:
    clock = FakeClock(1000.0)
    old, new = xorb(1), xorb(2)
    with KnownXorbs(path, clock=clock) as known:
        known.uploaded(old)
        clock.advance(DAY)
        known.uploaded(new)
        clock.advance(UPLOADED_SECONDS - DAY)
        assert [bool(known.find(digests(entry))) for entry in (old, new)] == [False, True]
    with KnownXorbs(path, clock=clock) as known:
        assert known.find(digests(new))
    assert rows(path) == (1, 50), "what has expired is dropped when the file is opened"


def rows(path: Path) -> tuple[int, int]:
    connection = sqlite3.connect(path)
    counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("xorb", "chunk")]
    connection.close()
    return counts[0], counts[1]


def test_when_all_of_it_has_expired_all_is_dropped_at_once(path: Path) -> None:
    clock = FakeClock(1000.0)
    with KnownXorbs(path, clock=clock) as known:
        for seed in range(100):
            known.uploaded(xorb(seed, 5))
    clock.advance(UPLOADED_SECONDS)
    with KnownXorbs(path, clock=clock) as known:
        assert known.find(digests(xorb(1, 5))) == []
    assert rows(path) == (0, 0)


def test_what_no_shard_has_listed_is_told_until_one_has(path: Path) -> None:
    mine, other = xorb(1), xorb(2)
    with KnownXorbs(path) as known:
        known.uploaded(mine)
        known.learn(Shard(xorbs=(other,), expires_at=1 << 40))
        assert known.unregistered([mine.hash, other.hash, Hash.ZERO]) == [mine]
        known.registered([mine.hash])
        assert known.unregistered([mine.hash]) == []
        assert found(known, digests(mine)) == [mine]


def test_everything_can_be_forgotten(path: Path) -> None:
    entry, keyed = xorb(1), xorb(2)
    with KnownXorbs(path) as known:
        known.uploaded(entry)
        known.learn(Shard(xorbs=(keyed,)).keyed(KEY, 0, 1 << 40))
        known.forget_all()
        assert known.find(digests(entry) + digests(keyed)) == []
        known.uploaded(entry)
        assert found(known, digests(entry)) == [entry]


def test_the_oldest_are_forgotten_when_there_are_too_many(path: Path) -> None:
    entries = [xorb(seed, 1000) for seed in range(30)]
    with KnownXorbs(path, max_bytes=1 << 20) as known:
        for entry in entries:
            known.uploaded(entry)
        kept = [bool(known.find(digests(entry, 0, 1))) for entry in entries]
    assert kept == sorted(kept), "from some of them on, all are there"
    assert kept[-1]
    assert not kept[0]
    assert path.stat().st_size < 2 << 20


# Where something is wrong with the file


class Told:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def reasons(self) -> list[str]:
        assert all(isinstance(event, CacheDisabled) for event in self.events)
        return [str(event) for event in self.events]


def test_a_file_that_is_no_database_is_moved_away_and_made_anew(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database " * 1000)
    told = Told()
    with KnownXorbs(path, emit=told) as known:
        assert known.find(digests(xorb(1))) == []
        known.uploaded(xorb(1))
        assert found(known, digests(xorb(1))) == [xorb(1)]
    assert told.events == []
    assert path.with_name(path.name + ".damaged").exists()


@pytest.mark.parametrize("seed", range(12))
def test_damage_anywhere_in_the_file_raises_nothing_and_makes_no_wrong_plain_xorb(path: Path, seed: int) -> None:
    entries = [xorb(number, 200) for number in range(10)]
    with KnownXorbs(path) as known:
        for entry in entries:
            known.uploaded(entry)
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    for _ in range(20):
        at = chance.randrange(0 if seed % 2 else 4096, len(data) - 64)
        data[at : at + 64] = chance.randbytes(64)
    path.write_bytes(data)
    by_name = {entry.hash: entry for entry in entries}
    with KnownXorbs(path, emit=Told()) as known:
        for entry in entries:
            for back in found(known, digests(entry)):
                assert by_name[back.hash] == back
        known.uploaded(xorb(99))
        known.unregistered([entry.hash for entry in entries])
        known.forget_all()


def test_a_file_that_is_damaged_again_is_left_alone(path: Path) -> None:
    told = Told()
    with KnownXorbs(path, emit=told) as known:
        for _ in range(3):
            known.uploaded(xorb(1))
            known._close_file()
            for leftover in path.parent.glob("*-wal"):
                leftover.unlink()
            path.write_bytes(b"damage" * 2000)
            assert known.find(digests(xorb(1))) == []
    assert len(told.reasons()) == 1


def test_a_file_of_a_newer_format_is_left_as_it_is(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    told = Told()
    with KnownXorbs(path, emit=told) as known:
        known.uploaded(xorb(1))
        assert known.find(digests(xorb(1))) == []
    [reason] = told.reasons()
    assert "format 99" in reason
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (99,)
    connection.close()


@pytest.mark.parametrize("where", ["a file in place of the folder", "a folder in place of the file"])
def test_where_no_file_can_be_it_is_told_once_and_everything_goes_on(tmp_path: Path, where: str) -> None:
    told = Told()
    path = tmp_path / "folder" / "known.sqlite3"
    if where == "a folder in place of the file":
        path.mkdir(parents=True)
    else:
        path.parent.touch()
    with KnownXorbs(path, emit=told) as known:
        known.uploaded(xorb(1))
        known.uploaded(xorb(2))
        known.learn(Shard(xorbs=(xorb(3),), expires_at=1 << 40))
        assert known.find(digests(xorb(1))) == []
    assert len(told.reasons()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_told_once(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    told = Told()
    with KnownXorbs(tmp_path / "known.sqlite3", emit=told) as known:
        known.uploaded(xorb(1))
        known.uploaded(xorb(2))
    tmp_path.chmod(0o700)
    assert len(told.reasons()) == 1


def test_a_file_that_another_process_keeps_locked_is_not_waited_for_twice(path: Path) -> None:
    told = Told()
    with KnownXorbs(path, busy_seconds=0.05, emit=told) as known:
        known.uploaded(xorb(1))
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert found(known, digests(xorb(1))) == [xorb(1)], "readers do not wait"
        known.uploaded(xorb(2))
        other.execute("ROLLBACK")
        other.close()
        known.uploaded(xorb(3))
        assert known.find(digests(xorb(3))) == []
    [reason] = told.reasons()
    assert "locked" in reason


def test_after_closing_nothing_is_found_and_nothing_is_wrong(path: Path) -> None:
    known = KnownXorbs(path)
    known.uploaded(xorb(1))
    known.close()
    known.close()
    known.uploaded(xorb(2))
    assert known.find(digests(xorb(1))) == []
    assert rows(path) == (1, 50)


# Several at once

_OTHER = """
import sys
from pathlib import Path
from tests.transfer.test_known import xorb
from xetstore.transfer.upload.known import KnownXorbs
first, path = int(sys.argv[1]), Path(sys.argv[2])
def fail(event): raise SystemExit(str(event))
with KnownXorbs(path, emit=fail) as known:
    for seed in range(first, first + 40):
        known.uploaded(xorb(seed))
        assert known.find(xorb(seed).chunks.hashes)
"""


@pytest.mark.slow
def test_processes_that_write_at_once_all_find_what_all_wrote(path: Path) -> None:
    starts = (0, 100, 200)
    commands = [[sys.executable, "-c", _OTHER, str(start), str(path)] for start in starts]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for command in commands]
    for process in processes:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said.decode()
    with KnownXorbs(path) as known:
        for start in starts:
            for seed in range(start, start + 40):
                assert found(known, digests(xorb(seed))) == [xorb(seed)]


def test_what_a_keyed_answer_and_an_own_upload_say_of_one_xorb_stays_apart(path: Path) -> None:
    entry = xorb(1)
    with KnownXorbs(path) as known:
        known.learn(Shard(xorbs=(entry,)).keyed(KEY, 0, 1 << 40))
        known.uploaded(entry)
        shards = known.find(digests(entry))
        assert {shard.key for shard in shards} == {None, KEY}
        keyed = next(shard for shard in shards if shard.key)
        assert keyed.xorbs[0].chunks.hashes == _kernel.keyed_hashes(KEY, entry.chunks.hashes)
