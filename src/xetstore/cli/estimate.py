"""``xet estimate``: the saving of storing files, without storing them."""

from __future__ import annotations

import shutil
import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from xetstore.cli.context import PATH, Settings, store_options
from xetstore.cli.hash import total_size
from xetstore.cli.local_files import LocalFiles, exclude_option
from xetstore.cli.names import escaped
from xetstore.cli.network import transfer_options
from xetstore.cli.output import files_text
from xetstore.errors import kind_of
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.cli.output import Output
    from xetstore.transfer.estimate.estimation import Estimate, FileEstimate

_BLOCKS: Final = {"new": "█", "repeated": "▒", "shared": "▓", "stored": "░"}


@click.command(epilog="Example: xet estimate models/")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=PATH)
@click.option("--picture", type=PATH, metavar="FILE.svg", help="Draw where each part of each file is known from.")
@exclude_option
@transfer_options
@store_options
@click.pass_obj
def estimate(settings: Settings, paths: tuple[Path, ...], picture: Path | None, exclude: tuple[str, ...]) -> int:
    """Say what storing files would save. Nothing is stored.

    The files are compared with each other and themselves, and with the store if one is named: by --store,
    XET_STORE or config.toml. What new bytes take compressed is estimated from a sample of them.
    """
    output = settings.output
    local = LocalFiles(settings, exclude)
    told = _estimate(settings, [file for path in paths for file in local.of(path)])
    for file in told.files:
        _print(output, file)
    if picture is not None:
        try:
            picture.write_text(told.svg(), encoding="utf-8")
        except OSError as error:
            raise kind_of(error)(f"{picture} cannot be written: {error.strerror}") from error
    output.note(
        f"{files_text(len(told.files), settings.failures)}{local.excluded_text()}, {size_text(told.size)}: "
        f"{size_text(told.new_bytes)} new, {size_text(told.deduped_bytes)} deduplicated, "
        f"about {size_text(told.compressed_bytes)} to store"
    )
    return settings.exit_code


def _estimate(settings: Settings, files: list[Path]) -> Estimate:
    from xetstore.transfer.estimate import CELLS
    from xetstore.transfer.estimate.estimation import estimate

    cells = _columns() or CELLS
    with settings.output.progress("estimate", total_size(files), files=len(files)) as progress:
        if settings.named_store() is None:
            return estimate(files, progress=progress, on_error=lambda _, error: settings.failed(error), cells=cells)
        with settings.open_or_empty() as store:
            return store.estimate(
                files, progress=progress, on_error=lambda _, error: settings.failed(error), cells=cells
            )


def _print(output: Output, file: FileEstimate) -> None:
    if output.json:
        output.record(
            path=str(file.path),
            hash=str(file.info.hash),
            size=file.info.size,
            new_bytes=file.new_bytes,
            repeated_bytes=file.repeated_bytes,
            shared_bytes=file.shared_bytes,
            stored_bytes=file.stored_bytes,
            compressed_bytes=file.compressed_bytes,
        )
        return
    parts = (
        (file.new_bytes, f"new, about {size_text(file.compressed_bytes)} compressed"),
        (file.repeated_bytes, "repeated"),
        (file.shared_bytes, "in a file before it"),
        (file.stored_bytes, "in the store"),
    )
    known = "; ".join(f"{size_text(nbytes)} {what}" for nbytes, what in parts if nbytes)
    output.line(f"{escaped(str(file.path))}: {size_text(file.info.size)}{': ' if known else ''}{known}")
    if _columns() and file.picture:
        output.line("  " + "".join(_BLOCKS[kind] * len(list(cells)) for kind, cells in groupby(file.picture)))


def _columns() -> int:
    """The number of blocks that fit on a line of the terminal; 0 without one, or where it cannot show them."""
    if not sys.stdout.isatty() or "utf" not in (sys.stdout.encoding or "").lower():
        return 0
    return max(10, min(shutil.get_terminal_size().columns - 3, 100))
