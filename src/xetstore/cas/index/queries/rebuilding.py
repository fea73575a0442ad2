"""Rows of an index that is being made anew: its objects, which wait to be registered, and what a snapshot knew.

They are in tables of their own, so that a rebuild that was cut off goes on, and takes little memory. The tables go when
it is done.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.cas.index.queries.rows import Questions, name_of

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash

WAITING: Final = 0
REGISTERED: Final = 1
SPARE: Final = 2
"""The state of an object beside which another generation is registered."""
DAMAGED: Final = 3

_TABLES: Final = (
    """
CREATE TABLE IF NOT EXISTS rebuild_object (
    "key" VARCHAR(255) NOT NULL,
    is_shard INTEGER NOT NULL,
    hash {bytes} NOT NULL,
    generation VARCHAR(32) NOT NULL,
    size BIGINT NOT NULL,
    modified_at {double} NOT NULL,
    state INTEGER NOT NULL,
    is_last INTEGER DEFAULT 0 NOT NULL,
    why TEXT,
    PRIMARY KEY ("key")
)
""",
    "CREATE INDEX IF NOT EXISTS rebuild_object_by_time ON rebuild_object (is_shard, state, is_last, modified_at, key)",
    "CREATE INDEX IF NOT EXISTS rebuild_object_by_hash ON rebuild_object (is_shard, hash)",
    # Files of shards that need a xorb which is not there.
    """
CREATE TABLE IF NOT EXISTS rebuild_lost (
    xorb {bytes} NOT NULL,
    file {bytes} NOT NULL,
    PRIMARY KEY (xorb, file)
)
""",
    # Each SHA-256 that a shard claims of a file.
    """
CREATE TABLE IF NOT EXISTS rebuild_claim (
    file_id {number} NOT NULL,
    sha256 {bytes} NOT NULL,
    PRIMARY KEY (file_id, sha256)
)
""",
    # Files and shards that the snapshot knew.
    "CREATE TABLE IF NOT EXISTS rebuild_file (file_id {number} NOT NULL, PRIMARY KEY (file_id))",
    """
CREATE TABLE IF NOT EXISTS rebuild_shard (
    hash {bytes} NOT NULL,
    generation VARCHAR(32) NOT NULL,
    PRIMARY KEY (hash, generation)
)
""",
)
_DROP: Final = tuple(f"DROP TABLE IF EXISTS rebuild_{name}" for name in ("object", "lost", "claim", "file", "shard"))

_ENTRY: Final = "key, hash, generation, size, modified_at"
_ADD_OBJECT: Final = """
INSERT INTO rebuild_object (key, is_shard, hash, generation, size, modified_at, state)
VALUES (:key, :is_shard, :hash, :generation, :size, :modified_at, :state)
ON CONFLICT DO NOTHING
"""
_FORGET_WAITING: Final = f"DELETE FROM rebuild_object WHERE state = {WAITING}"
_PAGE: Final = f"""
SELECT {_ENTRY} FROM rebuild_object WHERE is_shard = :is_shard AND state = {WAITING}
ORDER BY is_last, modified_at, key LIMIT :most
"""
_PUT_LAST: Final = "UPDATE rebuild_object SET is_last = 1 WHERE key IN (:values)"
_SAME: Final = f"SELECT {_ENTRY} FROM rebuild_object WHERE is_shard = :is_shard AND hash IN (:values)"
_SETTLE: Final = "UPDATE rebuild_object SET state = :state, why = :why WHERE key = :key"
_COUNT: Final = "SELECT count(*), coalesce(sum(size), 0) FROM rebuild_object WHERE is_shard = :is_shard"
_COUNT_WHOLE: Final = f"""
SELECT count(DISTINCT hash) FROM rebuild_object WHERE is_shard = :is_shard AND state IN ({REGISTERED}, {SPARE})
"""
_DAMAGED: Final = f"""
SELECT key, hash, why FROM rebuild_object WHERE state = {DAMAGED} AND key > :behind ORDER BY key LIMIT :most
"""
_SOUND: Final = "SELECT hash FROM {} WHERE hash IN (:values) AND damaged_at IS NULL"
_LOST: Final = """
SELECT rebuild_lost.xorb, rebuild_lost.file FROM rebuild_lost LEFT JOIN file ON file.hash = rebuild_lost.file
WHERE file.id IS NULL ORDER BY rebuild_lost.xorb, rebuild_lost.file LIMIT :most
"""
_NOTE_LOST: Final = "INSERT INTO rebuild_lost (xorb, file) VALUES (:xorb, :file) ON CONFLICT DO NOTHING"
_NOTE_CLAIM: Final = """
INSERT INTO rebuild_claim (file_id, sha256) SELECT id, :sha256 FROM file WHERE hash = :file ON CONFLICT DO NOTHING
"""
_XORB: Final = (
    *("hash", "region_bytes", "raw_bytes", "chunk_count", "created_at", "generation"),
    *("damaged_at", "offered_at", "checked_at", "garbage_at"),
)
_ADD_XORB: Final = (
    f"INSERT INTO xorb ({', '.join(_XORB)}) VALUES ({', '.join(f':{name}' for name in _XORB)}) ON CONFLICT DO NOTHING"
)
_KEEP_SHARD: Final = "UPDATE shard SET stale_at = NULL WHERE hash = :hash"
_KNOW_FILES: Final = """
INSERT INTO rebuild_file (file_id) SELECT id FROM file WHERE hash IN (:values) ON CONFLICT DO NOTHING
"""
_KNOW_SHARD: Final = """
INSERT INTO rebuild_shard (hash, generation) VALUES (:hash, :generation) ON CONFLICT DO NOTHING
"""
_REGISTERED_FILES: Final = "SELECT hash FROM file WHERE hash IN (:values)"
_IS_NEW: Final = "NOT EXISTS (SELECT 1 FROM rebuild_file WHERE rebuild_file.file_id = file.id)"
# Named by a shard that the snapshot did not know: not one that was deleted before, which an old shard still names.
_NEW_FILES: Final = f"""
SELECT file.id, file.hash FROM file
WHERE file.id > :behind AND {_IS_NEW} AND EXISTS (
    SELECT 1 FROM shard_file JOIN shard ON shard.id = shard_file.shard_id
    WHERE shard_file.file_id = file.id AND shard.created_at >= :since AND NOT EXISTS (
        SELECT 1 FROM rebuild_shard
        WHERE rebuild_shard.hash = shard.hash AND rebuild_shard.generation = shard.generation
    )
)
ORDER BY file.id LIMIT :most
"""
_GRANT: Final = """
INSERT INTO file_grant (namespace, file_id, created_at)
SELECT :namespace, id, created_at FROM file WHERE id IN (:values) ON CONFLICT DO NOTHING
"""
_CLAIM: Final = """
INSERT INTO sha256_claim (namespace, file_id, sha256)
SELECT :namespace, file_id, sha256 FROM rebuild_claim WHERE file_id IN (:values) ON CONFLICT DO NOTHING
"""
_HOLD: Final = """
INSERT INTO xorb_holder (xorb_id, namespace)
SELECT id, :namespace FROM xorb
WHERE id > :behind AND id <= :last AND NOT EXISTS (SELECT 1 FROM xorb_holder WHERE xorb_holder.xorb_id = xorb.id)
ON CONFLICT DO NOTHING
"""
_LAST_XORB: Final = "SELECT coalesce(max(id), 0) FROM xorb"
_DELETED_BY: Final = f"""
SELECT file.hash FROM file JOIN file_grant ON file_grant.file_id = file.id
WHERE file_grant.namespace = :namespace AND (file_grant.created_at <= :at OR {_IS_NEW}) AND """
_DELETED_THESE: Final = f"{_DELETED_BY} file.hash IN (:values)"
_DELETED_ALL: Final = f"{_DELETED_BY} TRUE ORDER BY file.id LIMIT :most"
_LAST_DELETION: Final = "SELECT max(deleted_at) FROM deleted_grant WHERE namespace = :namespace"
_ONLY_NEW: Final = f"SELECT file.hash FROM file WHERE file.hash IN (:values) AND {_IS_NEW}"
_OTHERS: Final = "SELECT 1 FROM {} WHERE namespace <> :namespace LIMIT 1"


@dataclass(frozen=True, slots=True)
class FoundObject:
    """An object of a xorb or a shard, as its key and a listing tell. ``modified_at`` is unix seconds."""

    key: str
    hash: Hash
    generation: str
    size: int
    modified_at: float


class RebuildRows(Questions):
    """Questions and changes of a rebuild, in one transaction, or in one snapshot of the index."""

    def begin(self) -> None:
        """Make the tables, unless they are there; objects that wait are listed anew."""
        for statement in _TABLES:
            self.connection.change(statement.format_map(self.connection.dialect.types))
        self.connection.change(_FORGET_WAITING)

    def end(self) -> None:
        """Drop the tables."""
        for statement in _DROP:
            self.connection.change(statement)

    def add_objects(self, found: Iterable[FoundObject], *, is_shard: bool) -> None:
        """Let objects wait to be registered."""
        values = [
            {
                "key": one.key,
                "is_shard": int(is_shard),
                "hash": one.hash.digest,
                "generation": one.generation,
                "size": one.size,
                "modified_at": one.modified_at,
                "state": WAITING,
            }
            for one in found
        ]
        self.connection.change_many(_ADD_OBJECT, values)

    def put_last(self, keys: Iterable[str]) -> None:
        """Let objects be registered behind all others: these count where the others do not tell of a file."""
        self.connection.change_in(_PUT_LAST, keys)

    def waiting(self, most: int, *, is_shard: bool) -> list[FoundObject]:
        """The next objects to be registered, the oldest first."""
        rows = self.connection.rows(_PAGE, {"is_shard": int(is_shard), "most": most})
        return [FoundObject(key, name_of(digest), *rest) for key, digest, *rest in rows]

    def same(self, names: Collection[Hash], *, is_shard: bool) -> list[FoundObject]:
        """All objects of these names: every generation."""
        rows = self.connection.rows_in(_SAME, [name.digest for name in names], {"is_shard": int(is_shard)})
        return [FoundObject(key, name_of(digest), *rest) for key, digest, *rest in rows]

    def settle(self, states: Mapping[str, tuple[int, str | None]]) -> None:
        """Note what became of objects, by their keys: a state, and what is wrong with one."""
        each = [{"key": key, "state": state, "why": why} for key, (state, why) in states.items()]
        self.connection.change_many(_SETTLE, each)

    def count(self, *, is_shard: bool) -> tuple[int, int]:
        """All objects of a kind, and their bytes."""
        row = self.connection.row(_COUNT, {"is_shard": int(is_shard)}) or (0, 0)
        return int(row[0]), int(row[1])

    def count_whole(self, *, is_shard: bool) -> int:
        """The number of xorbs or shards that were registered."""
        return int(self.connection.value(_COUNT_WHOLE, {"is_shard": int(is_shard)}))

    def damaged(self, most: int, behind: str = "") -> list[tuple[str, Hash, str]]:
        """Objects that could not be registered, by their keys: key, hash, and what is wrong."""
        rows = self.connection.rows(_DAMAGED, {"most": most, "behind": behind})
        return [(key, name_of(digest), why or "") for key, digest, why in rows]

    def sound(self, names: Collection[Hash], *, is_shard: bool) -> set[Hash]:
        """Those of these xorbs, or shards, of which a whole object is registered."""
        statement = _SOUND.format("shard" if is_shard else "xorb")
        return {name_of(digest) for (digest,) in self.connection.rows_in(statement, [name.digest for name in names])}

    def add_xorbs(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Register xorbs, by their columns."""
        self.connection.change_many(_ADD_XORB, rows)

    def keep_shard(self, name: Hash) -> None:
        """Let no collection write a shard anew or drop it for now: it tells of files whose xorbs may be found again."""
        self.connection.change(_KEEP_SHARD, {"hash": name.digest})

    def note_lost(self, pairs: Iterable[tuple[Hash, Hash]]) -> None:
        """Note that a xorb is not there, which a file needs."""
        each = [{"xorb": xorb.digest, "file": file.digest} for xorb, file in pairs]
        self.connection.change_many(_NOTE_LOST, each)

    def lost(self, most: int) -> list[tuple[Hash, Hash]]:
        """Xorbs that are not there, each with a file that needs it and is not there for that."""
        rows = self.connection.rows(_LOST, {"most": most})
        return [(name_of(xorb), name_of(file)) for xorb, file in rows]

    def note_claims(self, claims: Iterable[tuple[Hash, bytes]]) -> None:
        """Note each SHA-256 that shards claim of files."""
        each = [{"file": file.digest, "sha256": sha256} for file, sha256 in claims]
        self.connection.change_many(_NOTE_CLAIM, each)

    def know_files(self, digests: Sequence[bytes]) -> list[bytes]:
        """Note files of the snapshot; those of them that are not registered."""
        found = {digest for (digest,) in self.connection.rows_in(_REGISTERED_FILES, digests)}
        self.connection.change_in(_KNOW_FILES, digests)
        return [digest for digest in digests if digest not in found]

    def know_shards(self, shards: Iterable[tuple[bytes, str]]) -> None:
        """Note shards of the snapshot, and the objects that it had of them."""
        each = [{"hash": digest, "generation": generation} for digest, generation in shards]
        self.connection.change_many(_KNOW_SHARD, each)

    def new_files(self, behind: int, most: int, since: float) -> list[tuple[int, Hash]]:
        """The next page of files that came after the snapshot, with their ids: by shards that it did not know, and that
        are not older than ``since``.
        """
        rows = self.connection.rows(_NEW_FILES, {"behind": behind, "most": most, "since": since})
        return [(number, name_of(digest)) for number, digest in rows]

    def grant(self, namespace: str, ids: Sequence[int]) -> None:
        """Grant files to a namespace, with what shards claim of them."""
        for statement in (_GRANT, _CLAIM):
            self.connection.change_in(statement, ids, {"namespace": namespace})

    def last_xorb(self) -> int:
        """The largest id of all xorbs."""
        number: int = self.connection.value(_LAST_XORB)
        return number

    def hold(self, namespace: str, behind: int, last: int) -> None:
        """Let a namespace be the holder of xorbs that have none, between two ids."""
        self.connection.change(_HOLD, {"namespace": namespace, "behind": behind, "last": last})

    def deletable(self, namespace: str, files: Collection[Hash], at: float) -> set[Hash]:
        """Those of these files that a deletion at a time took out of a namespace: granted before, or by no snapshot."""
        values = {"namespace": namespace, "at": at}
        rows = self.connection.rows_in(_DELETED_THESE, [file.digest for file in files], values)
        return {name_of(digest) for (digest,) in rows}

    def all_deletable(self, namespace: str, at: float, most: int) -> set[Hash]:
        """The next of all such files: those that were taken out already are none of them."""
        values = {"namespace": namespace, "at": at, "most": most}
        return {name_of(digest) for (digest,) in self.connection.rows(_DELETED_ALL, values)}

    def last_deletion(self, namespace: str) -> float | None:
        """The time at which something was last deleted from a namespace, of what can be given back."""
        moment: float | None = self.connection.value(_LAST_DELETION, {"namespace": namespace})
        return moment

    def only_new(self, files: Collection[Hash]) -> set[Hash]:
        """Those of these files that the snapshot did not know."""
        rows = self.connection.rows_in(_ONLY_NEW, [file.digest for file in files])
        return {name_of(digest) for (digest,) in rows}

    def has_others_than(self, namespace: str, tables: Iterable[str]) -> bool:
        """True if another namespace is named in any of these tables."""
        values = {"namespace": namespace}
        return any(self.connection.row(_OTHERS.format(table), values) is not None for table in tables)
