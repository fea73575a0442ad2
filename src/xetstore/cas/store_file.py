"""The store file: a small TOML file that names the parts of a store, read into values; every mistake has its sentence.

No value of it is quoted in an error, because it may hold a secret.
"""

# ruff: noqa: PTH112, PTH113  # those of `os.path` are False where a folder above may not be entered

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from xetstore.cas.part_places import (
    BUCKET_SCHEMES,
    CACHE_BYTES,
    DATABASE_SCHEMES,
    INDEX_FORM,
    OBJECTS_FORM,
    CacheFolder,
    PartUrl,
)
from xetstore.errors import AccessDeniedError, NotFoundError, UsageError, kind_of
from xetstore.platform.files import NoRegularFileError, open_regular
from xetstore.platform.homes import expanded
from xetstore.platform.permissions import OTHERS, lets_others
from xetstore.sizes import parse_size

MAX_FILE_BYTES: Final = 64 << 10
"""The longest store file: what is longer is something else."""

_SUFFIX: Final = ".toml"
_KEYS: Final = ("objects", "index", "cache", "cache_bytes")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SECRET_WORDS: Final = ("secret", "password", "token", "key", "credential", "sas")


def is_store_file(where: Path) -> bool:
    """True if a path is that of a store file and not of a directory: a regular file, or what would be ``NAME.toml``."""
    return os.path.isfile(where) or (where.suffix == _SUFFIX and not os.path.isdir(where))


def read_store_file(file: Path) -> dict[str, Any]:
    """The fields of :class:`~xetstore.cas.parts.StoreParts` that a store file names, whose path is absolute.

    Raises NotFoundError without the file, UsageError for one that is none, and AccessDeniedError for one that holds a
    secret and that others may read.
    """
    import tomllib

    text, mode = _read(file)
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"{file} is no store file: {error}",
            hint="a store is a directory, or a file in TOML that names its objects and its index",
        ) from None
    tables = {name: value for name, value in given.items() if name in BUCKET_SCHEMES}
    texts = {name: value for name, value in given.items() if name not in tables}
    _check_names(file, texts)
    fields = fields_of(texts, file.parent, lambda name: f"{file}: {name}")
    fields["options"] = _options(file, fields["objects"], tables)
    index = fields["index"]
    holds_secret = (isinstance(index, PartUrl) and index.holds_secret) or any(map(_is_secret, fields["options"]))
    if lets_others(mode, OTHERS) and holds_secret:
        raise AccessDeniedError(
            f"others than its owner may read or write {file}, which holds a secret (its mode is {mode & 0o777:03o})",
            hint=f"chmod 600 {file}; if it has been read, replace the secret",
        )
    return fields


def _read(file: Path) -> tuple[str, int]:
    """The text of a store file, and its mode."""
    try:
        descriptor, found = open_regular(file)
        with os.fdopen(descriptor, "rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except NoRegularFileError:
        raise UsageError(f"{file} is neither a directory nor a file", hint="name a store") from None
    except FileNotFoundError:
        raise NotFoundError(f"there is no store file {file}", hint="it names the parts of a store") from None
    except OSError as error:
        raise kind_of(error)(f"the store file {file} cannot be read: {error.strerror}") from error
    try:
        if len(data) <= MAX_FILE_BYTES:
            return data.decode("utf-8"), found.st_mode
    except UnicodeDecodeError:
        pass
    raise UsageError(
        f"{file} is a file, and no store file", hint="a store is a directory, or a TOML file that names its parts"
    )


def _check_names(file: Path, given: Mapping[str, object]) -> None:
    for name in given:
        if name not in _KEYS:
            import difflib

            near = difflib.get_close_matches(name, [*_KEYS, *BUCKET_SCHEMES], 1)
            tables = ", ".join(f"[{scheme}]" for scheme in BUCKET_SCHEMES)
            raise UsageError(
                f"{file}: a store has no {name[:80]!r}",
                hint=f"did you mean {near[0]}?" if near else f"a store file has {', '.join(_KEYS)}, and {tables}",
            )
    for name, form in (("objects", OBJECTS_FORM), ("index", INDEX_FORM)):
        if name not in given:
            raise UsageError(f"{file} does not say where the {name} is", hint=f"{name} = {form}")


def fields_of(given: Mapping[str, object], folder: Path, source: Callable[[str], str]) -> dict[str, Any]:
    """The fields of StoreParts for what is named; relative paths are those of ``folder``.

    ``source`` gives the name of a value in errors. Raises UsageError.
    """
    texts: dict[str, str] = {}
    for name, value in given.items():
        if name == "cache_bytes" and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value or "\0" in value:
            raise UsageError(f"{source(name)} is no text that is not empty")
        texts[name] = value
    values: dict[str, Any] = {
        "objects": _part(texts["objects"], folder, source("objects"), BUCKET_SCHEMES, PartUrl.of_objects, OBJECTS_FORM),
        "index": _part(texts["index"], folder, source("index"), DATABASE_SCHEMES, PartUrl.of_index, INDEX_FORM),
    }
    if "cache" in texts:
        size = CACHE_BYTES
        if "cache_bytes" in texts:
            try:
                size = parse_size(texts["cache_bytes"])
            except ValueError:
                raise UsageError(f"{source('cache_bytes')} is not a size, such as 20GiB") from None
        if _SCHEME.match(texts["cache"]):
            raise UsageError(f"{source('cache')} is a URL", hint="a cache is a directory of this machine")
        values["cache"] = CacheFolder(_path(texts["cache"], folder, source("cache")), size)
    elif "cache_bytes" in texts:
        raise UsageError(
            f"{source('cache_bytes')} is the size of a cache, and there is none", hint="name its directory"
        )
    return values


def _part(text: str, folder: Path, source: str, schemes: tuple[str, ...], parse: Any, form: str) -> Path | PartUrl:
    found = _SCHEME.match(text)
    if found is None:
        return _path(text, folder, source)
    scheme = found[1].lower()
    if scheme not in schemes:
        raise UsageError(f"{source} has the scheme {scheme}://", hint=f"it is {form}")
    url: PartUrl = parse(text)
    return url


def _path(text: str, folder: Path, source: str) -> Path:
    return folder / expanded(text, source)


def _options(file: Path, objects: Path | PartUrl, tables: Mapping[str, object]) -> Mapping[str, Any]:
    """The table of the scheme of the objects; no other makes sense."""
    wanted = objects.scheme if isinstance(objects, PartUrl) else None
    for name, table in tables.items():
        if name != wanted:
            where = f"in {wanted}://" if wanted else "in a directory"
            raise UsageError(f"{file}: [{name}] is for objects in {name}://, and these are {where}")
        if not isinstance(table, dict) or not all(isinstance(value, str | bool | int) for value in table.values()):
            raise UsageError(f"{file}: [{name}] is no table of texts", hint=f'[{name}]\nendpoint = "https://…"')
        return dict(table)
    return {}


def _is_secret(option: str) -> bool:
    name = option.lower()
    return not name.endswith("_id") and any(word in name for word in _SECRET_WORDS)
