"""``xet get --list``: the files of a list, as ``xet put`` and ``xet hash`` print it, into a directory."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xetstore.cli.context import Settings
from xetstore.cli.names import SHA256, name_of, unescaped
from xetstore.cli.output import files_text
from xetstore.errors import UsageError
from xetstore.platform.names import FolderNames, name_fault
from xetstore.sizes import size_text

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.store import GetReport

_LINE: Final = re.compile(r"([0-9a-fA-F]{64})  (.+)", re.DOTALL)
_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


def get_listed(settings: Settings, listed: Path, folder: Path, *, fsync: bool) -> int:
    """Write the files of a list below ``folder``. One that fails is reported, and the others go on."""
    output = settings.output
    wanted = [(file, folder / path) for file, path in read_list(settings, listed)]
    failed: set[Path] = set()
    count = nbytes = 0

    def on_error(path: Path, error: Exception) -> None:
        failed.add(path)
        settings.failed(error, path)

    settings.going_on("run the same command again: files that are there are written once more")
    with settings.open_files() as store, output.progress("get", files=len(wanted)) as progress:
        ready = list(_with_folders(_apart(wanted, folder, on_error), on_error))
        # Reports and errors come in the order of the list: the next report is of the next path that did not fail.
        paths = (path for _, path in ready if path not in failed)
        for report in store.iter_get(ready, progress=progress, on_error=on_error, fsync=fsync):
            count += 1
            nbytes += report.size
            path = next(paths)
            progress.file(str(path))
            output.detail(f"{path}: {size_text(report.size)}")
            if output.json:
                output.record(**report_fields(path, report))
    output.note(f"{files_text(count, settings.failures)}, {size_text(nbytes)}, verified")
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


def read_list(settings: Settings, listed: Path) -> list[tuple[Hash, Path]]:
    """The files of a list, ``-`` is stdin, and their relative paths. A line that is none is reported, and left out."""
    from xetstore.protocol.hashes import Hash

    is_stdin = str(listed) == "-"
    data = sys.stdin.buffer.read() if is_stdin else listed.read_bytes()
    null = settings.output.null
    end = b"\0" if null else b"\n"
    files: dict[Path, Hash] = {}
    for number, line in enumerate(data.removesuffix(end).split(end) if data else (), 1):
        try:
            name, text = _raw_entry(line) if null else _entry(line)
            path = _path(text)
            if path in files:
                raise ValueError("has a path that was there before")
        except ValueError as fault:
            where = f"line {number} of {'stdin' if is_stdin else listed}"
            settings.failed(_refusal(where, fault, null=null, has_nul=not null and b"\0" in line))
        else:
            files[path] = Hash.parse(name)
    return [(file, path) for path, file in files.items()]


def _refusal(where: str, fault: ValueError, *, null: bool, has_nul: bool) -> UsageError:
    if has_nul:
        return UsageError(f"{where} {fault}", hint="it has a NUL: a list printed with --null is read with --null")
    with_null = " with --null: HASH  PATH, ended with NUL" if null else ": HASH  PATH, or JSON"
    return UsageError(f"{where} {fault}", hint=f"a list has what `xet put` and `xet hash` print{with_null}")


def _raw_entry(line: bytes) -> tuple[str, str]:
    """Hash and path of what ended with NUL, where the path is as it is. Raises ValueError, as the others here do."""
    match = _LINE.fullmatch(os.fsdecode(line))
    if match is None:
        raise ValueError("is not a hash, two spaces and a path")
    return match[1], match[2]


def _entry(line: bytes) -> tuple[str, str]:
    """Hash and path of a line, or of a JSON object on a line."""
    if line.startswith(b"{"):
        return _json_entry(line)
    name, text = _raw_entry(line.removesuffix(b"\r"))
    if SHA256.match(text):
        raise ValueError("has a SHA-256 before the path, as `xet hash --sha256` prints it")
    try:
        return name, unescaped(text)
    except ValueError:
        raise ValueError("has a path with a backslash that starts no escape, or that no file can have") from None


def _json_entry(line: bytes) -> tuple[str, str]:
    try:
        record = json.loads(line)
        name, text = record["hash"], name_of(record["path"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("is no JSON object with `hash` and `path`") from None
    if not isinstance(name, str) or _HASH.fullmatch(name) is None:
        raise ValueError("has no hash in `hash`")
    return name, text


def _path(text: str, system: str = sys.platform) -> Path:
    """A path that stays inside the directory it is for."""
    if system == "win32":  # where `xet put` prints it so
        text = text.replace("\\", "/")
    if text.startswith("/"):
        raise ValueError("has an absolute path: it would not be inside DIR")
    parts = text.split("/")
    if ".." in parts:
        raise ValueError("has a path with `..`: it would not be inside DIR")
    for part in parts:
        if fault := name_fault(part, system):
            raise ValueError(f"has a path with {part!r}, which {fault}")
    path = Path(text)
    if "\0" in text or not path.parts:
        raise ValueError("has a path that no file can have")
    return path


def _apart(
    wanted: list[tuple[Hash, Path]], folder: Path, on_error: Callable[[Path, Exception], None]
) -> list[tuple[Hash, Path]]:
    """The files that do not take the place of one that is before them in the list."""
    inner = [path.relative_to(folder).as_posix() for _, path in wanted]
    refused = FolderNames(folder).refused(inner)
    apart = []
    for (file, path), name in zip(wanted, inner, strict=True):
        if name in refused:
            on_error(path, refused[name])
        else:
            apart.append((file, path))
    return apart


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
