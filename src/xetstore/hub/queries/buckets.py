"""Questions about the files of buckets, and changes to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from xetstore.cas.index.queries.rows import Questions, name_of
from xetstore.database.connection import Row
from xetstore.protocol.hashes import Hash

BUCKET_FILE: Final = ", ".join(
    f"bucket_file.{name}" for name in ("path", "file", "size", "modified_ms", "uploaded_at", "content_type")
)
_FILES: Final = f"""
SELECT {BUCKET_FILE} FROM bucket_file
WHERE repository_id = :repository_id AND path >= :start AND path < :end ORDER BY path LIMIT :limit
"""
_REST: Final = "substr(level.path, CAST(:cut AS INTEGER))"
# The first file of each entry of a folder. Behind the file `a` comes what is at least `a `, because a path has no
# character before the blank; behind the folder `a`, at least `a0`, which follows `a/`. What is in it is not read.
_LEVEL: Final = f"""
WITH RECURSIVE level (path, number) AS (
    SELECT (
        SELECT min(path) FROM bucket_file
        WHERE repository_id = :repository_id AND path >= :start AND path < :end
    ), 1
    UNION ALL
    SELECT (
        SELECT min(path) FROM bucket_file
        WHERE repository_id = :repository_id AND path < :end AND path >= CASE
            WHEN replace({_REST}, '/', '') = {_REST} THEN level.path || ' '
            ELSE substr(level.path, 1, length(level.path) - length(
                ltrim({_REST}, replace({_REST}, '/', ''))
            )) || '0' END
    ), level.number + 1
    FROM level WHERE level.path IS NOT NULL AND level.number < :limit
)
SELECT {BUCKET_FILE} FROM level
JOIN bucket_file ON bucket_file.repository_id = :repository_id AND bucket_file.path = level.path
ORDER BY bucket_file.path
"""
_AT: Final = f"SELECT {BUCKET_FILE} FROM bucket_file WHERE repository_id = :repository_id AND path IN (:values)"
_TOTALS: Final = """
SELECT repository_id, count(*), sum(size) FROM bucket_file WHERE repository_id IN (:values) GROUP BY repository_id
"""
_EMPTY: Final = "SELECT 1 FROM bucket_file WHERE repository_id = :repository_id AND size = 0 LIMIT 1"
_GRANTED: Final = """
SELECT file.hash, file.size FROM file CROSS JOIN file_grant
WHERE file_grant.file_id = file.id AND file_grant.namespace = :namespace AND file.hash IN (:values)
"""
_PUT: Final = """
INSERT INTO bucket_file (repository_id, path, file, size, modified_ms, uploaded_at, content_type)
VALUES (:repository_id, :path, :file, :size, :modified_ms, :uploaded_at, :content_type)
ON CONFLICT (repository_id, path) DO UPDATE SET
    file = excluded.file, size = excluded.size, modified_ms = excluded.modified_ms,
    uploaded_at = excluded.uploaded_at, content_type = excluded.content_type
"""
_DROP: Final = "DELETE FROM bucket_file WHERE repository_id = :repository_id AND path IN (:values)"

_LAST_CHARACTER: Final = 0x10FFFF
_BEHIND_ALL: Final = chr(_LAST_CHARACTER) * 300
"""A text behind every path, which has at most 1,024 bytes."""


@dataclass(frozen=True, slots=True)
class BucketFile:
    """A file of a bucket. ``modified_ms`` are unix milliseconds, as its uploader says; ``uploaded_at`` is in unix
    seconds. The empty file is ``Hash.ZERO``.
    """

    path: str
    file: Hash
    size: int
    modified_ms: int
    uploaded_at: float
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class BucketFolder:
    """A folder of a bucket, which is there because files are in it. ``uploaded_at`` is that of the first."""

    path: str
    uploaded_at: float


@dataclass(frozen=True, slots=True)
class BucketTotals:
    """The sums over the files of a bucket."""

    files: int = 0
    size: int = 0


class BucketQueries(Questions):
    """Questions about the files of buckets."""

    def bucket_files(self, repository_id: int, *, prefix: str, start: str, limit: int) -> list[BucketFile]:
        """At most ``limit`` files of a bucket by path, from ``start`` on, whose paths begin with ``prefix``."""
        rows = self.connection.rows(_FILES, _page(repository_id, prefix, start, limit))
        return [_bucket_file(row) for row in rows]

    def bucket_level(
        self, repository_id: int, *, prefix: str, start: str, limit: int
    ) -> Sequence[BucketFile | BucketFolder]:
        """At most ``limit`` files and folders by path, from ``start`` on: of paths that begin with ``prefix`` all up to
        the next slash.

        A slash right behind the prefix does not count: in ``logs`` are ``logs/a``, and also ``logs.json``.
        """
        cut = len(prefix) if prefix.endswith("/") or not prefix else len(prefix) + 1
        rows = self.connection.rows(_LEVEL, {**_page(repository_id, prefix, start, limit), "cut": cut + 1})
        return [_up_to_slash(_bucket_file(row), cut) for row in rows]

    def bucket_files_at(self, repository_id: int, paths: Iterable[str]) -> dict[str, BucketFile]:
        """The files at those of these paths where there is one."""
        found = map(_bucket_file, self.connection.rows_in(_AT, paths, {"repository_id": repository_id}))
        return {file.path: file for file in found}

    def bucket_totals(self, repository_ids: Iterable[int]) -> dict[int, BucketTotals]:
        """The sums over the files of each of these buckets that has some."""
        rows = self.connection.rows_in(_TOTALS, repository_ids)
        return {number: BucketTotals(int(files), int(size)) for number, files, size in rows}

    def has_empty_file(self, repository_id: int) -> bool:
        """True if one of the files of a bucket is empty."""
        return self.connection.row(_EMPTY, {"repository_id": repository_id}) is not None

    def granted_sizes(self, namespace: str, files: Iterable[Hash]) -> dict[Hash, int]:
        """The sizes of those of these files that are granted to a namespace."""
        digests = [file.digest for file in files]
        rows = self.connection.rows_in(_GRANTED, digests, {"namespace": namespace})
        return {name_of(digest): size for digest, size in rows}


class BucketChanges(Questions):
    """Changes to the files of buckets."""

    def put_bucket_files(self, repository_id: int, files: Iterable[BucketFile]) -> None:
        """Put files at their paths, in place of those that are there."""
        rows = [
            {
                "repository_id": repository_id,
                "path": file.path,
                "file": file.file.digest,
                "size": file.size,
                "modified_ms": file.modified_ms,
                "uploaded_at": file.uploaded_at,
                "content_type": file.content_type,
            }
            # In one order: of two writers with the same paths, one waits.
            for file in sorted(files, key=lambda file: file.path)
        ]
        self.connection.change_many(_PUT, rows)

    def drop_bucket_files(self, repository_id: int, paths: Collection[str]) -> None:
        """Take files away."""
        self.connection.change_in(_DROP, sorted(paths), {"repository_id": repository_id})


def behind(entry: BucketFile | BucketFolder) -> str:
    """The place from which a listing goes on behind an entry."""
    return entry.path + (" " if isinstance(entry, BucketFile) else "0")


def behind_prefix(prefix: str) -> str:
    """The first text behind all that begin with a prefix.

    >>> behind_prefix("logs")
    'logt'
    """
    for place in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[place])
        if code < _LAST_CHARACTER:
            code += 1
            return prefix[:place] + chr(0xE000 if 0xD800 <= code < 0xE000 else code)  # halves of a character
    return _BEHIND_ALL


def _page(repository_id: int, prefix: str, start: str, limit: int) -> dict[str, object]:
    return {
        "repository_id": repository_id,
        "start": max(start, prefix),
        "end": behind_prefix(prefix),
        "limit": limit,
    }


def _bucket_file(row: Row) -> BucketFile:
    path, digest, *rest = row
    return BucketFile(path, name_of(digest), *rest)


def _up_to_slash(file: BucketFile, cut: int) -> BucketFile | BucketFolder:
    """The entry that a file is in: itself, or the folder whose name ends at the first slash from ``cut`` on."""
    slash = file.path.find("/", cut)
    return file if slash < 0 else BucketFolder(file.path[:slash], file.uploaded_at)
