"""A file that another process changes while it is read is not registered; the others of the same put are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import xetstore
from tests.support.process import Worker
from tests.support.strategies import splitmix64
from xetstore.cas.check import verify_invariants
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import SourceChangedError, XetError
from xetstore.transfer.progress import NoProgress
from xetstore.transfer.scan import BLOCK_BYTES
from xetstore.transfer.upload.session import put_files

CHANGES = ["grow", "shrink", "empty", "rewrite the start", "rewrite the end", "remove", "replace"]


class Meddler(NoProgress):
    """Lets another process change a file once a part of it has been read."""

    def __init__(self, worker: Worker, path: Path, how: str) -> None:
        self._worker = worker
        self._path = path
        self._how = how
        self._to_read = 0
        self.has_acted = False

    def total(self, nbytes: int) -> None:
        self._to_read = nbytes

    def advance(self, *, logical: int = 0, new: int = 0, deduped: int = 0) -> None:
        if not self.has_acted and self._to_read == self._path.stat().st_size and logical:
            self.has_acted = True
            assert self._worker.run("change", path=str(self._path), how=self._how).code == 0


def old_file(path: Path, seed: int, size: int) -> Path:
    """A file last written some time ago: no clock is too coarse to tell."""
    path.write_bytes(splitmix64(seed, size))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("size", [30_000, 5 * BLOCK_BYTES + 1])
def test_a_file_that_changes_while_it_is_put_is_not_registered(
    worker: Worker, tmp_path: Path, how: str, size: int
) -> None:
    paths = [old_file(tmp_path / "before", 1, 500_000), old_file(tmp_path / "file", 2, size)]
    paths.append(old_file(tmp_path / "after", 3, 400_000))
    meddler = Meddler(worker, paths[1], how)
    failed: list[tuple[Path, XetError]] = []
    with EmbeddedCas.open(tmp_path / "store") as cas:
        reports = list(
            put_files(cas, paths, progress=meddler, on_error=lambda path, error: failed.append((path, error)))
        )
        assert meddler.has_acted
        assert [(path, type(error)) for path, error in failed] == [(paths[1], SourceChangedError)]
        assert [report.path for report in reports] == [paths[0], paths[2]]
        assert {record.hash for record in cas.files()} == {report.info.hash for report in reports}
        verify_invariants(cas)
        for report in reports:
            assert report.info == xetstore.hash_file(report.path, sha256=True)
    with xetstore.open(tmp_path / "store") as store:
        if how != "remove":  # now that it is still, it can be stored
            store.get(store.put(paths[1]).hash, tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("how", CHANGES)
def test_a_file_that_changes_while_it_is_hashed_has_no_hash(worker: Worker, tmp_path: Path, how: str) -> None:
    path = old_file(tmp_path / "file", 2, 5 * BLOCK_BYTES + 1)
    with pytest.raises(SourceChangedError):
        xetstore.hash_file(path, progress=Meddler(worker, path, how))
