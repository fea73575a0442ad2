"""BlobStoreContract: the promises of every BlobStore, as tests."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from xetstore.errors import NotFoundError, RangeError, UsageError
from xetstore.interfaces import BlobStore, ByteStream
from xetstore.testing.samples import random_bytes


def drain(stream: ByteStream, block_bytes: int = 1 << 16) -> bytes:
    """Everything a stream has."""
    block = memoryview(bytearray(block_bytes))
    found = bytearray()
    with stream:
        while count := stream.readinto(block):
            found += block[:count]
    return bytes(found)


class BlobStoreContract:
    """Subclass it with a fixture ``blobs`` that gives an empty store."""

    @pytest.fixture
    def blobs(self) -> Any:
        """The store under test."""
        raise NotImplementedError("a subclass gives the store")

    def test_an_object_is_its_parts_in_order(self, blobs: BlobStore) -> None:
        """Parts may be of any buffer type, and empty."""
        blobs.put_new("a/b", [b"one ", bytearray(b"two "), b"", memoryview(b"three")])
        assert blobs.get("a/b") == b"one two three"

    def test_an_object_of_no_bytes_is_an_object(self, blobs: BlobStore) -> None:
        """Empty is not absent."""
        blobs.put_new("a/empty", [])
        assert blobs.get("a/empty") == b""
        info = blobs.stat("a/empty")
        assert info is not None
        assert (info.key, info.size) == ("a/empty", 0)
        assert drain(blobs.get_range("a/empty", 0, 0)) == b""

    def test_a_part_of_wider_items_is_stored_by_its_bytes(self, blobs: BlobStore) -> None:
        """A buffer of u64 counts in bytes, not in items."""
        blobs.put_new("a/wide", [memoryview(bytes(range(16))).cast("Q")])
        assert blobs.get("a/wide") == bytes(range(16))

    def test_an_object_written_in_pieces_is_seen_when_it_is_committed(self, blobs: BlobStore) -> None:
        """Not before; and as if it had been put at once."""
        with blobs.create("a/b") as new:
            new.write(b"one ")
            new.write(memoryview(bytearray(b"two")))
            assert blobs.stat("a/b") is None
            new.commit()
        assert blobs.get("a/b") == b"one two"

    def test_an_object_that_is_not_committed_never_was(self, blobs: BlobStore) -> None:
        """Leaving the block is giving up."""
        with blobs.create("a/b") as new:
            new.write(b"one ")
        assert blobs.stat("a/b") is None
        assert list(blobs.list()) == []

    def test_two_objects_are_written_beside_each_other(self, blobs: BlobStore) -> None:
        """Piece by piece, each under a key of its own; the order of the commits does not matter."""
        with blobs.create("a/b") as one, blobs.create("a/c") as two:
            for number in range(3):
                one.write(bytes([number]) * 1000)
                two.write(bytes([number]) * 2000)
            two.commit()
            one.commit()
        assert blobs.get("a/b") == bytes(1000) + b"\1" * 1000 + b"\2" * 1000
        assert blobs.get("a/c") == bytes(2000) + b"\1" * 2000 + b"\2" * 2000

    def test_many_writers_at_once_each_create_their_object(self, blobs: BlobStore) -> None:
        """In one folder, which none of them finds."""
        start = threading.Barrier(8)
        failures: list[BaseException] = []

        def put(number: int) -> None:
            try:
                start.wait(30)
                blobs.put_new(f"race/{number}", [bytes([number]) * 100_000])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert [blob.key for blob in blobs.list()] == [f"race/{number}" for number in range(8)]
        assert all(blobs.get(f"race/{number}") == bytes([number]) * 100_000 for number in range(8))

    @pytest.mark.parametrize(("start", "end"), [(0, 0), (0, 1), (0, 300_000), (70_000, 70_001), (1, 299_999)])
    def test_a_range_is_exactly_its_bytes(self, blobs: BlobStore, start: int, end: int) -> None:
        """End-exclusive, whatever the size of the reader's buffer."""
        data = random_bytes(300_000)
        blobs.put_new("a/b", [data])
        assert drain(blobs.get_range("a/b", start, end)) == data[start:end]
        assert drain(blobs.get_range("a/b", start, end), block_bytes=999) == data[start:end]

    def test_a_stream_can_be_closed_before_its_end_and_again(self, blobs: BlobStore) -> None:
        """close() is idempotent."""
        blobs.put_new("a/b", [b"0123456789"])
        stream = blobs.get_range("a/b", 0, 10)
        block = memoryview(bytearray(4))
        assert stream.readinto(block) == 4
        stream.close()
        stream.close()
        assert bytes(block) == b"0123"

    def test_a_range_past_the_end_is_refused(self, blobs: BlobStore) -> None:
        """Never a shorter answer."""
        blobs.put_new("a/b", [b"0123456789"])
        with pytest.raises(RangeError):
            blobs.get_range("a/b", 5, 11)

    def test_ranges_of_several_objects_are_answered_in_order(self, blobs: BlobStore) -> None:
        """One object may be asked for twice; an object that is absent or too short is an answer of its own."""
        data = random_bytes(300_000)
        blobs.put_new("a/b", [data])
        blobs.put_new("a/c", [b"0123456789"])
        requests = [("a/c", 2, 5), ("a/none", 0, 1), ("a/b", 70_000, 300_000), ("a/c", 5, 11), ("a/b", 0, 0)]
        first, absent, second, short, empty = blobs.get_ranges(requests)
        assert (first, second, empty) == (b"234", data[70_000:], b"")
        assert isinstance(absent, NotFoundError)
        assert isinstance(short, RangeError)
        assert blobs.get_ranges([]) == []

    @pytest.mark.parametrize("request_", [("a/b", 6, 5), ("a/b", -1, 5), ("A/b", 0, 1)])
    def test_one_wrong_request_of_several_is_the_mistake_of_the_caller(
        self, blobs: BlobStore, request_: tuple[str, int, int]
    ) -> None:
        """It is raised, whatever the others are."""
        blobs.put_new("a/b", [b"0123456789"])
        with pytest.raises(UsageError) as caught:
            blobs.get_ranges([("a/b", 0, 1), request_])
        assert not isinstance(caught.value, RangeError)

    @pytest.mark.parametrize(("start", "end"), [(-1, 5), (6, 5)])
    def test_a_range_that_is_none_is_refused(self, blobs: BlobStore, start: int, end: int) -> None:
        """The caller's mistake is named as such."""
        blobs.put_new("a/b", [b"0123456789"])
        with pytest.raises(UsageError):
            blobs.get_range("a/b", start, end)

    @pytest.mark.parametrize("key", ["a/b", "a/b/c", "a/bc"])
    def test_what_is_absent_is_not_found(self, blobs: BlobStore, key: str) -> None:
        """Also below and beside an object that exists, and where there is a folder."""
        blobs.put_new("a/bcd/e", [b"x"])
        for read in (lambda: blobs.get(key), lambda: blobs.get_range(key, 0, 1)):
            with pytest.raises(NotFoundError):
                read()
        assert blobs.stat(key) is None
        assert blobs.delete_many([key]) == 0

    def test_a_folder_is_no_object(self, blobs: BlobStore) -> None:
        """The beginning of a key is not a key."""
        blobs.put_new("a/b/c", [b"x"])
        assert blobs.stat("a/b") is None
        for read in (lambda: blobs.get("a/b"), lambda: blobs.get_range("a/b", 0, 0)):
            with pytest.raises(NotFoundError):
                read()

    def test_a_deleted_object_is_gone(self, blobs: BlobStore) -> None:
        """Counted once."""
        for key in ("a/b", "a/c", "d/e"):
            blobs.put_new(key, [b"x"])
        assert blobs.delete_many(["a/b", "a/x", "d/e"]) == 2
        assert blobs.delete_many(["a/b"]) == blobs.delete_many([]) == 0
        assert blobs.stat("a/b") is None
        assert [blob.key for blob in blobs.list()] == ["a/c"]

    def test_objects_are_listed_in_key_order(self, blobs: BlobStore) -> None:
        """In the order of the keys as strings, which is not the order of folders."""
        keys = ["a/b/c", "a/b.d", "a/b-e", "a/b0", "a/b", "z/z/z", "xorbs/00/ff", "xorbs/01/00"]
        keys.remove("a/b")  # a folder here, so it cannot be an object as well
        for number, key in enumerate(keys):
            blobs.put_new(key, [bytes(number)])
        assert [blob.key for blob in blobs.list()] == sorted(keys)
        assert {blob.key: blob.size for blob in blobs.list()} == {key: size for size, key in enumerate(keys)}

    @pytest.mark.parametrize(
        ("prefix", "found"),
        [
            ("xorbs/", ["xorbs/00/a", "xorbs/01/b"]),
            ("xorbs/01", ["xorbs/01/b"]),
            ("xorbs/01/b", ["xorbs/01/b"]),
            ("x", ["xorbs/00/a", "xorbs/01/b"]),
            ("s", ["shards/c"]),
            ("xorbs/2", []),
            ("y/", []),
        ],
    )
    def test_a_listing_keeps_to_its_prefix(self, blobs: BlobStore, prefix: str, found: list[str]) -> None:
        """A prefix need not end where a folder does."""
        for key in ("xorbs/01/b", "shards/c", "xorbs/00/a"):
            blobs.put_new(key, [b"x"])
        assert [blob.key for blob in blobs.list(prefix)] == found

    @pytest.mark.parametrize("prefix", ["", "x", "xorbs/", "xorbs/0"])
    def test_a_listing_goes_on_behind_any_key(self, blobs: BlobStore, prefix: str) -> None:
        """Also behind one that is not there, and behind a folder."""
        for key in ("xorbs/00/a", "xorbs/00/b", "xorbs/00.d/a", "xorbs/01/b", "shards/c", "xorbs0/z"):
            blobs.put_new(key, [b"x"])
        every = [blob.key for blob in blobs.list(prefix)]
        for after in (*every, "xorbs/00/aa", "xorbs/00", "xorbs/00/", "xorbs/00z", "zzz", "a"):
            assert [blob.key for blob in blobs.list(prefix, after=after)] == [key for key in every if key > after]

    def test_an_object_has_the_time_when_it_was_made(self, blobs: BlobStore) -> None:
        """The same in a listing."""
        before = time.time()
        blobs.put_new("a/b", [b"x"])
        info = blobs.stat("a/b")
        assert info is not None
        assert [*blobs.list()] == [info]
        assert before - 2 <= info.modified_at <= time.time() + 2  # clocks of file systems are coarse

    def test_an_empty_store_lists_nothing(self, blobs: BlobStore) -> None:
        """Whatever a store keeps beside its objects is not listed."""
        assert list(blobs.list()) == []

    @pytest.mark.parametrize(
        "key",
        [
            *("", "a", "/a/b", "a/", "a//b", "a/../b", "../a", "a/.b", ".a/b", "A/b", "a/b c", "a/\u00e9"),
            *("a\\b/c", "a/b\n", "a\0/b", "tmp/a", "access/keys.json"),
        ],
    )
    def test_a_name_that_is_no_key_is_refused_by_every_verb(self, blobs: BlobStore, key: str) -> None:
        """No key leaves the store's own space."""
        for verb in (
            lambda: blobs.put_new(key, [b"x"]),
            lambda: blobs.create(key),
            lambda: blobs.get(key),
            lambda: blobs.get_range(key, 0, 0),
            lambda: blobs.stat(key),
            lambda: blobs.delete_many(["a/b", key]),
        ):
            with pytest.raises(UsageError):
                verb()
        assert list(blobs.list()) == []
