"""Which object stores are trusted with direct URLs: those that refuse all that was not signed."""

from __future__ import annotations

import re
import threading
import time
from calendar import timegm
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.proxy import proxy
from tests.support.seaweed import Seaweed
from xetstore.blobs.bucket import BucketBlobStore
from xetstore.blobs.direct import PROBE_FOLDER, RangeUrls
from xetstore.blobs.memory import MemoryBlobStore
from xetstore.blobs.presigned import Bucket, Credentials
from xetstore.errors import AccessDeniedError, UnreachableError, UsageError

KEYS = {"access_key_id": "key", "secret_access_key": "secret"}


class Asked:
    """A request for an object by a presigned URL."""

    def __init__(self, path: str, url: str, range_: str | None) -> None:
        self.path, self.range = path, range_
        parameters = parse_qs(urlsplit(url).query)
        self.signature, self.expires = parameters["X-Amz-Signature"][0], parameters["X-Amz-Expires"][0]
        self._date = timegm(time.strptime(parameters["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ"))
        self._host = url.partition("//")[2].partition("/")[0]

    def is_signed(self, *, range_: str | None = None, expires: str | None = None) -> bool:
        """True if it has the signature of itself, or of another range or expiry."""
        bucket = Bucket(f"http://{self._host}/bucket", "us-east-1", Credentials("key", "secret"))
        headers = {"range": range_ or self.range or ""}
        key, seconds = self.path.removeprefix("/bucket/"), int(expires or self.expires)
        return bucket.sign("GET", key, seconds=seconds, headers=headers, now=self._date).endswith(self.signature)

    @property
    def is_late(self) -> bool:
        return time.time() > self._date + int(self.expires)


LENIENCES: dict[str, Callable[[Asked], bool]] = {
    "another byte range": lambda asked: asked.range == "bytes=4-8" and asked.is_signed(range_="bytes=4-7"),
    "two byte ranges": lambda asked: "," in (asked.range or "") and asked.is_signed(range_="bytes=4-7"),
    "a whole object": lambda asked: asked.range is None and asked.is_signed(range_="bytes=4-7"),
    "has expired": lambda asked: asked.is_signed(),
    "expiry was changed": lambda asked: asked.is_signed(expires="60"),
    "signature was changed": lambda asked: asked.range == "bytes=4-7" and asked.expires == "60" and not asked.is_late,
}


class _Handler(BaseHTTPRequestHandler):
    """As much of S3 as a probe needs."""

    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]]
    allows: ClassVar[Callable[[Asked], bool]]

    def do_PUT(self) -> None:
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"")

    def do_HEAD(self) -> None:
        self._answer(200 if self.path in self.objects else 404, b"")

    def do_POST(self) -> None:
        for key in re.findall("<Key>([^<]+)</Key>", self.rfile.read(int(self.headers["Content-Length"])).decode()):
            del self.objects[f"/bucket/{key}"]
        self._answer(200, b'<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></DeleteResult>')

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        asked = Asked(path, f"http://{self.headers['Host']}{self.path}", self.headers["Range"])
        if not (asked.is_signed() and not asked.is_late) and not type(self).allows(asked):
            self._answer(403, b"")
        elif asked.range == "bytes=4-7":
            self._answer(206, self.objects[path][4:8])
        else:
            self._answer(206 if asked.range else 200, self.objects[path])

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", "Mon, 30 Nov 2026 09:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def store(allows: Callable[[Asked], bool]) -> Iterator[tuple[BucketBlobStore, dict[str, bytes]]]:
    """An object store that allows what was not signed, in some cases; and its objects."""
    objects: dict[str, bytes] = {}
    members = {"objects": objects, "allows": staticmethod(allows)}
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), members)) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            endpoint = f"http://127.0.0.1:{listening.server_port}"
            yield BucketBlobStore.open("s3://bucket/prefix", {**KEYS, "endpoint": endpoint}), objects
        finally:
            listening.shutdown()
            thread.join()


def test_a_store_that_keeps_to_what_is_signed_is_trusted() -> None:
    with store(lambda _: False) as (blobs, objects):
        RangeUrls.of(blobs)
        assert objects == {}, "nothing of the probe stays"


@pytest.mark.parametrize("lenience", LENIENCES)
def test_a_store_that_gives_more_is_refused(lenience: str) -> None:
    with store(LENIENCES[lenience]) as (blobs, objects), pytest.raises(UsageError, match=lenience) as caught:
        RangeUrls.of(blobs)
    assert "signed" in (caught.value.hint or "")
    assert "X-Amz" not in str(caught.value)
    assert objects == {}


def test_seaweedfs_is_trusted_and_nothing_of_the_probe_stays(seaweed: Seaweed) -> None:
    blobs = BucketBlobStore.open(seaweed.prefix(), seaweed.options)
    urls = RangeUrls.of(blobs)
    assert list(blobs.list(f"{PROBE_FOLDER}/")) == []
    assert urls.sign("a/b", 4, 8, seconds=60).startswith(f"{seaweed.endpoint}/{seaweed.bucket}/")


def test_a_public_endpoint_that_leads_elsewhere_is_refused(seaweed: Seaweed) -> None:
    with proxy(seaweed.endpoint) as public:
        place, options = seaweed.prefix(), {**seaweed.options, "public_endpoint": public.endpoint}
        assert (
            RangeUrls.of(BucketBlobStore.open(place, options)).sign("a/b", 0, 1, seconds=9).startswith(public.endpoint)
        )
        public.instead["/"] = 404, b""
        with pytest.raises(UsageError, match="public_endpoint"):
            RangeUrls.of(BucketBlobStore.open(place, options))


def test_a_public_endpoint_that_cannot_be_reached_from_the_server_is_believed(
    seaweed: Seaweed, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**seaweed.options, "public_endpoint": "http://127.0.0.1:9"}
    urls = RangeUrls.of(BucketBlobStore.open(seaweed.prefix(), options))
    assert urls.sign("a/b", 0, 1, seconds=9).startswith("http://127.0.0.1:9/")
    assert "cannot be reached" in caplog.text
    assert "X-Amz" not in caplog.text


def test_what_is_wrong_with_the_store_is_told(seaweed: Seaweed) -> None:
    with pytest.raises(AccessDeniedError):
        RangeUrls.of(BucketBlobStore.open(seaweed.prefix(), {**seaweed.options, "secret_access_key": "wrong"}))
    with pytest.raises(UnreachableError):
        RangeUrls.of(BucketBlobStore.open(seaweed.prefix(), {**seaweed.options, "endpoint": "http://127.0.0.1:9"}))


def test_without_keys_there_is_nothing_to_sign_with(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="role") as caught:
        RangeUrls.of(BucketBlobStore.open("s3://bucket/prefix"))
    assert "AWS_ACCESS_KEY_ID" in (caught.value.hint or "")


def test_a_session_token_is_part_of_the_url() -> None:
    bucket = Bucket("https://s3.example.org/bucket", "us-east-1", Credentials("key", "secret", "lent/for+a while"))
    url = RangeUrls(bucket, "prefix").sign("a/b", 0, 10, seconds=60)
    assert "&X-Amz-Security-Token=lent%2Ffor%2Ba%20while&" in url
    assert url.startswith("https://s3.example.org/bucket/prefix/a/b?")


def test_urls_are_those_of_the_bucket_below_a_cache(seaweed: Seaweed) -> None:
    class Around:
        def __init__(self, inner: object) -> None:
            self.inner = inner

    blobs = BucketBlobStore.open(seaweed.prefix(), seaweed.options)
    assert RangeUrls.of(Around(Around(blobs))).sign("a/b", 0, 1, seconds=9).startswith(seaweed.endpoint)
    with pytest.raises(UsageError, match="not"):
        RangeUrls.of(Around(MemoryBlobStore()))
