"""Store: put, get, open and stat for users, the same over a store here, a server or a repository on a Hub."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

from xetstore.cancellation import Cancellation
from xetstore.errors import ExistsError, InterruptedCallError, NotPicklableError, UsageError, XetError
from xetstore.events import Emit, ignore
from xetstore.interfaces import Cas
from xetstore.limits import NO_LIMITS, Limits
from xetstore.opening import HUB_SCHEME, Opened, OpenOptions, Reopening, open_cas
from xetstore.platform import forks
from xetstore.protocol.hashes import Hash
from xetstore.protocol.xorb import CompressionPolicy
from xetstore.records import DeletedFile, FileRecord, RepositoryId, RepositoryRecord, Totals
from xetstore.transfer.download.context import DownloadOptions
from xetstore.transfer.download.downloader import Downloader
from xetstore.transfer.download.file_range import FileRange, check_range
from xetstore.transfer.download.forecast import GetForecast, forecast
from xetstore.transfer.download.many import get_files
from xetstore.transfer.download.new_file import NewFile
from xetstore.transfer.download.partial_file import PartialFile
from xetstore.transfer.download.ranges import RangeReader
from xetstore.transfer.download.stored_file import StoredFile, StoredReader
from xetstore.transfer.download.through import open_through, pour
from xetstore.transfer.estimate.estimation import CELLS, Estimate, estimate
from xetstore.transfer.progress import Progress, Stoppable
from xetstore.transfer.scan import FileInfo, HashReport, hash_report
from xetstore.transfer.upload.context import UploadOptions
from xetstore.transfer.upload.pending import PutReport
from xetstore.transfer.upload.session import put_files

if TYPE_CHECKING:
    from xetstore.cas.check import CheckReport, Selection
    from xetstore.cas.service import EmbeddedCas
    from xetstore.cas.usage import NamespaceUsage, WhatIf
    from xetstore.hub.service import EmbeddedHub
    from xetstore.interfaces import Names
    from xetstore.opening import GivenToken, OpenedNames
    from xetstore.repositories.repository import Repository

__all__ = ["FileRecord", "GetReport", "HashReport", "Store", "Totals", "hash_report", "open_locator", "open_store"]

T = TypeVar("T")

STORE_SCHEME: Final = "xet://"

RESUMED_FROM_BYTES: Final = 16 << 20
"""A smaller part of a file is not worth continuing: it is fetched anew."""


@dataclass(frozen=True, slots=True)
class GetReport:
    """A download that was written: ``size`` bytes; ``verified`` says that every byte was checked against a hash.

    ``fetched_bytes`` of xorbs came from the store; ``reused_bytes`` of the file were here already: in an old version,
    in what an earlier attempt had left, or in the cache.
    """

    hash: Hash
    size: int
    verified: bool
    fetched_bytes: int = 0
    reused_bytes: int = 0


class Store:
    """A Xet store. Thread-safe; close it, or use it as a context manager.

    ``location`` is the place that it was opened with. A file is named by its hash, in a repository on a Hub also by its
    ``hf://`` locator.

    After a fork both processes go on with it. Pickled, it is opened again where it is first used, with the same
    arguments; NotPicklableError where a token was given.

    >>> import pathlib, tempfile, xetstore
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "greeting.txt").write_text("Hello World!")
    >>> with xetstore.open(folder / "store") as store:
    ...     info = store.put(folder / "greeting.txt")
    ...     _ = store.get(info.hash, folder / "copy.txt")
    >>> str(info.hash)[:16], (folder / "copy.txt").read_text()
    ('a9dae0ad88b060bd', 'Hello World!')
    """

    def __init__(self, cas: Cas | Opened, *, limits: Limits = NO_LIMITS, on_event: Emit = ignore) -> None:
        if isinstance(cas, Opened):
            opened = cas
        else:
            opened = Opened(cas, "a Cas", is_local=True)
            opened.closing.callback(cas.close)
        self._opened = opened
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

    def _begin_anew(self) -> None:
        """In a child no call is under way."""
        if "_open" in self.__dict__ and not self._open.is_cancelled:
            self._open = Cancellation()
            self._calls = self._open.child()

    def __reduce__(self) -> tuple[Callable[[Reopening], Store], tuple[Reopening]]:
        if self._reopening is None:
            raise NotPicklableError(
                f"{self!r} is made of an object of this process, which does not travel to another one",
                hint="make it with xetstore.open, or open the store in the worker",
            )
        self._reopening.check()
        return _arrived, (self._reopening,)

    if not TYPE_CHECKING:  # where types are checked, an attribute that is not there stays an error

        def __getattr__(self, name: str) -> object:
            """Open a store that came from another process, when it is first used."""
            reopening = self.__dict__.get("_reopening")
            if reopening is not None and not name.startswith("__"):
                with _ARRIVING:
                    if "_opened" not in self.__dict__:
                        options = reopening.options
                        opened = open_cas(reopening.location, options)
                        store = Store(opened, limits=options.limits, on_event=options.on_event)
                        self.__dict__.update({**store.__dict__, "_reopening": reopening})
                if name in self.__dict__:
                    return self.__dict__[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def cas(self) -> Cas:
        """The store in the verbs of the protocol, for work of :mod:`xetstore.transfer` beyond this class."""
        return self._cas

    def put(
        self, path: Path | str, *, policy: CompressionPolicy | str = "auto", progress: Progress | None = None
    ) -> FileInfo:
        """Store a file; durable on return. Raises NotFoundError, AccessDeniedError, UsageError (not a regular
        file), SourceChangedError and StorageFullError; over a network UnavailableError when patience has ended.
        """
        [report] = self.put_many([path], policy=policy, progress=progress)
        return report.info

    def put_many(
        self,
        paths: Iterable[Path | str],
        *,
        policy: CompressionPolicy | str = "auto",
        progress: Progress | None = None,
        on_report: Callable[[PutReport], None] | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        dry_run: bool = False,
    ) -> list[PutReport]:
        """Store files that share xorbs; their reports, in order. ``on_report`` gets each once its file is durable.

        A file that cannot be read is handed to ``on_error`` and the others go on; without ``on_error`` its error is
        raised after the files before it have been stored. With ``dry_run`` nothing is sent or stored: the reports say
        what would be new.
        """
        return _gathered(
            self.iter_put(paths, policy=policy, progress=progress, on_error=on_error, dry_run=dry_run), on_report
        )

    def iter_put(
        self,
        paths: Iterable[Path | str],
        *,
        policy: CompressionPolicy | str = "auto",
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        dry_run: bool = False,
    ) -> Generator[PutReport]:
        """As :meth:`put_many`, for more reports than memory should hold: each file is stored as its report is taken.

        Nothing is stored before the first one is asked for, and a file that was not reported may not be stored.
        """
        embedded = self._embedded()
        return put_files(
            self._cas if embedded is None else embedded.for_local_bytes(),
            map(Path, paths),
            UploadOptions(CompressionPolicy(policy), dry_run, self._limits),
            progress=progress,
            on_error=on_error,
            known=self._opened.known,
            emit=self._emit,
            cancellation=self._calls.child(),
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
        call = self._calls.child()
        told = Stoppable(progress, call)
        return estimate(map(Path, paths), self._cas.under(call), progress=told, on_error=on_error, cells=cells)

    def get(
        self,
        file: Hash | str,
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
        name = self.resolve(file)
        wanted = FileRange(name, start, end, self._sizes.get(name) if size is None else size)
        call = self._calls.child()
        downloader = self._downloader(call)
        fd = open_through(Path(out), call)
        if fd is not None:
            done = pour(fd, Path(out), downloader.stream(name, start, end, size=wanted.size), progress)
        else:
            new = self._destination(Path(out), wanted, fsync, keep_partial)
            done = downloader.write(wanted, new, progress, base=None if base is None else Path(base))
        return GetReport(name, done.size, done.verified, done.fetched_bytes, done.reused_bytes)

    def get_many(
        self,
        files: Iterable[tuple[Hash | str, Path | str]],
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
        read to its end before the first of them is fetched; a path that comes twice is an error.
        """
        return _gathered(self.iter_get(files, progress=progress, on_error=on_error, fsync=fsync), on_report)

    def iter_get(
        self,
        files: Iterable[tuple[Hash | str, Path | str]],
        *,
        progress: Progress | None = None,
        on_error: Callable[[Path, XetError], None] | None = None,
        fsync: bool = False,
    ) -> Generator[GetReport]:
        """As :meth:`get_many`, for more reports than memory should hold: files are written as reports are taken.

        Nothing is written before the first one is asked for; some files are fetched ahead.
        """
        return self._get_many(self._downloader(self._calls.child()), files, progress, on_error, fsync)

    def forecast(self, file: Hash | str, start: int = 0, end: int | None = None) -> GetForecast:
        """Forecast the fetches of :meth:`get`, for a file of which nothing is here."""
        return forecast(self._cas.under(self._calls.child()), self.resolve(file), start, end)

    def open(self, file: Hash | str) -> io.BufferedReader:
        """A stored file as a seekable binary file object; every chunk read is verified."""
        name = self.resolve(file)
        size = self.stat(name).size

        def stream(start: int, end: int) -> Iterator[memoryview]:
            return self._downloader(self._calls.child()).stream(name, start, end)

        return StoredReader(StoredFile(size, stream))

    def iter_range(self, file: Hash | str, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        """Bytes ``[start, end)`` of a file in order, some MiB at a time, verified before they are yielded."""
        name = self.resolve(file)
        return self._downloader(self._calls.child()).stream(name, start, end, size=self._sizes.get(name))

    def read_ranges(self, ranges: Iterable[tuple[Hash | str, int, int]]) -> list[memoryview | XetError]:
        """The bytes of several ranges, given as (file, start, end), in order; verified, and all of them in memory.

        Over a network some dozens of small ones come by one request. A range ends where its file does. An error takes
        the place of the bytes that it is about; UsageError is raised for what is no range, or no name.
        """
        spans = [(self.resolve(file), start, end) for file, start, end in ranges]
        for _, start, end in spans:
            check_range(start, end)
        return RangeReader(self._downloader(self._calls.child()), self._sizes.get).read(spans)

    def stat(self, file: Hash | str) -> FileRecord:
        """The record of a stored file; of one on a server hash and size. Raises NotFoundError."""
        return self._cas.under(self._calls.child()).stat(self.resolve(file))

    def delete(self, *files: Hash | str, dry_run: bool = False) -> list[DeletedFile]:
        """Delete files, all at once: they are gone when it returns, and :meth:`undelete` gives them back for a while.

        Another namespace that has a file keeps it. The space comes back when it is collected. The records say when each
        was deleted, and until when it can be given back; with ``dry_run`` nothing is, and they say what would be. One
        that is deleted already stays so.

        Raises NotFoundError for a file that is not there and was not, ForbiddenError for one that a repository names:
        then none is deleted. UsageError for a server that cannot delete.
        """
        return self._cas.under(self._calls.child()).delete([*map(self.resolve, files)], dry_run=dry_run)

    def undelete(self, *files: Hash | str) -> list[FileRecord]:
        """Give back deleted files: hash and size of each. One that is there stays so.

        Raises NotFoundError for a file that was not deleted, or is gone for good: then none is given back.
        """
        return self._cas.under(self._calls.child()).undelete([*map(self.resolve, files)])

    def deleted(self) -> Iterator[DeletedFile]:
        """The files that can be given back, the last deleted one first."""
        return self._cas.under(self._calls.child()).deleted()

    def resolve(self, file: Hash | str) -> Hash:
        """The hash of a file that is named by it, or by an ``hf://`` locator in the repository that this store is."""
        if isinstance(file, Hash):
            return file
        if not file.startswith(HUB_SCHEME):
            return Hash.parse(file)
        hub, here = self._opened.hub, self._opened.repository
        if hub is None or here is None:
            raise UsageError(
                f"{file[:200]} is the name of a file on a Hub, and this store is none",
                hint="xetstore.open_locator opens the store that it is in",
            )
        locator = type(here).parse(file)
        if locator.root_name != here.root_name:
            raise UsageError(
                f"{file[:200]} is not in {self.location}", hint="xetstore.open_locator opens what it is in"
            )
        named = hub.under(self._calls.child()).resolve(locator)
        if named.size is not None:
            self._sizes[named.hash] = named.size
        return named.hash

    def repo(self, name: RepositoryId | str) -> Repository:
        """A repository by its name: ``alice/bert``, ``datasets/alice/news``. Nothing is asked; it may not be there."""
        from xetstore.repositories.repository import Repository

        return Repository(self, _repository_id(name))

    def repos(
        self, kind: str = "models", *, owner: str | None = None, search: str | None = None
    ) -> Iterator[RepositoryRecord]:
        """The repositories of one kind: of one owner, or with a text in their names."""
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
        from xetstore.remote.hub.locators import DEFAULT_REVISION, HubLocator

        parsed = HubLocator.parse(locator)
        revision = parsed.revision or DEFAULT_REVISION
        file = self.repo(parsed.id).file(parsed.path, revision)
        if file.hash is None:
            kind = "a folder" if file.is_folder else "a small file, which has no hash"
            raise UsageError(f"{locator[:200]} is {kind}", hint="xet cp and xet cat bring it")
        return self.files_of(parsed.id, revision), file.hash

    def call_names(self) -> tuple[Names, Cancellation]:
        """The names of the repositories, for one call, and what ends that call."""
        call = self._calls.child()
        return self._repositories().names().under(call), call

    def files_of(self, repo: RepositoryId, revision: str) -> Store:
        """The files of a repository, as a store that is of use as long as this one is open."""
        opened = replace(self._repositories().files(repo, revision), closing=ExitStack())
        store = Store(opened, limits=self._limits, on_event=self._emit)
        store._open = store._calls = self._calls.child()
        store._is_one_call = True
        return store

    def files(self) -> Iterator[FileRecord]:
        """Every stored file, in no particular order. Only of a directory: UsageError for anything else."""
        return self._directory("list the files").files()

    def totals(self) -> Totals:
        """The sums of all that is stored: files, unique bytes, compressed bytes. Only of a directory."""
        return self._directory("tell its totals").totals()

    def what_if_deleted(self, names: Iterable[Hash | str]) -> WhatIf:
        """Tell what deleting these would free, once they are collected and rewritten. Only of a directory.

        A name is a hash, or an ``xet://`` locator: of a file or folder, which would go with its history; with ``@`` and
        without a path of a branch or tag; else of a whole repository or bucket. Nothing is changed. NotFoundError.
        """
        cas = self._directory("tell what deleting would free")
        from xetstore.cas.usage import what_if_deleted
        from xetstore.hub.usage import Doomed, files_behind

        doomed, files = [], set()
        for name in names:
            if isinstance(name, str) and name.startswith(STORE_SCHEME):
                from xetstore.remote.hub.locators import HubLocator

                parsed = HubLocator.parse(name)
                revision = parsed.revision if parsed.path or "@" in name else None
                doomed.append(Doomed(parsed.id, revision, parsed.path))
            else:
                files.add(self.resolve(name))
        named: dict[str, set[Hash]] = {cas.tenant.namespace: files} if files else {}
        namespaces: set[str] = set()
        if doomed:
            found, namespaces = files_behind(self._hub(cas), doomed)
            for namespace, some in found.items():
                named.setdefault(namespace, set()).update(some)
        return what_if_deleted(cas, named, namespaces)

    def usage(self, by: str = "namespace") -> list[tuple[str, NamespaceUsage]]:
        """Tell what each ``namespace`` takes, or each ``repo``, by name; those with the most bytes of their own first.

        Only of a directory. Namespaces of no repository are left out of the latter. Reads the terms of all files.
        """
        cas = self._directory("tell what namespaces take")
        from xetstore.cas.usage import usage_by_namespace

        if by not in ("namespace", "repo"):
            raise UsageError(f"usage is told by namespace or repo, not {by[:80]!r}")
        usages = usage_by_namespace(cas)
        if by == "namespace":
            return [(usage.namespace, usage) for usage in usages]
        from xetstore.hub.usage import names_of_namespaces

        names = names_of_namespaces(self._hub(cas), [usage.namespace for usage in usages])
        return [(names[usage.namespace].path, usage) for usage in usages if usage.namespace in names]

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
        cas = self._directory("be checked from here")
        from xetstore.cas.check import check
        from xetstore.hub.tables import MIGRATIONS

        progress = Stoppable(progress, self._calls.child())
        report = check(
            cas,
            read_data=read_data,
            checksums=checksums,
            selection=selection,
            dry_run=dry_run,
            progress=progress,
        )
        if not cas.index.version_of(MIGRATIONS):
            return report
        cas.index.migrate(MIGRATIONS)
        from xetstore.hub.check import check_names

        return check_names(cas.index, report, read_data=read_data or checksums)

    def for_one_call(self) -> Store:
        """This store as one call sees it, whose :meth:`interrupt` stops that call alone, for good."""
        view = Store(replace(self._opened, closing=ExitStack()), limits=self._limits, on_event=self._emit)
        view._open = view._calls = self._calls.child()
        view._is_one_call = True
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

    def __enter__(self) -> Store:
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

    def _downloader(self, call: Cancellation) -> Downloader:
        opened = self._opened
        options = DownloadOptions(self._limits)
        return Downloader(self._cas, options, cache=opened.cache, emit=self._emit, cancellation=call)

    def _get_many(
        self,
        downloader: Downloader,
        files: Iterable[tuple[Hash | str, Path | str]],
        progress: Progress | None,
        on_error: Callable[[Path, XetError], None] | None,
        fsync: bool,
    ) -> Generator[GetReport]:
        downloads = get_files(
            downloader,
            files,
            resolve=self.resolve,
            destination=lambda path, wanted: self._destination(path, wanted, fsync, keep_partial=False),
            progress=progress,
            on_error=on_error,
            told_sizes=self._sizes,
        )
        with closing(downloads):
            for file, done in downloads:
                yield GetReport(file, done.size, done.verified, done.fetched_bytes, done.reused_bytes)

    def _destination(self, out: Path, wanted: FileRange, fsync: bool, keep_partial: bool) -> NewFile:
        """The destination of a file: what is slow to come can be continued, what is here already is copied anew. A part
        of the disk stays free, where how much there will be is not told by another than a server.
        """
        is_told = wanted.size is not None or wanted.end is not None
        reserve = not (is_told or self._opened.is_local)
        is_small = wanted.end is not None and wanted.end - wanted.start < RESUMED_FROM_BYTES
        if is_small or (self._opened.is_local and not keep_partial):
            return NewFile(out, fsync=fsync, reserve=reserve)
        return PartialFile(out, wanted, keep=keep_partial, fsync=fsync, reserve=reserve)

    def _embedded(self) -> EmbeddedCas | None:
        """The store itself, where it is in this process."""
        if self._opened.is_local:
            from xetstore.cas.service import EmbeddedCas

            if isinstance(self._cas, EmbeddedCas):
                return self._cas
        return None

    def _hub(self, cas: EmbeddedCas) -> EmbeddedHub:
        from xetstore.hub.service import EmbeddedHub

        return EmbeddedHub(cas)

    def _directory(self, what: str) -> EmbeddedCas:
        if (embedded := self._embedded()) is not None:
            return embedded
        raise UsageError(
            f"the store at {self.location} is on a server, and cannot {what}",
            hint="that takes a directory or a store file",
        )


def _repository_id(name: RepositoryId | str) -> RepositoryId:
    if isinstance(name, RepositoryId):
        return name
    from xetstore.remote.hub.locators import repository_id

    return repository_id(name)


_ARRIVING: Final = forks.rlock()
"""Held while a store that came from another process is opened."""


def _arrived(reopening: Reopening) -> Store:
    store = object.__new__(Store)
    store._reopening, store.location = reopening, reopening.location
    forks.renew(store, Store._begin_anew)
    return store


def _gathered(reports: Generator[T], on_report: Callable[[T], None] | None) -> list[T]:
    """All reports, each told as it comes."""
    gathered = []
    with closing(reports):
        for report in reports:
            gathered.append(report)
            if on_report is not None:
                on_report(report)
    return gathered


def open_store(
    where: Path | str,
    *,
    create: bool = True,
    token: GivenToken = None,
    limits: Limits = NO_LIMITS,
    cache: Path | bool | None = None,
    allow_http: bool = False,
    on_event: Emit = ignore,
) -> Store:
    """Open a store: a directory, a store file, the URL of a server, or a repository on a Hub.

    A store file is a file, or ends in ``.toml``; it names the parts of the store. What a directory or such a file names
    is made if nothing is there and ``create`` allows. The other arguments are for what is reached over a
    network: ``token`` is a text, or a function that is called with ``"read"`` or ``"write"`` and returns a token and
    the unix seconds at which it expires (or None), or None for what XET_TOKEN or XET_TOKEN_FILE give; for
    ``hf://`` it is the user's token at the Hub. ``cache`` is a folder, False for none, else XET_CACHE or the user's
    cache folder. Plain http is spoken with this machine only, unless ``allow_http`` or XET_ALLOW_HTTP says otherwise.
    ``on_event`` gets the events of :mod:`xetstore.events`.

    Raises NotFoundError (missing, or not a store), AccessDeniedError, and UsageError for a newer format, for a token
    where none belongs, and for what names no store; for a repository what the Hub answers.
    """
    options = OpenOptions(
        create=create, token=token, limits=limits, cache=cache, allow_http=allow_http, on_event=on_event
    )
    opened = open_cas(where, options)
    store = Store(opened, limits=limits, on_event=on_event)
    store._reopening = Reopening.of(opened, options)
    return store


def open_locator(
    locator: str,
    *,
    token: GivenToken = None,
    limits: Limits = NO_LIMITS,
    cache: Path | bool | None = None,
    allow_http: bool = False,
    on_event: Emit = ignore,
) -> tuple[Store, Hash]:
    """The store that an ``hf://`` locator of a file is in, to be closed by the caller, and the hash of the file."""
    if not locator.startswith(HUB_SCHEME):
        raise UsageError(f"{locator[:200]!r} does not start with {HUB_SCHEME}")
    from xetstore.remote.hub.locators import HubLocator

    parsed = HubLocator.parse(locator)
    if not parsed.path:
        raise UsageError(f"{locator[:200]} is a repository, and no file", hint=f"for example {locator[:200]}/FILE")
    store = open_store(
        str(parsed.at("")), token=token, limits=limits, cache=cache, allow_http=allow_http, on_event=on_event
    )
    try:
        return store, store.resolve(locator)
    except BaseException:
        store.close()
        raise
