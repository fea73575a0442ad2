"""GET /v2/file-chunk-hashes: a file is edited over HTTP by what it answers, by those who may read the file."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

from tests.support import deployments
from tests.support.live import LiveServer, live_server, until
from xetstore.cas.service import EmbeddedCas
from xetstore.protocol.chunking import ChunkList, chunk_bytes
from xetstore.protocol.hashes import Hash, file_hash, verification_hash, xorb_hash
from xetstore.protocol.range_edit import EditPlan
from xetstore.protocol.reconstruction import Term
from xetstore.protocol.shard import FileEntry, Shard, XorbEntry
from xetstore.protocol.xorb import CompressionPolicy, XorbBuilder
from xetstore.server.routes import file_chunk_hashes
from xetstore.testing.samples import entry_of, make_sample, random_bytes, read_back, upload

DEPLOYMENTS = deployments.BOTH

FILE_BYTES = 6_000_000
TERM_CHUNKS = 15


def put_file(cas: EmbeddedCas, data: bytes) -> FileEntry:
    """Store a file whose terms have TERM_CHUNKS chunks each."""
    chunks = chunk_bytes(data)
    parts, at = [], 0
    for first in range(0, len(chunks), TERM_CHUNKS):
        run = chunks.slice(first, min(first + TERM_CHUNKS, len(chunks)))
        parts.append(put_chunks(cas, data[at : at + run.total_bytes], run))
        at += run.total_bytes
    return register(cas, parts)


def put_chunks(cas: EmbeddedCas, data: bytes, chunks: ChunkList) -> tuple[Term, ChunkList]:
    builder = XorbBuilder()
    builder.append([data], chunks, policy=CompressionPolicy.LZ4)
    xorb, body = builder.finish()
    cas.put_xorb(xorb.hash, bytes(body))
    return Term(xorb.hash, 0, len(chunks), len(data)), chunks


def register(cas: EmbeddedCas, parts: list[tuple[Term, ChunkList]]) -> FileEntry:
    entry = entry_of(parts)
    cas.put_shard(Shard((entry,), tuple(XorbEntry(term.xorb, chunks) for term, chunks in parts)))
    return entry


@pytest.fixture
def data() -> bytes:
    return random_bytes(FILE_BYTES)


def hash_of(data: bytes) -> Hash:
    chunks = chunk_bytes(data)
    return file_hash(xorb_hash(chunks.hashes, chunks.lengths))


def ask(server: LiveServer, file: Hash, dirty: str) -> EditPlan:
    answer = server.request(
        "GET", f"/v2/file-chunk-hashes/{file}", headers={"X-Range-Dirty": dirty}, token=server.token("read")
    )
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "private, no-store"
    return EditPlan.from_json(answer.body)


def code_of(server: LiveServer, path: str, headers: dict[str, str], token: str | None) -> tuple[int, str]:
    answer = server.request("GET", path, headers=headers, token=token)
    return answer.status, answer.json()["code"]


def term_edges(terms: Sequence[Term]) -> list[int]:
    edges = [0]
    for term in terms:
        edges.append(edges[-1] + term.unpacked_bytes)
    return edges


def test_an_edited_file_is_composed_of_new_windows_and_old_terms(
    server: LiveServer, cas: EmbeddedCas, data: bytes
) -> None:
    old = put_file(cas, data)
    edges = term_edges(old.terms)
    start, end, put = 3_000_000, 3_000_100, random_bytes(300_000, seed=1)
    new_data = data[:start] + put + data[end:]
    first = max(edge for edge in edges if edge <= start)
    last = min(edge for edge in edges if edge >= end)
    plan = ask(server, old.hash, f"bytes={first}-{last - 1}")
    [(window_start, window_end)] = plan.windows
    assert window_end - window_start < FILE_BYTES / 2
    # Only the window is read and chunked.
    window = data[window_start:start] + put + data[end:window_end]
    chunks = chunk_bytes(window)
    hashes = iter(plan.gap_verification)
    terms: list[Term] = []
    verification: list[Hash] = []
    for term, edge in zip(old.terms, edges, strict=False):
        if edge == window_start:
            terms.append(put_chunks(cas, window, chunks)[0])
            verification.append(verification_hash(chunks.hashes))
        elif not window_start < edge < window_end:
            terms.append(term)
            verification.append(next(hashes))
    assert list(hashes) == []
    edited = FileEntry(plan.edited_hash([chunks]), tuple(terms), tuple(verification), None)
    assert cas.put_shard(Shard((edited,), ()))
    assert edited.hash == hash_of(new_data)
    assert read_back(cas, edited.hash) == new_data


def test_many_small_edits_at_once(server: LiveServer, cas: EmbeddedCas, data: bytes) -> None:
    file = put_file(cas, data).hash
    places = sorted(random.Random(5).sample(range(FILE_BYTES), 20))
    new = bytearray(data)
    for place in places:
        new[place] ^= 0xFF
    # In any order, and past the end.
    listed = [f"{place}-{place}" for place in reversed(places)] + [f"{FILE_BYTES}-{FILE_BYTES + 9}"]
    plan = ask(server, file, "bytes=" + ",".join(listed))
    assert len(plan.windows) > 5
    assert plan.file_bytes == FILE_BYTES
    assert plan.total_chunks == len(chunk_bytes(data))
    windows = [chunk_bytes(new[start:end]) for start, end in plan.windows]
    assert plan.edited_hash(windows) == hash_of(bytes(new))


def test_the_dirty_ranges_are_required_once_and_well_formed(server: LiveServer, cas: EmbeddedCas) -> None:
    file = upload(cas, make_sample(b"some bytes"))
    path, token = f"/v2/file-chunk-hashes/{file}", server.token("read")
    assert code_of(server, path, {}, token) == (400, "usage")
    for dirty in ("", "bytes=", "0-1", "bytes=1-0", "bytes=5-", "bytes=0-18446744073709551616", "bytes=10-20"):
        assert code_of(server, path, {"X-Range-Dirty": dirty}, token) == (400, "usage")
    with server.connect() as connection:
        lines = [f"GET {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", "Connection: close"]
        lines += ["X-Range-Dirty: bytes=0-0", "X-Range-Dirty: bytes=1-1", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["code"] == "usage"


def test_nobody_learns_of_a_file_that_is_not_theirs(server: LiveServer, cas: EmbeddedCas) -> None:
    file = upload(cas, make_sample(b"some bytes"))
    dirty = {"X-Range-Dirty": "bytes=0-0"}
    path = f"/v2/file-chunk-hashes/{file}"
    assert server.request("GET", path, headers=dirty, token=server.token("read")).status == 200
    assert code_of(server, path, dirty, None) == (401, "unauthenticated")
    theirs = code_of(server, path, dirty, server.token("write", "another"))
    unknown = code_of(server, f"/v2/file-chunk-hashes/{'1' * 64}", dirty, server.token("read"))
    assert theirs == unknown == (404, "not_found")
    assert code_of(server, "/v2/file-chunk-hashes/nonsense", dirty, server.token("read")) == (400, "usage")


def test_an_empty_file_has_nothing_to_be_edited(server: LiveServer, cas: EmbeddedCas) -> None:
    cas.put_shard(Shard((FileEntry(Hash.ZERO, (), (), None),), ()))
    path = f"/v2/file-chunk-hashes/{Hash.ZERO}"
    assert code_of(server, path, {"X-Range-Dirty": "bytes=0-0"}, server.token("read")) == (400, "usage")


def test_the_memory_an_answer_takes_is_counted(cas: EmbeddedCas, data: bytes) -> None:
    file = put_file(cas, data).hash
    with live_server(cas, max_bytes_in_flight=1 << 20) as server:
        # More than all of the budget is all of it, not more than there can be.
        assert ask(server, file, "bytes=0-0").windows[0][0] == 0
        until(lambda: server.site.limits.reading.used == 0)


def test_a_file_that_repeats_itself_endlessly_is_better_uploaded_as_a_whole(
    server: LiveServer, cas: EmbeddedCas, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Forty times the same chunk: nothing says where nodes of the tree end.
    file = put_file(cas, bytes(40 * 131_072)).hash
    path, dirty = f"/v2/file-chunk-hashes/{file}", {"X-Range-Dirty": "bytes=5000000-5000000"}
    assert server.request("GET", path, headers=dirty, token=server.token()).status == 200
    monkeypatch.setattr(file_chunk_hashes, "MAX_NODES", 37)
    assert code_of(server, path, dirty, server.token()) == (400, "usage")
