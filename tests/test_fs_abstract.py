"""fsspec's own tests of copying from a filesystem, with a repository of a Hub as that filesystem."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fsspec", reason="needs fsspec: pip install 'xetstore[fs]'")

from fsspec.tests import abstract

from tests.support.hub_double import HubDouble, hub_double
from tests.support.live import live_server
from xetstore.cas.service import EmbeddedCas
from xetstore.fs import XetFileSystem
from xetstore.protocol.hashes import Hash
from xetstore.testing import make_sample, upload

REPOSITORY = "datasets/ns/name"


class Commits:
    """What fsspec's scenarios call to make their files, which a reader cannot: files of the repository."""

    def __init__(self, hub: HubDouble, cas: EmbeddedCas) -> None:
        self._hub = hub
        self._cas = cas

    def makedirs(self, path: str) -> None:
        """Nothing: a repository has no folder without a file in it."""

    def touch(self, path: str) -> None:
        self._add(path, Hash.ZERO, 0)

    def pipe(self, path: str, value: bytes) -> None:
        self._add(path, upload(self._cas, make_sample(value)), len(value))

    def _add(self, path: str, file: Hash, size: int) -> None:
        self._hub.add("datasets", "ns/name", "main", path.removeprefix(f"{REPOSITORY}/"), file, size)


class Repository(abstract.AbstractFixtures):  # type: ignore[misc]
    """The fixtures of fsspec's tests."""

    @pytest.fixture
    def commits(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commits]:
        with (
            EmbeddedCas.open(tmp_path / "store") as cas,
            live_server(cas) as server,
            hub_double(server, token="hf_mellon-1234") as hub,
        ):
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            monkeypatch.setenv("HF_TOKEN", "hf_mellon-1234")
            monkeypatch.setenv("XET_CACHE", str(tmp_path / "cache"))
            monkeypatch.delenv("XET_STORE", raising=False)
            yield Commits(hub, cas)

    @pytest.fixture
    def fs(self, commits: Commits) -> Iterator[XetFileSystem]:
        opened = XetFileSystem(skip_instance_cache=True)
        yield opened
        opened.close()

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def fs_path(self) -> str:
        return REPOSITORY

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, commits: Commits, fs_join: Any, fs_path: str) -> Any:
        return self._bulk_operations_scenario_0(commits, fs_join, fs_path)

    @pytest.fixture
    def fs_glob_edge_cases_files(self, commits: Commits, fs_join: Any, fs_path: str) -> Any:
        return self._glob_edge_cases_files(commits, fs_join, fs_path)

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, commits: Commits, fs_join: Any, fs_path: str) -> Any:
        return self._dir_and_file_with_same_name_prefix(commits, fs_join, fs_path)

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, commits: Commits, fs_join: Any, fs_path: str) -> Any:
        return self._10_files_with_hashed_names(commits, fs_join, fs_path)


class TestGet(abstract.AbstractGetTests, Repository):  # type: ignore[misc]
    """Files, folders, globs and lists, to folders that are there or not."""

    # It makes its files by the filesystem itself, which reads only.
    test_get_directory_recursive = None
