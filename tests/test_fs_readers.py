"""Readers of tables read Xet files through the filesystem, from a server that asks for a token."""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.live import live_server
from xetstore.cas.service import EmbeddedCas
from xetstore.testing import make_sample, upload

# What Dask does with pandas is not ours to change.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dask.*")

ROWS = 5000
CLIENT = Path(__file__).parents[1] / "docs" / "client.md"


def needed(name: str) -> ModuleType:
    """A reader, or the test is skipped."""
    module: ModuleType = pytest.importorskip(name, reason=f"needs {name}: pip install --group readers")
    return module


class Tables:
    """The same table as CSV and as Parquet, and how they are reached."""

    def __init__(self, csv_path: str, parquet_path: str, options: dict[str, Any]) -> None:
        self.csv = csv_path
        self.parquet = parquet_path
        self.options = options

    def filesystem(self) -> Any:
        return needed("fsspec").filesystem("xet", **self.options)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tables]:
    pyarrow, parquet = needed("pyarrow"), needed("pyarrow.parquet")
    needed("fsspec")
    names = [f"row {number}" for number in range(ROWS)]
    text = io.StringIO()
    csv.writer(text).writerows([("number", "name"), *enumerate(names)])
    packed = io.BytesIO()
    parquet.write_table(pyarrow.table({"number": range(ROWS), "name": names}), packed, row_group_size=ROWS // 5)
    folder: Path = tmp_path_factory.mktemp("readers")
    with EmbeddedCas.open(folder / "store") as cas:
        hashes = [upload(cas, make_sample(data)) for data in (text.getvalue().encode(), packed.getvalue())]
        with live_server(cas) as server:
            options = {"store": server.url, "token": server.token("read"), "cache": str(folder / "cache")}
            found = Tables(f"xet://{hashes[0]}/table.csv", f"xet://{hashes[1]}/table.parquet", options)
            yield found
            found.filesystem().close()


SUM = ROWS * (ROWS - 1) // 2


def test_pandas(tables: Tables) -> None:
    pandas = needed("pandas")
    for frame in (
        pandas.read_csv(tables.csv, storage_options=tables.options),
        pandas.read_parquet(tables.parquet, storage_options=tables.options),
    ):
        assert (len(frame), int(frame["number"].sum()), frame["name"].iloc[-1]) == (ROWS, SUM, f"row {ROWS - 1}")
    one = pandas.read_parquet(tables.parquet, columns=["number"], storage_options=tables.options)
    assert list(one.columns) == ["number"]


def test_pyarrow(tables: Tables) -> None:
    parquet, dataset = needed("pyarrow.parquet"), needed("pyarrow.dataset")
    fs = tables.filesystem()
    table = parquet.read_table(tables.parquet.removeprefix("xet://"), filesystem=fs, filters=[("number", "<", 10)])
    assert table["number"].to_pylist() == list(range(10))
    rows = dataset.dataset(tables.csv.removeprefix("xet://"), filesystem=fs, format="csv").to_table()
    assert (rows.num_rows, sum(rows["number"].to_pylist())) == (ROWS, SUM)


def test_polars(tables: Tables) -> None:
    polars = needed("polars")
    fs = tables.filesystem()
    with fs.open(tables.csv) as text, fs.open(tables.parquet) as packed:
        for frame in (polars.read_csv(text), polars.read_parquet(packed)):
            assert (frame.height, frame["number"].sum()) == (ROWS, SUM)


def test_duckdb(tables: Tables) -> None:
    duckdb = needed("duckdb")
    with duckdb.connect() as connection:
        connection.register_filesystem(tables.filesystem())
        for path in (tables.csv, tables.parquet):
            [found] = connection.execute(f"SELECT count(*), sum(number) FROM '{path}' WHERE name != ''").fetchall()
            assert found == (ROWS, SUM)


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing is asked of a Hub
    datasets = needed("datasets")
    for kind, path in (("csv", tables.csv), ("parquet", tables.parquet)):
        rows = datasets.load_dataset(
            kind,
            data_files=path,
            split="train",
            streaming=streaming,
            cache_dir=str(tmp_path / "datasets"),
            storage_options=dict(tables.options),  # it adds to what it is given
        )
        assert sum(row["number"] for row in rows) == SUM


def prices(read: Any) -> list[int]:
    """The column of whatever a reader gives."""
    if hasattr(read, "fetchall"):  # DuckDB
        return [price for (price,) in read.fetchall()]
    for step in ("compute", "to_table"):  # Dask, and a dataset of PyArrow
        read = getattr(read, step)() if hasattr(read, step) else read
    column = read["price"]
    return [int(one) for one in (column.to_pylist() if hasattr(column, "to_pylist") else column)]


def test_the_lines_of_the_documentation_read_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow, parquet, duckdb = needed("pyarrow"), needed("pyarrow.parquet"), needed("duckdb")
    for name in ("dask.dataframe", "pandas", "polars"):
        needed(name)
    monkeypatch.setenv("XET_CACHE", str(tmp_path / "cache"))
    [block] = [part for part in re.findall(r"```python\n(.*?)```", CLIENT.read_text(), re.DOTALL) if "polars" in part]
    packed = io.BytesIO()
    parquet.write_table(pyarrow.table({"price": range(ROWS), "name": ["x"] * ROWS}), packed)
    with EmbeddedCas.open(tmp_path / "store") as cas:
        file = upload(cas, make_sample(packed.getvalue()))
        with live_server(cas) as server:
            block = block.replace("HASH", str(file)).replace("https://xet.example.org", server.url)
            names: dict[str, Any] = {"TOKEN": server.token("read")}
            tables = 0
            try:
                for statement in ast.parse(block).body:
                    code = ast.unparse(statement)
                    if isinstance(statement, ast.Expr) and "register" not in code:
                        assert prices(eval(code, names)) == list(range(ROWS)), code
                        tables += 1
                    else:
                        exec(code, names)
            finally:
                duckdb.unregister_filesystem("xet")
                names["fs"].close()
    assert tables == 7


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_dask(tables: Tables, scheduler: str) -> None:
    frames = needed("dask.dataframe")
    rows = frames.read_csv(tables.csv, blocksize=16_000, storage_options=tables.options)
    assert rows.npartitions > 2
    assert int(rows["number"].sum().compute(scheduler=scheduler)) == SUM
    groups = frames.read_parquet(
        tables.parquet, split_row_groups=True, aggregate_files=False, storage_options=tables.options
    )
    assert groups.npartitions > 1
    assert int(groups["number"].sum().compute(scheduler=scheduler)) == SUM
