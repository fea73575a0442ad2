"""Reconstructions over HTTP: every form and range of them, who gets one, and what nobody gets."""

from __future__ import annotations

import gzip
import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import deployments
from tests.support.live import LiveServer, live_server
from tests.support.stored import NO_FILE, download, error_of, exchange, file_of, scattered, urls_of, without_urls
from xetstore.cas.service import EmbeddedCas
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import Reconstruction
from xetstore.protocol.shard import FileEntry, Shard
from xetstore.server.routes.reconstructions import MAX_BATCH_BYTES, MAX_BATCH_FILES
from xetstore.testing.samples import Sample, make_sample, random_bytes, upload

DEPLOYMENTS = deployments.BOTH

SAMPLE = make_sample(random_bytes(3_000_000, 1), before=random_bytes(200_000, 2))
OTHER = make_sample(random_bytes(300_000, 3))
SCATTERED = scattered(130)
FILE = SAMPLE.file.hash
SIZE = len(SAMPLE.data)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, deployment: deployments.Deployment) -> Iterator[LiveServer]:
    with deployment.open(tmp_path_factory.mktemp("reconstructions")) as cas:
        for sample in (SAMPLE, OTHER, SCATTERED):
            upload(cas, sample)
        cas.put_shard(Shard((FileEntry(Hash.ZERO, (), ()),)))
        with deployment.serve(cas) as running:
            yield running


@pytest.fixture(scope="module")
def token(server: LiveServer) -> str:
    return server.token("read")


def ranged(server: LiveServer, token: str, value: str, *, file: object = FILE, version: int = 2) -> Any:
    return server.request("GET", f"/v{version}/reconstructions/{file}", headers={"Range": value}, token=token)


# --- The answer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("sample", [SAMPLE, OTHER, SCATTERED], ids=["in the middle of a xorb", "whole", "scattered"])
def test_following_an_answer_gives_the_file(server: LiveServer, token: str, version: int, sample: Sample) -> None:
    assert download(server, token, sample.file.hash, version=version) == sample.data


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (0, SIZE), (1, 2), (123_456, 2_345_678), (SIZE - 1, SIZE), (SIZE - 70_000, None)]
)
def test_following_an_answer_to_a_range_gives_its_bytes(
    server: LiveServer, token: str, start: int, end: int | None
) -> None:
    for version in (1, 2):
        assert download(server, token, FILE, start, end, version=version) == SAMPLE.data[start:end]


def test_an_answer_has_the_fields_of_its_version_and_no_others(server: LiveServer, token: str) -> None:
    first = server.request("GET", f"/v1/reconstructions/{FILE}", token=token).json()
    second = server.request("GET", f"/v2/reconstructions/{FILE}", token=token).json()
    assert first.keys() == {"offset_into_first_range", "terms", "fetch_info"}
    assert second.keys() == {"offset_into_first_range", "terms", "xorbs"}
    assert first["terms"] == second["terms"]
    assert {key for term in first["terms"] for key in term} == {"hash", "unpacked_length", "range"}
    ((entry,),) = first["fetch_info"].values()
    assert entry.keys() == {"range", "url", "url_range"}
    ((entry,),) = second["xorbs"].values()
    assert entry.keys() == {"url", "ranges"}


def test_a_range_is_trimmed_to_the_chunks_that_hold_it(server: LiveServer, token: str) -> None:
    answer = ranged(server, token, "bytes=1000000-1000000").json()
    (term,) = answer["terms"]
    assert term["range"]["end"] - term["range"]["start"] == 1
    assert 0 <= answer["offset_into_first_range"] < term["unpacked_length"] <= 131072


def test_the_end_of_a_range_is_cut_off_at_the_end_of_the_file(server: LiveServer, token: str) -> None:
    whole = without_urls(server.request("GET", f"/v2/reconstructions/{FILE}", token=token).json())
    for last in (SIZE - 1, SIZE, 10**12, 10**30):
        answer = ranged(server, token, f"bytes=0-{last}")
        assert (answer.status, without_urls(answer.json())) == (200, whole)


def test_touching_ranges_of_a_xorb_are_one_entry(server: LiveServer, token: str) -> None:
    file, content, shard = file_of(OTHER, [(0, 1), (1, 3), (0, 2)])
    server.site.cas.put_shard(shard)
    answer = server.request("GET", f"/v1/reconstructions/{file}", token=token).json()
    ((entry,),) = answer["fetch_info"].values()
    assert entry["range"] == {"start": 0, "end": 3}
    assert download(server, token, file, version=1) == content


def test_urls_are_absolute_and_lead_back_here(server: LiveServer, token: str) -> None:
    for url, _ in urls_of(server, token, FILE):
        assert url.startswith(f"{server.url}/v1/xorbs/default/{SAMPLE.xorb.hash}-")


def test_a_url_names_64_ranges_at_most(server: LiveServer, token: str) -> None:
    assert [len(ranges) for _, ranges in urls_of(server, token, SCATTERED.file.hash)] == [64, 64, 2]
    entries = server.request("GET", f"/v1/reconstructions/{SCATTERED.file.hash}", token=token).json()["fetch_info"]
    (listed,) = entries.values()
    assert len(listed) == 130
    assert len({entry["url"] for entry in listed}) == 130  # old clients take equal URLs for equal ranges


def test_nobody_in_between_may_keep_an_answer(server: LiveServer, token: str) -> None:
    for path in (f"/v1/reconstructions/{FILE}", f"/v2/reconstructions/{FILE}", f"/v1/reconstructions?file_id={FILE}"):
        headers = server.request("GET", path, token=token).headers
        assert headers["Cache-Control"] == "private, no-store"
        assert headers["Content-Type"] == "application/json"
        assert headers["Vary"] == "Accept-Encoding"


def test_head_has_the_headers_of_get_and_no_body(server: LiveServer, token: str) -> None:
    answer = server.request("HEAD", f"/v2/reconstructions/{FILE}", token=token)
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 100


def test_the_names_that_old_clients_use_give_the_answer_of_v1(server: LiveServer, token: str) -> None:
    first = without_urls(server.request("GET", f"/v1/reconstructions/{FILE}", token=token).json())
    for path in (f"/reconstructions/{FILE}", f"/reconstruction/{FILE}", f"//v1//reconstructions//{FILE}"):
        assert without_urls(server.request("GET", path, token=token).json()) == first


# --- Ranges that are not there --------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("first", [SIZE, SIZE + 1, 10**12, 10**30])
def test_a_range_past_the_end_is_416_and_says_where_the_end_is(
    server: LiveServer, token: str, version: int, first: int
) -> None:
    for value in (f"bytes={first}-", f"bytes={first}-{first + 10}"):
        answer = ranged(server, token, value, version=version)
        assert error_of(answer) == (416, "range")
        assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


def test_the_last_bytes_are_found_without_knowing_the_size(server: LiveServer, token: str) -> None:
    for count in (1, 1000, SIZE, SIZE + 1):
        answer = ranged(server, token, f"bytes=-{count}").json()
        whole = ranged(server, token, f"bytes={max(SIZE - count, 0)}-").json()
        assert without_urls(answer) == without_urls(whole)
    assert error_of(ranged(server, token, "bytes=-0")) == (416, "range")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5",
        "bytes=5-4",
        "bytes=a-b",
        "items=0-1",
        "0-1",
        "bytes=0-1,4-5",
        "bytes=0-1,x",
    ],
)
def test_a_range_that_is_not_understood_is_refused_and_never_the_whole_file(
    server: LiveServer, token: str, value: str
) -> None:
    assert error_of(ranged(server, token, value)) == (400, "usage")


def test_two_range_headers_are_refused(server: LiveServer, token: str) -> None:
    with server.connect() as connection:
        head = [
            f"GET /v1/reconstructions/{FILE} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {token}",
            "Range: bytes=0-1",
            "Range: bytes=0-9",
        ]
        assert exchange(connection, head).status == 400


# --- The empty file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_the_empty_file_has_no_terms(server: LiveServer, token: str, version: int) -> None:
    answer = server.request("GET", f"/v{version}/reconstructions/{Hash.ZERO}", token=token)
    assert Reconstruction.from_json(answer.body) == Reconstruction(0, (), {})


def test_the_empty_file_too_is_found_by_those_only_who_have_it(server: LiveServer) -> None:
    answer = server.request("GET", f"/v1/reconstructions/{Hash.ZERO}", token=server.token("read", "elsewhere"))
    assert error_of(answer) == (404, "not_found")


def test_a_range_from_the_start_of_the_empty_file_is_all_of_it(server: LiveServer, token: str) -> None:
    answer = ranged(server, token, "bytes=0-255999999", file=Hash.ZERO)
    assert (answer.status, answer.json()["terms"]) == (200, [])


def test_no_byte_of_the_empty_file_can_be_asked_for(server: LiveServer, token: str) -> None:
    for value in ("bytes=1-", "bytes=5-9", "bytes=-1"):
        answer = ranged(server, token, value, file=Hash.ZERO)
        assert error_of(answer) == (416, "range")
        assert answer.headers["Content-Range"] == "bytes */0"


# --- Compression ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("accepted", ["gzip", "deflate, gzip;q=1.0, *;q=0.5", "br , GZIP", "gzip;q=0.1"])
def test_a_long_answer_is_compressed_for_those_who_like_it(server: LiveServer, token: str, accepted: str) -> None:
    path = f"/v2/reconstructions/{SCATTERED.file.hash}"
    plain = server.request("GET", path, token=token, headers={"Accept-Encoding": "identity"})
    packed = server.request("GET", path, token=token, headers={"Accept-Encoding": accepted})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 3
    assert without_urls(json.loads(gzip.decompress(packed.body))) == without_urls(plain.json())


@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0", "gzip; q=0.000", "gzipped", "*;q=0"])
def test_it_is_not_compressed_for_anybody_else(server: LiveServer, token: str, accepted: str) -> None:
    path = f"/v2/reconstructions/{SCATTERED.file.hash}"
    answer = server.request("GET", path, token=token, headers={"Accept-Encoding": accepted})
    assert "Content-Encoding" not in answer.headers
    assert answer.json()["terms"]


def test_a_short_answer_is_not_worth_compressing(server: LiveServer, token: str) -> None:
    answer = server.request("GET", f"/v2/reconstructions/{FILE}", token=token, headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in answer.headers


# --- Chunk hashes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
def test_the_chunk_hashes_of_terms_come_with_the_answer_if_asked_for(
    server: LiveServer, token: str, version: int
) -> None:
    path = f"/v{version}/reconstructions/{FILE}"
    headers = {"X-Xet-Chunk-Hashes": "true", "Range": "bytes=1000000-1999999"}
    found = Reconstruction.from_json(server.request("GET", path, token=token, headers=headers).body)
    assert found.term_hashes == tuple(
        SAMPLE.xorb.chunks.slice(term.chunk_start, term.chunk_end).hashes for term in found.terms
    )


def test_nobody_gets_chunk_hashes_unasked(server: LiveServer, token: str) -> None:
    for headers in ({}, {"X-Xet-Chunk-Hashes": "false"}, {"X-Xet-Chunk-Hashes": ""}):
        answer = server.request("GET", f"/v2/reconstructions/{FILE}", token=token, headers=headers)
        assert b"chunk_hashes" not in answer.body


# --- Several files --------------------------------------------------------------------------------------


def batch(server: LiveServer, token: str, files: list[object], method: str) -> Any:
    if method == "GET":
        query = "&".join(f"file_id={file}" for file in files)
        return server.request("GET", f"/v1/reconstructions?{query}", token=token)
    body = json.dumps([{"prefix": "default", "hash": str(file)} for file in files]).encode()
    return server.request("POST", "/v1/reconstructions", body=body, token=token)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_several_files_are_answered_at_once(server: LiveServer, token: str, method: str) -> None:
    files: list[object] = [FILE, SCATTERED.file.hash, Hash.ZERO]
    answer = batch(server, token, files, method)
    assert answer.status == 200
    alone = {str(file): server.request("GET", f"/v1/reconstructions/{file}", token=token).json() for file in files}
    assert answer.json()["files"] == {file: found["terms"] for file, found in alone.items()}
    together = {xorb: entries for found in alone.values() for xorb, entries in found["fetch_info"].items()}
    assert without_urls(answer.json()["fetch_info"]) == without_urls(together)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_file_named_twice_is_answered_once(server: LiveServer, token: str, method: str) -> None:
    answer = batch(server, token, [FILE, FILE], method).json()
    assert list(answer["files"]) == [str(FILE)]
    ((entry,),) = answer["fetch_info"].values()
    assert entry["range"] == {
        "start": SAMPLE.file.terms[0].chunk_start,
        "end": SAMPLE.file.terms[0].chunk_end,
    }


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_one_missing_file_is_404_for_all(server: LiveServer, token: str, method: str) -> None:
    assert error_of(batch(server, token, [FILE, NO_FILE], method)) == (404, "not_found")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("files", [[], ["x"], ["AB" * 32], [f"{NO_FILE}0"], [""]], ids=repr)
def test_what_is_no_list_of_files_is_refused(server: LiveServer, token: str, method: str, files: list[object]) -> None:
    assert error_of(batch(server, token, files, method)) == (400, "usage")


def test_too_many_files_are_refused(server: LiveServer, token: str) -> None:
    files: list[object] = [f"{number:064x}" for number in range(MAX_BATCH_FILES + 1)]
    assert error_of(batch(server, token, files, "POST")) == (400, "usage")
    assert error_of(batch(server, token, files[:-1], "POST")) == (404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b'"x"',
        b"[1]",
        b"[{}]",
        b'[{"hash":5}]',
        b'[{"hash":null}]',
        b'[{"hash":["ab"]}]',
        b'[{"hash":"' + NO_FILE.encode() + b'"}',
        b'[{"hash":"\xff"}]',
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_no_list_of_names_is_refused(server: LiveServer, token: str, body: bytes) -> None:
    assert error_of(server.request("POST", "/v1/reconstructions", body=body, token=token)) == (400, "usage")


def test_unknown_keys_in_the_body_are_ignored(server: LiveServer, token: str) -> None:
    body = json.dumps([{"hash": str(FILE), "more": [1, {"x": None}]}]).encode()
    assert server.request("POST", "/v1/reconstructions", body=body, token=token).status == 200


def test_a_body_that_no_list_can_need_is_refused_before_it_is_read(server: LiveServer, token: str) -> None:
    with server.connect() as connection:
        head = [
            "POST /v1/reconstructions HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {token}",
            f"Content-Length: {MAX_BATCH_BYTES + 1}",
        ]
        assert exchange(connection, head).status == 413


# --- Who may --------------------------------------------------------------------------------------------

PATHS = [f"/v1/reconstructions/{FILE}", f"/v2/reconstructions/{FILE}", f"/v1/reconstructions?file_id={FILE}"]


@pytest.mark.parametrize("path", PATHS)
def test_without_a_valid_token_there_is_no_answer(server: LiveServer, token: str, path: str) -> None:
    for given in (None, "x", token[:-1], token + "x"):
        answer = server.request("GET", path, token=given)
        assert error_of(answer) == (401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="xetstore"')
        assert ("invalid_token" in answer.headers["WWW-Authenticate"]) == (given is not None)
        assert given is None or given.encode() not in answer.body.replace(b"x", b"") or given == "x"


def test_a_missing_file_is_looked_for_with_a_valid_token_only(server: LiveServer) -> None:
    assert error_of(server.request("GET", f"/v1/reconstructions/{NO_FILE}")) == (401, "unauthenticated")
    assert error_of(server.request("POST", "/v1/reconstructions", body=b"[]")) == (401, "unauthenticated")
    assert server.request("HEAD", f"/v1/files/{NO_FILE}").status == 401


@pytest.mark.parametrize("scope", ["read", "write", "admin"])
def test_every_scope_can_read(server: LiveServer, scope: str) -> None:
    for path in PATHS:
        assert server.request("GET", path, token=server.token(scope)).status == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_file_of_another_namespace_looks_as_if_it_were_missing(server: LiveServer, path: str) -> None:
    stranger = server.token("admin", "strangers")
    foreign = server.request("GET", path, token=stranger)
    missing = server.request("GET", path.replace(str(FILE), NO_FILE), token=stranger)
    assert error_of(foreign) == error_of(missing) == (404, "not_found")
    assert foreign.json()["message"] == missing.json()["message"].replace(NO_FILE, str(FILE))
    assert foreign.headers.keys() == missing.headers.keys()


def test_a_range_past_the_end_of_a_foreign_file_does_not_tell_its_size(server: LiveServer) -> None:
    for value in (f"bytes={SIZE}-", "bytes=-1", "bytes=-0"):
        assert error_of(ranged(server, server.token("read", "strangers"), value)) == (404, "not_found")


@pytest.mark.parametrize(
    "name", ["x", "AB" * 32, "ab" * 31, "ab" * 33, "g" * 64, "ab" * 31 + "a.", "-" + "ab" * 31 + "a"]
)
def test_only_a_hash_in_its_one_spelling_names_a_file(server: LiveServer, token: str, name: str) -> None:
    for path in (f"/v1/reconstructions/{name}", f"/v2/reconstructions/{name}"):
        assert error_of(server.request("GET", path, token=token)) == (400, "usage")
    assert server.request("HEAD", f"/v1/files/{name}", token=token).status == 400


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f" + "a" * 61, "%00" * 3, "%61" * 64, "é", "a/b"])
def test_what_only_looks_like_a_path_leads_nowhere(server: LiveServer, token: str, name: str) -> None:
    with server.connect() as connection:
        head = (f"GET /v1/reconstructions/{name} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}")
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status in (400, 404)


# --- Sizes ----------------------------------------------------------------------------------------------


def test_the_size_of_a_file_is_the_length_of_an_answer_without_body(server: LiveServer, token: str) -> None:
    for sample in (SAMPLE, OTHER):
        answer = server.request("HEAD", f"/v1/files/{sample.file.hash}", token=token)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["Content-Length"] == str(len(sample.data))
    assert server.request("HEAD", f"/v1/files/{Hash.ZERO}", token=token).headers["Content-Length"] == "0"


def test_a_connection_lives_on_after_an_answer_that_promises_a_body_and_has_none(
    server: LiveServer, token: str
) -> None:
    with server.connect() as connection:
        for _ in range(3):
            head = [f"HEAD /v1/files/{FILE} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}"]
            answer = exchange(connection, head)
            assert (answer.status, answer.read()) == (200, b"")


def test_the_size_of_a_file_is_for_those_who_may_read_it(server: LiveServer, token: str) -> None:
    assert server.request("HEAD", f"/v1/files/{NO_FILE}", token=token).status == 404
    assert server.request("HEAD", f"/v1/files/{FILE}", token=server.token("read", "strangers")).status == 404


# --- Settings -------------------------------------------------------------------------------------------


def test_urls_start_with_what_the_server_is_called_from_outside(cas: EmbeddedCas) -> None:
    upload(cas, OTHER)
    with live_server(cas, public_url="https://xet.example.org/cas/") as server:
        ((url, _),) = urls_of(server, server.token(), OTHER.file.hash)
        assert url.startswith(f"https://xet.example.org/cas/v1/xorbs/default/{OTHER.xorb.hash}-")


def test_urls_are_made_of_the_host_that_was_asked(server: LiveServer, token: str) -> None:
    answer = server.request("GET", f"/v2/reconstructions/{FILE}", token=token, headers={"Host": "xet.local:81"})
    ((entry,),) = answer.json()["xorbs"].values()
    assert entry["url"].startswith("http://xet.local:81/v1/xorbs/")


@pytest.mark.usefixtures("one_server")
@pytest.mark.parametrize("host", ["", "a b", "evil.example/x?y=", "user@evil.example", "a:b", '"'])
def test_a_host_that_is_none_is_not_put_into_a_url(server: LiveServer, token: str, host: str) -> None:
    answer = server.request("GET", f"/v2/reconstructions/{FILE}", token=token, headers={"Host": host})
    assert error_of(answer) == (400, "usage")


def test_urls_for_the_edge_carry_no_signature(cas: EmbeddedCas) -> None:
    upload(cas, OTHER)
    with live_server(cas, xorb_urls="edge") as server:
        ((url, _),) = urls_of(server, server.token(), OTHER.file.hash)
        assert re.fullmatch(f"{server.url}/v1/xorbs/default/{OTHER.xorb.hash}-[0-9a-f]{{16}}", url)


def test_a_store_whose_index_is_damaged_says_so_and_nothing_else(tmp_path: Path) -> None:
    with EmbeddedCas.open(tmp_path / "store") as cas:
        upload(cas, OTHER)
    (stored,) = (tmp_path / "store" / "xorbs").rglob(f"{OTHER.xorb.hash}-*")
    stored.chmod(0o600)
    stored.write_bytes(stored.read_bytes()[: OTHER.xorb.region_bytes] + b"x")
    with EmbeddedCas.open(tmp_path / "store") as cas, live_server(cas) as server:
        answer = server.request(
            "GET", f"/v1/reconstructions/{OTHER.file.hash}", headers={"Range": "bytes=5-9"}, token=server.token()
        )
        assert error_of(answer) == (500, "damaged")
        assert str(tmp_path).encode() not in answer.body
