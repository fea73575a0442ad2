"""Store: put, get, open and stat for users, the same over a store here, a server or a repository on a Hub."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from xetstore.arguments import several, text_of
from xetstore.cancellation import Cancellation
from xetstore.errors import (
    ExistsError,
    InterruptedCallError,
    NotFoundError,
    UsageError,
    WrongTypeError,
    XetError,
)
from xetstore.limits import NO_LIMITS, Limits
from xetstore.opening import Opened, Reopening
from xetstore.platform import forks
from xetstore.platform.homes import local_path
from xetstore.protocol.hashes import Hash
from xetstore.records import DeletedFile, FileInfo
from xetstore.silence import ignore
from xetstore.store.finding import find, find_or_folder, get_many, locator_of, read_ranges
from xetstore.store.travelling import Travelling
from xetstore.store.what import What, named
from xetstore.transfer.estimate import CELLS
from xetstore.transfer.progress import Stoppable

if TYPE_CHECKING:
    from xetstore.cas.check import CheckReport, Selection
    from xetstore.cas.service import EmbeddedCas
    from xetstore.cas.usage import NamespaceUsage, WhatIf
    from xetstore.events import Emit
    from xetstore.interfaces import Cas, Names
    from xetstore.opening import OpenedNames
    from xetstore.protocol.xorb import CompressionPolicy
    from xetstore.records import FileRecord, RepositoryId, RepositoryRecord, Totals
    from xetstore.repositories.repository import Repository
    from xetstore.store.content import GetReport
    from xetstore.store.sources import Source
    from xetstore.tensors import Tensors
    from xetstore.transfer.byte_source import ByteSource
    from xetstore.transfer.download.forecast import GetForecast
    from xetstore.transfer.estimate.estimation import Estimate
    from xetstore.transfer.progress import Progress
    from xetstore.transfer.upload.context import Unchanged
    from xetstore.transfer.upload.pending import PutReport

T = TypeVar("T")

_PATHS: Final = "several paths, such as a list of them"
_SOURCES: Final = "several paths, bytes or binary file objects, such as a list of them"
_RANGES: Final = "several ranges, each a file, a start and an end"
_FILES: Final = "several pairs of a file and a path"


class Store(Travelling):
    """A Xet store. Thread-safe; close it, or use it as a context manager.

    ``location`` is the place that it was opened with. ``what`` is a file of it everywhere: a FileInfo, a Hash, the 64
    hexadecimal digits of that, or its name ``xet://OWNER/NAME@REVISION/PATH``; of a repository on a Hub ``hf://``. An
    argument of another type is a UsageError, which is also a TypeError. In a path that is a text, ``~`` is the user's
    home.

    After a fork both processes go on with it. Pickled, it is opened again where it is first used, with the same
    arguments; NotPicklableError where a token was given.

    >>> import pathlib, tempfile, xetstore
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "greeting.txt").write_text("Hello World!")
    >>> with xetstore.open(folder / "store") as store:
    ...     info = store.put(folder / "greeting.txt")
    ...     _ = store.get(info, folder / "copy.txt")
    ...     store.read(info, 6)
    b'World!'
    >>> f"{info.hash:.16}", (folder / "copy.txt").read_text()
    ('a9dae0ad88b060bd', 'Hello World!')
    """

    def __init__(self, cas: Cas | Opened, *, limits: Limits = NO_LIMITS, on_event: Emit = ignore) -> None:
        if isinstance(cas, Opened):
            opened = cas
        else:
            opened = Opened(cas, "a Cas", is_local=True)
            opened.closing.callback(cas.close)
        self._begin(opened, limits, on_event)

    def _begin(self, opened: Opened, limits: Limits, on_event: Emit) -> None:
        self._cas = opened.cas
        self._limits = limits
        self._emit = on_event
        self.location = opened.location
        # How long files are, as a Hub tells: a server that says otherwise is not believed.
        self._sizes: dict[Hash, int] = {}
        # What is open as long as the store is; and below it the calls under way, which can be interrupted alone.
        self._open = Cancellation()
        self._calls = self._open.child()
        self._is_one_call = False
        self._reopening: Reopening | None = None
        forks.renew(self, Store._begin_anew)
        self._opened = opened  # the last one: then it has all of these, for every thread

    def _begin_anew(self) -> None:
        """In a child no call is under way."""
        if "_open" in self.__dict__ and not self._open.is_cancelled:
            self._open = Cancellation()
            self._calls = self._open.child()

    def _view(self, opened: Opened) -> Store:
        """A store that is of use as long as this one is open, and closes nothing."""
        own = replace(opened, remembered=self._opened.remembered, closing=ExitStack())
        view = Store(own, limits=self._limits, on_event=self._emit)
        view._open = view._calls = self._calls.child()
        view._is_one_call = True
        return view

    @property
    def cas(self) -> Cas:
        """The store in the verbs of the protocol, for work of :mod:`xetstore.transfer` beyond this class."""
        return self._cas

    # --- Files ------------------------------------------------------------------------------------------

    def put(
        self,
        source: Source,
        *,
        policy: CompressionPolicy | str = "auto",
        progress: Progress | None = None,
    ) -> FileInfo:
        """Store a file: a path, bytes, or a binary file object from where it is on; durable on return.

        A file object needs ``read`` alone, and its length need not be known: a pipe, a socket's ``makefile("rb")``, a
        GzipFile. Some MiB of it are in memory at a time. It stays open. What its ``read`` raises is raised as it is,
        and nothing is stored then.

        Raises NotFoundError, AccessDeniedError, UsageError (a directory, text, a closed file), SourceChangedError and
        StorageFullError; over a network UnavailableError when patience has ended.
        """
        from xetstore.store.sources import source_of

        [report] = _gathered(self._put([source_of(source)], policy=policy, progress=progress), None)
        return report.info

    def put_many(
        self,
        sources: Iterable[Source],
        *,
        policy: CompressionPolicy | str = "auto",
        progress: Progress | None = None,
        on_report: Callable[[PutReport], None] | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        dry_run: bool = False,
        unchanged: Unchanged | str = "read",
    ) -> list[PutReport]:
        """Store files that share xorbs; their reports, in order. ``on_report`` gets each once its file is durable. The
        path in the report of what has none is the name of the file object, or says what it is.

        A file that cannot be read is handed to ``on_error`` and the others go on; without ``on_error`` its error is
        raised after the files before it have been stored. With ``dry_run`` nothing is sent or stored: the reports say
        what would be new.

        With ``unchanged="skip"`` a file is not read that is as it was when it was put from this machine before, by its
        path, size, inode and times, if the store still has it; some thousands of ``paths`` are taken ahead then. What
        is read is remembered in the cache folder. ``"renew"`` reads all, and remembers it anew.
        """
        reports = self.iter_put(
            sources, policy=policy, progress=progress, on_error=on_error, dry_run=dry_run, unchanged=unchanged
        )
        return _gathered(reports, on_report)

    def iter_put(
        self,
        sources: Iterable[Source],
        *,
        policy: CompressionPolicy | str = "auto",
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        dry_run: bool = False,
        unchanged: Unchanged | str = "read",
    ) -> Generator[PutReport]:
        """As :meth:`put_many`, for more reports than memory should hold: each file is stored as its report is taken.

        Nothing is stored before the first one is asked for, and a file that was not reported may not be stored.
        """
        from xetstore.store.sources import source_of

        files = map(source_of, several(sources, "what is put", _SOURCES))
        return self._put(
            files, policy=policy, progress=progress, on_error=on_error, dry_run=dry_run, unchanged=unchanged
        )

    def estimate(
        self,
        paths: Iterable[Path | str],
        *,
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        cells: int = CELLS,
    ) -> Estimate:
        """Estimate the saving of deduplication and compression; see :mod:`xetstore.transfer.estimate`."""
        from xetstore.transfer.estimate.estimation import estimate

        call = self._calls.child()
        sources = map(local_path, several(paths, "what is estimated", _PATHS))
        told = Stoppable(progress, call)
        return estimate(sources, self._cas.under(call), progress=told, on_error=on_error, cells=cells)

    def get(
        self,
        what: What,
        out: Path | str,
        *,
        start: int = 0,
        end: int | None = None,
        progress: Progress | None = None,
        base: Path | str | None = None,
        fsync: bool = False,
        keep_partial: bool = False,
        size: int | None = None,
    ) -> GetReport:
        """Write a file, or its bytes ``[start, end)``, to ``out``, which appears verified and whole or not at all.

        Links are followed. Where ``out`` is, or leads to, a pipe or a character device, the bytes are written to it in
        order, each verified before; of a directory, a socket or a block device UsageError is raised. ``size`` is the
        size of the whole file, where the caller knows it: a server that goes beyond it is not believed.

        Chunks that the local file ``base`` holds, an older version, are not fetched. What a failed attempt leaves
        beside ``out`` is continued by the next one; ``keep_partial`` leaves it after Ctrl-C and
        :meth:`interrupt` too. With ``fsync`` the file is on the disk on return.

        Raises NotFoundError, RangeError, IntegrityError, AccessDeniedError and StorageFullError; over a network
        UnavailableError when patience has ended.
        """
        from xetstore.store.content import GetOptions

        options = GetOptions(
            start=start,
            end=end,
            progress=progress,
            base=None if base is None else local_path(base, "base"),
            fsync=fsync,
            keep_partial=keep_partial,
            size=size,
        )
        return find(self, what).get(local_path(out, "the place of a file"), options)

    def get_many(
        self,
        files: Iterable[tuple[What, Path | str]],
        *,
        progress: Progress | None = None,
        on_report: Callable[[GetReport], None] | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        fsync: bool = False,
    ) -> list[GetReport]:
        """Write files, given as (file, path), to their paths; their reports, in order. ``on_report`` gets each once
        its file is there.

        Small files that were stored together come together, some dozens by two requests. Each appears verified and
        whole or not at all, as with :meth:`get`. A file that fails is handed to ``on_error``, with its path, and the
        others go on; without ``on_error`` its error is raised after the files before it have been told. ``files`` is
        read to its end before the first of them is fetched; a path that comes twice is an error. Files that are named
        by ``xet://`` come one by one: :meth:`Repository.download` brings many.
        """
        return _gathered(self.iter_get(files, progress=progress, on_error=on_error, fsync=fsync), on_report)

    def iter_get(
        self,
        files: Iterable[tuple[What, Path | str]],
        *,
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        fsync: bool = False,
    ) -> Generator[GetReport]:
        """As :meth:`get_many`, for more reports than memory should hold: files are written as reports are taken.

        Nothing is written before the first one is asked for; some files are fetched ahead.
        """
        return get_many(self, several(files, "what is got", _FILES), progress=progress, on_error=on_error, fsync=fsync)

    def forecast(self, what: What, start: int = 0, end: int | None = None) -> GetForecast:
        """Forecast the fetches of :meth:`get`, for a file of which nothing is here."""
        return find(self, what).forecast(start, end)

    def open(self, what: What) -> io.BufferedReader:
        """A stored file as a seekable binary file object; every chunk read is verified."""
        return find(self, what).open()

    def read(self, what: What, start: int = 0, end: int | None = None) -> bytes:
        """Bytes ``[start, end)`` of a file, verified; all of them are in memory. ``end`` past the file is the file's.

        Raises NotFoundError, RangeError for a start at the end of the file or behind it, UsageError for a negative or
        reversed range, and IntegrityError.
        """
        return b"".join(find(self, what).iter_range(start, end))

    def iter_range(self, what: What, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """Bytes ``[start, end)`` of a file in order, some MiB at a time, verified before they are yielded."""
        return find(self, what).iter_range(start, end)

    def read_ranges(self, ranges: Iterable[tuple[What, int, int]]) -> list[memoryview | XetError]:
        """The bytes of several ranges, given as (what, start, end), in order; verified, and all of them in memory.

        Over a network some dozens of small ones come by one request; ranges of files that are given by their names are
        read one by one. A range ends where its file does. An error takes
        the place of the bytes that it is about; UsageError is raised for what is no range, or names no file.
        """
        return read_ranges(self, several(ranges, "what is read", _RANGES))

    def tensors(self, what: What) -> Tensors:
        """The tensors of a safetensors or GGUF file by name: its header is read, and of each that is loaded its range.

        The ``xet://`` name of a ``….safetensors.index.json`` stands for the model in several files of which it is the
        index. FormatError for a file that is none of these.
        """
        from xetstore.tensors import open_tensors

        return open_tensors(self, named(what))

    def stat(self, what: What) -> FileRecord:
        """The record of a stored file; of one on a server hash and size. Raises NotFoundError.

        A small file of a repository, which git keeps, is read for its hash, by which the store does not have it.
        """
        return find(self, what).stat()

    def exists(self, what: What) -> bool:
        """True if the store has this file, as far as the caller may know; False for a folder of a repository.

        Raises UsageError for what names no file, and UnavailableError where the store cannot tell.
        """
        try:
            content = find_or_folder(self, what)
            return content is not None and content.size >= 0
        except NotFoundError:
            return False

    def files(self) -> Iterator[FileRecord]:
        """Every file of the caller's namespace that has a hash, a page at a time, in no particular order.

        Those that are stored meanwhile may be among them. Of a server that lists them; UsageError for one that does
        not, ForbiddenError without the right to.
        """
        return self._cas.under(self._calls.child()).files()

    def delete(self, *what: What, dry_run: bool = False) -> list[DeletedFile]:
        """Delete files, all at once: they are gone when it returns, and :meth:`undelete` gives them back for a while.

        Another namespace that has a file keeps it. The space comes back when it is collected. The records say when each
        was deleted, and until when it can be given back; with ``dry_run`` nothing is, and they say what would be. One
        that is deleted already stays so.

        A file that is named by ``xet://`` is taken from its branch, by one commit a branch; earlier revisions still
        have it, so ``until`` is infinite.

        Raises NotFoundError for a file that is not there and was not, ForbiddenError for one that a repository names:
        then none is deleted. UsageError for a server that cannot delete.
        """
        from xetstore.records import DeletedFile

        asked = [*map(named, what)]
        names = {name: locator_of(name) for name in asked if not isinstance(name, Hash)}
        found = {name: find(self, name).stat() for name in names}
        hashes = [name for name in asked if isinstance(name, Hash)]
        deleted = self._cas.under(self._calls.child()).delete(hashes, dry_run=dry_run) if hashes else []
        records: dict[str, DeletedFile] = {record.hash: record for record in deleted}
        for root in dict.fromkeys(locator.at("") for locator in names.values()):
            paths = [locator.path for locator in names.values() if locator.at("") == root]
            self.repo(root.id).commit(delete=paths, branch=root.revision or "", dry_run=dry_run)
        for name, record in found.items():
            file = record.hash, record.size, record.sha256
            records[name] = DeletedFile(*file, deleted_at=time.time(), until=math.inf)
        return [records[name] for name in dict.fromkeys(asked)]

    def undelete(self, *what: What) -> list[FileRecord]:
        """Give back deleted files, by their hashes: hash and size of each. One that is there stays so.

        Raises NotFoundError for a file that was not deleted, or is gone for good: then none is given back.
        """
        files = [*map(self._hash_of, what)]
        return self._cas.under(self._calls.child()).undelete(files)

    def deleted(self) -> Iterator[DeletedFile]:
        """The files that can be given back, the last deleted one first."""
        return self._cas.under(self._calls.child()).deleted()

    def resolve(self, what: What) -> Hash:
        """The hash of a file. Raises UsageError for a small file of a repository, which has none in the store."""
        from xetstore.store.content import KeptContent, StoredContent

        content = find(self, what)
        if isinstance(content, KeptContent):
            raise UsageError(
                f"{str(what)[:200]} is a small file, which has no hash", hint="xet cp and xet cat bring it"
            )
        assert isinstance(content, StoredContent)
        return content.hash

    # --- Repositories -----------------------------------------------------------------------------------

    def repo(self, name: RepositoryId | str) -> Repository:
        """A repository by its name: ``alice/bert``, ``datasets/alice/news``. Nothing is asked; it may not be there."""
        from xetstore.repositories.repository import Repository

        return Repository(self, _repository_id(name))

    def repos(
        self, kind: str = "models", *, owner: str | None = None, search: str | None = None
    ) -> Iterator[RepositoryRecord]:
        """The repositories of one kind: of one owner, or with a text in their names."""
        for role, given in (("kind", kind), ("owner", owner or ""), ("search", search or "")):
            text_of(role, given)
        return self.call_names()[0].repositories(kind, owner=owner, search=search)

    def create_repo(
        self, name: RepositoryId | str, *, is_private: bool | None = None, exist_ok: bool = False
    ) -> Repository:
        """Create a repository, with a first commit on main; private or public as is usual in the store if None.

        Raises ExistsError, unless ``exist_ok``, and UsageError for what no repository can be called.
        """
        repo = self.repo(name)
        try:
            self.call_names()[0].create(repo.id, is_private=is_private)
        except ExistsError:
            if not exist_ok:
                raise
        return repo

    def delete_repo(self, name: RepositoryId | str) -> None:
        """Delete a repository and all its revisions. Raises RepositoryNotFoundError."""
        repo = _repository_id(name)
        self.call_names()[0].delete(repo)
        self._repositories().forget(repo)

    def move_repo(self, name: RepositoryId | str, to: RepositoryId | str) -> Repository:
        """Give a repository another owner or name; the old one leads to it. Raises ExistsError."""
        repo, other = _repository_id(name), _repository_id(to)
        if repo.kind != other.kind:
            raise UsageError(f"{repo.path} is one of the {repo.kind}, and {other.path} would be of the {other.kind}")
        self.call_names()[0].move(repo, other.name)
        self._repositories().forget(repo)
        return self.repo(other)

    def file_at(self, locator: str) -> tuple[Store, Hash]:
        """The hash of the large file that ``xet://OWNER/NAME@REVISION/PATH`` names, and the files it is one of, which
        are of use as long as this store is open. Raises UsageError for a small file, which has no hash.
        """
        file, parsed = self.resolve(locator), locator_of(locator)
        return self.files_of(parsed.id, parsed.revision or ""), file

    def call_names(self) -> tuple[Names, Cancellation]:
        """The names of the repositories, for one call, and what ends that call."""
        call = self._calls.child()
        return self._repositories().names().under(call), call

    def files_of(self, repo: RepositoryId, revision: str) -> Store:
        """The files of a repository, as a store that is of use as long as this one is open."""
        return self._view(self._repositories().files(repo, revision))

    def in_namespace(self, namespace: str) -> Store:
        """The files of another namespace, or of a repository, as a store that is of use as long as this one is open.

        Only of a directory, whose owner may read them all; ``usage`` tells which there are. The names of repositories
        stay as they are.
        """
        cas = self._directory("show the files of a namespace without a token for it")
        from xetstore.hub.quotas import quota_name

        view = cas.in_namespace(quota_name(cas, namespace))
        return self._view(replace(self._opened, cas=view))

    # --- Care, of a store in this process ----------------------------------------------------------------

    def totals(self) -> Totals:
        """The sums of all that is stored: files, unique bytes, compressed bytes. Only of a directory."""
        return self._directory("tell its totals").totals()

    def what_if_deleted(self, names: Iterable[What]) -> WhatIf:
        """Tell what deleting these would free, once they are collected and rewritten. Only of a directory.

        A name is a hash, or an ``xet://`` locator: of a file or folder, which would go with its history; with ``@`` and
        without a path of a branch or tag; else of a whole repository or bucket. Nothing is changed. NotFoundError.
        """
        from xetstore.store.care import what_if_deleted

        files = several(names, "what would be deleted", "several files, such as a list of them")
        return what_if_deleted(self._directory("tell what deleting would free"), files)

    def usage(self, by: str = "namespace") -> list[tuple[str, NamespaceUsage]]:
        """Tell what each ``namespace`` takes, or each ``repo``, by name; those with the most bytes of their own first.

        Only of a directory. Namespaces of no repository are left out of the latter. Reads the terms of all files.
        """
        from xetstore.store.care import usage

        return usage(self._directory("tell what namespaces take"), by)

    def check(
        self,
        *,
        read_data: bool = False,
        checksums: bool = False,
        selection: Selection | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> CheckReport:
        """Look for damage: index against objects, and the names of repositories; with ``checksums`` every stored byte
        against the checksum of its chunk, with ``read_data`` every chunk against its hash. Only of a directory.

        With a ``selection`` only that part of the bytes is read. With ``dry_run`` nothing is noted, and no object
        without checksums is stored anew with them.
        """
        from xetstore.store.care import check

        return check(
            self._directory("be checked from here"),
            read_data=read_data,
            checksums=checksums,
            selection=selection,
            dry_run=dry_run,
            progress=Stoppable(progress, self._calls.child()),
        )

    # --- Calls, and the end -----------------------------------------------------------------------------

    def for_one_call(self) -> Store:
        """This store as one call sees it, whose :meth:`interrupt` stops that call alone, for good."""
        view = self._view(self._opened)
        view._sizes = self._sizes
        view._reopening = self._reopening
        return view

    def interrupt(self) -> None:
        """Let calls of other threads fail soon, with InterruptedCallError; also those :meth:`for_one_call`."""
        if self._is_one_call:
            self._open.cancel()
            return
        self._calls.cancel()
        with suppress(InterruptedCallError):  # it is closed
            self._calls = self._open.child()

    def close(self) -> None:
        """Let go of the store; calls under way fail."""
        self._open.cancel()
        self._opened.closing.close()

    def __repr__(self) -> str:
        return f"Store({self.location!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _repositories(self) -> OpenedNames:
        self._calls.check()
        if self._opened.repositories is None:
            raise UsageError(f"the store {self.location} has no names", hint="open it with xetstore.open")
        return self._opened.repositories

    def _hash_of(self, what: What) -> Hash:
        """The hash of a file that is named by it."""
        if isinstance(name := named(what), Hash):
            return name
        raise UsageError(
            f"{name[:200]} is a name, and only a hash is undeleted here",
            hint="the verbs undelete, undelete_ref and undelete_files of store.repo(...) give names back",
        )

    def _put(
        self,
        sources: Iterable[Path | ByteSource],
        *,
        policy: CompressionPolicy | str,
        progress: Progress | None,
        on_error: Callable[[Path, XetError], None] | None = None,
        dry_run: bool = False,
        unchanged: Unchanged | str = "read",
    ) -> Generator[PutReport]:
        from xetstore.store.sources import policy_of, unchanged_of
        from xetstore.transfer.upload.context import UploadOptions
        from xetstore.transfer.upload.session import put_files

        embedded = self._embedded()
        options = UploadOptions(policy_of(policy), dry_run, self._limits, unchanged=unchanged_of(unchanged))
        return put_files(
            self._cas if embedded is None else embedded.for_local_bytes(),
            sources,
            options,
            progress=progress,
            on_error=on_error,
            known=self._opened.known,
            remembered=None if options.unchanged == "read" else self._opened.remembered(),
            emit=self._emit,
            cancellation=self._calls.child(),
        )

    def _embedded(self) -> EmbeddedCas | None:
        """The store itself, where it is in this process."""
        if self._opened.is_local:
            from xetstore.cas.service import EmbeddedCas

            if isinstance(self._cas, EmbeddedCas):
                return self._cas
        return None

    def _directory(self, what: str) -> EmbeddedCas:
        if (embedded := self._embedded()) is not None:
            return embedded
        raise UsageError(
            f"the store at {self.location} is on a server, and cannot {what}",
            hint="that takes a directory or a store file",
        )


def _repository_id(name: RepositoryId | str) -> RepositoryId:
    from xetstore.records import RepositoryId

    if isinstance(name, RepositoryId):
        return name
    if not isinstance(name, str):
        raise WrongTypeError.of("the name of a repository", name, "a text such as alice/bert, or a RepositoryId")
    from xetstore.remote.hub.locators import repository_id

    return repository_id(name)


def _gathered(reports: Generator[T], on_report: Callable[[T], None] | None) -> list[T]:
    """All reports, each told as it comes."""
    gathered = []
    with closing(reports):
        for report in reports:
            gathered.append(report)
            if on_report is not None:
                on_report(report)
    return gathered
