"""XetFileSystem: stores and repositories as an fsspec filesystem, for whatever reads by way of fsspec."""

from __future__ import annotations

import errno
import io
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import isfilelike

from xetstore.errors import NotFoundError, RangeError, UsageError, XetError
from xetstore.fs.file import Told, XetFile
from xetstore.fs.stores import DamagedFileError, StoreError, StoreOptions, Stores, os_error_of, os_errors
from xetstore.fs.writing import WritableFileSystem, XetWriter, is_name
from xetstore.limits import NO_LIMITS, Limits
from xetstore.opening import HUB_SCHEME
from xetstore.platform.threads import Threads
from xetstore.protocol.hashes import Hash
from xetstore.remote.hub.locators import DEFAULT_REVISION, STORE_SCHEME, HubLocator
from xetstore.transfer.download.new_file import NewFile
from xetstore.transfer.waiting import result_of

if TYPE_CHECKING:
    from xetstore.opening import GivenToken
    from xetstore.records import FileRecord, RepoFile
    from xetstore.store import Store

BLOCK_BYTES: Final = 4 << 20
"""Bytes that are read ahead of a reader, unless it says otherwise."""

PARALLEL_READS: Final = 8
HASH_DIGITS: Final = 64

_OPTIONS: Final = ("store", "token", "cache", "allow_http", "limits")

Info = dict[str, Any]

T = TypeVar("T")
R = TypeVar("R")


class XetFileSystem(WritableFileSystem):
    """Files in Xet stores. Thread-safe; pickled by its options, as fsspec's are.

    A path is ``xet://owner/name@revision/path``, behind ``datasets/`` or ``spaces/`` for these kinds, in the store that
    is named, else on the Hub; or ``xet://HASH``, or ``xet://HASH/any/name.parquet``, whose name only shows readers the
    kind of file, in the store that is named.

    What is written, copied or deleted in a repository is one commit on the branch that ``revision`` names: each file
    that is closed, and each call for several. ``with fs.transaction`` makes one commit of all that is done in it, for
    each branch; until it ends, readers see what was there before. A file that an exception leaves is not committed.

    What is written to a name without a repository, ``xet://data.parquet``, is stored by its bytes alone, in the store
    that is named. ``info`` tells its hash, by which it is read anywhere; the name is known to this object only.

    ``store`` is a directory, the URL of a server, or an ``hf://`` repository, else XET_STORE. ``token`` is for that
    store, where it is not a directory, else for the Hub. ``cache`` is a folder, or False for none. Plain http is
    spoken with this machine only, unless ``allow_http``. ``limits`` may be a mapping of the fields of Limits. All is as
    for :func:`xetstore.open`; beside these there are fsspec's own options for the cache of listings, and any other one
    is a TypeError. Pickle and JSON of a filesystem, as Dask makes them, hold the token that it was given, though not
    one from the environment.

    Errors are OSErrors with the message of the XetError that is their cause: FileNotFoundError, PermissionError,
    DamagedFileError, which no option makes anything pass over, and StoreError.
    """

    protocol: ClassVar[str] = "xet"
    root_marker: ClassVar[str] = ""
    blocksize: ClassVar[int] = BLOCK_BYTES

    def __init__(
        self,
        store: Path | str | None = None,
        token: GivenToken = None,
        cache: Path | str | bool | None = None,
        allow_http: bool = False,
        limits: Limits | Mapping[str, Any] = NO_LIMITS,
        *,
        use_listings_cache: bool = True,
        listings_expiry_time: float | None = None,
        max_paths: int | None = None,
        skip_instance_cache: bool = False,  # noqa: ARG002  # fsspec's metaclass takes it
        asynchronous: bool = False,  # noqa: ARG002  # what fsspec gives to filesystems of any kind
        loop: object = None,  # noqa: ARG002
    ) -> None:
        super().__init__(
            use_listings_cache=use_listings_cache, listings_expiry_time=listings_expiry_time, max_paths=max_paths
        )
        folder = Path(cache) if isinstance(cache, str) else cache
        where = None if store is None else os.fspath(store)
        kept = limits if isinstance(limits, Limits) else Limits(**limits)
        self.written = {}
        self._stores = Stores(StoreOptions(where, token, folder, allow_http, kept))
        weakref.finalize(self, self._stores.close)

    def to_dict(self, *, include_password: bool = True) -> dict[str, Any]:
        """The options of this filesystem for JSON, of which ``from_dict`` makes it again, the token among them
        unless ``include_password`` is False. Raises UsageError for a token that is no text.
        """
        options = dict(zip(_OPTIONS, self.storage_args, strict=False)) | self.storage_options
        if not include_password:
            options.pop("token", None)
        if not isinstance(options.get("token"), str | None):
            raise UsageError("a token that is called for cannot be written as JSON", hint="give the token as a text")
        if isinstance(options.get("limits"), Limits):
            options["limits"] = asdict(options["limits"])
        plain = {name: os.fspath(one) if isinstance(one, Path) else one for name, one in options.items()}
        kind = type(self)
        return {"cls": f"{kind.__module__}:{kind.__name__}", "protocol": self.protocol, "args": [], **plain}

    def close(self) -> None:
        """Close the stores that this process has opened; they are opened again if they are needed."""
        self._stores.close()

    def info(self, path: str, **_: Any) -> Info:
        """Name, size in bytes and type; of a file also ``xet_hash``, None for one that Xet does not store, ``oid``,
        the id of git, of a name, and ``created``, in unix seconds, where the store is a directory.
        """
        path = self._strip_protocol(path)
        with os_errors(path):
            place = self._place_of(path)
            if place is None:
                return _folder(path)
            try:
                [known] = self.dircache[_key(path)]
            except KeyError:
                known = self._hash_info(path, place) if isinstance(place, Hash) else self._hub_info(path, place)
                self._remember(known)
            return dict(known)

    def ls(self, path: str, detail: bool = True, refresh: bool = False, **_: Any) -> list[Any]:
        """List a folder, or the file itself. Of the root, the files of the store, of a server to a writer only."""
        path = self._strip_protocol(path)
        with os_errors(path):
            place = self._place_of(path)
            if place is None:
                found = [_stored(str(record.hash), record) for record in self._stores.named().files()]
            elif isinstance(place, Hash):
                found = [self.info(path)]
            else:
                found = self._hub_listing(path, place, refresh)
        return [dict(one) for one in found] if detail else sorted(one["name"] for one in found)

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> Any:
        """All files below a path, with one listing. A path that does not exist holds none; other errors are raised."""
        path = self._strip_protocol(path)
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        try:
            found = self._found(path, maxdepth)
        except FileNotFoundError:
            found = []
        if withdirs and path and self.isdir(path):
            found.append(self.info(path))
        infos = {one["name"]: one for one in found if withdirs or one["type"] == "file"}
        names = sorted(infos)
        return {name: infos[name] for name in names} if detail else names

    def walk(
        self, path: str, maxdepth: int | None = None, topdown: bool = True, on_error: Any = "omit", **more: Any
    ) -> Iterator[Any]:
        """As fsspec's; what is left out by default is what does not exist, never what could not be read."""
        told = _omit_missing if on_error == "omit" else on_error
        yield from super().walk(path, maxdepth=maxdepth, topdown=topdown, on_error=told, **more)

    def exists(self, path: str, **_: Any) -> bool:
        """True if there is such a file or folder. Raises the error that keeps from telling."""
        return self._kind(path) is not None

    def isfile(self, path: str) -> bool:
        """True if it is a file."""
        return self._kind(path) == "file"

    def isdir(self, path: str) -> bool:
        """True if it is a folder."""
        return self._kind(path) == "directory"

    def ukey(self, path: str) -> str:
        """A key that stays the same as long as the content does: the file's hash."""
        return str(self.info(path).get("xet_hash") or super().ukey(path))

    def checksum(self, path: str) -> int:
        """The hash, as a number."""
        return int(self.ukey(path), 16)

    def modified(self, path: str) -> datetime:
        """A time by which readers such as DuckDB tell whether what they keep of a file is stale.

        Of a hash in a directory it is :meth:`created`, of one on a server 1970, which tells no more: what a hash names
        is never modified. Of a name it is no real time, but one before 2004 that is made of the hash that
        the name stands for, so that it differs where the content does.
        """
        path = self._strip_protocol(path)
        info = self.info(path)
        with os_errors(path):
            is_named = isinstance(self._place_of(path), HubLocator)
            if is_named and (file := info.get("xet_hash")):
                seconds = Hash.parse(file).last_u64 >> 34
            elif is_named and (oid := info.get("oid")):
                seconds = int(oid[:16], 16) >> 34
            else:
                seconds = info.get("created", 0)
            return datetime.fromtimestamp(seconds, UTC)

    def created(self, path: str) -> datetime:
        """The time at which a file was stored in a directory. Raises NotImplementedError where that is not known."""
        seconds = self.info(path).get("created")
        if seconds is None:
            raise NotImplementedError(f"it is not known when {path} was stored: only a store that is a directory says")
        return datetime.fromtimestamp(seconds, UTC)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget what names stand for; a hash stands for the same forever."""
        self.dircache.clear()
        super().invalidate_cache(path)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Bytes ``[start, end)`` in one read; negative ones count from the end, as in a slice."""
        path = self._strip_protocol(path)
        with os_errors(path):
            if (start or 0) < 0 or (end or 0) < 0:
                start, end, _step = slice(start, end).indices(self.info(path)["size"])
            held = self._small_file(path)
            if held is not None:
                return held[start:end]
            store, file = self._file_at(path)
            return _read(store, file, start or 0, end)

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,  # noqa: ARG002  # what lies between two ranges is not worth fetching
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """Many ranges, several at a time. An error takes the place of its bytes, unless ``on_error`` is "raise"."""
        if not isinstance(paths, list):
            raise TypeError("paths is a list of paths")
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)
        if not len(paths) == len(starts) == len(ends):
            raise ValueError("there are not as many starts and ends as there are paths")
        wanted = [(path, start or 0, end) for path, start, end in zip(paths, starts, ends, strict=True)]
        plain = [number for number, (_, start, end) in enumerate(wanted) if start >= 0 and (end or -1) >= 0]
        others = sorted({*range(len(wanted))} - {*plain})
        answers = dict(
            zip(others, self._read_in_parallel([wanted[number] for number in others], on_error), strict=True)
        )
        answers |= dict(zip(plain, self._read_ranges([wanted[number] for number in plain], on_error), strict=True))
        return [answers[number] for number in range(len(wanted))]

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **more: Any) -> Any:
        """One file's bytes, or those of several by their paths, read several at a time."""
        paths = self.expand_path(path, recursive=recursive, **more)
        if len(paths) == 1 and not isinstance(path, list) and paths[0] == self._strip_protocol(path):
            return self.cat_file(paths[0])
        wanted = [one for one in paths if not self.isdir(one)]
        contents = self._read_in_parallel([(one, None, None) for one in wanted], on_error)
        return {
            one: content
            for one, content in zip(wanted, contents, strict=True)
            if on_error != "omit" or isinstance(content, bytes)
        }

    def get_file(
        self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, outfile: Any = None, **more: Any
    ) -> None:
        """Copy a file to a local path, where it appears verified and whole or not at all."""
        if outfile is not None or isfilelike(lpath):
            super().get_file(rpath, lpath, callback=callback, outfile=outfile, **more)
            return
        rpath = self._strip_protocol(rpath)
        target = Path(lpath)
        if self.isdir(rpath):
            target.mkdir(parents=True, exist_ok=True)
            return
        with os_errors(rpath):
            target.parent.mkdir(parents=True, exist_ok=True)
            held = self._small_file(rpath)
            if held is not None:
                callback.set_size(len(held))
                with NewFile(target) as new:
                    if held:
                        new.write_at(0, memoryview(held))
                    new.commit(len(held))
                callback.relative_update(len(held))
                return
            store, file = self._file_at(rpath)
            store.get(file, target, progress=Told(callback))

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | str | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        size: int | None = None,
        xet_hash: str | None = None,
        data: bytes | None = None,
        **more: Any,
    ) -> XetFile | XetWriter:
        if mode != "rb":
            if not is_name(path) and isinstance(self._place_of(path), Hash):
                raise io.UnsupportedOperation(
                    "a hash names what is there already: write to xet://alice/bert@main/file, or without a repository"
                    " to xet://file, as xetstore.open(...).put and `xet put` do"
                )
            return self.open_writer(path, mode, _block_size(block_size, self.blocksize), autocommit, **more)
        with os_errors(path):
            if xet_hash is None and data is None:
                data = self._small_file(path)
            if data is not None:
                size = len(data)
            elif xet_hash is None or size is None:
                info = self.info(path)
                _, file = self._file_at(path)
                size, xet_hash = info["size"], str(file)
            return XetFile(
                self,
                path,
                xet_hash=xet_hash,
                data=data,
                size=size,
                block_size=block_size or self.blocksize,
                cache_options=cache_options,
                autocommit=autocommit,
                **more,
            )

    def read_range(self, path: str, file: Hash, start: int, end: int) -> bytes:
        """Bytes ``[start, end)`` of a file that was found at ``path``."""
        with os_errors(path):
            return _read(self._store_of(self._place_of(path), path), file, start, end)

    def _file_at(self, path: str) -> tuple[Store, Hash]:
        """The file that a path names, and where it is read from."""
        place, file = self._found_at(path)
        return self._store_of(place, path), file

    def _found_at(self, path: str) -> tuple[Hash | HubLocator, Hash]:
        """The place that a path names, and the file there."""
        place = self._place_of(path)
        if isinstance(place, Hash):
            return place, place
        info = self.info(path)
        if place is None or info["type"] == "directory":
            raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", path)
        if info["xet_hash"] is None:
            raise UsageError(f"{path} is not stored by Xet", hint="an hf:// reader, or any HTTP client, has it")
        return place, Hash.parse(info["xet_hash"])

    def locator(self, path: str) -> HubLocator:
        """The file or folder of a repository that a path names. Raises UsageError for a hash."""
        place = self._place_of(self._strip_protocol(path))
        if isinstance(place, HubLocator):
            return place
        raise UsageError(
            f"{path[:200]!r} is not in a repository", hint="for example xet://alice/bert@main/file.parquet"
        )

    def _place_of(self, path: str) -> Hash | HubLocator | None:
        if (written := self.written.get(path)) is not None:
            return written
        return _place_of(path, STORE_SCHEME if self._stores.has_names else HUB_SCHEME)

    def _small_file(self, path: str) -> bytes | None:
        """The bytes of a file that git keeps; None for any other."""
        place = self._place_of(path)
        if not isinstance(place, HubLocator):
            return None
        info = self.info(path)
        if info["type"] == "directory" or info["xet_hash"] is not None:
            return None
        with self._stores.repo(place).open(place.path, place.revision or DEFAULT_REVISION) as file:
            return file.read()

    def _store_of(self, place: Hash | HubLocator | None, path: str) -> Store:
        if place is None:
            raise IsADirectoryError(errno.EISDIR, "it is the root of a store, not a file", path)
        if isinstance(place, Hash):
            return self._stores.named()
        if self._stores.has_names:
            return self._stores.named().files_of(place.id, place.revision or DEFAULT_REVISION)
        return self._stores.repository(place)

    def _kind(self, path: str) -> str | None:
        try:
            return str(self.info(path)["type"])
        except FileNotFoundError:
            return None
        except StoreError as error:
            if isinstance(error.__cause__, UsageError):
                return None
            raise

    def _hash_info(self, path: str, file: Hash) -> Info:
        return _stored(path, self._stores.named().stat(file))

    def _hub_info(self, path: str, locator: HubLocator) -> Info:
        """One HEAD for a file that Xet stores; a listing of its own for anything else."""
        if self._stores.has_names:
            repository = self._stores.repo(locator)
            if locator.path:
                return _entry(path, repository.file(locator.path, locator.revision or DEFAULT_REVISION))
            repository.info()
            return _folder(path)
        if locator.path:
            try:
                found = self._stores.hub().resolve(locator)
            except (NotFoundError, UsageError):
                pass
            else:
                size = found.size
                if size is None:
                    size = self._stores.repository(locator).stat(found.hash).size
                return _file(path, size, found.hash)
        for entry in self._stores.hub().tree(locator):
            return _entry(path, entry) if entry.path == locator.path else _folder(path)
        return _folder(path)

    def _hub_listing(self, path: str, locator: HubLocator, refresh: bool) -> list[Info]:
        if not refresh:
            with suppress(KeyError):
                return list(self.dircache[path])
        found = self._hub_entries(path, locator, recursive=False)
        self.dircache[path] = found
        return found

    def _hub_entries(self, path: str, locator: HubLocator, *, recursive: bool) -> list[Info]:
        root = path.removesuffix(locator.path).removesuffix("/")
        if self._stores.has_names:
            revision = locator.revision or DEFAULT_REVISION
            entries = self._stores.repo(locator).files(revision, locator.path, recursive=recursive)
        else:
            entries = self._stores.hub().tree(locator, recursive)
        found = [_entry(f"{root}/{entry.path}", entry) for entry in entries]
        for one in found:
            # A caller that lists a folder is about to read its files: they are not to be asked for one by one.
            self._remember(one)
        return found

    def _found(self, path: str, maxdepth: int | None) -> list[Info]:
        with os_errors(path):
            place = self._place_of(path)
            if not isinstance(place, HubLocator):
                return self.ls(path)
            if maxdepth == 1:
                return self.ls(path)
            found = self._hub_entries(path, place, recursive=True)
        return [one for one in found if maxdepth is None or one["name"][len(path) + 1 :].count("/") < maxdepth]

    def _remember(self, info: Info) -> None:
        self.dircache[_key(info["name"])] = [info]

    def _read_in_parallel(self, wanted: list[tuple[str, int | None, int | None]], on_error: str) -> list[Any]:
        return self._in_parallel(lambda one: self.cat_file(*one), wanted, on_error)

    def _read_ranges(self, wanted: list[tuple[str, int, int]], on_error: str) -> list[Any]:
        """Ranges with known ends, those of one store by few requests."""
        paths = list(dict.fromkeys(path for path, _, _ in wanted))
        places = dict(zip(paths, self._in_parallel(self._content_at, paths, on_error), strict=True))
        answers: dict[int, Any] = {}
        by_store: dict[object, list[tuple[int, Hash]]] = {}
        stores: dict[object, Store] = {}
        for number, (path, start, end) in enumerate(wanted):
            found = places[path]
            if isinstance(found, tuple):
                place, file = found
                key = (place.id, place.revision) if isinstance(place, HubLocator) else None
                if key not in stores:
                    stores[key] = self._store_of(place, path)
                by_store.setdefault(key, []).append((number, file))
            else:
                answers[number] = found[start:end] if isinstance(found, bytes) else found
        for where, files in by_store.items():
            store = stores[where]
            spans = [(file, wanted[number][1], max(wanted[number][1:])) for number, file in files]
            with self._stores.interrupting():
                parts = store.read_ranges(spans)
            for (number, _), part in zip(files, parts, strict=True):
                answers[number] = _answer(wanted[number][0], part, on_error)
        return [answers[number] for number in range(len(wanted))]

    def _content_at(self, path: str) -> bytes | tuple[Hash | HubLocator, Hash]:
        """The bytes of a file that git keeps, or the place and the hash of any other."""
        path = self._strip_protocol(path)
        with os_errors(path):
            held = self._small_file(path)
            return self._found_at(path) if held is None else held

    def _in_parallel(self, work: Callable[[T], R], items: Sequence[T], on_error: str) -> list[R | OSError]:
        """The results of ``work``, several at a time, or the errors in their place."""

        def guarded(item: T) -> R | OSError:
            try:
                return work(item)
            except OSError as error:
                if on_error == "raise" or isinstance(error, DamagedFileError):
                    raise
                return error

        if len(items) < 2:
            return [guarded(item) for item in items]
        with Threads(min(PARALLEL_READS, len(items)), "xet fs") as threads, self._stores.interrupting():
            reads = [threads.submit(guarded, one) for one in items]
            try:
                return [result_of(one) for one in reads]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise


def _place_of(path: str, scheme: str) -> Hash | HubLocator | None:
    """Parse a path: a file by its hash, something in a repository, or None, the root. Raises UsageError."""
    if not path:
        return None
    first, slash, _ = path.partition("/")
    if len(first) == HASH_DIGITS:
        with suppress(UsageError):
            return Hash.parse(first)
    if slash:
        return HubLocator.parse(f"{scheme}{path}")
    raise UsageError(
        f"{path[:200]!r} is neither a hash nor in a repository",
        hint="for example xet://HASH/any/name.parquet, or xet://alice/bert@main/file.parquet",
    )


def _block_size(asked: int | str | None, usual: int) -> int:
    return asked if isinstance(asked, int) else usual


def _key(path: str) -> str:
    """The key of a path's info in the cache of listings, beside the key of what is in it. No path has a line end."""
    return f"{path}\n"


def _read(store: Store, file: Hash, start: int, end: int | None) -> bytes:
    if end is not None and end <= start:
        return b""
    buffer = io.BytesIO()
    try:
        for part in store.iter_range(file, start, end):
            buffer.write(part)
    except RangeError:
        return b""
    return buffer.getvalue()


def _answer(path: str, part: memoryview | XetError, on_error: str) -> bytes | OSError:
    """The bytes of a range, or its error; what is behind the end of a file is empty."""
    if isinstance(part, memoryview):
        return bytes(part)
    if isinstance(part, RangeError):
        return b""
    error = os_error_of(part, path)
    if on_error == "raise" or isinstance(error, DamagedFileError):
        raise error from part
    error.__cause__ = part
    return error


def _omit_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _file(name: str, size: int, file: Hash | None) -> Info:
    return {"name": name, "size": size, "type": "file", "xet_hash": None if file is None else str(file)}


def _stored(name: str, record: FileRecord) -> Info:
    info = _file(name, record.size, record.hash)
    return info if record.created_at is None else {**info, "created": record.created_at}


def _folder(name: str) -> Info:
    return {"name": name, "size": 0, "type": "directory"}


def _entry(name: str, entry: RepoFile) -> Info:
    if entry.is_folder:
        return _folder(name)
    info = _file(name, entry.size, entry.hash)
    return {**info, "oid": entry.oid} if entry.oid else info
