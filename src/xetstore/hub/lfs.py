"""Large files by their SHA-256, as git-lfs names them: which a repository has, and how one is put together of parts.

A part is a Xet file of its own until the whole is there, so any process of a store takes any part. The whole is read
from its parts in order, and stored as every arrival is: nearly all of its chunks are there by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from xetstore.cas.index import Writer
from xetstore.errors import UnprocessableError
from xetstore.hub.arrivals import Arrival, Arrived
from xetstore.hub.queries import HubWriter, Part
from xetstore.transfer.download.context import DownloadOptions
from xetstore.transfer.download.downloader import Downloader

if TYPE_CHECKING:
    from xetstore.hub.queries import RepositoryRow
    from xetstore.hub.service import EmbeddedHub
    from xetstore.records import FileRecord

PART_SECONDS: Final = 7 * 86400.0
"""The life of a part whose upload does not end."""
WINDOW_BYTES: Final = 2 << 20

_OPTIONS: Final = DownloadOptions(workers=2, piece_bytes=256 << 10)


class LargeFiles:
    """The large files of one repository. It checks no right; ``row`` is as it was when it was asked for."""

    def __init__(self, hub: EmbeddedHub, row: RepositoryRow) -> None:
        self._hub = hub
        self._row = row
        self.cas = hub.cas_of(row)

    def find(self, digests: Iterable[bytes]) -> dict[bytes, FileRecord]:
        """The files that it has of these SHA-256, as far as they were computed here: a claim alone is no file."""
        with self.cas.index.snapshot() as reader:
            found = reader.files_by_sha256(self._row.namespace, digests)
        return {sha256: record for sha256, (record, is_checked) in found.items() if is_checked}

    def sweep(self) -> None:
        """Forget the parts of uploads that were given up."""
        before = self._hub.now() - PART_SECONDS
        with self._hub.snapshot() as reader:
            if not reader.has_parts_before(self._row.id, before):
                return
        self._hub.change(lambda writer, _: writer.drop_parts_before(self._row.id, before))

    def put_part(self, sha256: bytes, number: int, part: Arrived) -> str:
        """Note a part that has arrived, in place of one of its number; the tag by which it is named."""

        def note(writer: HubWriter, _: Writer) -> None:
            writer.kept_repository(self._row.id)
            writer.put_part(self._row.id, sha256, Part(number, part.file, part.size), self._hub.now())

        self._hub.change(note)
        return str(part.file)

    def complete(self, sha256: bytes, size: int, tags: Mapping[int, str]) -> None:
        """Put a file together of all its parts, whose tags are given by their numbers; durable on return.

        May be called again: a file that is there is not read. Raises UnprocessableError where a part is missing, or is
        another one by now, and where all are more or less than ``size`` bytes; HashMismatchError.
        """
        if self._is_there(sha256, size):
            return
        with self._hub.snapshot() as reader:
            parts = reader.parts(self._row.id, sha256)
        stored = {part.number: str(part.file) for part in parts}
        numbers = range(1, max([*tags, *stored], default=0) + 1)
        for number in numbers:
            if number not in tags or number not in stored:
                raise UnprocessableError(f"part {number} of {sha256.hex()} is missing", hint="upload it, then complete")
            if tags[number] != stored[number]:
                raise UnprocessableError(f"part {number} of {sha256.hex()} is not the one that is stored by now")
        if (total := sum(part.size for part in parts)) != size:
            raise UnprocessableError(f"the parts of {sha256.hex()} have {total} bytes, not {size}")
        with Arrival(self.cas, size) as arrival:
            for part in parts:
                for block in Downloader(self.cas, _OPTIONS).stream(part.file, window_bytes=WINDOW_BYTES):
                    arrival.write(block)
            arrival.finish(sha256)
        self._hub.change(lambda writer, _: writer.drop_parts(self._row.id, sha256))

    def _is_there(self, sha256: bytes, size: int) -> bool:
        record = self.find([sha256]).get(sha256)
        return record is not None and record.size == size
