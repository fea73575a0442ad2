"""The tensors of a file, as ``xet inspect`` prints them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from xetstore.cli.output import count_text
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.tensors.header import Header

_LISTED_VALUES: Final = 16
_SHOWN_CHARACTERS: Final = 60


def tensor_fields(header: Header) -> dict[str, Any]:
    """The fields of a file's record that tell of its tensors."""
    return {
        "format": header.format,
        "tensors": len(header.entries),
        "tensor_bytes": sum(entry.end - entry.start for entry in header.entries),
        "metadata": _short(header.metadata),
    }


def tensor_records(header: Header) -> Iterator[dict[str, Any]]:
    """A record for each tensor, in the order of their bytes."""
    for entry in header.entries:
        yield {
            "tensor": entry.name,
            "dtype": entry.dtype.name,
            "shape": list(entry.shape),
            "start": entry.start,
            "length": entry.end - entry.start,
        }


def tensor_lines(header: Header) -> Iterator[str]:
    """The format, the metadata and a table of all tensors."""
    nbytes = sum(entry.end - entry.start for entry in header.entries)
    yield f"format   {header.format}, {count_text(len(header.entries), 'tensor')} of {size_text(nbytes)}"
    for key, value in header.metadata.items():
        text = count_text(len(value), "value") if isinstance(value, list) else str(value)
        yield f"         {key} = {text if len(text) <= _SHOWN_CHARACTERS else f'{text[:_SHOWN_CHARACTERS]}…'}"
    yield ""
    rows = [("start", "bytes", "type", "shape")]
    for entry in header.entries:
        shape = " x ".join(map(str, entry.shape)) or "-"
        rows.append((str(entry.start), str(entry.end - entry.start), entry.dtype.name, shape))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for (start, length, dtype, shape), name in zip(rows, ("name", *(e.name for e in header.entries)), strict=True):
        numbers = f"{start:>{widths[0]}}  {length:>{widths[1]}}"
        yield f"{numbers}  {dtype:<{widths[2]}}  {shape:<{widths[3]}}  {name}"


def _short(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata, without the long lists, such as the tokens of a model: of those their number is told."""
    return {
        key: {"values": len(value)} if isinstance(value, list) and len(value) > _LISTED_VALUES else value
        for key, value in metadata.items()
    }
