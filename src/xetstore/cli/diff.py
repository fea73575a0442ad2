"""``xet diff``: which bytes of two files differ, as far as their chunks tell."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xetstore.cli.context import Settings, parse_file, store_options
from xetstore.cli.hash import total_size
from xetstore.cli.network import transfer_options
from xetstore.cli.parsed import Parsed
from xetstore.cli.prefixes import Prefix, whole
from xetstore.errors import UsageError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.cli.output import Output
    from xetstore.store import Store
    from xetstore.transfer.compare.comparison import Comparison, Side

DIFFERENT = 1


@click.command(epilog="Example: xet diff old.bin new.bin")
@click.argument("a", metavar="A", type=Parsed(str))
@click.argument("b", metavar="B", type=Parsed(str))
@transfer_options
@store_options
@click.pass_obj
def diff(settings: Settings, a: str, b: str) -> int:
    """Say which parts of two files differ, or which files of two revisions.

    A and B are local files, hashes of stored files, or hf://models/NAMESPACE/NAME/PATH; or both are a repository, a
    folder or a file of one, xet://OWNER/NAME@REVISION/PATH. Of stored ones no data is fetched. Exit code 0 if they are
    equal, 1 if they differ.
    """
    if a.startswith("xet://") and b.startswith("xet://"):
        from xetstore.cli.revisions_diff import diff_revisions

        return diff_revisions(settings, a, b)
    from xetstore.transfer.compare.comparison import compare

    with ExitStack() as opened:
        sides = _Sides(settings, opened)
        old, new = sides.side(a), sides.side(b)
        progress = opened.enter_context(
            settings.output.progress("diff", total_size(side for side in (old, new) if isinstance(side, Path)))
        )
        told = compare(old, new, progress=progress)
    _print(settings.output, told)
    return 0 if told.equal else DIFFERENT


class _Sides:
    """The two versions that the arguments name. The store of the options is opened once, and only if it is needed."""

    def __init__(self, settings: Settings, opened: ExitStack) -> None:
        self._settings = settings
        self._opened = opened
        self._store: Store | None = None

    def side(self, text: str) -> Side:
        """A local file, or a stored one. What could be a hash, and is the name of a file here, is the file."""
        from xetstore.protocol.hashes import Hash

        path = Path(text)
        if os.path.exists(path):  # noqa: PTH110  # false too where it cannot be looked at
            return path
        try:
            file = parse_file(text)
        except UsageError:
            if text.startswith("hf://"):
                raise
            return path  # the reader of it says that it is not there
        if isinstance(file, Hash | Prefix):
            if self._store is None:
                self._store = self._opened.enter_context(self._settings.open_store())
            return self._store.cas, whole(self._store, file)
        store, name = self._opened.enter_context(self._settings.store_of(file))
        return store.cas, name


def _print(output: Output, told: Comparison) -> None:
    differing = [span for span in told.spans if span.kind != "equal"]
    if output.json:
        for span in differing:
            output.record(
                kind=str(span.kind),
                old_start=span.old_start,
                old_end=span.old_end,
                new_start=span.new_start,
                new_end=span.new_end,
            )
        output.record(
            equal=told.equal,
            old_size=told.old_size,
            new_size=told.new_size,
            equal_bytes=told.equal_bytes,
            old_chunks=told.old_chunks,
            new_chunks=told.new_chunks,
            shared_chunks=told.shared_chunks,
            shared_bytes=told.shared_bytes,
            exact=told.exact,
        )
        return
    for span in differing:
        output.line(f"{span.kind:8}  {span.old_start}:{span.old_end}  {span.new_start}:{span.new_end}")
    if told.equal:
        output.note(f"equal: {size_text(told.new_size)}")
    else:
        to_what = "" if told.exact else ", to the chunk"
        output.note(
            f"different: {size_text(told.old_size)} and {size_text(told.new_size)}, of which "
            f"{size_text(told.equal_bytes)} are equal{to_what}"
        )
