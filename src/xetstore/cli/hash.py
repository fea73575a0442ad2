"""``xet hash``: the Xet hash of files, nothing stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xetstore.cli.context import PATH, Settings, common_options, null_option
from xetstore.cli.output import files_text
from xetstore.errors import UsageError, XetError

if TYPE_CHECKING:
    from xetstore.cli.output import Output
    from xetstore.store import HashReport


@click.command("hash", epilog="Example: xet hash model.safetensors")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=PATH)
@click.option("--chunks", is_flag=True, help="List the hash and the length of every chunk.")
@click.option("--sha256", is_flag=True, help="Compute the SHA-256 too.")
@null_option
@common_options
@click.pass_obj
def hash_(settings: Settings, paths: tuple[Path, ...], chunks: bool, sha256: bool) -> int:
    """Print the hash of each file. Nothing is stored.

    A file that cannot be read is reported, and the others are still hashed.
    """
    from xetstore.store import hash_report

    output = settings.output
    settings.check_null()
    if output.null and chunks:
        raise UsageError("--null and --chunks do not go together", hint="leave out one of the two")
    with output.progress("hash", total_size(paths), files=len(paths)) as progress:
        for path in paths:
            progress.file(str(path))
            try:
                report = hash_report(path, sha256=sha256, keep_chunks=chunks, progress=progress)
            except (XetError, OSError) as error:
                settings.failed(error)
            else:
                _print(output, path, report, sha256=sha256)
    if settings.failures:
        output.note(files_text(len(paths) - settings.failures, settings.failures))
    return settings.exit_code


def total_size(paths: Iterable[Path]) -> int:
    """Bytes of all files, as far as they can be asked: what a progress bar expects."""
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _print(output: Output, path: Path, report: HashReport, *, sha256: bool) -> None:
    info = report.info
    chunks = None if report.chunks is None else [(str(name), length) for name, length in report.chunks]
    if not output.json:
        output.entry(f"{info.hash}  {info.sha256}" if sha256 else str(info.hash), path)
        if chunks:
            output.lines(f"  {name}  {length}" for name, length in chunks)
        return
    fields: dict[str, Any] = {
        "path": str(path),
        "size": info.size,
        "hash": str(info.hash),
        "chunks": report.chunk_count
        if chunks is None
        else [{"hash": name, "length": length} for name, length in chunks],
    }
    if sha256:
        fields["sha256"] = info.sha256
    output.record(**fields)
