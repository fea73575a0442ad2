"""Read parts of a stored table: some bytes, some lines, and with pandas.

Shows: a file object of `Store.open`, and the fsspec filesystem `xet://` (`pip install 'xetstore[fs]'`), by which
pandas, DuckDB, Dask, PyArrow and Polars read from a store. pandas is used where it is installed.
"""

import importlib.util
import tempfile
from pathlib import Path

import fsspec

import xetstore

with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    table = folder / "prices.csv"
    table.write_text("day,price\n" + "".join(f"{day},{day % 97}\n" for day in range(100_000)))

    with xetstore.open(folder / "store") as store:
        info = store.put(table)
        with store.open(info.hash) as file:  # seekable, verified as it is read
            file.seek(-15, 2)
            print("last bytes:", file.read())

    # A path is a hash; a name behind it only shows readers the kind of file.
    url = f"xet://{info.hash}/prices.csv"
    options = {"store": str(folder / "store")}
    with fsspec.open(url, "rt", **options) as lines:
        print("first line:", next(lines).strip())
    filesystem = fsspec.filesystem("xet", **options)
    print("bytes 10 to 20:", filesystem.cat_file(str(info.hash), 10, 20))

    if importlib.util.find_spec("pandas") is not None:
        import pandas

        frame = pandas.read_csv(url, storage_options=options)
        print("pandas: mean price", frame["price"].mean().round(3))
