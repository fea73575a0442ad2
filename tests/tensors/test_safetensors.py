"""Headers of safetensors: those of the real library are read as it reads them, those of attackers are refused."""

from __future__ import annotations

import json
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save_file

from xetstore.errors import FormatError
from xetstore.tensors import safetensors
from xetstore.tensors.dtypes import SAFETENSORS
from xetstore.tensors.header import FIRST_READ_BYTES, MAX_HEADER_BYTES, MAX_VALUES, Beginning, Header


def parse(data: bytes, size: int | None = None) -> Header:
    return safetensors.parse(Beginning(size or len(data), lambda start, end: bytearray(data[start:end])))


def file_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(**changes: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changes}}


def test_what_the_real_library_writes_is_read_as_it_reads_it(tmp_path: Path) -> None:
    types = ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8"]
    tensors = {f"layer.{name}": np.zeros((number, 3), name) for number, name in enumerate(types)}
    save_file({**tensors, "scalar": np.array(1.5)}, tmp_path / "file", metadata={"format": "np", "π": "…"})
    header = parse((tmp_path / "file").read_bytes())
    with safe_open(tmp_path / "file", "np") as judge:
        assert header.metadata == judge.metadata()
        assert {entry.name for entry in header.entries} == set(judge.keys())
        for entry in header.entries:
            part = judge.get_slice(entry.name)
            assert (entry.dtype.name, list(entry.shape)) == (part.get_dtype(), part.get_shape())
    assert [entry.start for entry in header.entries] == sorted(entry.start for entry in header.entries)


@pytest.mark.parametrize("name", SAFETENSORS)
@pytest.mark.parametrize("elements", [0, 1, 2, 3, 8])
def test_every_type_has_the_bytes_that_the_real_library_wants(name: str, elements: int) -> None:
    accepted = set()
    for nbytes in range(70):
        header = {"w": {"dtype": name, "shape": [elements], "data_offsets": [0, nbytes]}}
        data = file_of(header, bytes(nbytes))
        try:
            deserialize(data)
        except SafetensorError:
            with pytest.raises(FormatError):
                parse(data)
        else:
            [entry] = parse(data).entries
            accepted.add(entry.end - entry.start)
    assert len(accepted) <= 1
    assert accepted or SAFETENSORS[name].block > 1


BAD: dict[str, bytes] = {
    "nothing": b"",
    "seven bytes": bytes(7),
    "a length of 2^63": struct.pack("<Q", 1 << 63) + b"{}",
    "a length of 2^64 - 1": struct.pack("<Q", (1 << 64) - 1) + b"{}",
    "a length beyond the file": struct.pack("<Q", 3) + b"{}",
    "no JSON": file_of(b"{]"),
    "no UTF-8": file_of(b'{"\xff": 1}'),
    "a list": file_of([]),
    "a number": file_of(b"1"),
    "deep JSON": file_of(b"[" * 100_000 + b"]" * 100_000),
    "deep objects": file_of(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a long number": file_of(b'{"a": ' + b"9" * 10_000 + b"}"),
    "a name twice": file_of(
        b'{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
    ),
    "a key twice": file_of(b'{"w":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}'),
    "metadata twice": file_of(b'{"__metadata__":{},"__metadata__":{}}'),
    "metadata of numbers": file_of({"__metadata__": {"a": 1}}),
    "metadata that is none": file_of({"__metadata__": None}),
    "no entry": file_of({"w": 1}),
    "no shape": file_of({"w": {"dtype": "F32", "data_offsets": [0, 24]}}, bytes(24)),
    "more fields": file_of(one(more=1), bytes(24)),
    "no such type": file_of(one(dtype="F33"), bytes(24)),
    "a type that is a list": file_of(one(dtype=["F32"]), bytes(24)),
    "a shape of texts": file_of(one(shape=["2", 3]), bytes(24)),
    "a shape of floats": file_of(one(shape=[2.0, 3]), bytes(24)),
    "a shape of truths": file_of(one(shape=[True, 6]), bytes(24)),
    "a negative dimension": file_of(one(shape=[-2, -3]), bytes(24)),
    "dimensions beyond 64 bits": file_of(one(shape=[1 << 40, 1 << 40]), bytes(24)),
    "dimensions that are 24 bytes modulo 2^64": file_of(one(shape=[(1 << 62) + 2, 3]), bytes(24)),
    "a thousand dimensions": file_of(one(shape=[1] * 1000, data_offsets=[0, 4]), bytes(4)),
    "NaN": file_of(b'{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', bytes(4)),
    "too small for its shape": file_of(one(data_offsets=[0, 20]), bytes(20)),
    "too big for its shape": file_of(one(data_offsets=[0, 28]), bytes(28)),
    "offsets that go back": file_of(one(data_offsets=[24, 0]), bytes(24)),
    "negative offsets": file_of(one(data_offsets=[-24, 0]), bytes(24)),
    "three offsets": file_of(one(data_offsets=[0, 24, 24]), bytes(24)),
    "offsets beyond the file": file_of(one(data_offsets=[1 << 62, (1 << 62) + 24]), bytes(24)),
    "one byte short": file_of(one(), bytes(23)),
    "one byte more": file_of(one(), bytes(25)),
    "a hole": file_of(one(data_offsets=[8, 32]), bytes(32)),
    "overlapping tensors": file_of(
        {**one(), "v": {"dtype": "F32", "shape": [2, 3], "data_offsets": [12, 36]}}, bytes(36)
    ),
    "the same bytes twice": file_of({**one(), "v": one()["w"]}, bytes(24)),
    "too many tensors": file_of(b'{"w":' + b"{},{}," * (MAX_VALUES // 4 + 1) + b"{}}"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_breaks_a_rule_is_refused(name: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(BAD[name])
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", [name for name in BAD if name != "too many tensors"])
def test_the_real_library_takes_none_of_them_unless_it_is_laxer(name: str) -> None:
    laxer = {"a name twice", "metadata that is none", "more fields", "a thousand dimensions"}
    if name in laxer:
        deserialize(BAD[name])
    else:
        with pytest.raises(SafetensorError):
            deserialize(BAD[name])


def test_nothing_is_read_because_a_length_says_so() -> None:
    reads: list[tuple[int, int]] = []

    def read(start: int, end: int) -> bytearray:
        reads.append((start, end))
        return bytearray(struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{" * (end - start - 8))

    with pytest.raises(FormatError, match="100,000,001 bytes"):
        safetensors.parse(Beginning(1 << 40, read))
    assert reads == [(0, FIRST_READ_BYTES)]


def test_a_header_of_nothing_but_brackets_takes_no_more_memory_than_a_real_one() -> None:
    data = file_of(b"{" + b'"a":[' + b"[]," * 600_000 + b"0]}")
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            parse(data)
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
        tracemalloc.reset_peak()
        with pytest.raises(FormatError, match="more than"):
            parse(file_of(b"{" + b'"a":[' + b"[]," * 10_000_000 + b"0]}"))
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_header_or_a_format_error(data: bytes, is_framed: bool) -> None:
    with suppress(FormatError):
        parse(file_of(data) if is_framed else data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["F32", "w"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "w", "__metadata__"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_JSON, st.binary(max_size=16))
def test_any_json_is_a_header_or_a_format_error(header: Any, data: bytes) -> None:
    with suppress(FormatError):
        parse(file_of(header, data))
