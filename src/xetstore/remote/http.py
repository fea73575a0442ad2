"""HttpCas: a Cas over HTTP, any server that speaks the Xet protocol (draft 11)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from xetstore.cancellation import Cancellation
from xetstore.errors import (
    DamagedError,
    IntegrityError,
    InterruptedCallError,
    RangeError,
    UsageError,
    XetError,
)
from xetstore.events import Emit, Retrying, ignore
from xetstore.interfaces import MANY_CHUNKS, MANY_FILES, MANY_RANGES, AnswerTooLongError, ByteStream, FileSpan
from xetstore.platform import forks
from xetstore.protocol.binding import batch_question, ranges_question, reconstruction_question, size_question
from xetstore.protocol.dedup import QueryRule
from xetstore.protocol.hashes import Hash
from xetstore.protocol.headers import HASHES_HEADER, INLINE_HEADER, QUERIES_HEADER, SESSION_HEADER, SUSPECT_HEADER
from xetstore.protocol.inline import listed
from xetstore.protocol.reconstruction import (
    BatchReconstruction,
    FetchRange,
    Reconstruction,
    ranges_body,
    ranges_from_json,
)
from xetstore.protocol.shard import Shard
from xetstore.protocol.suite import SHARD_FOOTER_BYTES
from xetstore.records import DeletedFile, FileRecord
from xetstore.remote import deletions
from xetstore.remote.again import AGAIN, put_again
from xetstore.remote.bodies import RangeStream
from xetstore.remote.inline import is_inline, read_inline
from xetstore.remote.problems import MAX_PROBLEM_BYTES
from xetstore.remote.retry import retry_after_seconds
from xetstore.remote.server import Credentials, Server
from xetstore.remote.shards import put_shard
from xetstore.remote.transport import Answer, Transport
from xetstore.remote.xorbs import XorbUpload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Buffer

    from xetstore.remote.tokens import TokenSource

T = TypeVar("T")

QUERY_BODY: Final = 3
"""The body of a dedup answer may take three times as long as its head: what comes later saves nothing."""
_V1: Final = "GET /v1/reconstructions"
_V2: Final = "GET /v2/reconstructions"
_BATCH: Final = "GET /v1/reconstructions?file_id"
_RANGES_PATH: Final = "/v2/reconstructions"
_RANGES: Final = f"POST {_RANGES_PATH}"
_HEAD_FILE: Final = "HEAD /v1/files"
_NO_SUCH_CALL: Final = (405, 501)
"""As a 404 is, it may be the answer to a query for several chunks."""
_PREFIX: Final = "default"


@dataclass(frozen=True, slots=True)
class AnswerSizes:
    """The most bytes of an answer by its kind. Several files are asked for at once where they are small, and so is the
    answer of a ``batch``.
    """

    reconstruction: int = 256 << 20
    batch: int = 32 << 20
    chunks: int = 64 << 20


ANSWER_SIZES: Final = AnswerSizes()


class HttpCas:
    """A Cas on a server. Thread-safe.

    ``url`` may have a path, which comes before that of every call. ``tokens`` gives what callers prove themselves
    by: it is sent to the server alone. Without ``transport`` it makes one, and closes it.
    Raises UsageError for a URL that cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        tokens: TokenSource | None = None,
        transport: Transport | None = None,
        emit: Emit = ignore,
        answer_sizes: AnswerSizes = ANSWER_SIZES,
    ) -> None:
        used = transport or Transport()
        self._server = Server(url, tokens, used, emit)
        self._owned = used if transport is None else None
        self._answer_sizes = answer_sizes
        forks.renew(self, HttpCas._begin)

    def _begin(self) -> None:
        """Have no call under way. In a child those of its parent have ended."""
        self._server = self._server.under(Cancellation())

    @property
    def url(self) -> str:
        """The address of the server, without a slash at its end."""
        return self._server.url

    @property
    def is_remote(self) -> bool:
        """True, also where the server runs on this machine."""
        return True

    @property
    def queries(self) -> QueryRule:
        """The rule of the protocol; from the first answer on, the one that this server announces, if it does."""
        return self._server.queries.rule

    def __repr__(self) -> str:
        return f"HttpCas({self.url!r})"

    def reconstruct(
        self, file: Hash, start: int = 0, end: int | None = None, *, hashes: bool = False, inline: int = 0
    ) -> Reconstruction:
        """The way to rebuild bytes ``[start, end)`` of a file (11.3). As :meth:`interfaces.Cas.reconstruct`.

        The empty file is one everywhere, and no server is asked for it. Bytes are not asked for along with it any more
        once such an answer was wrong: something between here and the server may change it.
        """
        if start < 0 or (end is not None and end <= start):
            raise UsageError(f"bytes {start} to {end} are not a range", hint="ask for one byte at least")
        if file == Hash.ZERO:
            if start:
                raise RangeError(f"file {file} is empty: byte {start} is not in it", hint="start at byte 0")
            return Reconstruction(0, (), {}, () if hashes else None)
        credentials = self._server.credentials(write=False)
        headers = {"accept-encoding": "gzip"}
        if start or end is not None:
            headers["range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if hashes:
            headers[HASHES_HEADER] = "true"
        question = (
            reconstruction_question(file, start, None if end is None else end - 1)
            if "range" in headers
            else reconstruction_question(file)
        )

        return self._asked_inline(
            _V2, lambda inline: self._reconstruct(file, question, _asking(inline, headers), credentials, inline), inline
        )

    def reconstruct_ranges(self, spans: Sequence[FileSpan], *, inline: int) -> Sequence[Reconstruction | None] | None:
        """The ways to rebuild several ranges. As :meth:`interfaces.Cas.reconstruct_ranges`."""
        if not 0 < len(spans) <= MANY_RANGES:
            raise UsageError(f"between 1 and {MANY_RANGES} ranges can be asked for at once, not {len(spans)}")
        if any(start < 0 or end <= start for _, start, end in spans):
            raise UsageError("one of these is not a range", hint="ask for one byte at least")
        if self._server.lacks(_RANGES):
            return None
        credentials = self._server.credentials(write=False)
        body = ranges_body(spans)
        headers = {"accept-encoding": "gzip", "content-type": "application/json", HASHES_HEADER: "true"}

        return self._asked_inline(
            _RANGES,
            lambda inline: self._reconstruct_ranges(spans, body, _asking(inline, headers), credentials, inline),
            inline,
        )

    def reconstruct_many(self, files: Sequence[Hash], *, inline: int = 0) -> BatchReconstruction | None:
        """The way to rebuild several whole files. As :meth:`interfaces.Cas.reconstruct_many`.

        None where any of them is missing: the answer is the same as that of a server without this call.
        """
        if not 0 < len(files) <= MANY_FILES:
            raise UsageError(f"between 1 and {MANY_FILES} files can be asked for at once, not {len(files)}")
        if self._server.lacks(_BATCH):
            return None
        credentials = self._server.credentials(write=False)

        return self._asked_inline(_BATCH, lambda inline: self._reconstruct_many(files, credentials, inline), inline)

    def find_chunks(self, *chunks: Hash) -> Shard | None:
        """A dedup answer (11.4), or None: also where the server is slow, broken, or asks for a rest.

        Made once, within some seconds. After three failures in a row there are no queries for a minute. Raises
        UsageError for more chunks than :data:`interfaces.MANY_CHUNKS`.
        """
        queries = self._server.queries
        if not 0 < len(chunks) <= MANY_CHUNKS:
            raise UsageError(f"between 1 and {MANY_CHUNKS} chunks can be asked for at once, not {len(chunks)}")
        if queries.are_paused:
            return None
        seconds = self._server.transport.patience.query
        try:
            with self._ask_for(chunks, seconds) as answer:
                announced = answer.headers.get(QUERIES_HEADER)
                if answer.status == 204:
                    shard = None
                elif answer.is_success:
                    body = answer.read(self._answer_sizes.chunks, within=QUERY_BODY * seconds)
                    shard = Shard.parse(body) if _has_footer(body) else None
                elif answer.status in (403, 404) or (len(chunks) > 1 and answer.status in _NO_SUCH_CALL):
                    answer.read(MAX_PROBLEM_BYTES, within=QUERY_BODY * seconds)
                    shard = None
                else:
                    queries.failed(retry_after_seconds(answer.headers.get("retry-after")))
                    return None
        except InterruptedCallError:
            raise
        except XetError:
            queries.failed()
            return None
        queries.succeeded(announced)
        return shard

    def _ask_for(self, chunks: Sequence[Hash], seconds: float) -> Answer:
        """The protocol's own query for one chunk, ours for several."""
        method, path, body = "GET", f"/v1/chunks/{_PREFIX}/{chunks[0]}", None
        # Part of no session: the first queries of one are answered at length, for clients that ask for less than this.
        headers = {SESSION_HEADER: ""}
        if len(chunks) > 1:
            method, path, body = "POST", "/v1/chunks", b"".join(chunk.digest for chunk in chunks)
            headers["content-type"] = "application/octet-stream"
        credentials = self._server.credentials(write=False)
        return self._server.send(method, path, credentials=credentials, headers=headers, body=body, timeout=seconds)

    def find_recent(self, most_chunks: int) -> Shard | None:  # noqa: ARG002  # of the interface
        """None: what this machine has uploaded it remembers itself."""
        return None

    def put_xorb(self, xorb: Hash, body: Buffer) -> bool:
        """Store a serialized xorb (11.5), by a grant where the server gives grants. True if it is new."""
        return XorbUpload(self._server, xorb, body).run()

    def put_shard(self, shard: Shard) -> bool:
        """Register files (11.6). True if anything in it is new. It has to be small enough for one request."""
        return put_shard(self._server, shard)

    def put_again(self, files: Sequence[Hash], *, dry_run: bool = False) -> set[Hash]:
        """Put files by their hashes. As :meth:`interfaces.Cas.put_again`."""
        return self._asked_twice(AGAIN, lambda: put_again(self._server, files, dry_run=dry_run))

    def fetch_xorb(self, fetch: FetchRange) -> ByteStream:
        """The bytes of a range that a reconstruction offered. As :meth:`interfaces.Cas.fetch_xorb`."""
        return RangeStream(self._server, fetch)

    def suspect(self, xorb: Hash) -> None:
        """Ask the server to look at a xorb, once. A server that does not know of this tells its size, or nothing."""
        headers = {SUSPECT_HEADER: "true"}
        credentials = self._server.credentials(write=False)
        path = f"/v1/xorbs/{_PREFIX}/{xorb}"
        self._server.send("HEAD", path, credentials=credentials, headers=headers).close()

    def stat(self, file: Hash) -> FileRecord:
        """Hash and size of a file. Raises NotFoundError."""
        if file == Hash.ZERO:
            return FileRecord(file, 0)
        if not self._server.lacks(_HEAD_FILE):
            credentials = self._server.credentials(write=False)
            size = self._asked_twice(
                _HEAD_FILE,
                lambda: self._server.retrying(_HEAD_FILE, lambda: self._head(file, credentials)),
            )
            if size is not None:
                return FileRecord(file, size)
        whole = self.reconstruct(file)
        if not self._server.lacks(_HEAD_FILE):
            self._server.fall_back(_HEAD_FILE, _V2)
        return FileRecord(file, whole.unpacked_bytes - whole.offset_into_first_term)

    def files(self) -> Iterator[FileRecord]:
        """The files of the namespace of the token, asked for a page at a time."""
        return deletions.files(self._server)

    def files_beginning(self, prefix: str, most: int) -> list[Hash]:
        """The hashes of at most ``most`` files of that namespace that begin with these hexadecimal digits, as text."""
        return [record.hash for record in islice(deletions.files(self._server, prefix), most)]

    def delete(self, files: Sequence[Hash], *, dry_run: bool = False) -> list[DeletedFile]:
        """Take files out of the namespace of the token. As :meth:`interfaces.Cas.delete`."""
        return deletions.delete(self._server, files, dry_run=dry_run)

    def undelete(self, files: Sequence[Hash]) -> list[FileRecord]:
        """Give deleted files back. As :meth:`interfaces.Cas.undelete`."""
        return deletions.undelete(self._server, files)

    def deleted(self) -> Iterator[DeletedFile]:
        """The files that can be given back, asked for a page at a time."""
        return deletions.deleted(self._server)

    def under(self, cancellation: Cancellation) -> HttpCas:
        """The same server, connections and tokens, for calls that end with ``cancellation``."""
        cas = object.__new__(HttpCas)
        cas._owned, cas._answer_sizes = None, self._answer_sizes
        cas._server = self._server.under(cancellation)
        return cas

    def close(self) -> None:
        """End the calls under way, and close the connections unless another client has them, too."""
        self._server.cancellation.cancel()
        self._begin()
        if self._owned is not None:
            self._owned.close()

    def _asked_inline(self, name: str, ask: Callable[[int], T], inline: int) -> T:
        """The result of ``ask``, which is told how many bytes may come along: none but in the first attempt."""
        server = self._server
        left = 0 if server.lacks(INLINE_HEADER) else inline

        def attempt() -> T:
            nonlocal left
            now, left = left, 0
            try:
                return ask(now)
            except IntegrityError:
                if now:
                    server.fall_back(INLINE_HEADER, name)
                raise

        return self._asked_twice(name, lambda: server.retrying(name, attempt))

    def _asked_twice(self, name: str, ask: Callable[[], T]) -> T:
        """The result of ``ask``, of the second time if the first answer was wrong."""
        try:
            return ask()
        except AnswerTooLongError:
            raise
        except IntegrityError as error:
            # What came may have been damaged on its way; what the server means to say is the same again.
            self._server.emit(Retrying(name, str(error), 1, 0.0))
            try:
                return ask()
            except IntegrityError as last:
                if not isinstance(last, DamagedError):  # which the server found itself
                    last.hint = "the server, or something before it, gives wrong answers: tell who runs it"
                raise

    def _reconstruct(
        self, file: Hash, question: str, headers: dict[str, str], credentials: Credentials, inline: int
    ) -> Reconstruction:
        server = self._server
        for version in (1,) if server.lacks(_V2) else (2, 1):
            path = f"/v{version}/reconstructions/{file}"
            with server.send("GET", path, credentials=credentials, headers=headers) as answer:
                if version == 2 and answer.status in (404, 501):
                    continue
                if not answer.is_success:
                    raise server.refused(answer, f"file {file}", credentials)
                most = self._answer_sizes.reconstruction
                if inline and is_inline(answer):
                    return _inline_reconstruction(answer, question, most, inline)
                body = server.read_bound(answer, most, question)
                reconstruction = Reconstruction.from_json(body)
            if version == 1:
                server.fall_back(_V2, _V1)
            return reconstruction
        raise AssertionError("unreachable")

    def _reconstruct_ranges(
        self,
        spans: Sequence[FileSpan],
        body: bytes,
        headers: dict[str, str],
        credentials: Credentials,
        inline: int,
    ) -> Sequence[Reconstruction | None] | None:
        server, question = self._server, ranges_question(spans)
        with server.send("POST", _RANGES_PATH, credentials=credentials, headers=headers, body=body) as answer:
            if answer.status in (404, *_NO_SUCH_CALL):
                server.fall_back(_RANGES, _V2)
                return None
            if not answer.is_success:
                raise server.refused(answer, f"{len(spans)} ranges", credentials)
            most = self._answer_sizes.batch
            if inline and is_inline(answer):

                def parse(json: bytes) -> tuple[tuple[Reconstruction | None, ...], list[FetchRange]]:
                    found = ranges_from_json(json, len(spans))
                    return found, [fetch for one in found if one is not None for fetch in listed(one.fetches)]

                found, bodies = read_inline(
                    answer, question, most_json=answer.most_of(most), most_bytes=inline, parse=parse
                )
                return [one if one is None else replace(one, bodies=bodies) for one in found]
            return ranges_from_json(server.read_bound(answer, most, question), len(spans))

    def _reconstruct_many(
        self, files: Sequence[Hash], credentials: Credentials, inline: int
    ) -> BatchReconstruction | None:
        server = self._server
        path = "/v1/reconstructions?" + "&".join(f"file_id={file}" for file in files)
        headers = _asking(inline, {"accept-encoding": "gzip"})
        with server.send("GET", path, credentials=credentials, headers=headers) as answer:
            if answer.status == 404:
                return None
            if answer.status in (405, 501):
                server.fall_back(_BATCH, _V1 if server.lacks(_V2) else _V2)
                return None
            if not answer.is_success:
                raise server.refused(answer, f"{len(files)} files", credentials)
            most, question = self._answer_sizes.batch, batch_question(files)
            if inline and is_inline(answer):

                def parse(json: bytes) -> tuple[BatchReconstruction, list[FetchRange]]:
                    found = BatchReconstruction.from_json(json, files)
                    return found, list(listed(found.fetches))

                found, bodies = read_inline(
                    answer, question, most_json=answer.most_of(most), most_bytes=inline, parse=parse
                )
                return replace(found, bodies=bodies)
            return BatchReconstruction.from_json(server.read_bound(answer, most, question), files)

    def _head(self, file: Hash, credentials: Credentials) -> int | None:
        """The size; None if it has to be found out in another way."""
        path = f"/v1/files/{file}"
        with self._server.send("HEAD", path, credentials=credentials) as answer:
            if answer.status in (404, 405, 501):
                return None
            declared = answer.headers.get("content-length") or ""
            if answer.status != 200:
                raise self._server.refused(answer, f"file {file}", credentials)
            if not (declared.isascii() and declared.isdigit() and len(declared) < 20):
                return None
            self._server.check_bound(answer, size_question(file), declared.encode())
        return int(declared)


def _asking(inline: int, headers: dict[str, str]) -> dict[str, str]:
    """Headers that ask for bytes along with the answer."""
    return headers | {INLINE_HEADER: str(inline)} if inline else headers


def _inline_reconstruction(answer: Answer, question: str, most: int, inline: int) -> Reconstruction:
    def parse(json: bytes) -> tuple[Reconstruction, list[FetchRange]]:
        found = Reconstruction.from_json(json)
        return found, list(listed(found.fetches))

    found, bodies = read_inline(answer, question, most_json=answer.most_of(most), most_bytes=inline, parse=parse)
    return replace(found, bodies=bodies)


def _has_footer(body: bytes) -> bool:
    """True if the header of a shard announces one: without it nothing in it can be recognised."""
    return int.from_bytes(body[40:48], "little") == SHARD_FOOTER_BYTES
