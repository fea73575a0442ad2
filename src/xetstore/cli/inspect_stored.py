"""A stored file, as ``xet inspect`` prints it: its record, its tensors, its terms, and the xorbs that these lie in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from xetstore.cli.inspect_tensors import tensor_fields, tensor_lines, tensor_records
from xetstore.cli.output import Output, count_text, time_text
from xetstore.errors import FormatError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.records import FileRecord
    from xetstore.store import Store
    from xetstore.tensors.header import Header
    from xetstore.transfer.download.plan import Window

_LISTED_NAMESPACES: Final = 1000
_FIRST_BYTES: Final = 9


def print_stored(output: Output, store: Store, record: FileRecord) -> None:
    """Print all that is known of a file, a window of 4 GiB at a time: it may have millions of terms."""
    namespaces = _namespaces(store, record.hash)
    header = _header(output, store, record)
    if output.json:
        _print_records(output, store, record, namespaces, header)
    else:
        _print_lines(output, store, record, namespaces, header)


def _print_records(
    output: Output, store: Store, record: FileRecord, namespaces: list[str] | None, header: Header | None
) -> None:
    output.record(
        kind="file",
        hash=str(record.hash),
        size=record.size,
        sha256=record.sha256,
        created_at=record.created_at,
        terms=record.terms,
        xorbs=record.xorbs,
        namespaces=namespaces,
        **(tensor_fields(header) if header is not None else {}),
    )
    for tensor in tensor_records(header) if header is not None else ():
        output.record(**tensor)
    fetched: dict[Hash, int] = {}
    for window in _windows(store, record):
        for term in _terms(window):
            output.record(**term)
        _add_fetches(fetched, window)
    for xorb, nbytes in fetched.items():
        output.record(xorb=str(xorb), fetched_bytes=nbytes)


def _print_lines(
    output: Output, store: Store, record: FileRecord, namespaces: list[str] | None, header: Header | None
) -> None:
    output.line(f"file     {record.hash}")
    output.line(f"size     {record.size:,} ({size_text(record.size)})")
    if record.created_at is not None:
        output.line(f"sha256   {record.sha256 or 'unknown'}")
        output.line(f"created  {time_text(record.created_at)}")
    if namespaces is not None:
        output.line(f"granted  {', '.join(namespaces)}")
    if header is not None:
        output.lines(tensor_lines(header))
    output.lines(("", f"{'start':>15}  {'bytes':>11}  {'chunks':<12}  of xorb"))
    fetched: dict[Hash, int] = {}
    terms = 0
    for window in _windows(store, record):
        lines = []
        for term in _terms(window):
            chunks = f"{term['chunk_start']} to {term['chunk_end']}"
            lines.append(f"{term['start']:>15}  {term['length']:>11}  {chunks:<12}  {term['xorb']}")
        if lines:
            output.lines(lines)
        terms += len(lines)
        _add_fetches(fetched, window)
    xorbs = f"{count_text(terms, 'term')} in {count_text(len(fetched), 'xorb')}"
    output.lines(("", xorbs, *(f"{nbytes:>15}  bytes to fetch of xorb {xorb}" for xorb, nbytes in fetched.items())))


def _windows(store: Store, record: FileRecord) -> Iterable[Window]:
    from xetstore.transfer.download.file_range import FileRange
    from xetstore.transfer.download.reconstructions import Reconstructions

    return Reconstructions(store.cas, FileRange(record.hash, 0, None, record.size), hashes=False).walk()


def _terms(window: Window) -> Iterator[dict[str, Any]]:
    start = window.position
    for term in window.reconstruction.terms:
        yield {
            "start": start,
            "length": term.unpacked_bytes,
            "chunk_start": term.chunk_start,
            "chunk_end": term.chunk_end,
            "xorb": str(term.xorb),
        }
        start += term.unpacked_bytes


def _add_fetches(fetched: dict[Hash, int], window: Window) -> None:
    for part in window.parts:
        nbytes = part.fetch.byte_end - part.fetch.byte_start
        fetched[part.fetch.xorb] = fetched.get(part.fetch.xorb, 0) + nbytes


def _namespaces(store: Store, file: Hash) -> list[str] | None:
    """The namespaces that may read a file, of a store that is here: who sees the index sees them all."""
    from xetstore.cas.service import EmbeddedCas

    if not isinstance(store.cas, EmbeddedCas):
        return None
    with store.cas.index.snapshot() as reader:
        return reader.namespaces_with(file, _LISTED_NAMESPACES)


def _header(output: Output, store: Store, record: FileRecord) -> Header | None:
    """The header of a file of tensors; None for any other, and with a warning for one that is broken."""
    if record.size <= _FIRST_BYTES:
        return None
    from xetstore.tensors.file import TensorFile
    from xetstore.tensors.formats import looks_like_tensors, parse_header
    from xetstore.tensors.header import Beginning

    file = TensorFile(str(record.hash), record.size, record.hash)
    beginning = Beginning(record.size, lambda start, end: file.read(store, start, end))
    if not looks_like_tensors(bytes(beginning.upto(_FIRST_BYTES, "tensors.format")[:_FIRST_BYTES]), record.size):
        return None
    try:
        return parse_header(beginning, file.name)
    except FormatError as error:
        output.warning(f"it begins like a file of tensors, and is none: {error}")
        return None
