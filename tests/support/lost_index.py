"""Stores of each pair of engines whose index is lost, and all that one shows of a store, to be compared afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.cluster import write_store_file
from xetstore.cas import EmbeddedCas
from xetstore.cas.parts import StoreParts

PAIRS: Final = ("directory-sqlite", "directory-postgresql", "s3-sqlite", "s3-postgresql")


MORE: Final = ("edges", "dedup", "xorbs", "shards")
"""What objects still tell of files that were deleted, until the next collection."""


@dataclass
class Place:
    """A store of one pair of engines, and how it gets another database."""

    parts: StoreParts
    new_index: Callable[[], StoreParts]

    def lose(self) -> StoreParts:
        """Lose the index: the parts with which it is made anew."""
        if isinstance(self.parts.index, Path):
            for file in self.parts.index.parent.glob(self.parts.index.name + "*"):
                file.unlink()
        else:
            self.parts = self.new_index()
        return self.parts


@contextmanager
def placed(pair: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place for a store of a pair of engines."""
    objects, _, index = pair.partition("-")
    with ExitStack() as stack:
        if pair == "directory-sqlite":
            yield Place(StoreParts.of_directory(folder / "store"), lambda: StoreParts.of_directory(folder / "store"))
            return
        options: dict[str, Any] = {}
        where = str(folder / "objects")
        if objects == "s3":
            seaweed = request.getfixturevalue("seaweed")
            where, options = seaweed.prefix(), seaweed.options
        number = 0

        def parts() -> StoreParts:
            nonlocal number
            number += 1
            if index == "sqlite":
                database = str(folder / "rows.sqlite3")
            else:
                database = stack.enter_context(request.getfixturevalue("postgres").database())
            file = write_store_file(folder / f"store{number}.toml", objects=where, index=database, s3=options)
            return replace(StoreParts.read(file), location=file)

        yield Place(parts(), parts)


def shown(cas: EmbeddedCas) -> dict[str, list[Any]]:
    """All that is in an index, by hashes. In one that was made anew more may be in :data:`MORE`."""
    statements = {
        "files": "SELECT hash, size, checked_sha256, term_count, xorb_count, created_at FROM file"
        " WHERE EXISTS (SELECT 1 FROM file_grant WHERE file_id = file.id)"
        " OR EXISTS (SELECT 1 FROM deleted_grant WHERE file_id = file.id)",
        "grants": "SELECT namespace, hash, file_grant.created_at FROM file_grant JOIN file ON file.id = file_id",
        "deleted": "SELECT namespace, hash, deleted_grant.created_at, deleted_at"
        " FROM deleted_grant JOIN file ON file.id = file_id",
        "claims": "SELECT namespace, hash, sha256_claim.sha256 FROM sha256_claim JOIN file ON file.id = file_id",
        "xorbs": "SELECT hash, region_bytes, raw_bytes, chunk_count, created_at FROM xorb",
        "holders": "SELECT namespace, hash FROM xorb_holder JOIN xorb ON xorb.id = xorb_id",
        "edges": "SELECT file.hash, first_byte, xorb.hash"
        " FROM edge JOIN file ON file.id = file_id JOIN xorb ON xorb.id = xorb_id",
        "dedup": "SELECT chunk_key, hash FROM dedup JOIN xorb ON xorb.id = xorb_id",
        "shards": "SELECT hash, size, generation, created_at FROM shard",
        "quotas": "SELECT namespace, max_bytes, max_files, used_bytes, used_files FROM quota",
        "counted": "SELECT namespace, quota FROM quota_namespace",
    }
    with cas.index.snapshot() as reader:
        return {name: sorted(reader.connection.rows(text), key=repr) for name, text in statements.items()}
