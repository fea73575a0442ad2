"""The format of a file of tensors, told by its first bytes."""

from __future__ import annotations

from xetstore.errors import FormatError
from xetstore.tensors import gguf, safetensors
from xetstore.tensors.header import Beginning, Header


def looks_like_tensors(start: bytes, size: int) -> bool:
    """True if a file of ``size`` bytes with these first ones, 9 or more, is meant to have tensors."""
    if start.startswith(gguf.MAGIC):
        return True
    length = int.from_bytes(start[: safetensors.LENGTH_BYTES], "little")
    return start[safetensors.LENGTH_BYTES :].startswith(b"{") and 2 <= length <= size - safetensors.LENGTH_BYTES


def parse_header(beginning: Beginning, name: str) -> Header:
    """The header of the file of this name. FormatError for any other file."""
    try:
        if beginning.upto(len(gguf.MAGIC), "tensors.format").startswith(gguf.MAGIC):
            return gguf.parse(beginning)
        return safetensors.parse(beginning)
    except FormatError as error:
        raise FormatError(error.rule, error.offset, f"{name}: {error.detail}") from None
