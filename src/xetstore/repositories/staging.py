"""Staging: sources become changes of a commit. The bytes of large files are stored on the way, so a commit is short."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from xetstore.cancellation import Cancellation
from xetstore.errors import SourceChangedError, TooLargeError, XetError
from xetstore.protocol.hashes import Hash
from xetstore.records import (
    FILE_MODE,
    FOLDER_MODE,
    LINK_MODE,
    NewBlob,
    NewFolder,
    NewPointer,
    RepoFile,
)
from xetstore.repositories.sources import Source
from xetstore.transfer.byte_source import ByteSource
from xetstore.transfer.progress import Progress, with_files
from xetstore.transfer.scan import source_error

if TYPE_CHECKING:
    import io
    from collections.abc import Generator

    from typing_extensions import Buffer

    from xetstore.interfaces import Cas
    from xetstore.transfer.upload.pending import PutReport

SAMPLE_BYTES: Final = 512
MAX_BLOB_BYTES: Final = 32 << 20
"""A file that git keeps is in memory, and in every copy of the repository."""
HELD_BYTES: Final = MAX_BLOB_BYTES
"""Streams hold 32 MiB in memory together, and one of them as much again, before what is large of them is put."""
ASKED_AT_ONCE: Final = 256


class Files(Protocol):
    """The files of one repository by their hashes, put and got in bulk: :class:`xetstore.Store` is one."""

    @property
    def cas(self) -> Cas:
        """The store in the verbs of the protocol."""

    def iter_put(
        self,
        paths: Iterable[Path | str | ByteSource],
        *,
        progress: Progress | None = None,
        dry_run: bool = False,
        unchanged: str = "read",
    ) -> Generator[PutReport]:
        """Store files; with ``dry_run`` only say what would be new. ``unchanged`` is that of a Store."""

    def iter_get(
        self,
        files: Iterable[tuple[Hash, Path]],
        *,
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        fsync: bool = False,
    ) -> Generator[object]:
        """Write files to their paths."""

    def open(self, what: Hash, /) -> io.BufferedReader:
        """A stored file to read from."""

    def iter_range(self, what: Hash, /, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """Bytes of a file in order."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A change that is ready, and ``file``, the entry that it makes. ``new_bytes`` were not in the store before."""

    change: NewBlob | NewPointer | NewFolder
    file: RepoFile
    source: Path | None = None
    new_bytes: int = 0


LargeFiles = Callable[[Sequence[tuple[str, int, bytes]]], set[str]]
"""Those of files, each a path, a size and its first bytes, that are to be large ones."""


def stage(
    sources: Iterable[Source],
    large_files: LargeFiles,
    files: Files,
    *,
    progress: Progress | None = None,
    dry_run: bool = False,
    unchanged: str = "read",
) -> list[Staged]:
    """Store the large ones of some files; all of them as changes, in order. Raises what reading and storing does.

    ``unchanged`` is for the large ones: of every file the first bytes are read, and small ones are read whole.
    """
    staged: list[Staged] = []
    large: list[tuple[Source, Path | ByteSource]] = []
    count = 0

    def put_large() -> None:
        nonlocal count
        count += len(large)
        with_files(progress).files(count)
        reports = files.iter_put(
            (content for _, content in large), progress=progress, dry_run=dry_run, unchanged=unchanged
        )
        with closing(reports):
            for (source, _), report in zip(large, reports, strict=True):
                staged.append(_large(source, report))
        large.clear()

    for part, is_held in _parts(sources):
        questions = [_question(source) for source in part if _is_asked(source)]
        chosen = large_files(questions) if questions else set()
        for source in part:
            if source.entry is not None:
                entry = source.entry
                staged.append(pointer(source.path, entry.sha256 or "", entry.size, entry.hash, source.mode))
            elif source.stream is not None:
                large.append((source, ByteSource(source.stream, name=source.path)))
            elif source.path not in chosen:
                staged.append(_small(source))
            elif source.file is not None:
                large.append((source, source.file))
            else:
                large.append((source, ByteSource(source.data or b"", name=source.path)))
        if large and is_held:  # before more is
            put_large()
    if large:
        put_large()
    return staged


def pointer_text(sha256: str, size: int) -> bytes:
    """The text that git keeps in the place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def blob_id(data: bytes) -> str:
    """The id that git gives to a file's bytes.

    >>> blob_id(b"")
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def pointer(path: str, sha256: str, size: int, hash: Hash | None, mode: int = FILE_MODE) -> Staged:  # noqa: A002
    """A large file that is stored already."""
    file = RepoFile(path, size, blob_id(pointer_text(sha256, size)), hash, sha256, mode)
    return Staged(NewPointer(path, sha256, size, mode), file)


def blob(path: str, data: bytes, mode: int = FILE_MODE, source: Path | None = None) -> Staged:
    """A small file."""
    return Staged(
        NewBlob(path, data, mode), RepoFile(path, len(data), blob_id(data), mode=mode), source, new_bytes=len(data)
    )


def empty_folder(path: str) -> Staged:
    """A folder without a file."""
    return Staged(NewFolder(path), RepoFile(path, 0, "", mode=FOLDER_MODE))


def _parts(sources: Iterable[Source]) -> Iterator[tuple[list[Source], bool]]:
    """Sources in parts of at most :data:`ASKED_AT_ONCE`, begun, whose streams hold some :data:`HELD_BYTES` in memory
    together; and True if they hold any.
    """
    part: list[Source] = []
    held = 0
    for source in sources:
        begun = _begun(source)
        part.append(begun)
        if source.stream is not None:
            held += MAX_BLOB_BYTES if begun.data is None else len(begun.data)
        if held >= HELD_BYTES or len(part) == ASKED_AT_ONCE:
            yield part, held > 0
            part, held = [], 0
    if part:
        yield part, held > 0


def _begun(source: Source) -> Source:
    """The source itself, or of a stream that is short its bytes; else what was read of it is in front of it again."""
    if source.stream is None:
        return source
    parts = ByteSource(source.stream, name=source.path).parts(Cancellation())
    head: deque[bytes] = deque()
    size = 0
    for part in parts:
        head.append(bytes(part))
        size += len(head[-1])
        if size > MAX_BLOB_BYTES:
            return replace(source, stream=_Joined(head, parts))
    return replace(source, stream=None, data=b"".join(head), size=size)


class _Joined:
    """The beginning of a stream, which was read already, and the rest of it."""

    def __init__(self, head: deque[bytes], rest: Iterator[Buffer]) -> None:
        self._head = head
        self._rest = rest

    def read(self, _size: int, /) -> Buffer:
        return self._head.popleft() if self._head else next(self._rest, b"")


def _is_asked(source: Source) -> bool:
    return source.entry is None and source.stream is None and source.mode not in (FOLDER_MODE, LINK_MODE)


def _question(source: Source) -> tuple[str, int, bytes]:
    if source.data is not None:
        return source.path, len(source.data), source.data[:SAMPLE_BYTES]
    assert source.file is not None
    try:
        with source.file.open("rb") as file:
            sample = file.read(SAMPLE_BYTES)
            return source.path, source.file.stat().st_size, sample
    except OSError as error:
        raise source_error(source.file, error) from error


def _small(source: Source) -> Staged:
    if source.mode == FOLDER_MODE:
        return empty_folder(source.path)
    data = source.data
    if data is None:
        assert source.file is not None
        try:
            with source.file.open("rb") as file:
                data = file.read(MAX_BLOB_BYTES + 1)
        except OSError as error:
            raise source_error(source.file, error) from error
    if len(data) > MAX_BLOB_BYTES:
        raise TooLargeError(
            f"{source.path} is too large for a file that git keeps", hint="have it match .gitattributes"
        )
    return blob(source.path, data, source.mode, source.file)


def _large(source: Source, report: PutReport) -> Staged:
    info = report.info
    if info.sha256 is None:
        raise SourceChangedError(f"{source.path} was stored without its SHA-256")
    made = pointer(source.path, info.sha256, info.size, info.hash, source.mode)
    return Staged(made.change, made.file, source.file, report.new_bytes)
