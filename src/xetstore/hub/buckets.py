"""Bucket: files by path, without revisions. What is put in a place replaces what was there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xetstore.cas.index import Writer
from xetstore.cas.service import EmbeddedCas
from xetstore.errors import AccessDeniedError, EntryNotFoundError, RepositoryNotFoundError, UnprocessableError, XetError
from xetstore.hub.copies import copy_files
from xetstore.hub.names import Kind, check_path
from xetstore.hub.queries import BucketFile, BucketFolder, BucketTotals, HubWriter, RepositoryRow
from xetstore.hub.queries.buckets import behind
from xetstore.hub.queries.deleted import replaced
from xetstore.hub.rights import Right
from xetstore.protocol.hashes import Hash

if TYPE_CHECKING:
    from xetstore.hub.repository import Repository
    from xetstore.hub.service import EmbeddedHub

MAX_OPERATIONS: Final = 1000
"""Operations of one batch, and paths of one question."""
MAX_PAGE: Final = 1000
"""Entries of one page."""
FIRST_MS: Final = -62_135_596_800_000
LAST_MS: Final = 253_402_300_799_999
"""The first and the last millisecond that a date can have, of the years 1 to 9999."""


@dataclass(frozen=True, slots=True)
class PutFile:
    """Put a file of the store at a path: of an upload to this bucket, or of ``source``, a kind and ``owner/name``.

    ``modified_ms`` are unix milliseconds; now, if it is None.
    """

    path: str
    file: Hash
    modified_ms: int | None = None
    content_type: str | None = None
    source: tuple[Kind, str] | None = None


@dataclass(frozen=True, slots=True)
class DropFile:
    """Take the file at a path away; it need not be there."""

    path: str


Operation = PutFile | DropFile


@dataclass(frozen=True, slots=True)
class Failure:
    """An operation that was not done, and its reason in words."""

    path: str
    error: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing. ``next`` is where the next one begins; None on the last."""

    entries: Sequence[BucketFile | BucketFolder]
    next: str | None


class Bucket:
    """A bucket, as an actor sees it that may. Thread-safe."""

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._hub: EmbeddedHub = repository.hub
        self.row: RepositoryRow = repository.row

    @property
    def cas(self) -> EmbeddedCas:
        """The store as this bucket sees it."""
        return self.repository.cas

    def totals(self) -> BucketTotals:
        """The sums over its files."""
        return totals_of(self._hub, [self.row])[self.row.id]

    def tree(self, prefix: str = "", *, recursive: bool = True, start: str = "", limit: int = MAX_PAGE) -> Page:
        """A page of its files by path: those whose paths begin with ``prefix``, whatever comes next. Without
        ``recursive`` the files and folders up to the next slash.
        """
        limit = max(1, min(limit, MAX_PAGE))
        _check_text(prefix)
        _check_text(start)
        with self._hub.snapshot() as reader:
            ask = reader.bucket_files if recursive else reader.bucket_level
            found = ask(self.row.id, prefix=prefix, start=start, limit=limit + 1)
        return Page(found[:limit], behind(found[limit - 1]) if len(found) > limit else None)

    def files(self, paths: Collection[str]) -> list[BucketFile]:
        """The files at those of these paths where there is one, in order. Raises UnprocessableError for too many."""
        if len(paths) > MAX_OPERATIONS:
            raise UnprocessableError(f"at most {MAX_OPERATIONS} paths can be asked for at once")
        asked = [path for path in dict.fromkeys(paths) if _is_path(path)]
        with self._hub.snapshot() as reader:
            found = reader.bucket_files_at(self.row.id, asked)
        return [found[path] for path in asked if path in found]

    def file(self, path: str) -> BucketFile:
        """The file at a path. Raises EntryNotFoundError."""
        for file in self.files([path]):
            return file
        raise EntryNotFoundError(f"there is no file {path[:200]!r} in this bucket")

    def change(self, operations: Sequence[Operation]) -> list[Failure]:
        """Do operations in their order, all that can be done of them; the others come back.

        A file is put that this bucket was given by an upload, or that its source has, which the actor may read: for
        any other the failure is the same as for one that does not exist. What is done appears at once. Raises
        UnprocessableError for too many.
        """
        self.repository.require(Right.WRITE)
        if len(operations) > MAX_OPERATIONS:
            raise UnprocessableError(f"a batch has at most {MAX_OPERATIONS} operations, not {len(operations)}")
        now = self._hub.now()
        failures: dict[int, str] = {}
        valid: dict[int, Operation] = {}
        for number, operation in enumerate(operations):
            reason = _reason_against(operation)
            if reason is None:
                valid[number] = operation
            else:
                failures[number] = reason
        by_source: dict[tuple[Kind, str] | None, list[tuple[int, PutFile]]] = {}
        for number, operation in valid.items():
            if isinstance(operation, PutFile):
                by_source.setdefault(operation.source, []).append((number, operation))
        sources = {source: self._source(source) for source in by_source if source is not None}

        def work(writer: HubWriter, cas: Writer) -> dict[int, str]:
            writer.kept_repository(self.row.id)
            lacking: dict[int, str] = {}
            sizes: dict[int, int] = {}
            for source, puts in by_source.items():
                row = self.row if source is None else sources[source]
                files = [put.file for _, put in puts]
                granted: dict[Hash, int] = {}
                if row is not None:
                    granted = writer.granted_sizes(row.namespace, files)
                    if row.id != self.row.id:
                        copy_files(cas, row.namespace, self.row.namespace, granted, now=now)
                    # The empty file is nowhere but in rows: anyone can bring it, but not copy it from where it is not.
                    if Hash.ZERO in files and (source is None or writer.has_empty_file(row.id)):
                        granted[Hash.ZERO] = 0
                for number, put in puts:
                    if put.file in granted:
                        sizes[number] = granted[put.file]
                    else:
                        lacking[number] = f"there is no file {put.file} here" if source is None else _NO_SOURCE
            self._write(writer, {n: each for n, each in valid.items() if n not in lacking}, sizes, now)
            return lacking

        if valid and not by_source:  # it only takes away
            with self._hub.cas.index.for_care():
                self._hub.change(work)
        elif valid:
            failures |= self._hub.change(work)
        return [Failure(operations[number].path, failures[number]) for number in sorted(failures)]

    def _source(self, source: tuple[Kind, str]) -> RepositoryRow | None:
        """The row of a source, if the actor may read it."""
        kind, name = source
        try:
            return self._hub.repository(self.repository.actor, kind, name, Right.READ).row
        except (RepositoryNotFoundError, AccessDeniedError):
            return None

    def _write(
        self, writer: HubWriter, operations: Mapping[int, Operation], sizes: Mapping[int, int], now: float
    ) -> None:
        """Let the last operation at each path count."""
        last = {operation.path: (number, operation) for number, operation in operations.items()}
        files = {path: each.file if isinstance(each, PutFile) else None for path, (_, each) in last.items()}
        gone = replaced(writer.bucket_files_at(self.row.id, last), files)
        writer.keep_bucket_files(self.row.id, gone, now=now)
        writer.drop_bucket_files(self.row.id, [path for path, (_, each) in last.items() if isinstance(each, DropFile)])
        writer.put_bucket_files(
            self.row.id,
            [
                BucketFile(
                    path,
                    each.file,
                    sizes[number],
                    int(now * 1000) if each.modified_ms is None else each.modified_ms,
                    now,
                    each.content_type,
                )
                for path, (number, each) in last.items()
                if isinstance(each, PutFile)
            ],
        )
        if last:
            writer.touch_repository(self.row.id, now)


def totals_of(hub: EmbeddedHub, rows: Iterable[RepositoryRow]) -> dict[int, BucketTotals]:
    """The sums over the files of each of these buckets, by its id."""
    ids = [row.id for row in rows]
    with hub.snapshot() as reader:
        found = reader.bucket_totals(ids)
    return {number: found.get(number, BucketTotals()) for number in ids}


_NO_SOURCE: Final = "its source is not there, or has no such file"


def _reason_against(operation: Operation) -> str | None:
    """The reason why an operation cannot be done, whatever is stored."""
    try:
        check_path(operation.path)
    except XetError as error:
        return str(error)
    if isinstance(operation, PutFile):
        if operation.modified_ms is not None and not FIRST_MS <= operation.modified_ms <= LAST_MS:
            return "mtime is no time in milliseconds"
        kind = operation.content_type
        if kind is not None and not (len(kind) <= 255 and kind.isascii() and kind.isprintable()):
            return "contentType is none"
    return None


def _is_path(path: str) -> bool:
    try:
        return bool(check_path(path))
    except UnprocessableError:
        return False


def _check_text(text: str) -> None:
    """Raise UnprocessableError for what no database takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnprocessableError("a path is not Unicode") from None
    if "\0" in text or len(text) > 2048:
        raise UnprocessableError("a path has a zero, or is too long")
