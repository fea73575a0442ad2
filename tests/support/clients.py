"""Client: uploads samples to a server and looks whether it has them, by HTTP alone, on one connection."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import urlsplit

from tests.support.live import PATIENCE_SECONDS, Response
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import FetchRange, Reconstruction
from xetstore.testing.samples import Sample

if TYPE_CHECKING:
    from typing_extensions import Buffer


T = TypeVar("T")
R = TypeVar("R")


class Client:
    """One connection, which is opened again when it was closed. Not thread-safe."""

    def __init__(self, url: str, token: str | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE_SECONDS)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[Buffer] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        authorized: bool = True,
    ) -> Response:
        """One exchange, with our token or without."""
        sent = {**(self._headers if authorized else {}), **(headers or {})}
        self._connection.request(method, path, body, sent)
        answer = self._connection.getresponse()
        return Response(answer.status, answer.headers, answer.read())

    @property
    def socket(self) -> socket.socket:
        """The connection itself."""
        if self._connection.sock is None:
            self._connection.connect()
        found: socket.socket = self._connection.sock
        return found

    def post_xorb(self, sample: Sample) -> Response:
        return self.request("POST", f"/v1/xorbs/default/{sample.xorb.hash}", sample.body)

    def post_shard(self, sample: Sample, *, version: int = 1) -> Response:
        return self.request("POST", f"/v{version}/shards", sample.shard.serialize())

    def upload(self, sample: Sample) -> None:
        """A xorb and its shard, both taken."""
        assert self.post_xorb(sample).status == 200
        assert self.post_shard(sample).status == 200

    def reconstruction(self, file: Hash) -> Reconstruction | None:
        """How to rebuild a file, if it is there."""
        answer = self.request("GET", f"/v2/reconstructions/{file}")
        if answer.status == 404:
            return None
        assert answer.status == 200, answer.body
        return Reconstruction.from_json(answer.body)

    def fetches(self, file: Hash) -> list[FetchRange]:
        """The ranges that make up a file, which is there."""
        found = self.reconstruction(file)
        assert found is not None
        return [fetch for fetches in found.fetches.values() for fetch in fetches]

    @contextmanager
    def reading(self, fetch: FetchRange) -> Iterator[http.client.HTTPResponse]:
        """The bytes of a range, to be read; without a token."""
        span = f"bytes={fetch.byte_start}-{fetch.byte_end - 1}"
        self._connection.request("GET", fetch.url.removeprefix(self._url), headers={"Range": span})
        with self._connection.getresponse() as answer:
            assert answer.status == 206, answer.read()
            assert answer.length == fetch.byte_end - fetch.byte_start
            yield answer

    def has_whole(self, sample: Sample) -> bool:
        """Whether a file is there: it is, if at all, with the terms and the bytes that were sent. AssertionError."""
        found = self.reconstruction(sample.file.hash)
        if found is None:
            return False
        assert found.terms == sample.file.terms
        for fetches in found.fetches.values():
            for fetch in fetches:
                with self.reading(fetch) as answer:
                    assert answer.read() == sample.body[fetch.byte_start : fetch.byte_end]
        return True

    def xorb_size(self, xorb: Hash) -> int | None:
        """How long a xorb is, if it is there."""
        answer = self.request("HEAD", f"/v1/xorbs/default/{xorb}")
        return int(answer.headers["Content-Length"]) if answer.status == 200 else None

    def wait_for(self, metric: str, value: float) -> None:
        """Until the server says that a metric has this value."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while f"\n{metric} {float(value)}\n".encode() not in self.request("GET", "/metrics").body:
            assert time.monotonic() < deadline, self.request("GET", "/metrics").body.decode()
            time.sleep(0.01)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def result_of(answer: Response) -> int:
    """What came of a shard: 1 if anything in it was new. /v2 says it in its last line."""
    assert answer.status == 200, answer.body
    last = json.loads(answer.body.splitlines()[-1])
    assert "result" in last, answer.body
    return int(last["result"])


def at_once(call: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The results of a call for each of the items, all in threads of their own."""
    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(call, items))
