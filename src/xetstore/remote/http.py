"""HttpCas: a Cas over HTTP, any server that speaks the Xet protocol (draft 11)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from xetstore.cancellation import Cancellation
from xetstore.errors import InterruptedCallError, UsageError, XetError
from xetstore.events import Emit, ignore
from xetstore.interfaces import MANY_CHUNKS, ByteStream, FileSpan
from xetstore.platform import forks
from xetstore.protocol.binding import size_question
from xetstore.protocol.dedup import QueryRule
from xetstore.protocol.hashes import Hash
from xetstore.protocol.headers import QUERIES_HEADER, SESSION_HEADER, SUSPECT_HEADER
from xetstore.protocol.reconstruction import BatchReconstruction, FetchRange, Reconstruction
from xetstore.protocol.shard import Shard
from xetstore.protocol.suite import SHARD_FOOTER_BYTES
from xetstore.records import DeletedFile, FileRecord
from xetstore.remote import deletions
from xetstore.remote.again import put_again
from xetstore.remote.bodies import RangeStream
from xetstore.remote.problems import MAX_PROBLEM_BYTES
from xetstore.remote.reconstructions import V2, reconstruct, reconstruct_many, reconstruct_ranges
from xetstore.remote.retry import retry_after_seconds
from xetstore.remote.server import Credentials, Server
from xetstore.remote.shards import put_shard
from xetstore.remote.transport import Answer, Transport
from xetstore.remote.xorbs import XorbUpload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

    from xetstore.remote.tokens import TokenSource

QUERY_BODY: Final = 3
"""The body of a dedup answer may take three times as long as its head: what comes later saves nothing."""
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
        """The way to rebuild bytes ``[start, end)`` of a file (11.3). As :meth:`interfaces.Cas.reconstruct`."""
        most = self._answer_sizes.reconstruction
        return reconstruct(self._server, most, file, start, end, hashes=hashes, inline=inline)

    def reconstruct_ranges(self, spans: Sequence[FileSpan], *, inline: int) -> Sequence[Reconstruction | None] | None:
        """The ways to rebuild several ranges. As :meth:`interfaces.Cas.reconstruct_ranges`."""
        return reconstruct_ranges(self._server, self._answer_sizes.batch, spans, inline=inline)

    def reconstruct_many(self, files: Sequence[Hash], *, inline: int = 0) -> BatchReconstruction | None:
        """The way to rebuild several whole files. As :meth:`interfaces.Cas.reconstruct_many`."""
        return reconstruct_many(self._server, self._answer_sizes.batch, files, inline=inline)

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
        return put_again(self._server, files, dry_run=dry_run)

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
            size = self._server.asked_twice(_HEAD_FILE, lambda: self._head(file, credentials))
            if size is not None:
                return FileRecord(file, size)
        whole = self.reconstruct(file)
        if not self._server.lacks(_HEAD_FILE):
            self._server.fall_back(_HEAD_FILE, V2)
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


def _has_footer(body: bytes) -> bool:
    """True if the header of a shard announces one: without it nothing in it can be recognised."""
    return int.from_bytes(body[40:48], "little") == SHARD_FOOTER_BYTES
