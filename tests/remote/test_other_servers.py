"""Servers that answer otherwise than ours, in each way that hf_xet takes: the file is the file, and a lie is found out.

Each row is one of the table "Other servers" of docs/client.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import xetstore
from tests.support.scripted import Connection, Scripted, Seen, Step, head, raw, reply
from xetstore.errors import HashMismatchError, IntegrityError, UnavailableError
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import FetchRange, Reconstruction
from xetstore.remote.http import HttpCas
from xetstore.remote.tokens import FixedToken
from xetstore.remote.transport import Patience, Transport
from xetstore.testing.samples import make_sample, random_bytes

SAMPLE = make_sample(random_bytes(400_000, 1), before=random_bytes(300_000, 2))
TERM = SAMPLE.file.terms[0]
START, END = SAMPLE.xorb.byte_range(TERM.chunk_start, TERM.chunk_end)
NAME = str(SAMPLE.file.hash)
OLDER = {"a key of another time": 1}

Give = Callable[[Connection, bytes, int], bool]
"""Answers with a body, which is bytes from an offset on."""


def plainly(status: int, **headers: str) -> Give:
    told = {name.replace("_", "-"): value for name, value in headers.items()}

    def give(connection: Connection, body: bytes, start: int) -> bool:
        connection.write(head(status, {"Content-Length": str(len(body)), **told}), body)
        return True

    return give


def in_chunks(connection: Connection, body: bytes, start: int) -> bool:
    connection.write(head(206, {"Transfer-Encoding": "chunked"}))
    for at in range(0, len(body), 100_000):
        piece = body[at : at + 100_000]
        connection.write(b"%x\r\n" % len(piece), piece, b"\r\n")
    connection.write(b"0\r\n\r\n")
    return True


def to_the_end(connection: Connection, body: bytes, start: int) -> bool:
    connection.write(head(206, {"Connection": "close"}), body)
    return False


def as_one_part(quote: str = "", status: int = 206, more: bytes = b"\r\n") -> Give:
    def give(connection: Connection, body: bytes, start: int) -> bool:
        part = f"\r\n--THE_LINE\r\nContent-Type: x/y\r\ncontent-range: bytes {start}-{start + len(body) - 1}/*\r\n\r\n"
        whole = part.encode() + body + b"\r\n--THE_LINE--" + more
        told = {"Content-Type": f"multipart/byteranges; boundary={quote}THE_LINE{quote}"}
        connection.write(head(status, told | {"Content-Length": str(len(whole))}), whole)
        return True

    return give


PLAINLY = plainly(206)
WAYS: dict[str, Give] = {
    "206 without Content-Range": PLAINLY,
    "206 with a Content-Range that cannot be read": plainly(206, Content_Range=f"bytes={START}-{END - 1}"),
    "206 with a Content-Range without a total": plainly(206, Content_Range=f"bytes {START}-{END - 1}"),
    "206 in chunks": in_chunks,
    "206 up to the end of the connection": to_the_end,
    "200 with the range alone": plainly(200),
    "203 with the range alone": plainly(203),
    "one part": as_one_part(),
    "one part of 200": as_one_part(status=200),
    "one part, quoted": as_one_part('"'),
    "one part, and no line end behind": as_one_part(more=b""),
}


@dataclass
class Other:
    """What a server does with its one file; ``change`` edits its reconstruction, ``lies`` flips a bit of the xorb."""

    give: Give = PLAINLY
    change: Callable[[dict[str, object]], object] = lambda _: None
    status: int = 200
    lies: bool = False
    lacks: tuple[str, ...] = ()
    moved: dict[str, int] = field(default_factory=dict)
    before: Callable[[Seen], Step | None] = lambda _: None


def serving(other: Other) -> Scripted:
    server: Scripted

    def answer(seen: Seen) -> Step:
        told = other.before(seen)
        if told is not None:
            return told
        kind = seen.path.removeprefix("/moved")
        status = other.moved.get(kind[:4] + kind.split("/")[2])
        if status is not None and kind == seen.path:
            return reply(status, b"gone", {"Location": f"/moved{seen.target}"})
        if any(kind.startswith(name) for name in other.lacks):
            return reply(404)
        if "/reconstructions/" in kind:
            found = Reconstruction(0, SAMPLE.file.terms, {TERM.xorb: (fetch_of(server),)})
            document = json.loads(found.to_v2_json() if kind.startswith("/v2") else found.to_v1_json())
            other.change(document)
            return reply(other.status, json.dumps(document).encode())
        if kind.startswith("/x/xorb"):
            first, _, last = seen.headers["range"].removeprefix("bytes=").partition("-")
            body = bytearray(SAMPLE.body[int(first) : int(last) + 1])
            if other.lies:
                body[len(body) // 2] ^= 1
            return lambda connection, _: other.give(connection, bytes(body), int(first))
        return reply(404)

    server = Scripted(answer)
    return server


def fetch_of(server: Scripted) -> FetchRange:
    return FetchRange(TERM.xorb, f"{server.url}/x/xorb", TERM.chunk_start, TERM.chunk_end, START, END)


def got(server: Scripted, folder: Path) -> bytes:
    with xetstore.open(server.url, cache=False, token="s3cret") as store:
        store.get(NAME, folder / "out")
    return (folder / "out").read_bytes()


# Ranges of xorbs


@pytest.mark.parametrize("way", WAYS)
def test_a_range_is_taken_as_it_comes(way: str, tmp_path: Path) -> None:
    with serving(Other(WAYS[way])) as server:
        assert got(server, tmp_path) == SAMPLE.data
        ranges = [seen.headers["range"] for seen in server.requests if "/xorb" in seen.path]
    assert ranges == [f"bytes={START}-{END - 1}"]


@pytest.mark.parametrize("way", WAYS)
def test_a_range_that_is_another_one_is_found_out(way: str, tmp_path: Path) -> None:
    with serving(Other(WAYS[way], lies=True)) as server, pytest.raises(IntegrityError):
        got(server, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("way", [in_chunks, to_the_end, as_one_part()], ids=["chunks", "end", "part"])
@pytest.mark.parametrize("by", [-1, 1])
def test_more_or_less_than_the_range_is_told(way: Give, by: int, tmp_path: Path) -> None:
    def give(connection: Connection, body: bytes, start: int) -> bool:
        return way(connection, body + b"x" if by > 0 else body[:-1], start)

    with (
        serving(Other(give)) as server,
        Transport(patience=Patience(attempts=1)) as transport,
        pytest.raises((IntegrityError, UnavailableError)),
        HttpCas(server.url, transport=transport).fetch_xorb(fetch_of(server)) as stream,
    ):
        while stream.readinto(memoryview(bytearray(1 << 20))):
            pass


def test_a_part_that_names_other_bytes_is_refused(tmp_path: Path) -> None:
    def give(connection: Connection, body: bytes, start: int) -> bool:
        return as_one_part()(connection, body, start + 1)

    with serving(Other(give)) as server, pytest.raises(IntegrityError):
        got(server, tmp_path)


def test_a_part_without_an_end_to_its_head_is_refused(tmp_path: Path) -> None:
    def give(connection: Connection, body: bytes, start: int) -> bool:
        told = {"Content-Type": "multipart/byteranges; boundary=b", "Content-Length": str(1 << 20)}
        connection.write(head(206, told), b"y" * (1 << 20))
        return True

    with serving(Other(give)) as server, pytest.raises(IntegrityError, match="does not say which bytes"):
        got(server, tmp_path)


@pytest.mark.parametrize("way", ["206 without Content-Range", "200 with the range alone", "one part"])
def test_a_range_that_breaks_goes_on(way: str, tmp_path: Path) -> None:
    calls: list[int] = []

    def give(connection: Connection, body: bytes, start: int) -> bool:
        calls.append(start)
        if len(calls) > 1:
            return WAYS[way](connection, body, start)
        connection.write(head(206, {"Content-Length": str(len(body))}), body[:150_000])
        return False

    with serving(Other(give)) as server:
        assert got(server, tmp_path) == SAMPLE.data
    assert len(calls) == 2
    assert calls[0] == START < calls[1]


# Reconstructions


def _upper(document: dict[str, object]) -> None:
    document["terms"] = [{**term, "hash": term["hash"].upper()} for term in document["terms"]]  # type: ignore[attr-defined]
    for name in ("xorbs", "fetch_info"):
        if name in document:
            document[name] = {xorb.upper(): ranges for xorb, ranges in document[name].items()}  # type: ignore[attr-defined]


def _unknown(document: dict[str, object]) -> None:
    document.update(OLDER)
    document["terms"] = [{**term, **OLDER} for term in document["terms"]]  # type: ignore[attr-defined]


def _others(document: dict[str, object]) -> None:
    """Ranges that no term needs, of this xorb and of another, in no order; one is empty."""
    [(xorb, [entry])] = document["xorbs"].items()  # type: ignore[attr-defined]
    [wanted] = entry["ranges"]
    more = {"chunks": {"start": 0, "end": 1}, "bytes": {"start": 0, "end": 99}}
    other = {"url": "http://127.0.0.1:1/never", "ranges": [more]}
    document["xorbs"] = {"ab" * 32: [other], xorb: [{**entry, "ranges": []}, {**entry, "ranges": [more, wanted, more]}]}


@pytest.mark.parametrize("change", [_upper, _unknown, _others], ids=["upper case", "unknown keys", "other ranges"])
def test_a_reconstruction_is_read_as_it_is(change: Callable[[dict[str, object]], None], tmp_path: Path) -> None:
    with serving(Other(change=change)) as server:
        assert got(server, tmp_path) == SAMPLE.data


@pytest.mark.parametrize("status", [200, 203, 206, 299])
@pytest.mark.parametrize("lacks", [(), ("/v2/",)])
def test_any_success_is_one(status: int, lacks: tuple[str, ...], tmp_path: Path) -> None:
    with serving(Other(status=status, lacks=lacks)) as server:
        assert got(server, tmp_path) == SAMPLE.data


def test_a_reconstruction_of_another_file_is_found_out(tmp_path: Path) -> None:
    other = Hash(bytes(32 * [7]))
    with (
        serving(Other()) as server,
        xetstore.open(server.url, cache=False, token="t") as store,
        pytest.raises(HashMismatchError),
    ):
        store.get(str(other), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_whatever_is_asked_for(status: int, tmp_path: Path) -> None:
    with serving(Other(moved={"/v2/reconstructions": status, "/x/xorb": status})) as server:
        assert got(server, tmp_path) == SAMPLE.data
        asked = [seen for seen in server.requests if "/v2/reconstructions" in seen.path]
    # To the same origin the token goes, too.
    assert [seen.headers.get("authorization") for seen in asked] == ["Bearer s3cret"] * 2


def test_a_redirect_to_elsewhere_is_followed_without_the_token(tmp_path: Path) -> None:
    with serving(Other()) as there:
        with serving(Other(before=lambda seen: reply(302, b"", {"Location": there.url + seen.target}))) as here:
            assert got(here, tmp_path) == SAMPLE.data
            assert {seen.headers.get("authorization") for seen in here.requests} == {"Bearer s3cret"}
        assert there.requests
        assert [seen for seen in there.requests if "authorization" in seen.headers] == []


def test_redirects_have_an_end(tmp_path: Path) -> None:
    def circle(seen: Seen) -> Step:
        return reply(302, b"", {"Location": seen.target})

    with Scripted(circle) as server, Transport(patience=Patience(attempts=1)) as transport:
        with pytest.raises(UnavailableError, match="redirects more than 10 times"):
            HttpCas(server.url, transport=transport).reconstruct(SAMPLE.file.hash)
        assert len(server.requests) == 11


@pytest.mark.parametrize("status", [307, 308])
def test_a_body_is_sent_again_where_a_redirect_says_so(status: int) -> None:
    def answer(seen: Seen) -> Step:
        if not seen.path.startswith("/moved"):
            return reply(status, b"", {"Location": f"/moved{seen.target}"})
        if "grants" in seen.path:
            return reply(404)
        return reply(202, b'{"was_inserted":true}') if "xorbs" in seen.path else reply(201, b'{"type":"result"}\n')

    with Scripted(answer) as server, Transport(patience=Patience(attempts=1)) as transport:
        cas = HttpCas(server.url, tokens=FixedToken("s3cret"), transport=transport)
        assert cas.put_xorb(SAMPLE.xorb.hash, SAMPLE.body) is True
        assert cas.put_shard(SAMPLE.shard) is True
        bodies = [seen.body for seen in server.requests if seen.path.startswith("/moved/v")]
    assert bodies[1:] == [SAMPLE.body, SAMPLE.shard.serialize()]


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_body_is_not_lost_on_the_way(status: int) -> None:
    """By these a POST becomes a GET."""
    with (
        Scripted(lambda _: reply(status, b"", {"Location": "/elsewhere"})) as server,
        Transport(patience=Patience(attempts=1)) as transport,
        pytest.raises(xetstore.XetError, match="redirects to /elsewhere"),
    ):
        HttpCas(server.url, transport=transport).put_shard(SAMPLE.shard)
    assert len(server.requests) == 1


# Frames and dedup answers


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"of another time","result":{"new":1},"message":null,"verified":"all","stage":7,"retryable":"no"}\n',
        b'{"type":"validating","verified":null,"total":[]}\n',
        b'{"type":"validating","verified":18446744073709551615,"total":1}\n',
        b'{"type":"committing","stage":{"name":"syncing"}}\n',
    ],
)
def test_what_a_frame_says_beside_is_taken_where_it_is_known(line: bytes) -> None:
    body = line + b'{"type":"result","result":{"files":1},"message":null}\n' + b"garbage behind it"
    with Scripted(lambda _: reply(200, body)) as server, Transport(patience=Patience(attempts=1)) as transport:
        assert HttpCas(server.url, transport=transport).put_shard(SAMPLE.shard) is True


@pytest.mark.parametrize("expires_at", [0, 1])
def test_a_dedup_answer_is_of_use_in_the_session_that_asked(expires_at: int) -> None:
    answer = SAMPLE.shard.keyed(bytes(range(32)), 0, expires_at).serialize_with_footer()
    with Scripted(lambda _: reply(203, answer)) as server, Transport(patience=Patience(attempts=1)) as transport:
        found = HttpCas(server.url, transport=transport).find_chunks(Hash(SAMPLE.xorb.chunks.digest(0)))
    assert found is not None
    assert [xorb.hash for xorb in found.xorbs] == [SAMPLE.xorb.hash]


def test_a_server_that_breaks_off_in_a_part_is_asked_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def give(connection: Connection, body: bytes, start: int) -> bool:
        calls.append(start)
        if len(calls) > 1:
            return as_one_part()(connection, body, start)
        told = {"Content-Type": "multipart/byteranges; boundary=b", "Content-Length": "1000"}
        return raw(head(206, told), b"--b\r\nConte")(connection, None)  # type: ignore[arg-type]

    with serving(Other(give)) as server:
        assert got(server, tmp_path) == SAMPLE.data
