"""Opening a store: what is created, what is refused, and what works without permission to write."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cas.objects import in_format_2
from xetstore.cas import EmbeddedCas
from xetstore.errors import IntegrityError, NotFoundError, UsageError
from xetstore.protocol.hashes import chunk_hash
from xetstore.testing import Sample, make_sample, random_bytes, read_back, upload

ROOT = Path(__file__).parents[2]


def test_a_store_is_created_and_found_again(root: Path, sample: Sample) -> None:
    with EmbeddedCas.open(root / "deep" / "down") as cas:
        file = upload(cas, sample)
    with EmbeddedCas.open(root / "deep" / "down", create=False) as cas:
        assert read_back(cas, file) == sample.data


def test_a_store_lies_where_the_documentation_says(root: Path, sample: Sample) -> None:
    with EmbeddedCas.open(root) as cas:
        upload(cas, sample)
    name = str(sample.xorb.hash)
    [stored] = (root / "xorbs" / name[:2]).iterdir()
    assert re.fullmatch(f"{name}-[0-9a-f]{{16}}", stored.name)
    assert stored.read_bytes() == in_format_2(sample)
    [shard] = (root / "shards").iterdir()
    assert re.fullmatch(f"{chunk_hash(shard.read_bytes())}-[0-9a-f]{{16}}", shard.name)
    index = {"index.sqlite3", "index.sqlite3-reserve"}
    assert {path.name for path in root.iterdir()} == {"format", *index, "shards", "stores", "tmp", "xorbs"}
    assert list((root / "tmp").iterdir()) == []


def test_a_store_that_is_not_there_is_not_made_unasked(root: Path) -> None:
    with pytest.raises(NotFoundError):
        EmbeddedCas.open(root, create=False)
    assert not root.exists()
    root.mkdir()
    with pytest.raises(NotFoundError):
        EmbeddedCas.open(root, create=False)
    assert list(root.iterdir()) == []


def test_a_directory_with_something_else_in_it_is_left_alone(root: Path) -> None:
    root.mkdir()
    (root / "thesis.tex").write_text("chapter one")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        EmbeddedCas.open(root)
    assert [path.name for path in root.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_store(root: Path) -> None:
    root.write_text("a file")
    for create in (True, False):
        with pytest.raises(UsageError, match="is no store file"):
            EmbeddedCas.open(root, create=create)
    assert root.read_text() == "a file"


def test_a_newer_format_is_refused(root: Path) -> None:
    EmbeddedCas.open(root).close()
    (root / "format").write_text("xetstore embedded store, format 2\n")
    for create in (True, False):
        with pytest.raises(UsageError, match="format 2; this xetstore knows format 1"):
            EmbeddedCas.open(root, create=create)


@pytest.mark.parametrize("content", ["", "xetstore embedded store, format x\n", "%PDF-1.7"])
def test_a_marker_that_says_something_else_is_refused(root: Path, content: str) -> None:
    root.mkdir()
    (root / "format").write_text(content)
    with pytest.raises(UsageError, match="not a store"):
        EmbeddedCas.open(root)


def test_a_creation_that_was_interrupted_is_taken_up(root: Path) -> None:
    (root / "tmp").mkdir(parents=True)
    (root / "tmp" / "123-abc").write_text("xetstore embedded")
    EmbeddedCas.open(root).close()
    (root / "index.sqlite3").unlink()  # the marker was written, the index and the store's mark not yet
    shutil.rmtree(root / "stores")
    EmbeddedCas.open(root, create=False).close()


def test_objects_without_an_index_are_not_taken_for_an_empty_store(root: Path, sample: Sample) -> None:
    with EmbeddedCas.open(root) as cas:
        upload(cas, sample)
    (root / "index.sqlite3").unlink()
    with pytest.raises(IntegrityError, match="missing"):
        EmbeddedCas.open(root)
    assert not (root / "index.sqlite3").exists()


def test_a_closed_store_says_so(root: Path, sample: Sample) -> None:
    cas = EmbeddedCas.open(root)
    cas.close()
    with pytest.raises(UsageError, match="closed"):
        cas.put_xorb(sample.xorb.hash, sample.body)


# As root every directory is writable, so what follows runs in a process of its own, which gives up its rights.
_READ_WITHOUT_RIGHTS = """
import sys
from pathlib import Path
from tests.support import rights
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check
from xetstore.errors import AccessDeniedError
from xetstore.protocol.hashes import chunk_hash
from xetstore.testing import make_sample, random_bytes, read_back, upload
root = Path(sys.argv[1])
sample, other = make_sample(random_bytes(50_000, 1)), make_sample(random_bytes(50_000, 2))
rights.give_up()
try:
    reader = EmbeddedCas.open(root / "store")
except AccessDeniedError as error:
    raise SystemExit(f"denied: {error.hint}")
with reader:
    assert read_back(reader, sample.file.hash) == sample.data
    assert reader.stat(sample.file.hash).size == len(sample.data)
    assert len(list(reader.files())) == reader.totals().files >= 1
    assert reader.find_chunks(next(iter(sample.xorb.chunks))[0]) is not None
    assert check(reader, read_data=True).problems == ()
    for write in (
        lambda: reader.put_xorb(other.xorb.hash, other.body),
        lambda: reader.put_shard(sample.shard),
    ):
        try:
            write()
        except AccessDeniedError as error:
            print("refused:", error.hint)
try:
    EmbeddedCas.open(root / "store" / "new")
except AccessDeniedError as error:
    print("refused:", error.hint)
"""


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A directory that other users can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o755)


def read_without_rights(folder: Path) -> subprocess.CompletedProcess[str]:
    for path in (folder / "store", *(folder / "store").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.chmod(0o755)
    command = [sys.executable, "-c", _READ_WITHOUT_RIGHTS, os.fspath(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


@pytest.mark.parametrize("is_in_use", [False, True])
def test_a_store_in_a_read_only_directory_can_be_read(public_folder: Path, is_in_use: bool) -> None:
    with EmbeddedCas.open(public_folder / "store") as cas:
        upload(cas, make_sample(random_bytes(50_000, 1)))
        if not is_in_use:
            cas.close()
        done = read_without_rights(public_folder)
    assert done.stderr == ""
    assert done.stdout.count("refused:") == 3
    assert done.returncode == 0


def test_a_read_only_store_whose_log_cannot_be_replayed_is_not_served_without_it(public_folder: Path) -> None:
    with EmbeddedCas.open(public_folder / "used") as cas:
        upload(cas, make_sample(b"in the database"))
    with EmbeddedCas.open(public_folder / "used") as cas:
        upload(cas, make_sample(random_bytes(50_000, 1)))  # in its log
        shutil.copytree(public_folder / "used", public_folder / "store")
    (public_folder / "store" / "index.sqlite3-shm").unlink()
    assert (public_folder / "store" / "index.sqlite3-wal").stat().st_size
    done = read_without_rights(public_folder)
    assert done.stderr.startswith("denied: ")
    # Once somebody who may write has opened it, it can be read.
    for path in (public_folder / "store", *(public_folder / "store").rglob("*")):
        path.chmod(0o755)
    EmbeddedCas.open(public_folder / "store").close()
    assert read_without_rights(public_folder).stderr == ""
