"""The library datasets: pushed, loaded and streamed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.hub.calls import paths_of
from tests.interop.hub.conftest import unused
from tests.support.hub import HubClient

pytest.importorskip("datasets", reason="needs datasets: pip install --group readers")

Files = Callable[..., str]


@pytest.fixture(scope="module")
def pushed(ann: HubClient) -> str:
    """A private dataset of two splits and two configurations."""

    def push(repo: str) -> None:
        import datasets

        numbers = datasets.Dataset.from_dict({"number": list(range(1000)), "text": [f"row {i}" for i in range(1000)]})
        numbers.push_to_hub(repo, private=True)
        numbers.select(range(10)).push_to_hub(repo, split="test")
        numbers.select(range(5)).push_to_hub(repo, "few")

    repo = unused("pushed")
    ann.call(push, repo)
    return repo


def test_what_was_pushed_is_loaded(ann: HubClient, pushed: str) -> None:
    def load(repo: str) -> list[Any]:
        import datasets

        whole = datasets.load_dataset(repo)
        few = datasets.load_dataset(repo, "few", split="train")
        rows = {split: len(rows) for split, rows in whole.items()}
        return [rows, whole["train"][999], len(few), datasets.get_dataset_config_names(repo)]

    rows, last, few, names = ann.call(load, pushed)
    assert rows == {"train": 1000, "test": 10}
    assert last == {"number": 999, "text": "row 999"}
    assert (few, sorted(names)) == (5, ["default", "few"])
    assert "data/train-00000-of-00001.parquet" in ann.call(paths_of, pushed, "main", "dataset")


def test_what_was_pushed_is_streamed(ann: HubClient, pushed: str) -> None:
    def stream(repo: str) -> list[Any]:
        import datasets

        rows = datasets.load_dataset(repo, split="train", streaming=True)
        return [next(iter(rows))["text"], sum(row["number"] for row in rows)]

    assert ann.call(stream, pushed) == ["row 0", sum(range(1000))]


def test_what_was_pushed_again_replaces_it(ann: HubClient) -> None:
    def work(repo: str) -> list[int]:
        import datasets

        lengths = []
        for size in (100, 10):
            datasets.Dataset.from_dict({"number": list(range(size))}).push_to_hub(repo)
            lengths.append(len(datasets.load_dataset(repo, split="train", download_mode="force_redownload")))
        return lengths

    assert ann.call(work, unused("pushed-again")) == [100, 10]


def test_a_folder_of_files_is_a_dataset(ann: HubClient, files: Files) -> None:
    folder = files({"train/1.csv": b"a,b\n1,2\n3,4\n", "test/1.csv": b"a,b\n5,6\n"})

    def work(repo: str, folder: str) -> dict[str, int]:
        import datasets
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo(repo, repo_type="dataset")
        api.upload_folder(repo_id=repo, repo_type="dataset", folder_path=folder)
        return {split: len(rows) for split, rows in datasets.load_dataset(repo).items()}

    assert ann.call(work, unused("csv"), folder) == {"train": 2, "test": 1}
