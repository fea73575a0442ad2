"""StoreParts: the places of the parts of a store, as a directory has them all or a store file names them.

A store file, ``store.toml``::

    objects = "s3://bucket/prefix"                # or a directory
    index = "postgresql://xet@db.example/xet"     # or the path of a SQLite file
    cache = "/var/cache/xetstore"                 # optional: a local cache of objects' parts
    cache_bytes = "20GiB"

    [s3]                                          # optional: what the usual AWS_* variables do not say
    endpoint = "https://s3.example"
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from xetstore.cas.part_places import CacheFolder, PartUrl
from xetstore.cas.store_file import fields_of, is_store_file, read_store_file
from xetstore.errors import UsageError

__all__ = ["INDEX_FILE", "STORE_FILE", "CacheFolder", "PartUrl", "StoreParts", "is_store_file"]

STORE_FILE: Final = "store.toml"
"""The name of the store file in the directory of a store; elsewhere it may have another."""

INDEX_FILE: Final = "index.sqlite3"
"""The name of the index in the directory of a store."""


@dataclass(frozen=True, slots=True)
class StoreParts:
    """The places of the parts of a store. They are valid, and no message and no ``repr`` shows a secret in them.

    ``options`` are those of the store of objects, as its table in a store file has them. ``location`` is by what the
    store is opened: its directory, or its store file; None if neither names it. A store that ``is_directory`` has its
    objects and its index in one place.
    """

    objects: Path | PartUrl
    index: Path | PartUrl
    cache: CacheFolder | None = None
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    location: Path | None = None

    def __post_init__(self) -> None:
        for part in (self.objects, self.index, self.cache and self.cache.folder):
            if isinstance(part, Path) and not part.is_absolute():
                raise UsageError(f"{part} is a relative path", hint="give the parts of a store absolute paths")
        if isinstance(self.objects, Path):
            if self.options:
                raise UsageError("options are for objects in a bucket, and these are in a directory")
            if self.cache is not None and self.cache.folder.is_relative_to(self.objects):
                raise UsageError(
                    f"the cache {self.cache.folder} lies among the objects in {self.objects}",
                    hint="give it a folder of its own, which may be lost",
                )

    @property
    def is_directory(self) -> bool:
        """True if the index lies with the objects, at its usual place."""
        return isinstance(self.objects, Path) and self.index == self.objects / INDEX_FILE

    @property
    def is_far(self) -> bool:
        """True if a part is reached over a network: a bucket, or a database server."""
        return isinstance(self.objects, PartUrl) or isinstance(self.index, PartUrl)

    def __str__(self) -> str:
        if self.location is not None:
            return str(self.location)
        return str(self.objects) if self.is_directory else f"{self.objects} with the index {self.index}"

    @classmethod
    def of_directory(cls, root: Path | str) -> Self:
        """The store in the directory ``root``, which holds all parts."""
        root = Path(root).absolute()
        return cls(root, root / INDEX_FILE, location=root)

    @classmethod
    def at(cls, where: Path | str) -> Self:
        """The store at a path: that of a directory, which may have a store file in it, or of a store file."""
        where = Path(where)
        if is_store_file(where):
            return cls.read(where)
        inside = where / STORE_FILE
        return cls.read(inside) if os.path.lexists(inside) else cls.of_directory(where)

    @classmethod
    def named(cls, objects: str, index: str, cache: str | None = None, cache_bytes: str | None = None) -> Self:
        """The store of which these are the parts, as flags name them; relative paths are those of the process."""
        named: dict[str, object] = {"objects": objects, "index": index, "cache": cache, "cache_bytes": cache_bytes}
        given = {name: value for name, value in named.items() if value is not None}
        return cls(**fields_of(given, Path.cwd(), lambda name: f"--{name.replace('_', '-')}"))

    @classmethod
    def read(cls, file: Path | str) -> Self:
        """The store that a store file names; relative paths in it are those of its folder.

        Raises NotFoundError without the file, UsageError for one that is none, and AccessDeniedError for one that holds
        a secret and that others may read.
        """
        file = Path(file).absolute()
        return cls(**read_store_file(file), location=file)
