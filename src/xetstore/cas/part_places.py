"""Places of the parts of a store: a URL, which may hold a secret, or a folder for a cache."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qsl, urlsplit

from xetstore.errors import UsageError

BUCKET_SCHEMES: Final = ("s3", "gs", "az")
DATABASE_SCHEMES: Final = ("postgresql", "postgres")

CACHE_BYTES: Final = 20 << 30
"""Default size of the cache."""
LEAST_CACHE_BYTES: Final = 1 << 20

_SECRET: Final = re.compile(r"password|secret|scram_\w+_key")

OBJECTS_FORM: Final = 'a directory, or "s3://BUCKET/PREFIX", "gs://BUCKET/PREFIX", "az://CONTAINER/PREFIX"'
INDEX_FORM: Final = 'the path of a SQLite file, or "postgresql://USER@HOST/DATABASE"'


@dataclass(frozen=True, slots=True)
class PartUrl:
    """The URL of a part. ``shown`` has no password, and stands for it in messages; only :meth:`reveal` gives all."""

    shown: str
    _text: str = field(repr=False)

    @classmethod
    def of_objects(cls, text: str) -> Self:
        """The URL of a bucket, or of a prefix in one. Raises UsageError, which quotes no secret."""
        scheme = text.partition("://")[0].lower()
        try:
            parts = urlsplit(text)
            bucket = parts.hostname
        except ValueError:
            bucket = None
        if not bucket:
            raise UsageError(f"the {scheme}:// URL of the objects names no bucket", hint=f"objects are {OBJECTS_FORM}")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise UsageError(
                f"the URL of the objects in {scheme}://{bucket} holds more than a bucket and a prefix",
                hint=f"keys, regions and endpoints belong into [{scheme}] of a store file, or into the environment",
            )
        text = f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        return cls(text, text)

    @classmethod
    def of_index(cls, text: str) -> Self:
        """The URL of a PostgreSQL database. Raises UsageError, which quotes no secret."""
        try:
            parts = urlsplit(text)
        except ValueError:
            parts = urlsplit("")
        if not (parts.netloc or parts.path or parts.query) or parts.fragment or not text.isprintable() or " " in text:
            raise UsageError("the URL of the index names no database", hint=f"an index is {INDEX_FORM}")
        if "@" in parts.path + parts.query:
            raise UsageError(
                "the URL of the index has an @ behind its host",
                hint="in a password, write @ as %40, / as %2F and ? as %3F",
            )
        user, _, hosts = parts.netloc.rpartition("@")
        user = user.partition(":")[0]
        return cls(f"postgresql://{user}{'@' if user else ''}{hosts}{parts.path}", text)

    @property
    def scheme(self) -> str:
        """``s3``, ``gs``, ``az`` or ``postgresql``."""
        return self.shown.partition("://")[0]

    @property
    def holds_secret(self) -> bool:
        """True if there is a password in it."""
        parts = urlsplit(self._text)
        named = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
        return ":" in parts.netloc.rpartition("@")[0] or any(_SECRET.search(name) for name in named)

    def reveal(self) -> str:
        """The URL for the driver, its password included."""
        return self._text

    def __str__(self) -> str:
        return self.shown


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """A folder for a local cache of objects' parts, of at most ``max_bytes``."""

    folder: Path
    max_bytes: int = CACHE_BYTES

    def __post_init__(self) -> None:
        if self.max_bytes < LEAST_CACHE_BYTES:
            raise UsageError(f"a cache of {self.max_bytes} bytes is none", hint="it takes 1 MiB at least")
