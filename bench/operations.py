"""What is measured, of ours and of hf_xet under the same names; what both return has to be the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

RANGE_BYTES = 1 << 20
FOOTER_BYTES = 64 << 10
"""The end of a Parquet file that is read first."""


# Operations of ours. A store is a directory or a server's URL.


def ours_hash(path: str) -> str:
    import xetstore

    return str(xetstore.hash_file(path).hash)


def ours_put(path: str, store: str) -> str:
    import xetstore

    with xetstore.open(store) as opened:
        return str(opened.put(path).hash)


def ours_get(file_hash: str, _size: str, store: str, out: str) -> str:
    import xetstore

    with xetstore.open(store, create=False) as opened:
        report = opened.get(file_hash, out)
        assert report.verified
    return file_hash


def ours_put_many(folder: str, store: str, hashes: str) -> str:
    import xetstore

    with xetstore.open(store) as opened:
        found = [str(report.info.hash) for report in opened.put_many(_files(folder))]
    Path(hashes).write_text("\n".join(found))
    return _digest(found)


def ours_get_many(hashes: str, size: str, store: str, out: str) -> str:
    import xetstore

    wanted = Path(hashes).read_text().split()
    with xetstore.open(store, create=False) as opened:
        for report in opened.get_many(zip(wanted, _targets(out, len(wanted)), strict=True)):
            assert report.verified
            assert report.size == int(size)
    return _digest(wanted)


def ours_ranges(file_hash: str, size: str, store: str, count: str) -> str:
    import xetstore

    with xetstore.open(store, create=False) as opened:
        return _read_digest(b"".join(opened.iter_range(file_hash, *span)) for span in _spans(int(size), int(count)))


def ours_seeks(file_hash: str, size: str, store: str, count: str) -> str:
    import xetstore

    def read() -> Iterator[bytes]:
        with xetstore.open(store, create=False) as opened, opened.open(file_hash) as file:
            for start, end in _spans(int(size), int(count)):
                file.seek(start)
                yield file.read(end - start)

    return _read_digest(read())


def ours_columns(file_hash: str, _size: str, store: str, columns: str) -> str:
    from xetstore.fs import XetFileSystem

    fs = XetFileSystem(store=store)
    try:
        return _column_digest(fs, f"{file_hash}/table.parquet", columns)
    finally:
        fs.close()


# Operations of hf_xet. A store is an endpoint: local://DIRECTORY, or a server's URL.


def theirs_hash(path: str) -> str:
    import hf_xet

    return str(hf_xet.hash_files([path])[0].hash)


def theirs_put(path: str, store: str) -> str:
    import hf_xet

    return str(hf_xet.upload_files([path], store, None, None, None, None)[0].hash)


def theirs_get(file_hash: str, size: str, store: str, out: str) -> str:
    import hf_xet

    wanted = hf_xet.PyXetDownloadInfo(out, file_hash, int(size))
    hf_xet.download_files([wanted], store, None, None, None)
    return file_hash


def theirs_put_many(folder: str, store: str, hashes: str) -> str:
    import hf_xet

    uploaded = hf_xet.upload_files([str(path) for path in _files(folder)], store, None, None, None, None)
    found = [str(info.hash) for info in uploaded]
    Path(hashes).write_text("\n".join(found))
    return _digest(found)


def theirs_get_many(hashes: str, size: str, store: str, out: str) -> str:
    import hf_xet

    wanted = Path(hashes).read_text().split()
    infos = [
        hf_xet.PyXetDownloadInfo(str(target), name, int(size))
        for name, target in zip(wanted, _targets(out, len(wanted)), strict=True)
    ]
    hf_xet.download_files(infos, store, None, None, None)
    return _digest(wanted)


def theirs_ranges(file_hash: str, size: str, store: str, count: str) -> str:
    import hf_xet

    group = hf_xet.XetSession().new_download_stream_group(endpoint=store)
    info = hf_xet.XetFileInfo(file_hash, int(size))
    found = _read_digest(
        b"".join(group.download_stream(info, start, end)) for start, end in _spans(int(size), int(count))
    )
    group.finish()
    return found


def theirs_columns(file_hash: str, size: str, store: str, columns: str) -> str:
    """By ranges, one after the other, as a filesystem of fsspec that is not made of coroutines reads them."""
    from typing import Any

    import hf_xet
    from fsspec.spec import AbstractFileSystem

    group = hf_xet.XetSession().new_download_stream_group(endpoint=store)
    whole = hf_xet.XetFileInfo(file_hash, int(size))

    class Ranges(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
        cachable = False

        def info(self, path: str, **_: Any) -> dict[str, Any]:
            return {"name": path, "size": int(size), "type": "file"}

        def cat_file(self, _path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
            first, last, _step = slice(start, end).indices(int(size))
            return b"".join(group.download_stream(whole, first, last))

        def _open(self, path: str, **_: Any) -> Any:
            raise NotImplementedError

    found = _column_digest(Ranges(), "table.parquet", columns)
    group.finish()
    return found


OPERATIONS: dict[str, Callable[..., str]] = {
    "ours.hash": ours_hash,
    "ours.put": ours_put,
    "ours.get": ours_get,
    "ours.put_many": ours_put_many,
    "ours.get_many": ours_get_many,
    "ours.ranges": ours_ranges,
    "ours.seeks": ours_seeks,
    "ours.columns": ours_columns,
    "theirs.hash": theirs_hash,
    "theirs.put": theirs_put,
    "theirs.get": theirs_get,
    "theirs.put_many": theirs_put_many,
    "theirs.get_many": theirs_get_many,
    "theirs.ranges": theirs_ranges,
    "theirs.seeks": theirs_ranges,
    "theirs.columns": theirs_columns,
}


def _column_digest(fs: object, path: str, columns: str) -> str:
    """The bytes that some columns of a Parquet file lie in: its footer, then their chunks, as fsspec asks for them."""
    import io

    from pyarrow import parquet

    size = fs.info(path)["size"]  # type: ignore[attr-defined]
    [end] = fs.cat_ranges([path], [size - FOOTER_BYTES], [size])  # type: ignore[attr-defined]
    footer = parquet.read_metadata(io.BytesIO(end))
    spans = []
    for group in range(footer.num_row_groups):
        for number in map(int, columns.split(",")):
            column = footer.row_group(group).column(number)
            start = column.dictionary_page_offset or column.data_page_offset
            spans.append((start, start + column.total_compressed_size))
    parts = fs.cat_ranges([path] * len(spans), [start for start, _ in spans], [end for _, end in spans])  # type: ignore[attr-defined]
    return _read_digest(iter(parts))


def _files(folder: str) -> list[Path]:
    return sorted(Path(folder).iterdir())


def _targets(out: str, count: int) -> list[Path]:
    Path(out).mkdir()
    return [Path(out, str(number)) for number in range(count)]


def _digest(hashes: list[str]) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _spans(size: int, count: int) -> Iterator[tuple[int, int]]:
    chance = Random(1)
    length = min(RANGE_BYTES, size)
    for _ in range(count):
        start = chance.randrange(size - length + 1)
        yield start, start + length


def _read_digest(parts: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
