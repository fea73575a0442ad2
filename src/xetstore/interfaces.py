"""The seams of the house: Cas (the verbs of the protocol), Names (of repositories) and BlobStore (of objects)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias

from xetstore.errors import DamagedError, IntegrityError, NotFoundError, RangeError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from xetstore.cancellation import Cancellation
    from xetstore.protocol.dedup import QueryRule
    from xetstore.protocol.hashes import Hash
    from xetstore.protocol.reconstruction import BatchReconstruction, FetchRange, Reconstruction
    from xetstore.protocol.shard import Shard
    from xetstore.records import (
        Change,
        Commit,
        DeletedFile,
        DeletedName,
        FileRecord,
        Ref,
        RepoFile,
        RepositoryId,
        RepositoryRecord,
    )

MANY_FILES: Final = 64
"""The most files of one :meth:`Cas.reconstruct_many`: with them a URL stays below 8 KB, which proxies let pass."""


MANY_RANGES: Final = 64
"""The most ranges of one :meth:`Cas.reconstruct_ranges`."""

FileSpan: TypeAlias = "tuple[Hash, int, int]"
"""Bytes ``[start, end)`` of a file, at least one of them."""

MANY_CHUNKS: Final = 1024
"""The most chunks of one :meth:`Cas.find_chunks` where a server answers for several: 32 KiB of hashes."""


MANY_PUT_AGAIN: Final = 4096
"""The most files of one :meth:`Cas.put_again`: 128 KiB of hashes."""


class AnswerTooLongError(IntegrityError):
    """An answer does not fit into what may be held of it: where it is about less of a file, it may."""


class ByteStream(Protocol):
    """Bytes that arrive in order, read into the caller's buffers. A context manager; close() is idempotent."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill at most ``len(buffer)`` bytes; return how many, 0 only at the end of the stream."""

    def close(self) -> None:
        """Let go of memory, files and connections of the stream."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


class Cas(Protocol):
    """A content-addressable store in the protocol's own verbs. Thread-safe.

    ``cas.EmbeddedCas`` (in this process) and ``remote.HttpCas`` (any server) both are one; ``transfer``
    knows nothing else, so one pair of pipelines serves them all. ``queries`` says which chunks are worth a
    :meth:`find_chunks`.
    """

    @property
    def is_remote(self) -> bool:
        """True if a call takes as long as another machine needs to answer it."""

    @property
    def queries(self) -> QueryRule:
        """The rule; ``WIRE_QUERIES`` for a server of unknown kind."""

    def reconstruct(
        self, file: Hash, start: int = 0, end: int | None = None, *, hashes: bool = False, inline: int = 0
    ) -> Reconstruction:
        """Terms and fetches that make bytes ``[start, end)`` of a file (11.3); ``end`` is clamped to the file's size.

        With ``hashes`` the answer has ``term_hashes``, if this Cas knows them. Its ``bodies`` are at most ``inline``
        bytes: those of its first fetches, of all or of none, as this Cas likes, which saves a call to
        :meth:`fetch_xorb` for each.

        Raises NotFoundError for an unknown file, RangeError where ``start`` is at or past the end (except the
        empty range of an empty file). The empty file (Hash.ZERO) is a file like any other: no terms.
        """

    def reconstruct_ranges(self, spans: Sequence[FileSpan], *, inline: int) -> Sequence[Reconstruction | None] | None:
        """The answers of :meth:`reconstruct`, with hashes, for 1 to ``MANY_RANGES`` ranges at once; ``inline`` is for
        all of them together.

        None for one that has to be asked for by itself, which says why: its file may not be there, or end before it.
        None in all where this Cas has no such call.
        """

    def reconstruct_many(self, files: Sequence[Hash], *, inline: int = 0) -> BatchReconstruction | None:
        """Terms and fetches that make several whole files, at most ``MANY_FILES``; none of them the empty one.
        ``inline`` is as for :meth:`reconstruct`.

        None where this Cas has no such call, or cannot tell which of the files it lacks: ask for one by one. Raises
        NotFoundError if any of them is not there.
        """

    def find_chunks(self, *chunks: Hash) -> Shard | None:
        """A dedup answer for eligible chunks (11.4): xorbs worth knowing, hashes keyed; None if it knows none of them.

        It takes at most ``queries.most_at_once``; UsageError for none, and for more than ``MANY_CHUNKS``. One chunk is
        the protocol's own query. Of several, the xorbs that hold them come first, in the order of the chunks.
        """

    def find_recent(self, most_chunks: int) -> Shard | None:
        """A dedup answer of the latest uploads, some ``most_chunks`` chunks; None where that is not quick."""

    def put_xorb(self, xorb: Hash, body: Buffer) -> bool:
        """Store a serialized xorb under its name (11.5). True if it is new. Verified; durable on return."""

    def put_shard(self, shard: Shard) -> bool:
        """Register files (11.6). True if anything in it is new. Every xorb it names is stored already."""

    def put_again(self, files: Sequence[Hash], *, dry_run: bool = False) -> set[Hash]:
        """Put files whose bytes are here by their hashes: those of them that the caller has, and that can be read as
        far as is known. These are from now on as if they had been put just now, unless it is a ``dry_run``.

        At most ``MANY_PUT_AGAIN``; UsageError for more. Of a server that has no such call, none.
        """

    def fetch_xorb(self, fetch: FetchRange) -> ByteStream:
        """The bytes ``[fetch.byte_start, fetch.byte_end)`` of a xorb, as a reconstruction offered them (13.3).

        Raises ForbiddenError, here or while it is read, where the URL has expired: a new reconstruction has a new one.
        """

    def suspect(self, xorb: Hash) -> None:
        """Bytes of a xorb came out wrong twice: its store should look at it, so that the next put heals it.

        It is believed only what it sees itself. Raises XetError where it could not be told.
        """

    def stat(self, file: Hash, /) -> FileRecord:
        """The record of a file. Raises NotFoundError."""

    def files(self) -> Iterator[FileRecord]:
        """The files of the caller's namespace, a page at a time, in no particular order.

        Those that are registered meanwhile may be among them. UsageError where this Cas cannot list them.
        """

    def delete(self, files: Sequence[Hash], *, dry_run: bool = False) -> list[DeletedFile]:
        """Take files out of the caller's namespace, at once: the record of each; with ``dry_run`` as it would be.

        Elsewhere they stay readable. One that is deleted already stays so. Raises NotFoundError for one that is not
        there and was not, and ForbiddenError for one that a repository names: then none is deleted. UsageError where
        this Cas cannot delete.
        """

    def undelete(self, files: Sequence[Hash]) -> list[FileRecord]:
        """Give back files that were deleted: hash and size of each. One that is there stays so.

        Raises NotFoundError for one that is not there and was not deleted, or is gone for good: then none is given
        back. UsageError as :meth:`delete`.
        """

    def deleted(self) -> Iterator[DeletedFile]:
        """The files that can be given back, the last deleted one first. UsageError as :meth:`delete`."""

    def under(self, cancellation: Cancellation) -> Cas:
        """This Cas, for calls that end soon once ``cancellation`` is cancelled: Ctrl-C must not wait for a network.

        They raise InterruptedCallError then, those that are under way and those that are made later; no other does.
        """

    def close(self) -> None:
        """Let go of files and connections. What is made by :meth:`under` need not be closed."""


class Names(Protocol):
    """Repositories by name: their revisions, their files by path, and new commits. Thread-safe.

    ``hub.LocalNames`` (in this process) and ``remote.hub.HttpNames`` (any Hub) both are one. A revision is a branch,
    a tag, or the id of a commit. All raise RepositoryNotFoundError, and where a revision is named
    RevisionNotFoundError; AccessDeniedError where the caller may not do this.
    """

    @property
    def location(self) -> str:
        """The place of these repositories, without a secret."""

    @property
    def keeps_modes(self) -> bool:
        """True if executable bits, symbolic links and empty folders can be committed."""

    def repositories(
        self, kind: str, *, owner: str | None = None, search: str | None = None
    ) -> Iterator[RepositoryRecord]:
        """All that the caller may see, of one kind."""

    def create(self, repo: RepositoryId, *, is_private: bool | None = None) -> RepositoryRecord:
        """Create a repository, with one commit on main; private or not as is usual there if None. ExistsError."""

    def info(self, repo: RepositoryId) -> RepositoryRecord:
        """The record of a repository, under the name that it has now."""

    def delete(self, repo: RepositoryId) -> None:
        """Delete a repository and all its revisions."""

    def deleted(self, repo: RepositoryId, path: str = "") -> list[DeletedName]:
        """Deleted names that can be given back: repositories that had it, and of the one that has it
        branches, tags, and files of a bucket below ``path``; the last deleted ones of each.
        """

    def undelete(self, repo: RepositoryId, *, to: str | None = None) -> RepositoryRecord:
        """Give back the repository that last had this name, as ``to`` if that is given. Raises ExistsError."""

    def undelete_ref(self, repo: RepositoryId, name: str, *, to: str | None = None) -> Ref:
        """Give back a branch or a tag, or the state of a branch before a squash; by the name ``to`` if that is given.
        Raises ExistsError.
        """

    def undelete_files(self, repo: RepositoryId, path: str, *, to: str | None = None) -> list[str]:
        """Give back a file of a bucket, at the path ``to`` if that is given, or those of a folder: where they are now.
        Raises EntryNotFoundError and ExistsError.
        """

    def move(self, repo: RepositoryId, name: str) -> None:
        """Give a repository another ``owner/name``. The old one leads to it. Raises ExistsError."""

    def commit_at(self, repo: RepositoryId, revision: str) -> Commit:
        """The commit that a revision is at. More than its id is told only where that costs nothing."""

    def log(self, repo: RepositoryId, revision: str) -> Iterator[Commit]:
        """A commit and its first parents, from new to old."""

    def branches(self, repo: RepositoryId) -> list[Ref]:
        """The branches, by name."""

    def tags(self, repo: RepositoryId) -> list[Ref]:
        """The tags, by name."""

    def create_branch(self, repo: RepositoryId, name: str, revision: str) -> None:
        """Create a branch at a revision. Raises ExistsError."""

    def delete_branch(self, repo: RepositoryId, name: str) -> None:
        """Delete a branch, which is not main."""

    def create_tag(self, repo: RepositoryId, name: str, revision: str, message: str = "") -> None:
        """Create a tag at a revision. Raises ExistsError."""

    def delete_tag(self, repo: RepositoryId, name: str) -> None:
        """Delete a tag."""

    def entries(
        self, repo: RepositoryId, revision: str, path: str = "", *, recursive: bool = False, dates: bool = False
    ) -> Iterator[RepoFile]:
        """The content of a folder, or the one file that ``path`` is; with ``dates`` each with that of its last change,
        where they are told. Raises EntryNotFoundError for neither.
        """

    def entries_at(self, repo: RepositoryId, revision: str, paths: Sequence[str]) -> list[RepoFile]:
        """The entries of those of these paths that are there."""

    def read(self, repo: RepositoryId, revision: str, file: RepoFile) -> Iterator[Buffer]:
        """The bytes of a file that git keeps, or of a large one that has no Xet hash; verified at the end."""

    def read_many(self, repo: RepositoryId, revision: str, files: Sequence[RepoFile]) -> list[bytes]:
        """The bytes of several files that git keeps, in order; verified. All of them are in memory."""

    def large_files(self, repo: RepositoryId, branch: str, files: Sequence[tuple[str, int, bytes]]) -> set[str]:
        """Those of new files that are to be large ones: each as path, size, and its first 512 bytes."""

    def adopt(self, repo: RepositoryId, source: RepositoryId, files: Sequence[RepoFile]) -> bool:
        """Give a repository large files of another one that the caller may read. False if their bytes must be moved."""

    def commit(
        self,
        repo: RepositoryId,
        branch: str,
        changes: Sequence[Change],
        *,
        message: str,
        description: str = "",
        parent: str | None = None,
    ) -> Commit:
        """Commit changes to a branch, all of them or none. Raises OutdatedError where it is not at ``parent``."""

    def under(self, cancellation: Cancellation) -> Names:
        """These names, for calls that end soon once ``cancellation`` is cancelled."""

    def close(self) -> None:
        """Let go of connections. What is made by :meth:`under` need not be closed."""


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """An object as list and stat know it: its key, its size in bytes, and when it was made, in unix seconds."""

    key: str
    size: int
    modified_at: float


RangeRequest = tuple[str, int, int]
"""A key, and the bytes ``[start, end)`` of its object."""

RangeAnswer = bytes | NotFoundError | RangeError | DamagedError
"""The bytes of one request of several, or what is wrong with its object."""


class NewObject(Protocol):
    """An object that is being written. A context manager: without a commit it leaves nothing. Not thread-safe."""

    def write(self, part: Buffer, /) -> None:
        """Append bytes. Raises as :meth:`BlobStore.put_new` does."""

    def commit(self) -> None:
        """Make the object visible and durable. Raises as :meth:`BlobStore.put_new` does."""

    def close(self) -> None:
        """Drop it unless it was committed. May be called again."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


class BlobStore(Protocol):
    """Immutable objects by key. Thread-safe, and safe between processes.

    Keys are relative slash-separated paths of ``[0-9a-z._-]`` segments, no segment starting with a dot.
    An object is either absent or whole and durable: no reader ever sees a part of one.

    The caller writes each key once: it gives a new object a key that none has had. So a store need not be able to
    create an object only where there is none. One that sees that there is one replaces nothing, and raises UsageError.
    """

    def put_new(self, key: str, parts: Sequence[Buffer]) -> None:
        """Create an object from the parts in order, under a key that no object has had.

        Durable on return. Raises StorageFullError, AccessDeniedError or UnavailableError: then there is no object, or a
        whole one that was not acknowledged.
        """

    def create(self, key: str) -> NewObject:
        """An object to be written piece by piece: :meth:`put_new` for bytes that are not all there yet."""

    def get(self, key: str) -> bytes:
        """The whole object. Raises NotFoundError."""

    def get_range(self, key: str, start: int, end: int) -> ByteStream:
        """Bytes ``[start, end)``. NotFoundError if absent; RangeError if the object is shorter than ``end``."""

    def get_ranges(self, requests: Sequence[RangeRequest]) -> list[RangeAnswer]:
        """The bytes of several small ranges, in order; all of them are in memory. A store over a network asks at once.

        An object that is absent, too short or damaged is an answer: the others are read all the same. UsageError for a
        range that is none, and UnavailableError or AccessDeniedError, are raised.
        """

    def stat(self, key: str) -> BlobInfo | None:
        """Key, size and time, or None."""

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove objects; how many of them were there. Raises as :meth:`put_new`, with some of them removed."""

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """Objects whose key starts with ``prefix`` and comes after ``after``, in key order.

        A listing that was cut short goes on behind the last key that it gave.
        """
