"""BucketBlobStore: objects in an object store, S3 above all, by obstore."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from xetstore.blobs.bucket_client import PAUSE_SECONDS, connect, require_own_process
from xetstore.blobs.bucket_errors import translate
from xetstore.blobs.bucket_options import BucketPlace
from xetstore.blobs.bucket_requests import sweep
from xetstore.blobs.bucket_stream import BucketStream, EmptyStream
from xetstore.blobs.bucket_upload import PART_BYTES, PARTS_HELD, PARTS_SENT, NewBucketObject
from xetstore.blobs.keys import RESERVED_FOLDERS, check_key
from xetstore.blobs.ranges import check_range
from xetstore.errors import DamagedError, NotFoundError, RangeError, UnreachableError, XetError
from xetstore.interfaces import BlobInfo, RangeAnswer, RangeRequest
from xetstore.platform.threads import Threads

if TYPE_CHECKING:
    import obstore
    from typing_extensions import Buffer

T = TypeVar("T")
R = TypeVar("R")

MOST_REQUESTS: Final = 16
"""Requests at once of one call that needs many."""

UNFINISHED_SECONDS: Final = 24 * 3600.0
"""Age at which an upload that is not completed is taken for the remains of a process that died."""


class BucketBlobStore:
    """A BlobStore over a bucket, or the part of one below a prefix. Thread-safe, also between processes.

    A read is one request, which is streamed. A write is sent while it comes, and is seen once it is committed. A
    request is made again for some seconds where that may help, and an answer waited for at most 18 s: then the call
    raises UnavailableError, or AccessDeniedError, which says where the trouble is.

    A process that was forked after its parent had used a bucket can use none: it is told so by UsageError.
    """

    def __init__(
        self, place: BucketPlace, *, part_bytes: int = PART_BYTES, pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        self._place = place
        self._part_bytes = part_bytes
        self._threads = Threads(MOST_REQUESTS, "objects")
        self._obstore, self._store = connect(place, pause_seconds)
        self._next_sweeps: dict[str, float] = {}

    @classmethod
    def open(cls, url: str, options: Mapping[str, object] | None = None) -> Self:
        """The objects at ``s3://bucket/prefix``, with the options of the table ``[s3]``; gs:// and az:// take none.

        Nothing is asked of the store yet. Raises UsageError for a URL or an option that cannot be, or without obstore.
        """
        return cls(BucketPlace.parse(url, options or {}))

    def __repr__(self) -> str:
        return f"BucketBlobStore({self._place.url!r})"

    @property
    def place(self) -> BucketPlace:
        """The bucket, and how it is asked."""
        return self._place

    @property
    def upload_bytes(self) -> int:
        """Memory that an object which is being written takes at most."""
        return PARTS_HELD * self._part_bytes

    def put_new(self, key: str, parts: Sequence[Buffer]) -> None:
        """Create an object from the parts in order. Durable on return.

        Where the last answer is lost, a whole object may stay, not acknowledged.
        """
        with self.create(key) as new:
            for part in parts:
                new.write(part)
            new.commit()

    def create(self, key: str) -> NewBucketObject:
        """An object to be written piece by piece; nothing can be seen of it until it is committed."""
        check_key(key)
        return NewBucketObject(self._put, key, self._part_bytes)

    def get(self, key: str) -> bytes:
        """The whole object. Raises NotFoundError."""
        check_key(key)

        def read() -> bytes:
            found = self._obstore.get(self._store, key)
            data = found.bytes()
            if len(data) != found.meta["size"]:
                raise self._cut(key)
            return bytes(data)

        return self._ask_for(key, read)

    def get_range(self, key: str, start: int, end: int) -> BucketStream | EmptyStream:
        """Bytes ``[start, end)``. NotFoundError if absent; RangeError if the object is shorter than ``end``."""
        found = self._get_range(key, start, end)
        if found is None:
            return EmptyStream()

        def rest(position: int) -> Iterator[memoryview]:
            body = self._get_range(key, position, end)
            assert body is not None
            return self._pieces(body, key, end - position)

        return BucketStream(self._pieces(found, key, end - start), rest, start, end)

    def get_ranges(self, requests: Sequence[RangeRequest]) -> list[RangeAnswer]:
        """The bytes of several small ranges, in order, or what is wrong with an object; 16 requests at a time."""
        for key, start, end in requests:
            check_key(key)
            check_range(key, end, start, end)
        return [*self._at_once(self._read_range, requests)]

    def stat(self, key: str) -> BlobInfo | None:
        """Key, size and time, or None."""
        check_key(key)
        try:
            found = self._ask_for(key, lambda: self._obstore.head(self._store, key))
        except NotFoundError:
            self._require_bucket(key)
            return None
        return _info(found, key)

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove objects; how many of them were there."""
        found = [check_key(key) for key in keys]
        infos = self._at_once(self.stat, found)  # a store does not say which of the objects were there
        there = [info.key for info in infos if info is not None]
        if there:
            self._ask("objects could not be removed", lambda: self._obstore.delete(self._store, there))
        return len(there)

    def list(self, prefix: str = "", *, after: str = "") -> Iterator[BlobInfo]:
        """Objects whose key starts with ``prefix`` and comes after ``after``, in key order.

        One folder is held in memory at a time, and asked for by a request of its own: stores differ in the order of
        keys that begin alike, and in what comes after a key that is not there.
        """
        return self._list(prefix.rpartition("/")[0], prefix, after)

    def sweep(self, older_than_seconds: float = UNFINISHED_SECONDS, *, folder: str = "") -> int:
        """Abort the uploads of that age which were never completed, of all this place, or of a ``folder`` such as
        ``xorbs/``; the number of these.

        Of a store that signs with keys of its own: there is none to sweep elsewhere, and 0 is the answer. Raises
        AccessDeniedError or UnavailableError.
        """
        bucket, prefix = self._place.signing(), self._place.prefix
        if bucket is None:
            return 0
        start = (prefix and f"{prefix}/") + folder
        return sweep(bucket, start, time.time() - older_than_seconds, self._place.certificates)

    def _pieces(self, found: obstore.GetResult, key: str, size: int) -> Iterator[memoryview]:
        """The body of an answer as the network has it. Raises UnreachableError where it ends before ``size`` bytes."""
        stream = self._ask_for(key, lambda: iter(found.stream(min_chunk_size=1)))
        while size:
            piece = self._ask_for(key, lambda: next(stream, None))
            if piece is None:
                raise self._cut(key)
            size -= len(piece)
            yield memoryview(piece)

    def _ask_for(self, key: str, call: Callable[[], T]) -> T:
        """Ask for an object, which may be missing."""
        return self._ask(f"object {key} could not be read", call, of_object=True)

    def _ask(self, task: str, call: Callable[[], T], *, of_object: bool = False) -> T:
        """Do what needs the store. Raises the error of ours that says which ``task`` could not be done."""
        require_own_process()
        try:
            return call()
        except XetError:
            raise
        except (self._obstore.exceptions.BaseError, OSError, ValueError) as error:
            raise translate(error, self._place.url, task, of_object=of_object) from error

    def _put(self, key: str, body: Any, part_bytes: int) -> None:
        """Put an object of one body, or, with ``part_bytes``, of parts that come one after the other."""
        is_long = part_bytes > 0
        self._ask(
            f"object {key} could not be stored",
            lambda: self._obstore.put(
                self._store,
                key,
                body,
                use_multipart=is_long,
                chunk_size=part_bytes or PART_BYTES,
                max_concurrency=PARTS_SENT,
            ),
        )
        if is_long:
            self._sweep_sometimes(key.partition("/")[0] + "/")

    def _sweep_sometimes(self, folder: str) -> None:
        """Sweep a folder beside the next calls, after its first long upload and once a day. A failure is of no account.

        Not all of the place: others may have uploads in the same bucket.
        """
        if time.monotonic() < self._next_sweeps.get(folder, 0.0):
            return
        self._next_sweeps[folder] = time.monotonic() + UNFINISHED_SECONDS
        with suppress(XetError, RuntimeError):
            self._threads.submit(self.sweep, folder=folder)

    def _get_range(self, key: str, start: int, end: int) -> obstore.GetResult | None:
        """The answer for a range, of which the body has not been read. None for no bytes."""
        check_key(key)
        check_range(key, end, start, end)
        if start == end:
            info = self.stat(key)
            if info is None:
                raise NotFoundError(f"there is no object {key}")
            check_range(key, info.size, start, end)
            return None
        found: obstore.GetResult = self._ask_for(
            key, lambda: self._obstore.get(self._store, key, options={"range": (start, end)})
        )
        check_range(key, found.meta["size"], start, end)
        return found

    def _read_range(self, request: RangeRequest) -> RangeAnswer:
        key, start, end = request
        try:
            found = self._get_range(key, start, end)
            data = b"" if found is None else self._ask_for(key, lambda: bytes(found.bytes()))
        except (NotFoundError, RangeError, DamagedError) as error:
            return error
        if len(data) != end - start:
            raise self._cut(key)
        return data

    def _at_once(self, call: Callable[[T], R], items: Sequence[T]) -> Sequence[R]:
        """The results of a call for each item, in order, some calls at once. Raises the first error."""
        if len(items) < 2:
            return [call(item) for item in items]
        require_own_process()
        futures = [self._threads.submit(call, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def _require_bucket(self, key: str) -> None:
        """Raises UnavailableError if there is no bucket: the answer to HEAD says only that there is no object."""
        try:
            self._ask_for(key, lambda: self._obstore.get(self._store, key))
        except NotFoundError:
            return

    def _list(self, folder: str, prefix: str, after: str) -> Iterator[BlobInfo]:
        """Objects in a folder, and in folders of it that can hold some that are asked for."""
        found = self._ask(
            f"folder {folder or '/'} could not be listed",
            lambda: self._obstore.list_with_delimiter(self._store, folder or None),
        )
        # With its slash a folder sorts where its keys do: behind "a.b", before "a0".
        entries: list[tuple[str, Any]] = [(f"{name}/", None) for name in found["common_prefixes"]]
        entries += [(meta["path"], meta) for meta in found["objects"]]
        for name, meta in sorted(entries, key=lambda entry: entry[0]):
            if meta is not None:
                if name.startswith(prefix) and name > after and "/" in name:
                    yield _info(meta, name)
            elif name.rstrip("/") in RESERVED_FOLDERS or (name < after and not after.startswith(name)):
                continue
            elif name.startswith(prefix) or prefix.startswith(name):
                yield from self._list(name[:-1], prefix, after)

    def _cut(self, key: str) -> UnreachableError:
        return UnreachableError(f"object {key} could not be read: {self._place.url} broke off")


def _info(meta: Any, key: str) -> BlobInfo:
    # HTTP knows whole seconds, some listings more.
    return BlobInfo(key, meta["size"], float(int(meta["last_modified"].timestamp())))
