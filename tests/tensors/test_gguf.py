"""Headers of GGUF: those of the real library are read as it reads them, those of attackers are refused."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf as judge
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xetstore.errors import FormatError
from xetstore.tensors import gguf
from xetstore.tensors.dtypes import GGML
from xetstore.tensors.header import MAX_VALUES, Beginning, Header


def parse(data: bytes, reads: list[tuple[int, int]] | None = None) -> Header:
    def read(start: int, end: int) -> bytearray:
        if reads is not None:
            reads.append((start, end))
        return bytearray(data[start:end])

    return gguf.parse(Beginning(len(data), read))


def model(path: Path, tokens: int = 3, **options: Any) -> bytes:
    """A small model with values of every kind, and tensors of several types."""
    writer = judge.GGUFWriter(path, "llama", **options)
    writer.add_name("ünï")
    writer.add_uint8("a.uint8", 200)
    writer.add_int16("a.int16", -2)
    writer.add_uint64("a.uint64", 1 << 63)
    writer.add_float32("a.float32", 0.5)
    writer.add_float64("a.float64", 0.1)
    writer.add_bool("a.bool", True)
    writer.add_array("a.numbers", [1, -2, 3])
    writer.add_array("a.floats", [0.5, 1.5])
    writer.add_token_list([f"token {number}" for number in range(tokens)])
    writer.add_tensor("float", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("half", np.arange(6, dtype=np.float16).reshape(1, 2, 3))
    writer.add_tensor("whole", np.arange(5, dtype=np.int32))
    weights = np.linspace(-1, 1, 4 * 256, dtype=np.float32).reshape(4, 256)
    for kind in (judge.GGMLQuantizationType.Q8_0, judge.GGMLQuantizationType.Q4_0):
        writer.add_tensor(f"weights.{kind.name}", judge.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.mark.parametrize("alignment", [None, 64])
def test_what_the_real_library_writes_is_read_as_it_reads_it(tmp_path: Path, alignment: int | None) -> None:
    if alignment is None:
        data = model(tmp_path / "file")
    else:
        writer = judge.GGUFWriter(tmp_path / "file", "llama")
        writer.add_custom_alignment(alignment)
        writer.add_tensor("a", np.arange(3, dtype=np.int8))
        writer.add_tensor("b", np.arange(3, dtype=np.int8))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        data = (tmp_path / "file").read_bytes()
    reads: list[tuple[int, int]] = []
    header = parse(data, reads)
    assert len(reads) == 1
    reader = judge.GGUFReader(tmp_path / "file")
    told = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert header.metadata == told
    assert {entry.name for entry in header.entries} == {tensor.name for tensor in reader.tensors}
    by_name = {entry.name: entry for entry in header.entries}
    for tensor in reader.tensors:
        entry = by_name[tensor.name]
        assert (entry.start, entry.end - entry.start) == (tensor.data_offset, tensor.n_bytes)
        assert list(reversed(entry.shape)) == tensor.shape.tolist()
        assert entry.dtype.name == tensor.tensor_type.name


def test_every_type_has_the_bytes_that_the_real_library_knows() -> None:
    sizes = {int(kind): (kind.name, *size) for kind, size in judge.GGML_QUANT_SIZES.items()}
    known = {number: (dtype.name, dtype.block, dtype.block_bytes) for number, dtype in GGML.items()}
    # A block of Q8_1 is never in a file. ggml gives it 36 bytes, the library 40.
    sizes.pop(9, None), known.pop(9)
    assert {number: known[number] for number in known if number in sizes} == {
        number: sizes[number] for number in known if number in sizes
    }
    assert len(set(known) & set(sizes)) >= 29


def test_a_long_header_is_read_once_in_some_growing_reads(tmp_path: Path) -> None:
    data = model(tmp_path / "file", tokens=100_000)
    reads: list[tuple[int, int]] = []
    header = parse(data, reads)
    assert header.metadata["tokenizer.ggml.tokens"][-1] == "token 99999"
    assert 1 < len(reads) < 6
    assert [start for start, _ in reads] == [0, *(end for _, end in reads[:-1])]


def test_big_endian_is_said(tmp_path: Path) -> None:
    data = model(tmp_path / "file", endianess=judge.GGUFEndian.BIG)
    with pytest.raises(FormatError, match="big-endian, version 3"):
        parse(data)


# --- Attackers ------------------------------------------------------------------------------------------


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: str, shape: list[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def file_of(
    *parts: bytes, tensors: int = 0, pairs: int = 0, version: int = 3, data: bytes = b"", align: int = 32
) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + b"".join(parts)
    return head + bytes(-len(head) % align) + data


U32 = struct.pack("<I", 1)
GOOD = file_of(tensor("w", [4], 0, 0), tensors=1, data=bytes(16))

BAD = {
    "nothing else": b"GGUF",
    "version 1": file_of(version=1),
    "version 4": file_of(version=4),
    "2^64 tensors": file_of(tensors=(1 << 64) - 1),
    "2^64 pairs": file_of(pairs=(1 << 64) - 1),
    "10^9 tensors": file_of(tensors=10**9),
    "more tensors than there are": file_of(tensors=2, data=bytes(100)),
    "a text of 2^63": file_of(struct.pack("<Q", 1 << 63), pairs=1),
    "a text beyond the file": file_of(struct.pack("<Q", 1 << 20) + b"a", pairs=1),
    "a text that is no UTF-8": file_of(text(b"\xff") + struct.pack("<I", 4) + U32, pairs=1),
    "a kind of values that is none": file_of(pair("a", 13, bytes(8)), pairs=1),
    "an array of 2^62": file_of(pair("a", 9, struct.pack("<IQ", 0, 1 << 62)), pairs=1),
    "an array beyond the file": file_of(pair("a", 9, struct.pack("<IQ", 12, 1_000_000)), pairs=1),
    "arrays in arrays": file_of(pair("a", 9, struct.pack("<IQ", 9, 1) * 100 + struct.pack("<IQ", 0, 0)), pairs=1),
    "many arrays": file_of(pair("a", 9, struct.pack("<IQ", 9, MAX_VALUES - 1) + struct.pack("<IQ", 0, 1) * 3), pairs=1),
    "a key twice": file_of(pair("a", 4, U32) * 2, pairs=2),
    "an alignment of nothing": file_of(pair("general.alignment", 4, bytes(4)), pairs=1),
    "an alignment of 24": file_of(pair("general.alignment", 4, struct.pack("<I", 24)), pairs=1),
    "an alignment that is a text": file_of(pair("general.alignment", 8, text("32")), pairs=1),
    "a tensor twice": file_of(tensor("w", [4], 0, 0), tensor("w", [4], 0, 32), tensors=2, data=bytes(64)),
    "five dimensions": file_of(tensor("w", [1] * 5, 0, 0), tensors=1, data=bytes(32)),
    "2^32 dimensions": file_of(text("w") + struct.pack("<I", (1 << 32) - 1), tensors=1, data=bytes(100)),
    "dimensions beyond 64 bits": file_of(tensor("w", [1 << 40, 1 << 40], 0, 0), tensors=1, data=bytes(16)),
    "a dimension of 2^64 - 1": file_of(tensor("w", [(1 << 64) - 1], 0, 0), tensors=1, data=bytes(16)),
    "a type that is none": file_of(tensor("w", [4], 99, 0), tensors=1, data=bytes(16)),
    "a type that was removed": file_of(tensor("w", [32], 4, 0), tensors=1, data=bytes(64)),
    "parts of blocks": file_of(tensor("w", [4], 2, 0), tensors=1, data=bytes(32)),
    "rows of parts of blocks": file_of(tensor("w", [16, 2], 2, 0), tensors=1, data=bytes(32)),
    "offsets beyond the file": file_of(tensor("w", [4], 0, 1 << 62), tensors=1, data=bytes(16)),
    "offsets that are not aligned": file_of(tensor("w", [4], 0, 4), tensors=1, data=bytes(32)),
    "overlapping tensors": file_of(tensor("a", [16], 0, 0), tensor("b", [16], 0, 32), tensors=2, data=bytes(128)),
    "a file cut short": GOOD[:-1],
}


def test_a_small_file_by_hand_is_read() -> None:
    [entry] = parse(GOOD).entries
    assert (entry.name, entry.shape, entry.end) == ("w", (4,), len(GOOD))
    assert parse(file_of(version=2)).entries == ()


@pytest.mark.parametrize("name", BAD)
def test_what_breaks_a_rule_is_refused_with_bounded_memory(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FormatError) as caught:
            parse(BAD[name])
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 300


@given(st.integers(0, len(GOOD)), st.binary(max_size=12), st.booleans())
def test_any_bytes_are_a_header_or_a_format_error(at: int, data: bytes, is_cut: bool) -> None:
    with suppress(FormatError):
        parse(GOOD[:at] + data + (b"" if is_cut else GOOD[at + len(data) :]))
