"""Objects in a real S3 store."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.live import until
from tests.support.seaweed import Seaweed
from xetstore.blobs.bucket import BucketBlobStore
from xetstore.blobs.bucket_options import BucketPlace
from xetstore.errors import UsageError
from xetstore.testing import random_bytes
from xetstore.testing.blobs import BlobStoreContract


class TestBelowAPrefix(BlobStoreContract):
    @pytest.fixture
    def blobs(self, seaweed: Seaweed) -> BucketBlobStore:
        return BucketBlobStore.open(seaweed.prefix(), seaweed.options)


class TestInABucketOfItsOwn(BlobStoreContract):
    @pytest.fixture
    def blobs(self, seaweed: Seaweed) -> Iterator[BucketBlobStore]:
        bucket = seaweed.new_bucket()
        yield BucketBlobStore.open(f"s3://{bucket}", seaweed.options)
        seaweed.drop_bucket(bucket)


MIB = 1 << 20
PART = 5 * MIB


@pytest.fixture
def place(seaweed: Seaweed) -> str:
    return seaweed.prefix()


@pytest.fixture
def blobs(seaweed: Seaweed, place: str) -> BucketBlobStore:
    return BucketBlobStore(BucketPlace.parse(place, seaweed.options), part_bytes=PART)


def unfinished(seaweed: Seaweed, place: str) -> list[str]:
    """The keys of the multipart uploads that the store knows of, below a place."""
    _, _, rest = place.partition("://")
    bucket, _, prefix = rest.partition("/")
    answer = seaweed.request("GET", bucket, query={"uploads": "", "prefix": f"{prefix}/"})
    assert answer.status == 200
    return [key.removeprefix(f"{prefix}/") for key in re.findall("<Key>([^<]+)</Key>", answer.body.decode())]


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART, 3 * PART + 7])
def test_an_object_of_any_length_is_whole(blobs: BucketBlobStore, seaweed: Seaweed, place: str, size: int) -> None:
    data = random_bytes(size)
    with blobs.create("xorbs/a") as new:
        for start in range(0, size, MIB - 1):
            new.write(memoryview(data)[start : start + MIB - 1])
        assert blobs.stat("xorbs/a") is None
        new.commit()
    assert blobs.get("xorbs/a") == data
    assert unfinished(seaweed, place) == []


def test_a_long_object_that_is_given_up_leaves_nothing(blobs: BucketBlobStore, seaweed: Seaweed, place: str) -> None:
    with pytest.raises(KeyboardInterrupt), blobs.create("xorbs/a") as new:
        new.write(random_bytes(3 * PART))
        until(lambda: unfinished(seaweed, place) == ["xorbs/a"])
        raise KeyboardInterrupt
    assert unfinished(seaweed, place) == []
    assert blobs.stat("xorbs/a") is None
    with pytest.raises(UsageError):
        new.commit()


def test_the_remains_of_a_killed_upload_are_swept(blobs: BucketBlobStore, seaweed: Seaweed, place: str) -> None:
    program = (
        "import sys, time\n"
        "from xetstore.blobs.bucket import BucketBlobStore\n"
        "new = BucketBlobStore.open(sys.argv[1]).create('xorbs/a')\n"
        "new.write(bytes(20 << 20))\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, place], env={**os.environ, **seaweed.environment, "AWS_ALLOW_HTTP": "true"}
    ) as process:
        try:
            until(lambda: unfinished(seaweed, place) == ["xorbs/a"])
        finally:
            process.kill()
    assert blobs.sweep() == 0, "it is not a day old"
    assert unfinished(seaweed, place) == ["xorbs/a"]
    other = BucketBlobStore.open(seaweed.prefix(), seaweed.options)
    assert other.sweep(older_than_seconds=-60) == 0, "it is of another place"
    assert blobs.sweep(older_than_seconds=-60) == 1
    assert unfinished(seaweed, place) == []
    assert blobs.sweep(older_than_seconds=-60) == 0
