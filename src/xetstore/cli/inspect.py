"""``xet inspect``: a stored file and how it is made; the content of a xorb, a shard or a file of tensors."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from xetstore.cli.context import Settings, namespace_option, parse_file, store_options
from xetstore.cli.inspect_stored import print_stored
from xetstore.cli.inspect_tensors import tensor_fields, tensor_lines, tensor_records
from xetstore.cli.network import access_options
from xetstore.cli.output import Output, count_text
from xetstore.cli.places import SCHEMES
from xetstore.errors import FormatError, NotFoundError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.shard import Shard
    from xetstore.protocol.xorb import XorbInfo
    from xetstore.store import Store
    from xetstore.tensors.header import Header

HASH: Final = re.compile(r"[0-9a-fA-F]{6,64}")
"""A hash, or the first digits of one, unless it is a file of this machine."""
_SCHEMES: Final = ("none", "lz4", "bg4-lz4")


@click.command(epilog="Example: xet inspect xet://alice/bert/model.safetensors")
@click.argument("what", metavar="WHAT")
@namespace_option
@access_options
@store_options
@click.pass_obj
def inspect(settings: Settings, what: str) -> None:
    """List what is in a stored file, a xorb, a shard, or a file of tensors.

    WHAT is a hash, of a file or, where the store is a directory, of a xorb or a shard; xet://OWNER/NAME@REVISION/PATH,
    or hf://models/NAMESPACE/NAME/PATH; or a file of this machine: a xorb or a shard, which is verified, or a model in
    safetensors or GGUF.
    """
    path = Path(what)
    if what.startswith(SCHEMES) or (HASH.fullmatch(what) and not path.exists()):
        _inspect_stored(settings, what)
    elif (header := _tensors(path)) is not None:
        _print_tensors(settings.output, path, header)
    else:
        _print_object(settings.output, str(path), _read(path))


def _inspect_stored(settings: Settings, what: str) -> None:
    with settings.store_of(parse_file(what)) as (store, name):
        try:
            record = store.stat(name)
        except NotFoundError:
            if (found := _object(store, name)) is None:
                raise
            _print_object(settings.output, *found)
        else:
            print_stored(settings.output, store, record)


def _object(store: Store, name: Hash) -> tuple[str, bytes] | None:
    """The object of a xorb or shard of this hash, in a store that is here."""
    from xetstore.cas.object_bytes import object_bytes
    from xetstore.cas.service import EmbeddedCas

    return object_bytes(store.cas, name) if isinstance(store.cas, EmbeddedCas) else None


def _print_object(output: Output, path: str, data: bytes) -> None:
    from xetstore.protocol.shard import Shard

    try:
        found = _parse(data)
    except FormatError as error:
        raise FormatError(error.rule, error.offset, f"{path}: {error.detail}") from error
    if output.json:
        records = _shard_records(found) if isinstance(found, Shard) else _xorb_records(found, data)
        header = next(records)
        output.record(**header, path=path, size=len(data))
        for record in records:
            output.record(**record)
    else:
        output.lines(_shard_lines(found) if isinstance(found, Shard) else _xorb_lines(found, data))


def _tensors(path: Path) -> Header | None:
    """The header of a file of this machine, or None if it is none of tensors."""
    from xetstore.tensors.formats import looks_like_tensors, parse_header
    from xetstore.tensors.header import Beginning

    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < 9:
            return None

        def read(start: int, end: int) -> bytearray:
            file.seek(start)
            return bytearray(file.read(end - start))

        beginning = Beginning(size, read)
        if not looks_like_tensors(bytes(beginning.upto(9, "tensors.format")[:9]), size):
            return None
        return parse_header(beginning, str(path))


def _print_tensors(output: Output, path: Path, header: Header) -> None:
    if output.json:
        output.record(kind="tensors", path=str(path), size=path.stat().st_size, **tensor_fields(header))
        for record in tensor_records(header):
            output.record(**record)
    else:
        output.lines(tensor_lines(header))


def _read(path: Path) -> bytes:
    from xetstore.protocol.suite import MAX_SHARD_BYTES

    # Xorbs and shards end near 64 MiB; footers and lookup tables come on top, but never as much again.
    most = 2 * MAX_SHARD_BYTES
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise FormatError("inspect.size", most, f"{path} is too big for a xorb or a shard")
    return data


def _parse(data: bytes) -> XorbInfo | Shard:
    from xetstore.cas.stored_xorb import read_object
    from xetstore.protocol.shard import Shard
    from xetstore.protocol.suite import SHARD_TAG

    if data.startswith(SHARD_TAG):
        return Shard.parse(data)
    try:
        return read_object(data)
    except FormatError as not_xorb:
        try:
            return Shard.parse(data)
        except FormatError as not_shard:
            raise FormatError(
                "inspect.kind", 0, f"no xorb ({not_xorb.detail}), no shard ({not_shard.detail}), no file of tensors"
            ) from not_xorb


def _xorb_chunks(xorb: XorbInfo, data: bytes) -> Iterator[tuple[str, int, int, int, str]]:
    """Hash, raw length, start and end in the file, and scheme of each chunk."""
    from xetstore.protocol import kernel
    from xetstore.protocol.suite import XET_GEARHASH_BLAKE3

    _, _, schemes = kernel.walk_chunks(XET_GEARHASH_BLAKE3.kernel, data)
    start = 0
    for (name, length), end, scheme in zip(xorb.chunks, memoryview(xorb.ends).cast("Q"), schemes, strict=True):
        yield str(name), length, start, end, _SCHEMES[scheme]
        start = end


def _checksum_bytes(data: bytes) -> int:
    from xetstore.cas.checksums import END_BYTES, told_section_bytes

    return told_section_bytes(data[-END_BYTES:])


def _xorb_records(xorb: XorbInfo, data: bytes) -> Iterator[dict[str, Any]]:
    yield {
        "kind": "xorb",
        "hash": str(xorb.hash),
        "chunks": xorb.chunk_count,
        "raw_bytes": xorb.raw_bytes,
        "stored_bytes": xorb.region_bytes,
        "footer_bytes": len(data) - xorb.region_bytes - _checksum_bytes(data),
        "checksum_bytes": _checksum_bytes(data),
    }
    for index, (name, length, start, end, scheme) in enumerate(_xorb_chunks(xorb, data)):
        yield {"index": index, "hash": name, "length": length, "start": start, "end": end, "scheme": scheme}


def _xorb_lines(xorb: XorbInfo, data: bytes) -> Iterator[str]:
    checksums = _checksum_bytes(data)
    footer = len(data) - xorb.region_bytes - checksums
    yield f"xorb    {xorb.hash}"
    yield f"chunks  {xorb.chunk_count:,}"
    yield f"raw     {xorb.raw_bytes:,} ({size_text(xorb.raw_bytes)})"
    yield f"stored  {xorb.region_bytes:,} ({size_text(xorb.region_bytes)})"
    yield f"footer  {f'{footer:,} bytes' if footer else 'none'}"
    yield f"sums    {f'{checksums:,} bytes' if checksums else 'none'}"
    yield ""
    yield f"{'chunk':>5}  {'start':>10}  {'stored':>8}  {'raw':>8}  {'scheme':<7}  hash"
    for index, (name, length, start, end, scheme) in enumerate(_xorb_chunks(xorb, data)):
        yield f"{index:>5}  {start:>10}  {end - start:>8}  {length:>8}  {scheme:<7}  {name}"


def _shard_records(shard: Shard) -> Iterator[dict[str, Any]]:
    yield {
        "kind": "shard",
        "files": len(shard.files),
        "xorbs": len(shard.xorbs),
        "chunks": sum(len(xorb.chunks) for xorb in shard.xorbs),
        "keyed": shard.key is not None,
        "created_at": shard.created_at,
        "expires_at": shard.expires_at,
    }
    for file in shard.files:
        yield {
            "file": str(file.hash),
            "size": file.size,
            "sha256": file.sha256.hex() if file.sha256 is not None else None,
            "verified_terms": file.verification is not None,
            "terms": [
                {
                    "xorb": str(term.xorb),
                    "chunk_start": term.chunk_start,
                    "chunk_end": term.chunk_end,
                    "length": term.unpacked_bytes,
                }
                for term in file.terms
            ],
        }
    for xorb in shard.xorbs:
        yield {
            "xorb": str(xorb.hash),
            "raw_bytes": xorb.chunks.total_bytes,
            "chunks": [{"hash": str(name), "length": length} for name, length in xorb.chunks],
        }


def _shard_lines(shard: Shard) -> Iterator[str]:
    yield f"shard  {count_text(len(shard.files), 'file')}, {count_text(len(shard.xorbs), 'xorb')}"
    yield f"keys   {'chunk hashes are keyed' if shard.key is not None else 'none: chunk hashes are plain'}"
    for label, moment in (("made  ", shard.created_at), ("until ", shard.expires_at)):
        if moment:
            yield f"{label} {_time_text(moment)}"
    for file in shard.files:
        yield ""
        yield f"file   {file.hash}"
        yield f"       {file.size:,} bytes, sha256 {file.sha256.hex() if file.sha256 is not None else 'not given'}"
        for term in file.terms:
            chunks = f"chunks {term.chunk_start} to {term.chunk_end}"
            yield f"       {chunks:<22} {term.unpacked_bytes:>12,} bytes  of {term.xorb}"
    if shard.xorbs:
        yield ""
    for xorb in shard.xorbs:
        nbytes = xorb.chunks.total_bytes
        yield f"xorb   {xorb.hash}  {count_text(len(xorb.chunks), 'chunk')}, {size_text(nbytes)}"


def _time_text(seconds: int) -> str:
    """Unix seconds as a date; the number itself where it lies beyond the calendar."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError):
        return f"{seconds} (seconds since 1970)"
