"""The cache folder of this machine, and the files in it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from xetstore.errors import UsageError
from xetstore.events import CacheDisabled, Emit
from xetstore.platform.homes import expanded, user_folder
from xetstore.protocol.hashes import chunk_hash

CACHE_VARIABLE: Final = "XET_CACHE"


def cache_folder(wanted: Path | bool | None, emit: Emit) -> Path | None:
    """The cache folder, made if need be: ``wanted``, or XET_CACHE, or the user's own; None for False.

    None, and an event that says so, where it cannot be made: everything works without it.
    """
    if wanted is False:
        return None
    try:
        folder = wanted if isinstance(wanted, Path) else _usual_folder()
    except UsageError as error:
        emit(CacheDisabled(str(error)))
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        emit(CacheDisabled(f"{folder}: {error.strerror or type(error).__name__}"))
        return None
    return folder


def chunks_folder(cache: Path) -> Path:
    """The folder for chunks of downloaded ranges."""
    return cache / "chunks"


def known_file(cache: Path, url: str, emit: Emit) -> Path | None:
    """The file that holds what is known of the xorbs of the server at ``url``; None where it cannot be."""
    host = re.sub(r"[^a-z0-9.-]", "-", (urlsplit(url).hostname or "").lower())[:100]
    folder = cache / f"{host}-{str(chunk_hash(url.encode()))[:16]}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        emit(CacheDisabled(f"{folder}: {error.strerror or type(error).__name__}"))
        return None
    return folder / "known.sqlite3"


def _usual_folder() -> Path:
    if named := os.environ.get(CACHE_VARIABLE):
        return expanded(named, CACHE_VARIABLE)
    return user_folder("cache", "xetstore", f"set HOME, or {CACHE_VARIABLE}")
