"""``xet cat``: a file, or a part of it, out of the store and onto stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, parse_file, range_option, store_options
from xetstore.cli.network import transfer_options
from xetstore.cli.output import stdout_error
from xetstore.cli.parsed import Parsed
from xetstore.cli.places import Places, parse_locator, revision_of
from xetstore.errors import UsageError

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash


@click.command(epilog="Example: xet cat xet://alice/bert@main/config.json")
@click.argument("file", type=Parsed(parse_file), metavar="FILE")
@range_option
@transfer_options
@store_options
@click.pass_obj
def cat(settings: Settings, file: Hash | str, span: tuple[int, int | None]) -> None:
    """Write a stored file to stdout.

    FILE is a hash, xet://OWNER/NAME@REVISION/PATH, or hf://models/NAMESPACE/NAME/PATH.

    Exit code 4 says that what was printed so far is not the file.
    """
    copy_to_stdout(settings, file, span)


def copy_to_stdout(settings: Settings, file: Hash | str, span: tuple[int, int | None]) -> None:
    """Stream bytes of a file to stdout."""
    start, end = span
    if isinstance(file, str) and file.startswith("xet://"):
        locator = parse_locator(file)
        if not locator.path:
            raise UsageError(f"{file[:200]} is a repository, and no file", hint=f"for example {locator}/FILE")
        with Places(settings) as places:
            _copy(places.repository(locator).iter_range(locator.path, revision_of(locator), start, end))
        return
    with settings.store_of(file) as (store, name):
        _copy(store.iter_range(name, start, end))


def _copy(blocks: Iterator[memoryview]) -> None:
    if getattr(sys.stdout, "name", "") == os.devnull:  # which took its place when the command was started without one
        raise UsageError("stdout is closed", hint="send it on: > FILE")
    stdout = sys.stdout.buffer
    for block in blocks:
        # With PYTHONUNBUFFERED this is no buffer at all, and a pipe takes a part of a block.
        while block:
            with _named_errors():
                block = block[stdout.write(block) :]
    with _named_errors():
        stdout.flush()


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise stdout_error(error) from error
