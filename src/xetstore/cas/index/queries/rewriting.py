"""Questions of a rewrite: xorbs with garbage, shards that name what is gone; and the changes that it makes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from xetstore.cas.index.queries.files import FileChanges
from xetstore.cas.index.queries.rows import SOUND, TERM, XORB, XORB_ID, Questions, ShardRow, XorbRow, name_of, xorb_row
from xetstore.cas.index.queries.shards import SHARD, ShardChanges, shard_row

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.shard import FileEntry

_GARBAGE: Final = f"""
SELECT xorb.garbage_at, {XORB} FROM xorb
WHERE garbage_at IS NOT NULL AND id > :behind ORDER BY id LIMIT :most
"""
_WALK: Final = f"""
SELECT {SOUND} AND xorb.doomed_at IS NULL AND xorb.offered_at < :before, {XORB}
FROM xorb WHERE id > :behind ORDER BY id LIMIT :most
"""
_LOOKED_AT: Final = "UPDATE xorb SET garbage_at = NULL WHERE id = :id AND garbage_at = :seen"
# Of each file that has the xorb, the segments from that on in which it is used first.
_USES: Final = """
SELECT edge.file_id, file_segment.terms
FROM edge JOIN file_segment ON file_segment.file_id = edge.file_id
WHERE edge.xorb_id = :xorb_id AND file_segment.first_byte >= (
    SELECT max(before.first_byte) FROM file_segment AS before
    WHERE before.file_id = edge.file_id AND before.first_byte <= edge.first_byte
)
ORDER BY edge.file_id
"""
_HOLDERS: Final = "SELECT namespace FROM xorb_holder WHERE xorb_id = :xorb_id"
_READERS: Final = """
SELECT file_grant.namespace FROM edge JOIN file_grant ON file_grant.file_id = edge.file_id WHERE edge.xorb_id = :xorb_id
UNION
SELECT deleted_grant.namespace FROM edge JOIN deleted_grant ON deleted_grant.file_id = edge.file_id
WHERE edge.xorb_id = :xorb_id
"""
# The SHA-256 is what was computed, or else what is claimed: a new shard tells it on.
_FILE: Final = """
file.id, file.hash, file.size, coalesce(
    file.checked_sha256,
    (SELECT sha256_claim.sha256 FROM sha256_claim WHERE sha256_claim.file_id = file.id ORDER BY sha256 LIMIT 1),
    (SELECT deleted_claim.sha256 FROM deleted_claim WHERE deleted_claim.file_id = file.id ORDER BY sha256 LIMIT 1)
)
"""
_USERS: Final = """
SELECT edge.file_id, file.term_count FROM edge JOIN file ON file.id = edge.file_id
WHERE edge.xorb_id = :xorb_id AND edge.file_id > :behind ORDER BY edge.file_id LIMIT :most
"""
_FILES: Final = f"SELECT {_FILE} FROM file WHERE file.id IN (:values) ORDER BY file.id"
_SEGMENTS: Final = """
SELECT file_id, first_byte, terms FROM file_segment WHERE file_id IN (:values) ORDER BY file_id, first_byte
"""
_LONG_FILES: Final = """
SELECT file.id, file.term_count, file.size, file.term_count > 0 AND NOT EXISTS (
    SELECT 1 FROM shard_file WHERE shard_file.file_id = file.id
)
FROM file WHERE file.id > :behind ORDER BY file.id LIMIT :most
"""
_GRANTED_TO: Final = "SELECT namespace FROM file_grant WHERE file_id = :file_id ORDER BY namespace"
_LOCK_FILES: Final = "SELECT id FROM file WHERE id IN (:values) ORDER BY id FOR UPDATE"
_LOSE_XORBS: Final = """
UPDATE xorb SET garbage_at = :now WHERE id IN (SELECT edge.xorb_id FROM edge WHERE edge.file_id IN (:values))
"""
_STALE_SHARDS_OF_FILES: Final = """
UPDATE shard SET stale_at = :now WHERE id IN (SELECT shard_id FROM shard_file WHERE file_id IN (:values))
"""
_STALE_SHARDS_OF_XORBS: Final = """
UPDATE shard SET stale_at = :now WHERE id IN (SELECT shard_id FROM shard_xorb WHERE xorb_id IN (:values))
"""
_UNUSED: Final = """
SELECT id FROM xorb WHERE id IN (:values) AND NOT EXISTS (SELECT 1 FROM edge WHERE edge.xorb_id = xorb.id)
ORDER BY id FOR UPDATE
"""
_DOOM: Final = """
UPDATE xorb SET doomed_at = :now, offered_at = :now, garbage_at = NULL WHERE id IN (:values)
AND NOT EXISTS (SELECT 1 FROM edge WHERE edge.xorb_id = xorb.id)
"""
_DROP_DEDUP: Final = "DELETE FROM dedup WHERE xorb_id IN (:values)"
_REVIVE: Final = "UPDATE xorb SET doomed_at = NULL WHERE id IN (:values) AND doomed_at IS NOT NULL"

_STALE: Final = f"""
SELECT id, created_at, stale_at, {SHARD} FROM shard
WHERE stale_at IS NOT NULL AND is_linked = 1 AND id > :behind ORDER BY id LIMIT :most
"""
_UNLINKED: Final = f"""
SELECT id, created_at, stale_at, {SHARD} FROM shard
WHERE is_linked = 0 AND damaged_at IS NULL AND id > :behind ORDER BY id LIMIT :most
"""
_LINKED: Final = """
SELECT file.id, file.hash FROM shard_file JOIN file ON file.id = shard_file.file_id
WHERE shard_file.shard_id = :shard_id
"""
_HAS_UNLINKED: Final = "SELECT 1 FROM shard WHERE is_linked = 0 LIMIT 1"
_IS_CURRENT: Final = """
SELECT 1 FROM shard WHERE hash = :hash AND generation = :generation AND is_linked = 1 AND stale_at IS NULL
"""
_LOCK_SHARD: Final = "SELECT id FROM shard WHERE id = :id AND stale_at = :stale_at FOR UPDATE"
_DROP_SHARD: Final = "DELETE FROM shard WHERE id = :id"
_STALE_NOW: Final = "UPDATE shard SET stale_at = :now WHERE id = :id"
_FRESH: Final = "UPDATE shard SET stale_at = NULL WHERE id = :id AND stale_at = :stale_at AND damaged_at IS NULL"
_WALKED: Final = "SELECT position FROM chore WHERE name = :name"
_NOTE_WALK: Final = """
INSERT INTO chore (name, token, holder, expires_at, position) VALUES (:name, 0, '', 0, :position)
ON CONFLICT (name) DO UPDATE SET position = excluded.position
"""

Segments = tuple[tuple[int, bytes], ...]
"""The segments of a file: where each begins, and its packed terms."""


class OutdatedError(Exception):
    """Rows are not what they were when they were read: the transaction ends, and nothing of it remains."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file with the terms that count, as they are in its rows."""

    id: int
    hash: Hash
    size: int
    sha256: bytes | None
    segments: Segments

    @property
    def terms(self) -> Iterator[tuple[int, int, int, int]]:
        """Its terms: xorb id, first chunk, end chunk, bytes."""
        for _, payload in self.segments:
            yield from TERM.iter_unpack(payload)


@dataclass(frozen=True, slots=True)
class LongFile:
    """A file of a walk: how many terms it has, and True if no shard is known to name it."""

    id: int
    terms: int
    size: int
    is_unnamed: bool


@dataclass(frozen=True, slots=True)
class StaleShard:
    """A shard whose object does not tell what its rows do, since ``stale_at``; None for one that has no rows yet."""

    id: int
    created_at: float
    stale_at: float | None
    row: ShardRow


class RewriteQueries(Questions):
    """Questions of a rewrite. Pages are in the order of ids; an empty one is behind the last."""

    def xorbs_with_garbage(self, behind: int, most: int) -> list[tuple[float, XorbRow]]:
        """Xorbs of which a file less is made than before, and since when."""
        rows = self.connection.rows(_GARBAGE, {"behind": behind, "most": most})
        return [(row[0], xorb_row(row[1:])) for row in rows]

    def xorbs_to_look_at(self, behind: int, most: int, *, before: float) -> list[tuple[bool, XorbRow]]:
        """All xorbs; True for those that are sound, not doomed, and were not uploaded or offered since ``before``."""
        rows = self.connection.rows(_WALK, {"behind": behind, "most": most, "before": before})
        return [(bool(row[0]), xorb_row(row[1:])) for row in rows]

    def used_chunks(self, xorb_id: int) -> Iterator[tuple[int, set[tuple[int, int]]]]:
        """The chunk ranges of a xorb that files are made of: a file by its id, and a set for it."""
        used_bytes = XORB_ID.pack(xorb_id)
        rows = self.connection.rows_by_part(_USES, {"xorb_id": xorb_id})
        for file_id, segments in groupby(rows, itemgetter(0)):
            terms = (term for _, payload in segments if used_bytes in payload for term in TERM.iter_unpack(payload))
            yield file_id, {(start, end) for used, start, end, _ in terms if used == xorb_id}

    def audience(self, xorb_id: int) -> tuple[frozenset[str], frozenset[str]]:
        """The namespaces that have uploaded a xorb, and those that have a file of it, or may get one back."""
        values = {"xorb_id": xorb_id}
        holders, readers = self.connection.rows(_HOLDERS, values), self.connection.rows(_READERS, values)
        return frozenset(name for (name,) in holders), frozenset(name for (name,) in readers)

    def users_after(self, xorb_id: int, behind: int, most: int) -> list[tuple[int, int]]:
        """Files that are made of a xorb, by their ids, and how many terms each has."""
        values = {"xorb_id": xorb_id, "behind": behind, "most": most}
        return [(file_id, terms) for file_id, terms in self.connection.rows(_USERS, values)]

    def stored_files(self, ids: Collection[int]) -> list[StoredFile]:
        """Those of these files that are there, with their terms. All of them are in memory."""
        segments = self.segments_of(ids)
        rows = self.connection.rows_in(_FILES, ids)
        return [StoredFile(row[0], name_of(row[1]), row[2], row[3], segments.get(row[0], ())) for row in rows]

    def segments_of(self, ids: Collection[int]) -> dict[int, Segments]:
        """The segments of files, by their ids."""
        rows = self.connection.rows_in(_SEGMENTS, ids)
        return {
            file_id: tuple((first, payload) for _, first, payload in found)
            for file_id, found in groupby(rows, itemgetter(0))
        }

    def granted_to(self, file_id: int) -> list[str]:
        """The namespaces that may read a file."""
        return [namespace for (namespace,) in self.connection.rows(_GRANTED_TO, {"file_id": file_id})]

    def long_files(self, behind: int, most: int) -> list[LongFile]:
        """All files, by id."""
        rows = self.connection.rows(_LONG_FILES, {"behind": behind, "most": most})
        return [LongFile(file_id, terms, size, bool(unnamed)) for file_id, terms, size, unnamed in rows]

    def stale_shards(self, behind: int, most: int) -> list[StaleShard]:
        """Shards that name what is gone, or are damaged."""
        return self._shards(_STALE, behind, most)

    def unlinked_shards(self, behind: int, most: int) -> list[StaleShard]:
        """Shards of which only the object tells what they name."""
        return self._shards(_UNLINKED, behind, most)

    def has_unlinked_shards(self) -> bool:
        """True if there are shards of which only the objects tell what they name."""
        return self.connection.row(_HAS_UNLINKED) is not None

    def is_current(self, shard: ShardRow) -> bool:
        """True if this object of a shard counts, and tells what its rows do."""
        values = {"hash": shard.hash.digest, "generation": shard.generation}
        return self.connection.row(_IS_CURRENT, values) is not None

    def linked_files(self, shard_id: int) -> dict[Hash, int]:
        """The files that a shard is known to name, with their ids."""
        rows = self.connection.rows(_LINKED, {"shard_id": shard_id})
        return {name_of(digest): file_id for file_id, digest in rows}

    def walked(self, name: str) -> str | None:
        """The place that a walk has reached, which goes on from run to run."""
        position: str | None = self.connection.value(_WALKED, {"name": name})
        return position

    def _shards(self, statement: str, behind: int, most: int) -> list[StaleShard]:
        rows = self.connection.rows(statement, {"behind": behind, "most": most})
        return [StaleShard(row[0], row[1], row[2], shard_row(row[3:])) for row in rows]


class RewriteChanges(FileChanges, ShardChanges, RewriteQueries):
    """Changes of a rewrite, and the notes by which it finds what to do."""

    def note_losses(self, file_ids: Collection[int], *, now: float) -> None:
        """Before files are deleted, by their ids: a rewrite will look at their xorbs and their shards.

        Until the transaction ends no other one makes a shard, or other terms, for them.
        """
        values = {"now": now}
        list(self.connection.rows_in(_LOCK_FILES, sorted(file_ids)))
        self.connection.change_in(_LOSE_XORBS, file_ids, values)
        self.connection.change_in(_STALE_SHARDS_OF_FILES, file_ids, values)

    def note_gone_xorbs(self, xorb_ids: Collection[int], *, now: float) -> None:
        """Before xorbs are deleted, by their ids: a rewrite will look at the shards that name them."""
        self.connection.change_in(_STALE_SHARDS_OF_XORBS, xorb_ids, {"now": now})

    def note_looked_at(self, xorb_id: int, *, seen: float) -> None:
        """A xorb was looked at, since a file less is made of it from ``seen`` on."""
        self.connection.change(_LOOKED_AT, {"id": xorb_id, "seen": seen})

    def keep_files(self, files: Collection[StoredFile]) -> None:
        """Keep files and their terms until the transaction ends.

        OutdatedError if one of them has not the terms any more that were read, or is gone.
        """
        ids = sorted(file.id for file in files)
        kept = {file_id for (file_id,) in self.connection.rows_in(_LOCK_FILES, ids)}
        segments = self.segments_of(ids)
        for file in files:
            if file.id not in kept or segments.get(file.id, ()) != file.segments:
                raise OutdatedError(f"file {file.hash} was deleted, or got other terms")

    def replace_terms(
        self,
        files: Sequence[StoredFile],
        entries: Mapping[int, FileEntry],
        rows: Mapping[Hash, XorbRow],
        *,
        now: float,
    ) -> None:
        """Give files other terms, by their ids, which make the same bytes. A shard that names them so is to be added.

        Raises as :meth:`keep_files`.
        """
        self.keep_files(files)
        self._drop_terms(entries, rows, now)
        self._add_terms(entries, rows)
        used = sorted({rows[term.xorb].id for entry in entries.values() for term in entry.terms})
        self.connection.change_in(_REVIVE, used)

    def doom_unused(self, xorb_ids: Collection[int], *, now: float) -> int:
        """Doom those of these xorbs of which no file is made: no answer offers them any more; how many they are."""
        unused = [xorb_id for (xorb_id,) in self.connection.rows_in(_UNUSED, sorted(xorb_ids))]
        self.connection.change_in(_DROP_DEDUP, unused)
        return self.connection.change_in(_DOOM, unused, {"now": now})

    def keep_stale(self, shard: StaleShard) -> bool:
        """Keep a shard from others until the transaction ends. False if it changed since it was read."""
        values = {"id": shard.id, "stale_at": shard.stale_at}
        return self.connection.row(_LOCK_SHARD, values) is not None

    def drop_shard(self, shard: StaleShard, *, now: float) -> None:
        """Forget a shard; its object is removed later."""
        self.connection.change(_DROP_SHARD, {"id": shard.id})
        self.supersede(shard.row.key, now=now)

    def link_shard(self, shard: StaleShard, *, files: Collection[Hash], xorbs: Collection[Hash], now: float) -> None:
        """Note what a shard names that has no rows yet, as its object tells. It is stale if some files are gone."""
        self.add_shard(shard.row.hash, shard.row.size, files=files, xorbs=xorbs, now=now)
        if len(self.linked_files(shard.id)) < len(files):
            self.connection.change(_STALE_NOW, {"id": shard.id, "now": now})

    def note_fresh(self, shard: StaleShard) -> None:
        """The object of a shard tells what its rows do."""
        self.connection.change(_FRESH, {"id": shard.id, "stale_at": shard.stale_at})

    def note_walk(self, name: str, position: str) -> None:
        """Note how far a walk has come, which goes on from run to run."""
        self.connection.change(_NOTE_WALK, {"name": name, "position": position})
