"""docs/protocol.md: its programs run as they stand, beside the reference client, on bytes of its and for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import xetstore
from tests.support.hf_process import HfProcess
from tests.support.proxy import proxy
from tests.support.servers import Server
from tests.support.strategies import splitmix64, text
from xetstore import protocol
from xetstore.protocol import FormatError, Hash, XorbInfo, chunk_bytes

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
PROGRAMS: dict[str, str] = dict(
    re.findall(r'^```python title="(\w+\.py)"\n(.*?)^```$', PAGE.read_text(), re.MULTILINE | re.DOTALL)
)
CONTENT = text(400_000) + splitmix64(8, 2_500_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server") / "store") as running:
        yield running


def run(name: str, folder: Path, *arguments: object, token: str = "") -> subprocess.CompletedProcess[str]:
    """A program of the page, as a process of its own."""
    program = folder / name
    program.write_text(PROGRAMS[name])
    return subprocess.run(
        [sys.executable, program, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "XET_TOKEN": token},
        timeout=120,
        check=False,
    )


def functions(name: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(PROGRAMS[name], name, "exec"), names)
    return names


def test_the_first_block_prints_what_stands_below_it() -> None:
    [program] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    [printed] = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    first, _, name = done.stdout.partition("\n")
    assert printed.splitlines()[0] == first
    assert Hash.parse(name.strip())


def test_programs_are_as_short_as_they_are_said_to_be() -> None:
    assert set(PROGRAMS) == {"list_xorb.py", "upload.py", "answers.py"}
    for name, program in PROGRAMS.items():
        assert len([line for line in program.splitlines() if line.strip()]) <= 40, name


def test_a_xorb_of_the_reference_client_is_listed_and_verified(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(splitmix64(1, 900_000))
    [info] = HfProcess(server.connect(), tmp_path / "home").upload([tmp_path / "file"]).infos
    with xetstore.open(server.root, create=False) as store:
        [term] = store.cas.reconstruct(info.hash).terms
    [stored] = (server.root / "xorbs").rglob(f"{term.xorb}-*")
    body = stored.read_bytes()
    xorb = XorbInfo.read(body[: body.rindex(b"XETBLOB") + XorbInfo.footer_bytes(term.chunk_end)])
    (tmp_path / "xorb").write_bytes(body[: xorb.region_bytes + XorbInfo.footer_bytes(xorb.chunk_count)])
    done = run("list_xorb.py", tmp_path, tmp_path / "xorb", term.xorb)
    assert done.returncode == 0, done.stderr
    chunks = chunk_bytes((tmp_path / "file").read_bytes())
    *listed, last = done.stdout.splitlines()
    assert [line.split()[1:3] for line in listed] == [[name, str(length)] for name, length in chunks]
    assert f"xorb {term.xorb}: {len(chunks)} chunks, 900000 bytes" in last
    damaged = bytearray((tmp_path / "xorb").read_bytes())
    damaged[100_000] ^= 1
    (tmp_path / "xorb").write_bytes(damaged)
    assert "no xorb: " in run("list_xorb.py", tmp_path, tmp_path / "xorb").stderr


@pytest.mark.parametrize("content", [b"", b"small", CONTENT], ids=["empty", "small", "large"])
def test_the_reference_client_reads_what_is_uploaded_by_http(server: Server, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    token, _ = server.token()
    done = run("upload.py", tmp_path, server.endpoint, tmp_path / "file", token=token)
    assert done.returncode == 0, done.stderr
    info = xetstore.hash_file(tmp_path / "file")
    assert done.stdout.strip() == info.hash
    assert HfProcess(server.connect("read"), tmp_path / "home").download([info]) == [content]
    with xetstore.open(server.root, create=False) as store:
        assert store.read(info) == content


def test_an_upload_of_more_than_a_xorb_holds_makes_several(tmp_path: Path) -> None:
    content = splitmix64(9, 70_000_000)
    (tmp_path / "file").write_bytes(content)
    with Server(tmp_path / "store") as server:
        done = run("upload.py", tmp_path, server.endpoint, tmp_path / "file", token=server.token()[0])
        assert done.returncode == 0, done.stderr
        assert server.totals().xorbs == 2
        with xetstore.open(server.root, create=False) as store:
            assert store.get(done.stdout.strip(), tmp_path / "copy").verified
    assert (tmp_path / "copy").read_bytes() == content


def test_the_reference_client_uploads_nothing_that_an_answer_tells_of(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    token, _ = server.token()
    assert run("upload.py", tmp_path, server.endpoint, tmp_path / "file", token=token).returncode == 0
    chunks = chunk_bytes(CONTENT)
    builder = protocol.XorbBuilder()
    builder.append([CONTENT], chunks)
    xorb, _ = builder.finish()
    answers = functions("answers.py")
    with proxy(server.endpoint) as between:
        for chunk, _ in chunks:
            body = answers["answer"](chunk, [xorb], bytes(range(32)), int(time.time()))
            assert answers["places"](body, chunk) == [
                (xorb.hash, index) for index, (name, _) in enumerate(chunks) if name == chunk
            ]
            between.instead[f"/v1/chunks/default/{chunk}"] = (200, body)
        between.instead["/v1/chunks/"] = (404, b"")
        (tmp_path / "again").write_bytes(CONTENT)
        theirs = HfProcess(server.connect(endpoint=between.endpoint), tmp_path / "home")
        uploaded = theirs.upload([tmp_path / "again"])
        assert uploaded.new_bytes == 0, between.seen
        assert between.requests("GET", "/v1/chunks/default/")
        assert not between.requests("POST", "/v1/xorbs/")
    assert answers["answer"](Hash(bytes(32)), [xorb], bytes(range(32)), 0) is None


def test_every_name_of_the_face_is_there_documented_and_told_of() -> None:
    page = PAGE.read_text()
    assert dir(protocol) == sorted(protocol.__all__)
    untold = {"AlgorithmSuite", "XET_GEARHASH_BLAKE3", "QueryRule", "WIRE_QUERIES", "BatchReconstruction"}
    untold |= {"FetchRange", "Placement", "PlannedFetch", "CompressionPolicy", "chunk_ranges", "coalesce", "trim"}
    untold |= {"xorb_hash", "HashMismatchError"}
    for name in protocol.__all__:
        value = getattr(protocol, name)
        assert not callable(value) or value.__doc__, name
        assert re.search(rf"\b{name}\b", page) or name in untold, name


@pytest.mark.parametrize(
    "make",
    [
        lambda: protocol.Term(Hash.ZERO, 5, 3, 10),
        lambda: protocol.Term(Hash.ZERO, -1, 3, 10),
        lambda: protocol.Term(Hash.ZERO, 0, 1, 1 << 40),
        lambda: protocol.Term(Hash.ZERO, 0, 9000, 9000),
    ],
)
def test_a_term_that_cannot_be_is_not_written(make: Any) -> None:
    entry = protocol.FileEntry(Hash.ZERO, (make(),), (Hash.ZERO,))
    with pytest.raises(FormatError):
        protocol.Shard((entry,)).serialize()


def test_a_xorb_that_cannot_be_is_not_written() -> None:
    for lengths in (b"", bytes(8), (1 << 20).to_bytes(8, sys.byteorder)):
        chunks = protocol.ChunkList(bytes(len(lengths) * 4), lengths)
        with pytest.raises(FormatError):
            protocol.Shard(xorbs=(protocol.XorbEntry(Hash.ZERO, chunks),)).serialize()


def test_a_part_of_a_xorb_is_decoded() -> None:
    chunks = chunk_bytes(CONTENT)
    builder = protocol.XorbBuilder()
    builder.append([CONTENT], chunks)
    xorb, body = builder.finish()
    assert protocol.decode_chunks(body) == (chunks, CONTENT)
    assert protocol.decode_chunks(bytes(body) + xorb.serialize_footer()) == (chunks, CONTENT)
    start, end = xorb.byte_range(3, 5)
    first = sum(chunks.sizes[:3])
    assert protocol.decode_chunks(body[start:end]) == (
        chunks.slice(3, 5),
        CONTENT[first : first + sum(chunks.sizes[3:5])],
    )
    assert protocol.decode_chunks(b"") == (protocol.ChunkList.EMPTY, b"")
    for broken in (body[start : end - 1], b"\xff" * 100, b"\x01" + bytes(body[start + 1 : end])):
        with pytest.raises(FormatError):
            protocol.decode_chunks(broken)
