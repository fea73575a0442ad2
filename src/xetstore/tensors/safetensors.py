"""The header of safetensors: u64 length, JSON of names to type, shape and place, then the bytes of all tensors."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any, Final, NoReturn

from xetstore.errors import FormatError
from xetstore.tensors.dtypes import SAFETENSORS
from xetstore.tensors.header import MAX_HEADER_BYTES, MAX_VALUES, Beginning, Entry, Header, in_order, shown, sized

LENGTH_BYTES: Final = 8
METADATA: Final = "__metadata__"


class _TwiceError(ValueError):
    """A key that an object has twice."""


def parse(beginning: Beginning) -> Header:
    """The header of a file. FormatError where it breaks a rule; the bytes have to be all of the tensors, once."""
    head = beginning.upto(LENGTH_BYTES + 2, "safetensors.length")
    if head[LENGTH_BYTES] != ord("{"):
        raise FormatError("safetensors.json", LENGTH_BYTES, "it is no file of safetensors or GGUF")
    length = int.from_bytes(head[:LENGTH_BYTES], "little")
    if length > min(MAX_HEADER_BYTES, beginning.size - LENGTH_BYTES):
        raise FormatError(
            "safetensors.length", 0, f"a header of safetensors cannot have {length:,} bytes of {beginning.size:,}"
        )
    data_start = LENGTH_BYTES + length
    text = bytes(beginning.upto(data_start, "safetensors.length")[LENGTH_BYTES:data_start])
    members = loads(text, "safetensors.json", LENGTH_BYTES)
    metadata = _metadata(members.pop(METADATA, {}))
    entries = in_order(
        (_entry(name, value, data_start) for name, value in members.items()),
        beginning.size,
        "safetensors.offsets",
        LENGTH_BYTES,
    )
    end = data_start
    for entry in entries:
        if entry.start != end:
            _refuse("offsets", f"there is a hole before {shown(entry.name)}")
        end = entry.end
    if end != beginning.size:
        _refuse("offsets", f"the tensors end at byte {end:,} of {beginning.size:,}")
    return Header("safetensors", entries, metadata)


def loads(text: bytes, rule: str, at: int) -> dict[str, Any]:
    """A JSON object, of a bounded number of values and no key twice. FormatError for anything else."""
    if sum(map(text.count, (b",", b"{", b"["))) > MAX_VALUES:
        raise FormatError(rule, at, f"there are more than {MAX_VALUES:,} values")
    try:
        members = json.loads(text, object_pairs_hook=_once)
    except _TwiceError as name:
        raise FormatError(rule, at, f"{name} is there twice") from None
    except RecursionError:
        raise FormatError(rule, at, "the JSON is nested too deeply") from None
    except ValueError as error:  # a number too long, or no UTF-8, among them
        raise FormatError(rule, at, f"it is no JSON: {str(error)[:200]}") from None
    if not isinstance(members, dict):
        raise FormatError(rule, at, "the JSON is no object")
    return members


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = sorted(name for name, _ in pairs)
        raise _TwiceError(next(shown(one) for one, other in pairwise(names) if one == other))
    return members


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        _refuse("metadata", f"{METADATA} is not texts by name")
    return value


def _entry(name: str, value: Any, data_start: int) -> Entry:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        _refuse("entry", f"{shown(name)} does not have dtype, shape and data_offsets alone")
    dtype = SAFETENSORS.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        _refuse("dtype", f"the type of {shown(name)} is not known: {shown(str(value['dtype']))}")
    shape, offsets = value["shape"], value["data_offsets"]
    if not _are_whole(shape):
        _refuse("shape", f"the shape of {shown(name)} is not a list of whole numbers")
    if not _are_whole(offsets) or len(offsets) != 2 or not 0 <= offsets[0] <= offsets[1] < 1 << 63:
        _refuse("offsets", f"the offsets of {shown(name)} are not a start and an end")
    start, end = offsets
    nbytes = sized(dtype, tuple(shape), "safetensors.shape", LENGTH_BYTES, shown(name))
    if end - start != nbytes:
        _refuse("offsets", f"{shown(name)} has {end - start} bytes, and its type and shape make {nbytes}")
    return Entry(name, dtype, tuple(shape), data_start + start, data_start + end)


def _are_whole(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int for value in values)


def _refuse(rule: str, detail: str) -> NoReturn:
    raise FormatError(f"safetensors.{rule}", LENGTH_BYTES, detail)
