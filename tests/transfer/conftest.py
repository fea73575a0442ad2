"""A store with a file in many xorbs, some of whose chunks are used often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.faulty import Stored
from tests.support.strategies import splitmix64
from xetstore.cas import EmbeddedCas
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.session import put_files
from xetstore.transfer.upload.sizing import UploadSizes

MIB = 1 << 20
SMALL_XORBS = UploadOptions(sizes=UploadSizes(700_000))


@pytest.fixture(scope="package")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """Random bytes in xorbs of 700 kB, a stretch of zeros, and a part that repeats."""
    folder = tmp_path_factory.mktemp("stored")
    first, second = splitmix64(21, 2 * MIB), splitmix64(22, MIB)
    data = first + bytes(2 * MIB) + second + first[: MIB // 2 + 7] + b"the end"
    (folder / "file").write_bytes(data)
    with EmbeddedCas.in_memory() as cas:
        [report] = put_files(cas, [folder / "file"], SMALL_XORBS)
        assert len(cas.reconstruct(report.info.hash).fetches) > 4
        yield Stored(cas, report.info.hash, data)
