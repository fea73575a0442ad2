"""The local blob store: in which order bytes become durable, and what is left when a step fails."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from unittest import mock

import pytest

from xetstore.blobs import local
from xetstore.blobs.local import STALE_TEMPORARY_SECONDS, FileStream, LocalBlobStore
from xetstore.errors import (
    AccessDeniedError,
    DamagedError,
    IntegrityError,
    StorageFullError,
    UnavailableError,
    UsageError,
    XetError,
)
from xetstore.testing import FaultPlan, random_bytes

WRITE_AND_LINK = ["open", "write", "write", "fsync file", "close", "link", "unlink"]
SYNC_FOLDER = ["open", "fsync folder", "close"]


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path)


def test_an_object_is_on_disk_before_it_has_its_name_and_its_name_before_put_returns(
    blobs: LocalBlobStore,
) -> None:
    with FaultPlan().installed() as plan:
        blobs.put_new("xorbs/ab/cd", [b"one", b"two"])
    new_folders = ["mkdir", *SYNC_FOLDER] * 2
    assert plan.operations == [*new_folders, "mkdir", *WRITE_AND_LINK, *SYNC_FOLDER]


def test_a_known_folder_is_not_synced_again_from_above(blobs: LocalBlobStore) -> None:
    blobs.put_new("xorbs/ab/cd", [b"x"])
    with FaultPlan().installed() as plan:
        blobs.put_new("xorbs/ab/ef", [b"one", b"two"])
    assert plan.operations == ["mkdir", *WRITE_AND_LINK, *SYNC_FOLDER]


def test_an_object_is_never_replaced(blobs: LocalBlobStore, tmp_path: Path) -> None:
    with blobs.create("xorbs/ab/cd") as late:
        late.write(b"late")
        blobs.put_new("xorbs/ab/cd", [b"first"])
        with pytest.raises(UsageError, match="xorbs/ab/cd"):
            late.commit()
    with pytest.raises(UsageError, match="xorbs/ab/cd"):
        blobs.put_new("xorbs/ab/cd", [b"se", b"cond"])
    assert blobs.get("xorbs/ab/cd") == b"first"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_whichever_step_fails_no_part_of_an_object_is_seen(tmp_path: Path) -> None:
    data = random_bytes(100_000)
    for number in range(100):
        root = tmp_path / str(number)
        root.mkdir()
        blobs = LocalBlobStore(root)
        with FaultPlan(fail_at=number).installed() as plan:
            try:
                blobs.put_new("xorbs/ab/cd", [data[:70_000], data[70_000:]])
                acknowledged = True
            except StorageFullError:
                acknowledged = False
        if not plan.has_failed:
            break
        failed = plan.operations[number]
        was_linked = "link" in plan.operations[:number]
        assert acknowledged == (failed == "unlink")  # the temporary file of a stored object is swept later
        found = [blob.size for blob in blobs.list()]
        assert found == ([len(data)] if was_linked else []), failed
        temporaries = list((root / "tmp").glob("*"))
        assert len(temporaries) == (failed == "unlink"), failed
        # And nothing stands in the way of the next attempt, under a key of its own.
        blobs.put_new("xorbs/ab/ef", [data])
        assert blobs.get("xorbs/ab/ef") == data
    assert number == 19  # as many operations as the first test of this file lists


def test_a_short_write_is_continued(blobs: LocalBlobStore) -> None:
    class OsThatWritesLittle:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def write(self, descriptor: int, data: memoryview) -> int:
            return os.write(descriptor, data[:999])

    data = random_bytes(10_000)
    with mock.patch.object(local, "os", OsThatWritesLittle()):
        blobs.put_new("a/b", [data[:5000], data[5000:]])
    assert blobs.get("a/b") == data


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFullError),
        (errno.EDQUOT, StorageFullError),
        (errno.EROFS, AccessDeniedError),
        (errno.EACCES, AccessDeniedError),
        (errno.EPERM, AccessDeniedError),
        (errno.EIO, UnavailableError),
        (errno.EMFILE, UnavailableError),
    ],
)
def test_an_error_of_the_system_says_what_it_means(blobs: LocalBlobStore, number: int, kind: type[XetError]) -> None:
    blobs.put_new("a/old", [b"x"])
    with FaultPlan(fail_at=2, error=number).installed(), pytest.raises(XetError) as caught:
        blobs.put_new("a/new", [b"x"])
    assert type(caught.value) is kind
    assert os.strerror(number) in str(caught.value)


def test_old_temporary_files_are_swept_and_young_ones_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    now = time.time()
    for name, age in (("old", STALE_TEMPORARY_SECONDS + 60), ("young", STALE_TEMPORARY_SECONDS - 60)):
        (folder / name).write_bytes(b"part of an object")
        os.utime(folder / name, (now - age, now - age))
    blobs = LocalBlobStore(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["young"]
    assert list(blobs.list()) == []


def test_files_at_the_top_are_not_objects(tmp_path: Path, blobs: LocalBlobStore) -> None:
    (tmp_path / "format").write_text("something")
    blobs.put_new("a/b", [b"x"])
    assert [blob.key for blob in blobs.list()] == ["a/b"]
    with pytest.raises(UsageError):
        blobs.get("format")


def test_a_file_that_shrinks_while_it_is_read_is_an_error_not_an_end(tmp_path: Path, blobs: LocalBlobStore) -> None:
    blobs.put_new("a/b", [bytes(1000)])
    with blobs.get_range("a/b", 0, 1000) as stream:
        os.truncate(tmp_path / "a" / "b", 400)
        block = memoryview(bytearray(1000))
        assert stream.readinto(block) == 400
        with pytest.raises(IntegrityError):
            stream.readinto(block)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="the system has no such file")
def test_what_the_medium_has_lost_is_damage() -> None:
    """The system says EIO, as it does of the first page of a process's memory: no later call would succeed."""
    stream = FileStream(os.open("/proc/self/mem", os.O_RDONLY), 0, 100, "xorbs/ab/cd")
    with stream, pytest.raises(DamagedError, match="xorbs/ab/cd"):
        stream.readinto(memoryview(bytearray(100)))
