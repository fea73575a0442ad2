"""Which files have a SHA-256, as a namespace claims or as was computed here, and the notes of both.

A claim is the word of an uploader. It counts in the namespace of that uploader alone, and takes the place of no other
claim, so no other namespace can spoil or slow down a look-up. Once the SHA-256 of a file was computed from its bytes,
it is the claim of each namespace that has the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from xetstore.cas.index.queries.rows import FILE, Questions, file_record

if TYPE_CHECKING:
    from xetstore.protocol.hashes import Hash
    from xetstore.records import FileRecord

CANDIDATES: Final = 8
"""The most files that are told of for one SHA-256 which was not computed yet."""

# Where writers run side by side, a wrong claim may have come beside the note of what was computed.
_CLAIMED: Final = f"""
SELECT sha256_claim.sha256, {FILE}
FROM sha256_claim JOIN file ON file.id = sha256_claim.file_id
WHERE sha256_claim.namespace = :namespace AND sha256_claim.sha256 IN (:values)
AND (file.checked_sha256 IS NULL OR file.checked_sha256 = sha256_claim.sha256)
"""
_CLAIM: Final = """
INSERT INTO sha256_claim (namespace, file_id, sha256) VALUES (:namespace, :file_id, :sha256)
ON CONFLICT (namespace, file_id, sha256) DO NOTHING
"""
_IDS: Final = "SELECT hash, id FROM file WHERE hash IN (:values)"
_NOTE: Final = "UPDATE file SET checked_sha256 = :sha256 WHERE id = :file_id AND checked_sha256 IS NULL"
_DROP_OTHERS: Final = """
DELETE FROM sha256_claim WHERE file_id = :file_id
AND namespace IN (SELECT namespace FROM file_grant WHERE file_id = :file_id)
AND sha256 <> (SELECT checked_sha256 FROM file WHERE id = :file_id)
"""
_CLAIM_FOR_ALL: Final = """
INSERT INTO sha256_claim (namespace, file_id, sha256)
SELECT file_grant.namespace, file.id, file.checked_sha256
FROM file JOIN file_grant ON file_grant.file_id = file.id WHERE file.id = :file_id
ON CONFLICT (namespace, file_id, sha256) DO NOTHING
"""


class Sha256Queries(Questions):
    """Questions about the SHA-256 of files."""

    def file_by_sha256(self, namespace: str, sha256: bytes) -> tuple[FileRecord, bool] | None:
        """A file that a namespace has and claims to have this SHA-256, and True if that was computed here."""
        return self.files_by_sha256(namespace, [sha256]).get(sha256)

    def files_by_sha256(self, namespace: str, digests: Iterable[bytes]) -> dict[bytes, tuple[FileRecord, bool]]:
        """The same for many at once: of several files, one whose SHA-256 was computed, else the newest."""
        return {sha256: files[0] for sha256, files in self.claimed(namespace, dict.fromkeys(digests)).items()}

    def claimed(self, namespace: str, sizes: Mapping[bytes, int | None]) -> dict[bytes, list[tuple[FileRecord, bool]]]:
        """For each SHA-256 the files of the namespace that are claimed to have it, and the size if that is known.

        One of which it was computed is alone; of others there are at most :data:`CANDIDATES`, the newest first.
        """
        found: dict[bytes, list[tuple[int, FileRecord, bool]]] = {}
        for sha256, *row in self.connection.rows_in(_CLAIMED, sizes, {"namespace": namespace}):
            record = file_record(tuple(row))
            if sizes[sha256] not in (None, record.size):
                continue
            files = found.setdefault(sha256, [])
            files.append((row[0], replace(record, sha256=sha256.hex()), record.sha256 is not None))
            files.sort(key=lambda file: (file[2], file[0]), reverse=True)
            del files[1 if files[0][2] else CANDIDATES :]
        return {sha256: [file[1:] for file in files] for sha256, files in found.items()}


class Sha256Changes(Questions):
    """Notes of what is claimed, and of what was computed."""

    def note_sha256(self, file: Hash, sha256: bytes) -> None:
        """As :meth:`note_many`, for one."""
        self.note_many({file: sha256})

    def note_many(self, told: Mapping[Hash, bytes]) -> None:
        """These are the SHA-256 of registered files, computed here from bytes that have the file's hash.

        No claim changes one from now on. A file that is not registered any more is left out.
        """
        digests = {file.digest: sha256 for file, sha256 in told.items()}
        self.note_computed({file_id: digests[digest] for digest, file_id in self.connection.rows_in(_IDS, digests)})

    def note_computed(self, told: Mapping[int, bytes | None]) -> None:
        """The same for files by their ids; None tells nothing."""
        each = _pairs(told)
        self.connection.change_many(_NOTE, each)
        ids = [{"file_id": pair["file_id"]} for pair in each]
        self.connection.change_many(_DROP_OTHERS, ids)
        self.connection.change_many(_CLAIM_FOR_ALL, ids)

    def add_claims(self, namespace: str, told: Mapping[int, bytes | None]) -> None:
        """A namespace, which has been granted these files, claims what their SHA-256 is; None claims nothing."""
        self.connection.change_many(_CLAIM, [{"namespace": namespace, **pair} for pair in _pairs(told)])


def _pairs(told: Mapping[int, bytes | None]) -> list[dict[str, object]]:
    """In ascending order, in which all writers lock rows."""
    return [{"file_id": file_id, "sha256": sha256} for file_id, sha256 in sorted(told.items()) if sha256 is not None]
