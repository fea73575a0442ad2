"""Objects and an index that belong together, and those that do not: refused by a sentence that says which is which."""

from __future__ import annotations

import multiprocessing
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.support import rights
from xetstore.blobs.local import LocalBlobStore
from xetstore.cas import EmbeddedCas
from xetstore.cas.check import check, verify_invariants
from xetstore.cas.layout import STORES
from xetstore.cas.parts import StoreParts
from xetstore.errors import DamagedError, NotFoundError
from xetstore.testing import Sample, make_sample, random_bytes, read_back, upload


def parts_in(folder: Path, objects: str = "objects", index: str = "index") -> StoreParts:
    return StoreParts(folder / objects, folder / index / "index.sqlite3")


def id_of(cas: EmbeddedCas) -> str | None:
    with cas.index.snapshot() as reader:
        return reader.store_id()


def ids_in(objects: Path) -> list[str]:
    return sorted(path.name for path in (objects / STORES).iterdir())


def forget_id(index: Path) -> None:
    """As an index is from before there were ids."""
    with closing(sqlite3.connect(index)) as connection, connection:
        connection.execute("DELETE FROM store")


def as_before_ids(root: Path) -> None:
    """A store in a directory as an older release left it."""
    forget_id(root / "index.sqlite3")
    shutil.rmtree(root / STORES)


def test_a_new_store_gets_an_id_in_both_parts(tmp_path: Path, sample: Sample) -> None:
    parts = parts_in(tmp_path)
    with EmbeddedCas.open(parts) as cas:
        file = upload(cas, sample)
        first = id_of(cas)
    assert ids_in(tmp_path / "objects") == [first]
    with EmbeddedCas.open(parts) as cas:
        assert id_of(cas) == first
        assert read_back(cas, file) == sample.data
        assert check(cas).notes == (), "a check has nothing to say of it"


def test_an_index_whose_objects_are_elsewhere_is_refused(tmp_path: Path, sample: Sample) -> None:
    with EmbeddedCas.open(parts_in(tmp_path)) as cas:
        upload(cas, sample)
        ours = id_of(cas)
    with EmbeddedCas.open(parts_in(tmp_path, "others", "others-index")) as cas:
        theirs = id_of(cas)
    for create in (True, False):
        with pytest.raises(DamagedError) as caught:
            EmbeddedCas.open(parts_in(tmp_path, "others"), create=create)
        assert f"{tmp_path}/index/index.sqlite3 is that of store {ours}" in str(caught.value)
        assert f"the objects in {tmp_path}/others are those of store {theirs}" in str(caught.value)
        assert "of one store" in str(caught.value.hint)
    assert ids_in(tmp_path / "others") == [theirs], "nothing was written"


def test_an_index_whose_objects_were_emptied_is_refused(tmp_path: Path, sample: Sample) -> None:
    parts = parts_in(tmp_path)
    with EmbeddedCas.open(parts) as cas:
        upload(cas, sample)
    for name in ("xorbs", "shards", "stores"):
        shutil.rmtree(tmp_path / "objects" / name)
    with pytest.raises(DamagedError, match="have no mark of any store") as caught:
        EmbeddedCas.open(parts)
    assert "bring them back" in str(caught.value.hint)


def test_objects_of_a_store_under_an_index_that_is_empty_are_refused_and_none_is_made(
    tmp_path: Path, sample: Sample
) -> None:
    with EmbeddedCas.open(parts_in(tmp_path)) as cas:
        upload(cas, sample)
    with pytest.raises(DamagedError, match=r"its index .* is missing or empty"):
        EmbeddedCas.open(parts_in(tmp_path, index="new"))
    assert not (tmp_path / "new").exists()


def test_a_directory_that_has_lost_its_index_is_refused_without_any_xorb_too(tmp_path: Path) -> None:
    """All that it has may be names and small files, which are in its index and in snapshots."""
    EmbeddedCas.open(tmp_path / "store").close()
    for file in (tmp_path / "store").glob("index.sqlite3*"):
        file.unlink()
    for create in (True, False):
        with pytest.raises(DamagedError, match=r"its index .* is missing or empty") as caught:
            EmbeddedCas.open(tmp_path / "store", create=create)
        assert "--rebuild-index" in str(caught.value.hint)


def test_objects_of_a_store_that_has_no_xorb_yet_are_refused_too(tmp_path: Path) -> None:
    """Or two indexes would share one place, and each take what the other stores for its own."""
    with EmbeddedCas.open(parts_in(tmp_path)) as cas:
        ours = id_of(cas)
    for create in (True, False):
        with pytest.raises(DamagedError, match=f"are those of store {ours}, and the index .*new.* is empty") as caught:
            EmbeddedCas.open(parts_in(tmp_path, index="new"), create=create)
        assert "put it back from a backup" in str(caught.value.hint)
    assert not (tmp_path / "new").exists()


def test_a_store_with_no_index_and_no_objects_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        EmbeddedCas.open(parts_in(tmp_path), create=False)
    LocalBlobStore(tmp_path / "objects")
    assert list(tmp_path.iterdir()) == []


# Creations that were broken off, and several at once


@pytest.mark.parametrize("is_directory", [True, False], ids=["directory", "apart"])
def test_a_creation_that_died_before_the_object_goes_on(tmp_path: Path, is_directory: bool, sample: Sample) -> None:
    parts = StoreParts.of_directory(tmp_path / "objects") if is_directory else parts_in(tmp_path)
    with EmbeddedCas.open(parts) as cas:
        first = id_of(cas)
    shutil.rmtree(tmp_path / "objects" / STORES)
    with EmbeddedCas.open(parts) as cas:
        assert id_of(cas) == first
        upload(cas, sample)
    assert ids_in(tmp_path / "objects") == [first]


def test_a_creation_that_died_before_the_id_goes_on(tmp_path: Path, sample: Sample) -> None:
    parts = parts_in(tmp_path)
    with EmbeddedCas.open(parts):
        pass
    forget_id(tmp_path / "index" / "index.sqlite3")
    shutil.rmtree(tmp_path / "objects" / STORES)
    with EmbeddedCas.open(parts) as cas:
        upload(cas, sample)
        assert ids_in(tmp_path / "objects") == [id_of(cas)]


_OPEN_AND_UPLOAD = """
import sys
from pathlib import Path
from xetstore.cas import EmbeddedCas
from xetstore.cas.parts import StoreParts
from xetstore.testing import make_sample, random_bytes, upload
objects, index, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
sample = make_sample(random_bytes(20_000, seed))
print("ready", flush=True)
sys.stdin.readline()
with EmbeddedCas.open(StoreParts(objects, index)) as cas:
    upload(cas, sample)
    with cas.index.snapshot() as reader:
        print(reader.store_id())
"""


@pytest.mark.parametrize("kind", ["directory", "apart", "before ids"])
def test_of_several_that_create_a_store_at_once_one_id_wins_and_all_work(tmp_path: Path, kind: str) -> None:
    many = 6
    for turn in range(3):
        folder = tmp_path / str(turn)
        folder.mkdir()
        parts = parts_in(folder) if kind == "apart" else StoreParts.of_directory(folder / "objects")
        files = 0
        if kind == "before ids":
            with EmbeddedCas.open(parts) as cas:
                upload(cas, make_sample(random_bytes(20_000, 99)))
            as_before_ids(folder / "objects")
            files = 1
        with ExitStack() as ending:
            processes = [
                ending.enter_context(_process(str(parts.objects), str(parts.index), str(seed))) for seed in range(many)
            ]
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            ends = [(*process.communicate(timeout=60), process.returncode) for process in processes]
        assert all(code == 0 for _, _, code in ends), [error for _, error, _ in ends]
        [winner] = {said.strip() for said, _, _ in ends}
        assert ids_in(folder / "objects") == [winner]
        with EmbeddedCas.open(parts, create=False) as cas:
            assert len(list(cas.files())) == many + files
            verify_invariants(cas)


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that opens a store once it is told to; ended with the block."""
    with subprocess.Popen(
        [sys.executable, "-c", _OPEN_AND_UPLOAD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# Stores from before there were ids


def test_an_old_store_gets_an_id_when_it_is_first_opened_for_writing(tmp_path: Path, sample: Sample) -> None:
    root = tmp_path / "store"
    with EmbeddedCas.open(root) as cas:
        file = upload(cas, sample)
    as_before_ids(root)
    with EmbeddedCas.open(root, create=False) as cas:
        assert read_back(cas, file) == sample.data
        assert ids_in(root) == [id_of(cas)]


def test_an_old_store_whose_index_comes_from_a_backup_keeps_the_id_of_its_objects(
    tmp_path: Path, sample: Sample
) -> None:
    parts = parts_in(tmp_path)
    with EmbeddedCas.open(parts) as cas:
        upload(cas, sample)
        first = id_of(cas)
    forget_id(tmp_path / "index" / "index.sqlite3")
    with EmbeddedCas.open(parts) as cas:
        assert id_of(cas) == first
    # That of another store has none of its objects here.
    with EmbeddedCas.open(parts_in(tmp_path, "others", "others-index")) as cas:
        upload(cas, make_sample(b"something else"))
    forget_id(tmp_path / "others-index" / "index.sqlite3")
    with pytest.raises(DamagedError, match=f"are those of store {first}"):
        EmbeddedCas.open(parts_in(tmp_path, index="others-index"))


def test_an_old_store_that_is_read_only_is_served_without(tmp_path: Path, sample: Sample) -> None:
    root = tmp_path / "store"
    with EmbeddedCas.open(root) as cas:
        file = upload(cas, sample)
    as_before_ids(root)

    def read() -> None:
        rights.give_up()
        with EmbeddedCas.open(root) as cas:
            assert read_back(cas, file) == sample.data
            assert id_of(cas) is None

    _in_a_child_without_rights(root, read)
    assert not (root / STORES).exists()


def _in_a_child_without_rights(root: Path, work: Callable[[], None]) -> None:
    for path in (root, *root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for folder in root.parents:
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    for path in (root, *root.rglob("*")):
        path.chmod(0o755)
