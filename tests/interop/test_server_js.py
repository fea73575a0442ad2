"""The JavaScript client against our server, alone and together with the Python one."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import xetstore
from tests.interop.js_client import MODEL, SCRIPT, JsClient, JsError
from tests.support.hf_process import HfProcess, Wanted
from tests.support.servers import Server
from tests.support.strategies import splitmix64, text
from xetstore.protocol.hashes import Hash
from xetstore.records import FileInfo

MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    if shutil.which("node") is None:
        pytest.skip("install Node.js, which runs the JavaScript client")
    if not (SCRIPT.parent / "node_modules" / "@huggingface" / "hub").is_dir():
        pytest.skip("run `npm ci --prefix tests/interop/js`, which installs the JavaScript client")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server") / "store") as running:
        yield running


@pytest.fixture
def js(server: Server, tmp_path: Path) -> JsClient:
    return JsClient(server, tmp_path / "js")


@pytest.fixture
def python(server: Server, tmp_path: Path) -> HfProcess:
    return HfProcess(server.connect(), tmp_path / "python")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def uploaded(js: JsClient, paths: list[Path]) -> list[FileInfo]:
    """Upload to a bucket; the client's own hashes.

    It ends chunks from 8128 bytes on, where all others have 8192 at least: its hash of a file may be another one.
    """
    committed = js.upload(paths)
    return [
        FileInfo(Hash.parse(file["hash"]), path.stat().st_size, None)
        for path, file in zip(paths, committed, strict=True)
    ]


@pytest.mark.parametrize("parallel", [False, True], ids=["one after the other", "parallel"])
def test_what_javascript_uploads_both_clients_read(
    js: JsClient, python: HfProcess, corpus: dict[str, Path], parallel: bool
) -> None:
    paths = list(corpus.values())
    contents = [path.read_bytes() for path in paths]
    infos = uploaded(js, paths)
    assert js.download(infos, parallel=parallel) == contents
    assert python.download(infos) == contents


def test_a_repository_names_by_sha256_what_javascript_uploaded(
    js: JsClient, server: Server, python: HfProcess, tmp_path: Path
) -> None:
    contents = [splitmix64(81, 2_000_000), text(3_000_000), b"!"]
    paths = [write(tmp_path / str(i), content) for i, content in enumerate(contents)]
    committed = js.upload(paths, MODEL)
    assert [file["sha256"] for file in committed] == [hashlib.sha256(content).hexdigest() for content in contents]
    with xetstore.open(server.root, create=False) as store:
        by_sha256 = {record.sha256: FileInfo(record.hash, record.size, record.sha256) for record in store.files()}
    infos = [by_sha256[file["sha256"]] for file in committed]
    assert python.download(infos) == contents


def test_what_python_uploads_javascript_reads(js: JsClient, python: HfProcess, corpus: dict[str, Path]) -> None:
    paths = list(corpus.values())
    infos = python.upload(paths).infos
    assert js.download(infos) == [path.read_bytes() for path in paths]


def test_what_javascript_uploaded_is_a_sound_store_of_ours(tmp_path: Path, corpus: dict[str, Path]) -> None:
    with Server(tmp_path / "store") as server:
        infos = uploaded(JsClient(server, tmp_path / "js"), list(corpus.values()))
    with xetstore.open(tmp_path / "store", create=False) as store:
        assert store.check(read_data=True).problems == ()
        for path, info in zip(corpus.values(), infos, strict=True):
            assert store.get(info.hash, tmp_path / "out").verified
            assert (tmp_path / "out").read_bytes() == path.read_bytes(), path.name


def test_javascript_is_told_why_it_may_not_upload(server: Server, tmp_path: Path) -> None:
    reader = JsClient(server, tmp_path / "js", scope="read")
    with pytest.raises(JsError, match="write") as refused:
        reader.upload([write(tmp_path / "file", splitmix64(88, 100_000))])
    assert refused.value.status == 403


@pytest.mark.parametrize("parallel", [False, True], ids=["one after the other", "parallel"])
def test_slices_and_files_of_many_ranges_are_read(
    js: JsClient, python: HfProcess, tmp_path: Path, parallel: bool
) -> None:
    """Ranges of one xorb are fetched together: `Range: bytes=a-b,c-d`, answered in parts."""
    whole = splitmix64(82, 8_000_000)
    patchwork = whole[6_000_000:7_000_000] + whole[:1_000_000] + whole[3_000_000:4_000_000] + b"the end"
    contents = [whole, patchwork]
    infos = [python.upload([write(tmp_path / str(len(content)), content)]).infos[0] for content in contents]
    assert js.download(infos, parallel=parallel) == contents
    assert any("," in seen.range for seen in js.seen)
    slices = [(0, 1), (2_999_999, 3_000_000), (500_000, 2_500_000), (1_999_990, 2_000_010), (3_000_000, 3_000_007)]
    wanted = [Wanted(infos[1].hash, len(patchwork), start, end) for start, end in slices]
    assert js.download(wanted, parallel=parallel) == [patchwork[start:end] for start, end in slices]


def test_javascript_uploads_only_what_is_new(js: JsClient, server: Server, python: HfProcess, tmp_path: Path) -> None:
    content = splitmix64(83, 12_000_000)
    edited = content[:5_000_000] + b"a small insertion" + content[5_000_000:]
    python.upload([write(tmp_path / "file", content)])
    before = server.totals()
    path = write(tmp_path / "edited", edited)
    assert python.download(uploaded(js, [path])) == [edited]
    # Little, and not least: it cuts some chunks elsewhere.
    assert server.totals().unique_bytes - before.unique_bytes < 3_000_000
    # And the other way round.
    again = python.upload([write(tmp_path / "edited again", edited + b"at the end")])
    assert again.new_bytes < 3_000_000


def test_files_larger_than_a_xorb_come_back(js: JsClient, server: Server, python: HfProcess, tmp_path: Path) -> None:
    path = write(tmp_path / "file", splitmix64(84, 70 * MIB))
    before = server.totals()
    [info] = uploaded(js, [path])
    assert server.totals().xorbs - before.xorbs == 2
    assert python.download([info]) == [path.read_bytes()]
    assert js.download([info]) == [path.read_bytes()]


def test_data_that_shrinks_makes_xorbs_of_more_than_64_mib(
    js: JsClient, python: HfProcess, server: Server, tmp_path: Path
) -> None:
    """JavaScript fills its xorbs to 64 MiB of compressed chunks, however much these hold."""
    lines = b"".join(b"%d,some,words,that,are,always,the,same\n" % i for i in range(2_300_000))
    assert len(lines) > 90 * MIB
    path = write(tmp_path / "file", lines)
    before = server.totals()
    [info] = uploaded(js, [path])
    assert server.totals().xorbs - before.xorbs == 1
    assert python.download([info]) == [lines]
    assert js.download([info]) == [lines]
    with xetstore.open(server.root, create=False) as store:
        assert store.get(info.hash, tmp_path / "out").verified


EDITS: dict[str, dict[tuple[int, int], bytes]] = {
    "an insertion": {(4_000_000, 4_000_000): b"inserted"},
    "a removal": {(2_000_000, 7_000_000): b""},
    "appended": {(9_000_000, 9_000_000): splitmix64(86, 300_000)},
    "several": {(0, 0): splitmix64(85, 70_000), (3_000_000, 3_000_001): b"=", (8_999_999, 9_000_000): b">"},
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_are_made_without_reading_the_whole_file(
    js: JsClient, server: Server, python: HfProcess, tmp_path: Path, name: str
) -> None:
    """By /v2/file-chunk-hashes: the client learns where to cut, and what to make the new hash of."""
    # Of parts uploaded one by one: only terms that an edit does not touch are left alone.
    parts = [splitmix64(870 + i, 1_500_000) for i in range(6)]
    for i in range(6):
        python.upload([write(tmp_path / f"part {i}", parts[i])])
    content = b"".join(parts)
    [original] = python.upload([write(tmp_path / "file", content)]).infos
    edited = bytearray(content)
    for (start, end), replacement in reversed(EDITS[name].items()):
        edited[start:end] = replacement
    made = js.edit(original, EDITS[name])
    asked = [seen for seen in js.seen if seen.path.startswith("/v2/file-chunk-hashes/")]
    assert [seen.status for seen in asked] == [200]
    assert python.download([FileInfo(made, len(edited), None)]) == [bytes(edited)]
    fetched = [seen.range.removeprefix("bytes=").split(",") for seen in js.seen if seen.path.startswith("/v1/xorbs/")]
    spans = [span.split("-") for span in itertools.chain(*fetched) if span]
    assert sum(int(last) - int(first) + 1 for first, last in spans) < len(content)
