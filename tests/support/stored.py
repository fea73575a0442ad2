"""What tests of the server put into a store, and how they read it back as a client does: over HTTP alone."""

from __future__ import annotations

import hashlib
import http.client
import socket
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from tests.support.live import LiveServer, Response
from tests.support.strategies import hashed_chunks, splitmix64, unpacked
from xetstore import _kernel
from xetstore.protocol.chunking import ChunkList
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Reconstruction, Term, plan_fetches
from xetstore.protocol.shard import Shard, XorbEntry
from xetstore.protocol.suite import XET_GEARHASH_BLAKE3
from xetstore.protocol.xorb import XorbBuilder
from xetstore.testing.samples import Sample, entry_of

NO_FILE = "ab" * 32


def scattered(pieces: int, *, chunk_bytes: int = 1000, seed: int = 1) -> Sample:
    """A file of every other chunk of one xorb: as many terms, and as many ranges that do not touch."""
    data = splitmix64(seed, 2 * pieces * chunk_bytes)
    cut = [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]
    chunks = hashed_chunks(cut)
    builder = XorbBuilder()
    builder.append([data], chunks, policy=_kernel.NONE)
    info, body = builder.finish()
    content = b"".join(cut[::2])
    parts = [(Term(info.hash, at, at + 1, chunk_bytes), chunks.slice(at, at + 1)) for at in range(0, len(cut), 2)]
    return Sample(content, info, bytes(body), entry_of(parts, sha256=hashlib.sha256(content).digest()))


def file_of(sample: Sample, ranges: Sequence[tuple[int, int]]) -> tuple[Hash, bytes, Shard]:
    """Another file, made of chunk ranges of a sample's xorb: its hash, its bytes, the shard that registers it."""
    raw = bytearray(sample.xorb.raw_bytes)
    _kernel.decode_chunks(XET_GEARHASH_BLAKE3.kernel, sample.body, raw, final=True)
    bounds = list(accumulate(unpacked(sample.xorb.chunks.lengths), initial=0))
    parts: list[tuple[Term, ChunkList]] = []
    content = b""
    for start, end in ranges:
        content += raw[bounds[start] : bounds[end]]
        term = Term(sample.xorb.hash, start, end, bounds[end] - bounds[start])
        parts.append((term, sample.xorb.chunks.slice(start, end)))
    entry = entry_of(parts)
    return entry.hash, content, Shard((entry,), (XorbEntry(sample.xorb.hash, sample.xorb.chunks),))


def download(
    server: LiveServer, token: str | None, file: Hash, start: int = 0, end: int | None = None, *, version: int = 2
) -> bytes:
    """Bytes ``[start, end)`` of a file: a reconstruction, then a request for each range, without a token."""
    headers = {} if end is None and start == 0 else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
    answer = server.request("GET", f"/v{version}/reconstructions/{file}", headers=headers, token=token)
    assert answer.status == 200, answer.body
    found = Reconstruction.from_json(answer.body)
    length = found.unpacked_bytes - found.offset_into_first_term
    if end is not None:
        length = min(length, end - start)
    output = bytearray(length)
    for planned in plan_fetches(found, length):
        fetch = planned.fetch
        got = get_range(server, fetch.url, (fetch.byte_start, fetch.byte_end))
        assert got.status == 206, got.body
        raw = bytearray((fetch.chunk_end - fetch.chunk_start) * XET_GEARHASH_BLAKE3.max_chunk_bytes)
        _, lengths, _ = _kernel.decode_chunks(XET_GEARHASH_BLAKE3.kernel, got.body, raw, final=True)
        bounds = list(accumulate(unpacked(lengths), initial=0))
        for place in planned.placements:
            at = bounds[place.chunk_start - fetch.chunk_start] + place.skip
            output[place.output_offset : place.output_offset + place.length] = raw[at : at + place.length]
    return bytes(output)


def get_range(
    server: LiveServer,
    url: str,
    *ranges: tuple[int, int],
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
) -> Response:
    """GET of bytes ``[start, end)`` each."""
    listed = ",".join(f"{start}-{end - 1}" for start, end in ranges)
    return server.request(method, url, headers={"Range": f"bytes={listed}", **(headers or {})}, token=token)


def urls_of(server: LiveServer, token: str | None, file: Hash) -> list[tuple[str, list[tuple[int, int]]]]:
    """Each URL that the reconstruction of a file gives, with the byte ranges ``[start, end)`` it is for."""
    answer = server.request("GET", f"/v2/reconstructions/{file}", token=token)
    assert answer.status == 200, answer.body
    return [
        (entry["url"], [(part["bytes"]["start"], part["bytes"]["end"] + 1) for part in entry["ranges"]])
        for entries in answer.json()["xorbs"].values()
        for entry in entries
    ]


def without_urls(value: Any) -> Any:
    """JSON without its URLs, which no two answers have in common."""
    if isinstance(value, dict):
        return {key: without_urls(inner) for key, inner in value.items() if key != "url"}
    return [without_urls(inner) for inner in value] if isinstance(value, list) else value


def error_of(answer: Response) -> tuple[int, str]:
    """Status and code of a refusal, which has to have the form of all of them."""
    problem = answer.json()
    assert problem.keys() == {"code", "message", "request_id"}
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-Id"] == problem["request_id"]
    return answer.status, problem["code"]


def exchange(connection: socket.socket, head: Sequence[str], body: bytes = b"") -> http.client.HTTPResponse:
    """Send a request line and headers as they stand, and what there is of a body; and take the head of the answer."""
    connection.sendall("\r\n".join([*head, "", ""]).encode("latin-1") + body)
    answer = http.client.HTTPResponse(connection, method=head[0].partition(" ")[0])
    answer.begin()
    return answer


def gaps(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What lies between ranges."""
    return [(left[1], right[0]) for left, right in pairwise(ranges)]
