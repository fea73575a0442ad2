"""Presigned URLs, asked of a real S3 server."""

from __future__ import annotations

import http.client
import time
from urllib.parse import urlsplit

import pytest

from tests.support.seaweed import Seaweed
from xetstore.blobs.presigned import Bucket, Credentials

RANGE = {"range": "bytes=2-5"}


def ask(url: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", None, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.fixture
def bucket(seaweed: Seaweed) -> Bucket:
    assert seaweed.request("PUT", seaweed.bucket, "signed/a", body=b"0123456789").status == 200
    url = f"{seaweed.endpoint}/{seaweed.bucket}"
    return Bucket(url, seaweed.region, Credentials(seaweed.access_key, seaweed.secret_key))


def test_a_url_gives_the_range_that_it_was_signed_for(bucket: Bucket) -> None:
    assert ask(bucket.sign("GET", "signed/a", seconds=60, headers=RANGE), headers=RANGE) == (206, b"2345")


@pytest.mark.parametrize("headers", [{}, {"range": "bytes=2-6"}, {"range": "bytes=0-"}, {"range": "bytes=2-5,7-8"}])
def test_a_url_gives_no_other_range(bucket: Bucket, headers: dict[str, str]) -> None:
    assert ask(bucket.sign("GET", "signed/a", seconds=60, headers=RANGE), headers=headers)[0] == 403


def test_a_url_is_for_one_method_one_object_and_a_time(bucket: Bucket) -> None:
    url = bucket.sign("GET", "signed/a", seconds=60, headers=RANGE)
    assert ask(url, "PUT", RANGE)[0] == 403
    assert ask(url.replace("signed/a", "signed/b"), headers=RANGE)[0] == 403
    assert ask(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"), headers=RANGE)[0] == 403
    late = bucket.sign("GET", "signed/a", seconds=60, headers=RANGE, now=time.time() - 62)
    assert ask(late, headers=RANGE)[0] == 403
