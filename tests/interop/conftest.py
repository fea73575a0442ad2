"""The reference client, and the files on which it and xetstore have to agree."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.hf import HfClient
from tests.support.strategies import few_values, float32, ramp, splitmix64, text


@pytest.fixture(scope="session")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HfClient]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_XET_CACHE", str(tmp_path_factory.mktemp("hf_cache")))
        environment.setenv("HF_XET_TELEMETRY_ENABLED", "0")
        yield HfClient(importlib.import_module("hf_xet"))


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory for files too many or too big to be kept for looking at after the test."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of many kinds, some made of parts of others."""
    folder = tmp_path_factory.mktemp("corpus")
    noise = splitmix64(1, 3_000_000)
    contents = {
        "random": noise,
        "text": text(1_000_001),
        "floats": float32(2_000_002),
        "ramp": ramp(700_003),
        "few values": few_values(600_000),
        "zeros": bytes(3_000_000),
        "empty": b"",
        "one byte": b"x",
        "greeting": b"Hello World!",
        "the same again": noise,
        "edited": noise[:1_234_567] + b"an insertion" + noise[1_240_000:],
        "mixed": ramp(300_001) + noise[500_000:1_500_000] + text(200_000) + few_values(99_999),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}
