"""AroundCas: a Cas that passes every verb on to another; doubles change the few that they are about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from xetstore.cancellation import Cancellation
from xetstore.cas import EmbeddedCas
from xetstore.interfaces import ByteStream, FileSpan
from xetstore.protocol.hashes import Hash
from xetstore.protocol.reconstruction import BatchReconstruction, FetchRange, Reconstruction
from xetstore.protocol.shard import Shard
from xetstore.records import DeletedFile, FileRecord

if TYPE_CHECKING:
    from typing_extensions import Buffer


class AroundCas:
    """As ``cas``, but that it knows no latest uploads and gives no bytes inline, as a server that is not ours."""

    def __init__(self, cas: EmbeddedCas) -> None:
        self.cas = cas
        self.queries, self.is_remote = cas.queries, cas.is_remote

    def reconstruct(
        self, file: Hash, start: int = 0, end: int | None = None, *, hashes: bool = False, inline: int = 0
    ) -> Reconstruction:
        return self.cas.reconstruct(file, start, end, hashes=hashes)

    def reconstruct_ranges(self, spans: Sequence[FileSpan], *, inline: int) -> Sequence[Reconstruction | None] | None:
        return None

    def reconstruct_many(self, files: Sequence[Hash], *, inline: int = 0) -> BatchReconstruction | None:
        return self.cas.reconstruct_many(files)

    def find_chunks(self, *chunks: Hash) -> Shard | None:
        return self.cas.find_chunks(*chunks)

    def find_recent(self, most_chunks: int) -> Shard | None:
        return None

    def put_xorb(self, xorb: Hash, body: Buffer) -> bool:
        return self.cas.put_xorb(xorb, body)

    def put_shard(self, shard: Shard) -> bool:
        return self.cas.put_shard(shard)

    def put_again(self, files: Sequence[Hash], *, dry_run: bool = False) -> set[Hash]:
        return self.cas.put_again(files, dry_run=dry_run)

    def fetch_xorb(self, fetch: FetchRange) -> ByteStream:
        return self.cas.fetch_xorb(fetch)

    def suspect(self, xorb: Hash) -> None:
        self.cas.suspect(xorb)

    def stat(self, file: Hash) -> FileRecord:
        return self.cas.stat(file)

    def files(self) -> Iterator[FileRecord]:
        return self.cas.files()

    def delete(self, files: Sequence[Hash], *, dry_run: bool = False) -> list[DeletedFile]:
        return self.cas.delete(files, dry_run=dry_run)

    def undelete(self, files: Sequence[Hash]) -> list[FileRecord]:
        return self.cas.undelete(files)

    def deleted(self) -> Iterator[DeletedFile]:
        return self.cas.deleted()

    def under(self, cancellation: Cancellation) -> Any:
        return self

    def close(self) -> None:
        self.cas.close()
