"""An S3 store that is away, slow, cut off or refuses: what a caller is told, and that it is told in time."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import obstore
import pytest
from obstore.store import AzureStore

from tests.support.certificates import make_certificate
from tests.support.children import failures, in_child
from tests.support.live import until
from tests.support.seaweed import Seaweed, running
from tests.support.wire import Wire, wire
from xetstore.blobs.bucket import BucketBlobStore
from xetstore.blobs.bucket_errors import translate
from xetstore.blobs.bucket_options import BucketPlace
from xetstore.blobs.bucket_requests import ask
from xetstore.blobs.ranges import read_all
from xetstore.errors import (
    AccessDeniedError,
    InterruptedCallError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
    UnreachableError,
    UsageError,
    XetError,
)
from xetstore.testing import random_bytes

MIB = 1 << 20
PART = 5 * MIB


def opened(place: str, options: dict[str, object]) -> BucketBlobStore:
    return BucketBlobStore(BucketPlace.parse(place, options), part_bytes=PART)


@pytest.fixture
def line(seaweed: Seaweed) -> Iterator[Wire]:
    with wire(seaweed.port) as running:
        yield running


@pytest.fixture
def place(seaweed: Seaweed) -> str:
    return seaweed.prefix()


@pytest.fixture
def direct(seaweed: Seaweed, place: str) -> BucketBlobStore:
    return opened(place, seaweed.options)


@pytest.fixture
def blobs(seaweed: Seaweed, place: str, line: Wire) -> BucketBlobStore:
    """A store at the other end of the line."""
    return opened(place, {**seaweed.options, "endpoint": line.endpoint})


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[str]:
    """The endpoint of a server that answers as ``handler`` does, by TLS with ``context``."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


VERBS: dict[str, Callable[[BucketBlobStore], object]] = {
    "put_new": lambda blobs: blobs.put_new("a/b", [b"x"]),
    "a long put_new": lambda blobs: blobs.put_new("a/b", [bytes(PART + 1)]),
    "get": lambda blobs: blobs.get("a/b"),
    "get_range": lambda blobs: blobs.get_range("a/b", 0, 1),
    "get_ranges": lambda blobs: blobs.get_ranges([("a/b", 0, 1), ("a/c", 0, 1)]),
    "stat": lambda blobs: blobs.stat("a/b"),
    "delete_many": lambda blobs: blobs.delete_many(["a/b", "a/c"]),
    "list": lambda blobs: list(blobs.list()),
    "sweep": lambda blobs: blobs.sweep(),
}


def refusal(verb: str, blobs: BucketBlobStore) -> XetError:
    with pytest.raises(XetError) as caught:
        VERBS[verb](blobs)
    text = f"{caught.value} {caught.value.hint}"
    assert "testsecret123" not in text
    assert "Signature=" not in text
    return caught.value


@pytest.mark.parametrize("verb", VERBS)
class TestEveryVerb:
    """What is wrong is told in the same way, whichever is called."""

    def test_where_nothing_listens(self, seaweed: Seaweed, place: str, verb: str) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
            error = refusal(verb, opened(place, {**seaweed.options, "endpoint": endpoint}))
        assert isinstance(error, UnreachableError)

    @pytest.mark.parametrize("key", ["access_key_id", "secret_access_key"])
    def test_with_a_wrong_key(self, seaweed: Seaweed, place: str, verb: str, key: str) -> None:
        error = refusal(verb, opened(place, {**seaweed.options, key: "wrong"}))
        assert isinstance(error, AccessDeniedError)
        assert error.hint or verb == "sweep"

    def test_without_the_bucket(self, seaweed: Seaweed, verb: str) -> None:
        # Objects of it are not missing: a store must not take them for lost.
        error = refusal(verb, opened("s3://never-made/prefix", seaweed.options))
        assert isinstance(error, UnavailableError)
        assert verb == "sweep" or "there is no bucket" in str(error)


@pytest.mark.slow
def test_a_store_that_stalls_is_given_up(blobs: BucketBlobStore, line: Wire) -> None:
    line.flows.clear()
    found: dict[str, BaseException] = {}

    def ask(verb: str) -> None:
        try:
            VERBS[verb](blobs)
        except BaseException as error:
            found[verb] = error

    threads = [threading.Thread(target=ask, args=(verb,)) for verb in VERBS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert {verb: type(error) for verb, error in found.items()} == dict.fromkeys(VERBS, UnreachableError)
    line.flows.set()
    blobs.put_new("a/later", [b"x"])
    assert blobs.get("a/later") == b"x"


def test_a_body_that_is_cut_once_is_whole_in_the_end(
    blobs: BucketBlobStore, direct: BucketBlobStore, line: Wire
) -> None:
    data = random_bytes(20 * MIB)
    direct.put_new("a/b", [data])
    line.cuts[:] = [3 * MIB]
    assert read_all(blobs.get_range("a/b", 5, len(data)), len(data) - 5) == data[5:]
    assert line.connections == 2


def test_a_body_that_is_cut_often_goes_on_where_it_ended(
    blobs: BucketBlobStore, direct: BucketBlobStore, line: Wire
) -> None:
    data = random_bytes(20 * MIB)
    direct.put_new("a/b", [data])
    line.cuts[:] = [2 * MIB] * 9  # more often than one request is made again
    assert read_all(blobs.get_range("a/b", 5, len(data)), len(data) - 5) == data[5:]
    assert line.cuts == []
    assert line.down_bytes < 2 * len(data)  # a reset takes with it what was on its way


def test_a_body_that_is_always_cut_is_never_taken_for_whole(
    blobs: BucketBlobStore, direct: BucketBlobStore, line: Wire
) -> None:
    data = random_bytes(20 * MIB)
    direct.put_new("a/b", [data])
    for read in (
        lambda: read_all(blobs.get_range("a/b", 0, len(data)), len(data)),
        lambda: blobs.get("a/b"),
        lambda: blobs.get_ranges([("a/b", 0, len(data)), ("a/b", 1, len(data))]),
    ):
        line.cuts[:] = [1000] * 100
        with pytest.raises(UnavailableError):
            read()
        line.break_all()


def test_no_request_is_made_for_nothing(blobs: BucketBlobStore, direct: BucketBlobStore, line: Wire) -> None:
    """A range is one request, of which what is not read is not sent."""
    direct.put_new("a/b", [random_bytes(60 * MIB)])
    with blobs.get_range("a/b", 0, 60 * MIB) as stream:
        stream.readinto(memoryview(bytearray(1000)))
    assert line.connections == 1
    assert blobs.get_ranges([("a/b", 5, 10)] * 200) == [direct.get("a/b")[5:10]] * 200
    assert line.down_bytes < 20 * MIB  # the buffers of two sockets, and of the wire
    assert line.connections <= 50  # some 16 at once, each kept for the next


@pytest.mark.slow
def test_an_upload_holds_no_more_than_four_parts(blobs: BucketBlobStore, line: Wire) -> None:
    line.stall_after = 3 * MIB
    taken = 0
    with blobs.create("a/b") as new:
        try:
            for _ in range(100):
                new.write(bytes(MIB))
                taken += MIB
        except UnavailableError:
            pass
    assert 3 * PART < taken <= blobs.upload_bytes == 4 * PART
    line.stall_after = None
    line.flows.set()


def test_an_upload_that_is_cut_is_told_and_leaves_nothing(
    blobs: BucketBlobStore, direct: BucketBlobStore, line: Wire
) -> None:
    with pytest.raises(UnavailableError), blobs.create("a/b") as new:
        new.write(random_bytes(2 * PART))
        line.cuts[:] = [0] * 1000
        line.break_all()
        for _ in range(20):
            new.write(random_bytes(PART))
        new.commit()
    assert direct.stat("a/b") is None
    line.cuts.clear()
    blobs.sweep(-60)  # what could not be aborted
    assert blobs.sweep(-60) == 0
    blobs.put_new("a/b", [b"x"])
    assert direct.get("a/b") == b"x"


@pytest.mark.parametrize("request_", [rb"POST \S*uploadId=", rb"POST \S*uploads", rb"PUT \S*partNumber=2"])
def test_an_answer_that_is_lost_does_not_fail_a_long_upload(
    blobs: BucketBlobStore, direct: BucketBlobStore, line: Wire, request_: bytes
) -> None:
    """Also that to the last request of it, after which the store knows of no such upload any more."""
    data = random_bytes(2 * PART + 7)
    line.lose = re.compile(request_)
    blobs.put_new("a/b", [data])
    assert line.lose is None
    assert direct.get("a/b") == data


def test_the_first_long_upload_sweeps_and_a_failure_of_that_is_of_no_account(
    blobs: BucketBlobStore, line: Wire
) -> None:
    # Of the folder alone: others may have uploads in the same bucket.
    line.lose = listing = re.compile(rb"GET \S*&prefix=\S*%2Fa%2F&uploads=")
    blobs.put_new("a/short", [b"x"])
    assert line.lose is listing
    blobs.put_new("a/long", [bytes(PART + 1)])
    until(lambda: line.lose is None)
    assert blobs.get("a/long") == bytes(PART + 1)


class _Listing(BaseHTTPRequestHandler):
    """A store that lists all uploads, whatever is asked for, and whose refusals are broken."""

    protocol_version = "HTTP/1.1"
    deleted: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        keys = ("prefix/xorbs/a", "prefix/backups/a", "other/a")
        uploads = "".join(
            f"<Upload><Key>{key}</Key><UploadId>1</UploadId><Initiated>2020-01-01T00:00:00Z</Initiated></Upload>"
            for key in keys
        )
        body = f"<ListMultipartUploadsResult>{uploads}</ListMultipartUploadsResult>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_DELETE(self) -> None:
        self.deleted.append(self.path.partition("?")[0])
        self.send_response(204)
        self.end_headers()

    def do_PUT(self) -> None:
        self.send_response(403)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"no size of a chunk\r\n")

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def test_uploads_of_others_are_not_swept_and_a_broken_refusal_is_an_error_of_ours(seaweed: Seaweed) -> None:
    with listening(_Listing) as endpoint:
        blobs = opened("s3://bucket/prefix", {**seaweed.options, "endpoint": endpoint})
        assert blobs.sweep(folder="xorbs/") == 1
        assert _Listing.deleted == ["/bucket/prefix/xorbs/a"]
        assert blobs.sweep() == 2
        with pytest.raises(UnreachableError, match="does not answer"):
            ask(f"{endpoint}/bucket/a", "PUT", b"", {})


def test_a_ca_file_is_trusted_beside_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_system, of_file = (make_certificate(tmp_path / name, owner=name) for name in ("system", "file"))
    monkeypatch.setenv("SSL_CERT_FILE", of_system.cert)
    for used in (of_system, of_file):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(used.cert, used.key)
        with listening(_Listing, context) as endpoint:
            url = f"https://localhost:{endpoint.rpartition(':')[2]}/bucket?uploads="
            assert ask(url, "GET", None, {}, Path(of_file.cert).read_text()).status == 200


def test_one_answer_of_a_store_in_trouble_is_survived(blobs: BucketBlobStore, line: Wire) -> None:
    line.cuts[:] = [0]
    blobs.put_new("a/b", [b"x"])
    line.break_all()
    line.cuts[:] = [0]
    assert blobs.get("a/b") == b"x"


@pytest.mark.slow
def test_a_store_that_was_killed_is_used_again_as_soon_as_it_is_back() -> None:
    with running() as server:
        blobs = opened(server.prefix(), server.options)
        data = random_bytes(3 * PART)
        blobs.put_new("a/b", [data])
        reading = blobs.get_range("a/b", 0, len(data))
        writing = blobs.create("a/c")
        writing.write(random_bytes(2 * PART + 1))
        server.kill()
        with pytest.raises(UnavailableError), writing:
            writing.commit()
        with pytest.raises(UnavailableError):
            blobs.get("a/b")
        with reading, pytest.raises(UnavailableError):
            read_all(reading, len(data))
        server.start()
        assert blobs.get("a/b") == data
        assert blobs.stat("a/c") is None
        blobs.put_new("a/c", [data])


def test_a_child_is_told_where_its_parent_used_a_store(direct: BucketBlobStore, place: str, seaweed: Seaweed) -> None:
    direct.put_new("a/b", [b"0123456789"])
    stream, new = direct.get_range("a/b", 0, 10), direct.create("a/c")
    new.write(bytes(PART + 1))
    listing = direct.list()

    def use() -> None:
        for blobs in (direct, opened(place, seaweed.options)):
            for verb in VERBS:
                if verb != "sweep":  # which needs no thread
                    with pytest.raises(UsageError, match="fork"):
                        VERBS[verb](blobs)
        with pytest.raises(UsageError, match="fork"), stream:
            stream.readinto(memoryview(bytearray(10)))
        with pytest.raises(UsageError, match="fork"):
            next(iter(listing))
        with pytest.raises(InterruptedCallError), new:
            new.commit()

    assert failures([in_child(use)]) == []
    new.commit()
    assert direct.get("a/c") == bytes(PART + 1)
    with stream:
        assert read_all(stream, 10) == b"0123456789"


def test_a_child_may_open_a_store_that_its_parent_has_not_used(place: str, seaweed: Seaweed) -> None:
    program = (
        "import os, sys\n"
        "from tests.support.children import failures, in_child\n"
        "from xetstore.blobs.bucket import BucketBlobStore\n"
        "blobs = BucketBlobStore.open(sys.argv[1])\n"
        "def use():\n"
        "    blobs.put_new('a/b', [b'x'])\n"
        "    assert blobs.get_ranges([('a/b', 0, 1)] * 3) == [b'x'] * 3\n"
        "assert failures([in_child(use), in_child(use)]) == []\n"
        "use()\n"
    )
    environment = {**os.environ, **seaweed.environment}
    subprocess.run([sys.executable, "-c", program, place], env=environment, check=True, timeout=120)


class _Refusing(BaseHTTPRequestHandler):
    """Answers every request with the same status and code."""

    protocol_version = "HTTP/1.1"
    status: ClassVar[int]
    code: ClassVar[str]

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = f"<Error><Code>{self.code}</Code><Message>as told</Message></Error>".encode() if self.code else b""
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _refuse  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def refusing(status: int, code: str) -> AbstractContextManager[str]:
    """The endpoint of a server that refuses everything."""
    return listening(type("Handler", (_Refusing,), {"status": status, "code": code}))


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (500, "InternalError", UnavailableError, "500 InternalError"),
        (503, "SlowDown", UnavailableError, "503 SlowDown"),
        (503, "", UnavailableError, "503"),
        (429, "", UnavailableError, "429"),
        (507, "", StorageFullError, "full"),
        (403, "QuotaExceeded", StorageFullError, "full"),
        (403, "AccessDenied", AccessDeniedError, "permissions"),
        (403, "RequestTimeTooSkewed", AccessDeniedError, "clock"),
        (400, "ExpiredToken", AccessDeniedError, "session"),
        (400, "AuthorizationHeaderMalformed", AccessDeniedError, "region"),
        (400, "InvalidRequest", UnavailableError, "400 InvalidRequest"),
        (404, "NoSuchUpload", UnavailableError, "404 NoSuchUpload"),
        (404, "", UnavailableError, "404"),
    ],
)
def test_a_refusal_of_the_store_is_one_sentence(
    place: str, seaweed: Seaweed, status: int, code: str, kind: type[XetError], said: str
) -> None:
    with refusing(status, code) as endpoint:
        blobs = opened(place, {**seaweed.options, "endpoint": endpoint})
        for verb in ("put_new", "list", "a long put_new"):
            error = refusal(verb, blobs)
            assert isinstance(error, kind), verb
            assert said in f"{error}. {error.hint}"
            assert "\n" not in f"{error}"


@pytest.mark.parametrize("verb", ["get", "get_range", "get_ranges", "stat", "delete_many"])
def test_no_object_is_missing_because_something_else_answers_404(place: str, seaweed: Seaweed, verb: str) -> None:
    """As a proxy does whose store is not there: objects that were taken for lost would all be marked as damaged."""
    with refusing(404, "") as endpoint:
        error = refusal(verb, opened(place, {**seaweed.options, "endpoint": endpoint}))
    assert isinstance(error, UnavailableError)
    assert "404" in str(error)


def test_an_object_that_azure_has_not_is_missing() -> None:
    with refusing(404, "BlobNotFound") as endpoint:
        store = AzureStore(
            "container",
            config={"account_name": "a", "account_key": "a2V5", "endpoint": endpoint},
            client_options={"allow_http": True},
        )
        for ask in (obstore.get, obstore.head):
            with pytest.raises(FileNotFoundError) as caught:
                ask(store, "a/b")
            error = translate(caught.value, "az://container", "object a/b could not be read", of_object=True)
            assert isinstance(error, NotFoundError)


def test_what_is_missing_is_missing(direct: BucketBlobStore) -> None:
    with pytest.raises(NotFoundError):
        direct.get("a/none")
