"""``xet get --list``: the files of a list, which is what ``xet put`` and ``xet hash`` print, into a directory."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xetstore.cli.context import Settings
from xetstore.cli.output import count_text
from xetstore.errors import UsageError
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.store import GetReport

_LINE: Final = re.compile(r"([0-9a-fA-F]{64})  (.+)", re.DOTALL)
_SHA256: Final = re.compile(r"[0-9a-f]{64}  ")


def get_listed(settings: Settings, listed: Path, folder: Path, *, fsync: bool) -> int:
    """Write the files of a list below ``folder``. One that fails is reported, and the others go on."""
    output = settings.output
    wanted = [(file, folder / path) for file, path in read_list(listed)]
    failed: set[Path] = set()
    count = nbytes = 0

    def on_error(path: Path, error: Exception) -> None:
        failed.add(path)
        settings.failed(error, path)

    with settings.open_store() as store, output.progress("get") as progress:
        ready = list(_with_folders(wanted, on_error))
        # Reports and errors come in the order of the list: the next report is of the next path that did not fail.
        paths = (path for _, path in ready if path not in failed)
        for report in store.iter_get(ready, progress=progress, on_error=on_error, fsync=fsync):
            count += 1
            nbytes += report.size
            path = next(paths)
            if output.json:
                output.record(**report_fields(path, report))
    output.note(f"{count_text(count, 'file')}, {size_text(nbytes)}, verified")
    return settings.exit_code


def report_fields(path: Path, report: GetReport) -> dict[str, Any]:
    """The JSON record of a file that was written."""
    return {
        "path": str(path),
        "hash": str(report.hash),
        "size": report.size,
        "verified": report.verified,
        "fetched_bytes": report.fetched_bytes,
        "reused_bytes": report.reused_bytes,
    }


def read_list(listed: Path) -> list[tuple[Hash, Path]]:
    """The files of a list, ``-`` is stdin, and their relative paths. UsageError names the line that is none."""
    from xetstore.protocol.hashes import Hash

    is_stdin = str(listed) == "-"
    data = sys.stdin.buffer.read() if is_stdin else listed.read_bytes()
    found: dict[Path, Hash] = {}
    for number, line in enumerate(os.fsdecode(data).removesuffix("\n").split("\n") if data else (), 1):
        match = _LINE.fullmatch(line.removesuffix("\r"))
        fault = "is not a hash, two spaces and a path" if match is None else _fault(match[2])
        path = Path() if match is None else Path(match[2])
        if fault is None and path in found:
            fault = "has a path that was there before"
        if match is None or fault is not None:
            raise UsageError(
                f"line {number} of {'stdin' if is_stdin else listed} {fault}",
                hint="a list has the lines that `xet put` and `xet hash` print: HASH  PATH",
            )
        found[path] = Hash.parse(match[1])
    return [(file, path) for path, file in found.items()]


def _fault(text: str) -> str | None:
    """Why this cannot be a path inside a directory, or None."""
    if text.startswith("/"):
        return "has an absolute path: it would not be inside DIR"
    if ".." in text.split("/"):
        return "has a path with `..`: it would not be inside DIR"
    if _SHA256.match(text):
        return "has a SHA-256 before the path, as `xet hash --sha256` prints it"
    if "\0" in text or not Path(text).parts:
        return "has a path that no file can have"
    return None


def _with_folders(
    wanted: list[tuple[Hash, Path]], on_error: Callable[[Path, Exception], None]
) -> Iterator[tuple[Hash, Path]]:
    """The files whose folders are there, made if need be."""
    made: set[Path] = set()
    for file, path in wanted:
        if path.parent not in made:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                on_error(path, error)
                continue
            made.add(path.parent)
        yield file, path
