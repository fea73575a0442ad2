"""Paths of hf:// in HfFileSystem, pandas and pyarrow: read in ranges over plain HTTP, written as commits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.hub.calls import paths_of, titles
from tests.interop.hub.conftest import NewRepository, content, unused
from tests.support.hub import HubClient
from tests.support.proxy import Proxy

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Files = Callable[..., str]


@pytest.fixture
def dataset(new_repository: NewRepository) -> str:
    return new_repository("dataset")


def upload_folder(api: HfApi, repo: str, folder: str) -> None:
    api.upload_folder(repo_id=repo, repo_type="dataset", folder_path=folder)


def test_a_part_of_a_file_is_read_without_the_rest(
    watched: HubClient, recorded: Proxy, dataset: str, files: Files
) -> None:
    data = content(8_000_000)
    watched.call(upload_folder, dataset, files({"large.bin": data, "small.txt": b"some text"}))
    recorded.seen.clear()

    def read(path: str) -> list[str]:
        from huggingface_hub import HfFileSystem

        fs = HfFileSystem(skip_instance_cache=True)
        with fs.open(f"{path}/large.bin", block_size=0) as file:
            assert file.size is None or file.size == 8_000_000
        parts = [fs.read_block(f"{path}/large.bin", start, 1000) for start in (0, 3_999_500, 7_999_000)]
        parts += [fs.cat_file(f"{path}/large.bin", start=-10), fs.cat_file(f"{path}/small.txt", start=5)]
        return [part.hex() for part in parts]

    expected = [data[:1000], data[3_999_500:4_000_500], data[7_999_000:], data[-10:], b"text"]
    assert [bytes.fromhex(part) for part in watched.call(read, f"datasets/{dataset}")] == expected
    ranged = [seen for seen in recorded.requests("GET", f"/datasets/{dataset}/resolve/") if seen.range]
    assert ranged
    assert {seen.status for seen in ranged} == {206}
    assert not recorded.requests("GET", "/cas/")


def test_folders_are_walked_and_globbed(ann: HubClient, dataset: str, files: Files) -> None:
    ann.call(upload_folder, dataset, files({"a/1.txt": b"1", "a/b/2.txt": b"22", "3.txt": b"333"}))

    def look(root: str) -> list[Any]:
        from huggingface_hub import HfFileSystem

        fs = HfFileSystem(skip_instance_cache=True)
        names = [path.removeprefix(f"{root}/") for path in sorted(fs.find(root))]
        found = [path.removeprefix(f"{root}/") for path in sorted(fs.glob(f"{root}/**/*.txt"))]
        kinds = [fs.isdir(f"{root}/a"), fs.isfile(f"{root}/a"), fs.exists(f"{root}/absent"), fs.isfile(f"{root}/3.txt")]
        return [names, found, kinds, fs.info(f"{root}/a/b/2.txt")["size"], len(fs.ls(root))]

    names, found, kinds, size, entries = ann.call(look, f"datasets/{dataset}")
    assert names == [".gitattributes", "3.txt", "a/1.txt", "a/b/2.txt"]
    assert found == ["3.txt", "a/1.txt", "a/b/2.txt"]
    assert (kinds, size, entries) == ([True, False, False, True], 2, 3)


def test_files_are_written_copied_and_removed_by_commits(ann: HubClient, dataset: str) -> None:
    def work(root: str) -> list[Any]:
        from huggingface_hub import HfFileSystem

        fs = HfFileSystem(skip_instance_cache=True)
        with fs.open(f"{root}/new/1.txt", "w") as file:
            file.write("one")
        fs.cp_file(f"{root}/new/1.txt", f"{root}/2.txt")
        fs.mv(f"{root}/2.txt", f"{root}/3.txt")
        text = fs.read_text(f"{root}/3.txt")
        fs.rm(f"{root}/new", recursive=True)
        return [text, sorted(path.rpartition("/")[2] for path in fs.find(root))]

    assert ann.call(work, f"datasets/{dataset}") == ["one", [".gitattributes", "3.txt"]]


def test_a_file_goes_up_and_down_whole(ann: HubClient, dataset: str, files: Files, tmp_path: Any) -> None:
    data = content()

    def work(root: str, source: str, target: str) -> None:
        from huggingface_hub import HfFileSystem

        fs = HfFileSystem(skip_instance_cache=True)
        fs.put_file(source, f"{root}/up.bin")
        fs.get_file(f"{root}/up.bin", target)

    source = f"{files({'up.bin': data})}/up.bin"
    ann.call(work, f"datasets/{dataset}", source, str(tmp_path / "down.bin"))
    assert (tmp_path / "down.bin").read_bytes() == data


def test_a_revision_is_part_of_a_path(ann: HubClient, dataset: str) -> None:
    def work(api: HfApi, repo: str) -> list[str]:
        from huggingface_hub import HfFileSystem

        fs = HfFileSystem(skip_instance_cache=True)
        api.create_branch(repo, branch="dev/x", repo_type="dataset")
        with fs.open(f"datasets/{repo}@dev%2Fx/a.txt", "w") as file:
            file.write("on a branch")
        at_branch = fs.read_text(f"datasets/{repo}@dev%2Fx/a.txt")
        return [at_branch, str(fs.exists(f"datasets/{repo}/a.txt"))]

    assert ann.call(work, dataset) == ["on a branch", "False"]


def test_a_bucket_is_a_filesystem_too(ann: HubClient, files: Files) -> None:
    data = content()

    def work(api: HfApi, bucket: str, source: str) -> list[Any]:
        from huggingface_hub import HfFileSystem

        fs = HfFileSystem(skip_instance_cache=True)
        root = api.create_bucket(bucket).bucket_id
        root = f"buckets/{root}"
        fs.put_file(source, f"{root}/a/large.bin")
        with fs.open(f"{root}/a/small.txt", "w") as file:
            file.write("small")
        part = fs.cat_file(f"{root}/a/large.bin", start=1_000_000, end=1_000_100).hex()
        names = sorted(path.removeprefix(f"{root}/") for path in fs.find(root))
        fs.rm_file(f"{root}/a/small.txt")
        return [part, names, fs.exists(f"{root}/a/small.txt")]

    part, names, left = ann.call(work, unused("fs-bucket"), f"{files({'large.bin': data})}/large.bin")
    assert bytes.fromhex(part) == data[1_000_000:1_000_100]
    assert (names, left) == (["a/large.bin", "a/small.txt"], False)


def test_pandas_writes_and_reads_tables(ann: HubClient, dataset: str) -> None:
    pytest.importorskip("pandas", reason="needs pandas: pip install --group readers")

    def work(root: str) -> list[Any]:
        import pandas

        frame = pandas.DataFrame({"number": range(5000), "name": [f"row {i}" for i in range(5000)]})
        frame.to_parquet(f"hf://{root}/table.parquet")
        frame.to_csv(f"hf://{root}/table.csv", index=False)
        parquet = pandas.read_parquet(f"hf://{root}/table.parquet", columns=["number"])
        csv = pandas.read_csv(f"hf://{root}/table.csv")
        return [int(parquet["number"].sum()), list(parquet.columns), csv.equals(frame)]

    assert ann.call(work, f"datasets/{dataset}") == [sum(range(5000)), ["number"], True]


def test_pyarrow_reads_some_columns_of_many_files(ann: HubClient, dataset: str) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow: pip install --group readers")

    def work(root: str) -> list[Any]:
        import pyarrow
        import pyarrow.dataset
        import pyarrow.parquet
        from huggingface_hub import HfFileSystem

        fs = HfFileSystem(skip_instance_cache=True)
        for part in range(3):
            table = pyarrow.table({"number": range(part * 100, part * 100 + 100), "text": ["x" * 100] * 100})
            pyarrow.parquet.write_table(table, f"{root}/data/part-{part}.parquet", filesystem=fs)
        found = pyarrow.dataset.dataset(f"{root}/data", filesystem=fs, format="parquet")
        picked = found.to_table(columns=["number"], filter=pyarrow.dataset.field("number") >= 150)
        return [found.count_rows(), picked.num_rows, picked.column_names]

    assert ann.call(work, f"datasets/{dataset}") == [300, 150, ["number"]]
    assert len(ann.call(paths_of, dataset, "main", "dataset")) == 4


def test_a_transaction_is_not_needed_for_each_write_to_be_one_commit(ann: HubClient, repo: str) -> None:
    def work(root: str) -> None:
        from huggingface_hub import HfFileSystem

        fs = HfFileSystem(skip_instance_cache=True)
        for number in range(2):
            with fs.open(f"{root}/{number}.txt", "w") as file:
                file.write(str(number))

    ann.call(work, repo)
    assert len(ann.call(titles, repo)) == 3
